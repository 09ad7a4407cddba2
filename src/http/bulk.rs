//! `POST /api/jobs/bulk`: many jobs in one request, each with its own answer.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Json, extract};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::allowance::Grant;
use super::auth::Caller;
use super::body;
use super::enqueue::{KEY_HEADER, created, job, mismatch, open, with_standing};
use super::problem::{Code, Document, Problem};
use super::state::State;
use crate::enqueue::{ENQUEUE_MAX, EnqueueError, Enqueued};
use crate::job::JobRequest;

/// The largest body of a bulk request.
const BULK_BODY_MAX: usize = 32 * 1024 * 1024;

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
    let whole = body::read(&state, caller, &headers, body, BULK_BODY_MAX).await?;
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
