//! `POST /api/jobs` and `POST /api/jobs/bulk`: the way in.

use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, extract};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::allowance::Grant;
use super::auth::Caller;
use super::body;
use super::jobs::OneJob;
use super::problem::{Code, Document, Problem};
use super::state::State;
use crate::enqueue::{ENQUEUE_MAX, EnqueueError, Enqueued};
use crate::job::request::{IDEMPOTENCY_KEY_MAX, MAX_ATTEMPTS};
use crate::job::{JobRequest, QueueName, Status, backoff};
use crate::record::access::Permission;
use crate::record::jobs::{self, JobRow};

/// The largest request for one job. Its payload is measured without blanks, so this is more than
/// the largest payload.
const JOB_BODY_MAX: usize = 4 * 1024 * 1024;
/// The largest body of a bulk request.
const BULK_BODY_MAX: usize = 32 * 1024 * 1024;

/// Enqueue a job
///
/// When it is answered, the job is on disk.
#[utoipa::path(post, path = "/api/jobs", operation_id = "enqueueJob", tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, nullable = false,
        min_length = 1, max_length = 255, description = "The same as `idempotencyKey`")),
    request_body = JobRequest,
    responses(
        (status = 201, description = "It is accepted", body = OneJob,
            headers(("Location" = String, description = "Where it is shown"))),
        (status = 202, description = "It is accepted, and begins when Redis is back",
            body = OneJob, headers(("Location" = String, description = "Where it is shown"))),
        (status = 200, description = "Its idempotency key gave a job that was there before",
            body = OneJob, headers(("Location" = String, description = "Where it is shown"))),
        (status = 409, description = "The key was used for another job: `idempotency_key_reused`"),
        (status = 410, description = "The key's job has been removed since: `job_gone`")))]
pub(super) async fn one(
    extract::State(state): extract::State<State>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, headers, body) = open(&state, request, body::expect_json).await?;
    let whole = body::read(&state, &headers, body, JOB_BODY_MAX).await?;
    let mut request = job(&whole.bytes, caller)?;
    take_key(&headers, &mut request)?;
    let record = &state.services.record;
    let key = request.idempotency_key.as_deref();
    let allowances = &state.allowances;
    let mut grant = allowances
        .whole(record, caller.workspace_id, 1, key)
        .await?;
    let asked = request.clone();
    let accepted = state.services.enqueue.enqueue(request).await;
    grant.used(created(&accepted)).await;
    let accepted = accepted?;
    drop(whole);

    let location = (LOCATION, format!("/api/jobs/{}", accepted.id));
    if !accepted.is_new {
        let mut view = state.view(caller).await?;
        let row = jobs::get(&mut view, accepted.id, Some(caller.workspace_id)).await?;
        let mut row = row.ok_or_else(|| gone(&accepted))?;
        state.redaction.show(caller, &mut row);
        let answer = (StatusCode::OK, [location], Json(OneJob { job: row }));
        return Ok(with_standing(answer, &grant));
    }
    let status = match state.is_redis_well() {
        true => StatusCode::CREATED,
        false => StatusCode::ACCEPTED,
    };
    let mut row = row(&state, asked, &accepted);
    state.redaction.show(caller, &mut row);
    let answer = (status, [location], Json(OneJob { job: row }));
    Ok(with_standing(answer, &grant))
}

/// How many jobs this call created, as far as it is known: one of which nobody knows counts.
fn created(accepted: &Result<Enqueued, EnqueueError>) -> u64 {
    match accepted {
        Ok(job) => u64::from(job.is_new),
        Err(error) => u64::from(error.is_unavailable()),
    }
}

/// Adds what is left of the hour's allowance, if there is a limit.
pub(super) fn with_standing(answer: impl IntoResponse, grant: &Grant) -> Response {
    let mut response = answer.into_response();
    grant.show(response.headers_mut());
    response
}

fn gone(accepted: &Enqueued) -> Problem {
    let detail = format!(
        "the idempotency key was used for job {}, which has been removed since",
        accepted.id
    );
    Problem::new(Code::JobGone, detail)
}

/// What became of many jobs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BulkAnswer)]
pub(super) struct Answers {
    accepted: usize,
    refused: usize,
    /// One for each job, in their order.
    results: Vec<Answer>,
}

/// What became of one of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = BulkResult)]
enum Answer {
    Accepted {
        id: Uuid,
        /// Not, when its idempotency key gave a job that was there before.
        created: bool,
    },
    Refused {
        problem: Document,
    },
}

/// Enqueue many jobs
///
/// Up to 10,000, as JSON or one per line. Each has its own answer, in order; a wrong one does not
/// spoil the others.
#[utoipa::path(post, path = "/api/jobs/bulk", operation_id = "enqueueJobs", tag = "jobs",
    request_body(description = "The jobs", content(
        (Shape = "application/json"),
        (String = "application/x-ndjson"))),
    responses(
        (status = 200, description = "All were accepted", body = Answers),
        (status = 207, description = "Some or all were refused", body = Answers)))]
pub(super) async fn many(
    extract::State(state): extract::State<State>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, headers, body) = open(&state, request, expect_bulk).await?;
    if headers.contains_key(KEY_HEADER) {
        let detail = "one Idempotency-Key can not name many jobs: give each job a field \
            `idempotencyKey` instead";
        return Err(body::refuse(&headers, body, mismatch(detail)).await);
    }
    let whole = body::read(&state, &headers, body, BULK_BODY_MAX).await?;
    let entries = match is_lines(&headers) {
        true => lines(&whole.bytes)?,
        false => array(&whole.bytes)?,
    };

    // Only what can be read goes to enqueue; the places of the others are kept.
    let mut requests = Vec::with_capacity(entries.len());
    let mut kept_out = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        match job(entry, caller) {
            Ok(request) => requests.push((place, request)),
            Err(problem) => kept_out.push((place, problem)),
        }
    }
    let count = entries.len();
    drop(entries);
    let (mut grant, requests) = allowed(&state, caller, requests, &mut kept_out).await?;
    let answers = state.services.enqueue.enqueue_many(requests).await;
    let created_now = match &answers {
        Ok(answers) => answers.iter().map(created).sum(),
        Err(_) => 0,
    };
    grant.used(created_now).await;
    let mut answers = answers?.into_iter();
    if kept_out.is_empty() && answers.as_slice().iter().all(is_away) {
        // Nothing was accepted: the whole request may be sent again as it is.
        if let Some(Err(error)) = answers.next() {
            return Err(error.into());
        }
    }
    kept_out.sort_by_key(|(place, _)| *place);
    let mut kept_out = kept_out.into_iter().peekable();
    let mut accepted = 0;
    let results: Vec<Answer> = (0..count)
        .map(|place| {
            let answer = match kept_out.next_if(|(kept_out, _)| *kept_out == place) {
                Some((_, problem)) => Err(problem),
                None => match answers.next() {
                    Some(answer) => answer.map_err(Problem::from),
                    None => Err(EnqueueError::Stopping.into()),
                },
            };
            match answer {
                Ok(job) => {
                    accepted += 1;
                    let (id, created) = (job.id, job.is_new);
                    Answer::Accepted { id, created }
                }
                Err(problem) => Answer::Refused {
                    problem: problem.describe(None),
                },
            }
        })
        .collect();
    let refused = count - accepted;
    let status = match refused {
        0 => StatusCode::OK,
        _ => StatusCode::MULTI_STATUS,
    };
    let answers = Answers {
        accepted,
        refused,
        results,
    };
    Ok(with_standing((status, Json(answers)), &grant))
}

/// As many of these as the workspace may create, in their order. If that is none of a whole bulk,
/// the bulk is refused.
async fn allowed(
    state: &State,
    caller: Caller,
    requests: Vec<(usize, JobRequest)>,
    kept_out: &mut Vec<(usize, Problem)>,
) -> Result<(Grant, Vec<JobRequest>), Problem> {
    let record = &state.services.record;
    let keys: Vec<Option<&str>> = requests
        .iter()
        .map(|(_, request)| request.idempotency_key.as_deref())
        .collect();
    let allowances = &state.allowances;
    let (grant, through) = allowances.each(record, caller.workspace_id, &keys).await?;
    if !through.is_empty() && kept_out.is_empty() && !through.contains(&true) {
        return Err(grant.refusal(1));
    }
    let mut allowed = Vec::with_capacity(requests.len());
    for ((place, request), is_through) in requests.into_iter().zip(through) {
        match is_through {
            true => allowed.push(request),
            false => kept_out.push((place, grant.refusal(1))),
        }
    }
    Ok((grant, allowed))
}

fn is_away(answer: &Result<Enqueued, EnqueueError>) -> bool {
    answer.as_ref().is_err_and(EnqueueError::is_unavailable)
}

/// Who calls and may write, and the body, not yet read; a refusal reads some of it first.
pub(super) async fn open(
    state: &State,
    request: Request,
    expect: fn(&HeaderMap) -> Result<(), Problem>,
) -> Result<(Caller, HeaderMap, Body), Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, state).await;
    let caller = caller.and_then(|caller| caller.who_may(Permission::Write));
    match caller.and_then(|caller| expect(&parts.headers).map(|()| caller)) {
        Ok(caller) => Ok((caller, parts.headers, body)),
        Err(problem) => Err(body::refuse(&parts.headers, body, problem).await),
    }
}

fn job(bytes: &[u8], caller: Caller) -> Result<JobRequest, Problem> {
    static MINIMAL: LazyLock<Value> = LazyLock::new(|| json!({ "jobType": "" }));
    let mut request: JobRequest = body::object(bytes, &MINIMAL)?;
    request.workspace_id = Some(caller.workspace_id);
    request.created_by = caller.user_id();
    Ok(request)
}

const KEY_HEADER: &str = "idempotency-key";

/// The key of a request that is no job's, which has no field for it.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(KEY_HEADER) else {
        return Ok(None);
    };
    let key = std::str::from_utf8(value.as_bytes()).unwrap_or_default();
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_MAX {
        let text = format!("must be UTF-8 of 1 to {IDEMPOTENCY_KEY_MAX} bytes");
        let detail = format!("the header Idempotency-Key {text}");
        return Err(Problem::new(Code::InvalidRequest, detail).with_error("", text));
    }
    Ok(Some(key.to_owned()))
}

/// The header goes before the field; two different keys are a mistake.
pub(super) fn take_key(headers: &HeaderMap, request: &mut JobRequest) -> Result<(), Problem> {
    let Some(value) = headers.get(KEY_HEADER) else {
        return Ok(());
    };
    let Ok(key) = std::str::from_utf8(value.as_bytes()) else {
        return Err(mismatch("the header Idempotency-Key is not UTF-8"));
    };
    match &request.idempotency_key {
        Some(other) if other != key => Err(mismatch(
            "the header Idempotency-Key and the field `idempotencyKey` differ: send one of them",
        )),
        _ => {
            request.idempotency_key = Some(key.to_owned());
            Ok(())
        }
    }
}

fn mismatch(detail: &str) -> Problem {
    Problem::new(Code::IdempotencyKeyMismatch, detail)
}

fn is_lines(headers: &HeaderMap) -> bool {
    let media_type = body::media_type(headers);
    matches!(
        media_type.as_str(),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl"
    )
}

fn expect_bulk(headers: &HeaderMap) -> Result<(), Problem> {
    match is_lines(headers) {
        true => Ok(()),
        false => body::expect_json(headers),
    }
}

/// One job per line; empty lines are passed over.
fn lines(bytes: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let lines: Vec<&[u8]> = lines
        .filter(|line| !line.is_empty())
        .take(ENQUEUE_MAX + 1)
        .collect();
    counted(lines)
}

/// The members of `jobs`, each still as text, so that a wrong one does not spoil the others.
fn array(bytes: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    /// What is looked at first; the texts are borrowed afterwards.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Bulk<'a> {
        #[serde(borrow)]
        jobs: Vec<&'a RawValue>,
    }
    let bulk = match serde_json::from_slice::<Bulk<'_>>(bytes) {
        Ok(bulk) => bulk,
        // Says what is wrong, and where.
        Err(error) => {
            let shape: Result<Shape, Problem> = body::object(bytes, &json!({ "jobs": [] }));
            let detail = format!("expected {{\"jobs\": [ … ]}}: {error}");
            return Err(shape
                .err()
                .unwrap_or_else(|| Problem::new(Code::InvalidRequest, detail)));
        }
    };
    counted(bulk.jobs.iter().map(|raw| raw.get().as_bytes()).collect())
}

/// The same as a bulk body, for its error messages and the document.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewJobs, description = "Many jobs.")]
struct Shape {
    #[serde(rename = "jobs")]
    #[schema(value_type = Vec<JobRequest>, min_items = 1, max_items = 10000)]
    _jobs: Vec<serde::de::IgnoredAny>,
}

fn counted(entries: Vec<&[u8]>) -> Result<Vec<&[u8]>, Problem> {
    match entries.len() {
        0 => Err(
            Problem::new(Code::InvalidRequest, "there are no jobs in the body")
                .with_error("/jobs", "is empty"),
        ),
        given if given > ENQUEUE_MAX => {
            let detail =
                format!("more than {ENQUEUE_MAX} jobs in one request; send them in several");
            Err(Problem::new(Code::TooManyJobs, detail))
        }
        _ => Ok(entries),
    }
}

/// The row as the record has it, without asking the record: everything in it is known here. A test
/// compares both.
fn row(state: &State, asked: JobRequest, accepted: &Enqueued) -> JobRow {
    let types = &state.services.types;
    // Declared types have the defaults; only built-in ones say otherwise.
    let default_attempts = types
        .get(&asked.job_type)
        .map_or(MAX_ATTEMPTS, |t| t.max_attempts);
    let created_at = accepted.created_at.unwrap_or_else(crate::clock::now);
    let delay = asked.delay_ms.filter(|ms| *ms > 0);
    let delayed = delay.map(|ms| created_at + chrono::TimeDelta::milliseconds(ms as i64));
    JobRow {
        id: accepted.id,
        workspace_id: asked.workspace_id,
        job_type: asked.job_type,
        job_queue: asked.queue.unwrap_or_else(|| QueueName::default().into()),
        payload: asked.payload,
        status: Status::Pending.as_str().to_owned(),
        priority: asked.priority.unwrap_or(0) as i32,
        attempts: 0,
        max_attempts: asked.max_attempts.unwrap_or(default_attempts) as i32,
        progress: Some(json!({})),
        result: None,
        error_message: None,
        error_stack: None,
        created_at,
        scheduled_for: asked.scheduled_for.or(delayed),
        started_at: None,
        completed_at: None,
        failed_at: None,
        next_retry_at: None,
        retry_delay_seconds: asked
            .retry_delay_seconds
            .map_or(backoff::RETRY_DELAY_SECONDS, |s| s as i32),
        worker_id: None,
        worker_heartbeat_at: None,
        created_by: asked.created_by,
    }
}
