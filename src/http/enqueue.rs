//! `POST /api/jobs`: the way in.

use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, extract};
use serde_json::{Value, json};

use super::allowance::Grant;
use super::auth::Caller;
use super::body;
use super::jobs::OneJob;
use super::problem::{Code, Problem};
use super::state::State;
use crate::enqueue::{EnqueueError, Enqueued};
use crate::job::request::{IDEMPOTENCY_KEY_MAX, MAX_ATTEMPTS};
use crate::job::{JobRequest, QueueName, Status, backoff};
use crate::record::access::Permission;
use crate::record::jobs::{self, JobRow};

/// The largest request for one job. Its payload is measured without blanks, so this is more than
/// the largest payload.
const JOB_BODY_MAX: usize = 4 * 1024 * 1024;

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
    let whole = body::read(&state, caller, &headers, body, JOB_BODY_MAX).await?;
    let mut request = job(&whole.bytes, caller)?;
    take_key(&headers, &mut request)?;
    let asked = request.clone();
    let (accepted, grant) = accept(&state, caller, request).await?;
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

/// Takes a job in, and one from the allowance of the workspace.
pub(super) async fn accept(
    state: &State,
    caller: Caller,
    request: JobRequest,
) -> Result<(Enqueued, Grant), Problem> {
    let record = &state.services.record;
    let key = request.idempotency_key.as_deref();
    let allowances = &state.allowances;
    let mut grant = allowances
        .whole(record, caller.workspace_id, 1, key)
        .await?;
    let accepted = state.services.enqueue.enqueue(request).await;
    grant.used(created(&accepted)).await;
    Ok((accepted?, grant))
}

/// How many jobs this call created, as far as it is known: one of which nobody knows counts.
pub(super) fn created(accepted: &Result<Enqueued, EnqueueError>) -> u64 {
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

pub(super) fn gone(accepted: &Enqueued) -> Problem {
    let detail = format!(
        "the idempotency key was used for job {}, which has been removed since",
        accepted.id
    );
    Problem::new(Code::JobGone, detail)
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

pub(super) fn job(bytes: &[u8], caller: Caller) -> Result<JobRequest, Problem> {
    static MINIMAL: LazyLock<Value> = LazyLock::new(|| json!({ "jobType": "" }));
    let mut request: JobRequest = body::object(bytes, &MINIMAL)?;
    request.workspace_id = Some(caller.workspace_id);
    request.created_by = caller.user_id();
    Ok(request)
}

pub(super) const KEY_HEADER: &str = "idempotency-key";

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

pub(super) fn mismatch(detail: &str) -> Problem {
    Problem::new(Code::IdempotencyKeyMismatch, detail)
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
