//! What people do to a job: cancel, retry by hand, delete, promote. Doing it again changes nothing.

use axum::extract::{FromRequestParts, Request};
use axum::http::Uri;
use axum::{Extension, Json, extract};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::jobs::{JobId, OneJob, find};
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::state::State;
use crate::control;
use crate::job::{Event, Status};
use crate::record::access::Permission;
use crate::record::jobs::JobRow;

/// The largest body of a change.
const PATCH_BODY_MAX: usize = 16 * 1024;
/// The longest reason that is written down, in characters.
const REASON_MAX: usize = 500;

/// A change of a job's status.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JobChange)]
struct Change {
    #[schema(schema_with = only_cancelled)]
    status: String,
    /// Written down, for people.
    #[serde(default)]
    #[schema(max_length = 500)]
    reason: Option<String>,
}

fn only_cancelled() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some([Status::Cancelled.as_str()]))
        .build()
}

/// Cancel a job
///
/// One that waits never runs; one that runs is told to stop. For admins.
#[utoipa::path(patch, path = "/api/jobs/{id}", operation_id = "cancelJob", tag = "jobs",
    params(JobId), request_body = Change,
    responses(
        (status = 200, description = "The job, cancelled now or before", body = OneJob),
        (status = 409, description = "It is over: `job_state`")))]
pub(super) async fn patch(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<OneJob>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Admin)?;
    let JobId(id) = JobId::from_request_parts(&mut parts, &state).await?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, PATCH_BODY_MAX).await?;
    let change: Change = body::object(&whole.bytes, &json!({ "status": "" }))?;
    if change.status != Status::Cancelled.as_str() {
        let message = "can only be set to `cancelled`; to run a job again, POST to its /retry";
        let detail = format!("`status` {message}");
        return Err(Problem::new(Code::InvalidRequest, detail).with_error("/status", message));
    }
    let reason = reason(change.reason)?;

    look(&state, id, caller).await?;
    let app = &state.services;
    let by = caller.by(&request_id);
    let done = control::cancel(&app.record, &app.broker, &[id], &by, &reason).await?;
    let job = look(&state, id, caller).await?;
    if done.is_empty() && job.status != Status::Cancelled.as_str() {
        return Err(not_allowed(id, &job, Event::Cancelled));
    }
    Ok(Json(OneJob { job }))
}

/// The job as the caller sees it. What the database does not show is not changed either.
async fn look(state: &State, id: Uuid, caller: Caller) -> Result<JobRow, Problem> {
    find(&mut state.view(caller).await?, id, caller).await
}

pub(super) fn reason(given: Option<String>) -> Result<String, Problem> {
    let reason = given.unwrap_or_else(|| "by request".to_owned());
    if reason.chars().count() <= REASON_MAX && !reason.contains('\0') {
        return Ok(reason);
    }
    let message = format!("must have at most {REASON_MAX} characters and no U+0000");
    let detail = format!("`reason` {message}");
    Err(Problem::new(Code::InvalidRequest, detail).with_error("/reason", message))
}

/// Run a job again
///
/// One that is over, with fresh attempts.
#[utoipa::path(post, path = "/api/jobs/{id}/retry", operation_id = "retryJob", tag = "jobs",
    params(JobId),
    responses(
        (status = 200, description = "The job, which waits again", body = OneJob),
        (status = 409, description = "It is not over: `job_state`")))]
pub(super) async fn retry(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    JobId(id): JobId,
) -> Result<Json<OneJob>, Problem> {
    let caller = caller.who_may(Permission::Write)?;
    look(&state, id, caller).await?;
    let (app, by) = (&state.services, caller.by(&request_id));
    let done = control::retry(&app.record, &app.broker, &[id], &by).await?;
    let job = look(&state, id, caller).await?;
    if done.is_empty() {
        return Err(not_allowed(id, &job, Event::Retried));
    }
    Ok(Json(OneJob { job }))
}

/// Promote a job
///
/// One that waits for a time runs now: one that is delayed, or between two attempts.
#[utoipa::path(post, path = "/api/jobs/{id}/promote", operation_id = "promoteJob", tag = "jobs",
    params(JobId),
    responses(
        (status = 200, description = "The job, which waits for no time now", body = OneJob),
        (status = 409, description = "It waits for no time: `job_state`")))]
pub(super) async fn promote(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    JobId(id): JobId,
) -> Result<Json<OneJob>, Problem> {
    let caller = caller.who_may(Permission::Write)?;
    look(&state, id, caller).await?;
    let (app, by) = (&state.services, caller.by(&request_id));
    let done = control::promote(&app.record, &app.broker, &[id], &by).await?;
    let job = look(&state, id, caller).await?;
    if done.is_empty() {
        let status = &job.status;
        let why = match status.parse::<Status>() {
            Ok(Status::Pending | Status::Failed) => "it waits for no time",
            Ok(Status::Processing) => "it is running",
            _ => "it is over",
        };
        let detail = format!("job {id} is {status} and can not be promoted: {why}");
        let problem = Problem::new(Code::JobState, detail);
        return Err(problem.with_member("job_status", status.as_str()));
    }
    Ok(Json(OneJob { job }))
}

/// That something is done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    success: bool,
}

/// Delete a job
///
/// One that does not run, and all that it holds. For admins.
#[utoipa::path(delete, path = "/api/jobs/{id}", operation_id = "deleteJob", tag = "jobs",
    params(JobId, ("reason" = Option<String>, Query, max_length = 500,
        description = "Written down, for people")),
    responses(
        (status = 200, description = "It is gone", body = Done),
        (status = 409, description = "It runs: `job_state`"),
        (status = 422, description = "The reason is too long: `invalid_request`")))]
pub(super) async fn delete(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    JobId(id): JobId,
    uri: Uri,
) -> Result<Json<Done>, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let given = Parameters::parse(&uri, &["reason"])?;
    let reason = reason(given.text("reason").map(str::to_owned))?;
    look(&state, id, caller).await?;
    let (app, by) = (&state.services, caller.by(&request_id));
    let done = control::delete(&app.record, &app.broker, &[id], &by, &reason).await?;
    if done.is_empty() {
        let job = look(&state, id, caller).await?;
        let status = &job.status;
        let detail = match job.status.parse() {
            Ok(Status::Processing) => format!("job {id} is running: cancel it first"),
            _ => format!("the status of job {id} has just changed; try again"),
        };
        let problem = Problem::new(Code::JobState, detail);
        return Err(problem.with_member("job_status", status.as_str()));
    }
    Ok(Json(Done { success: true }))
}

fn not_allowed(id: Uuid, job: &JobRow, event: Event) -> Problem {
    let status = &job.status;
    let why = match (status.parse::<Status>(), event) {
        (Ok(Status::Pending), Event::Retried) => "it waits to run anyway".to_owned(),
        (Ok(Status::Processing), Event::Retried) => "it is running".to_owned(),
        (Ok(Status::Failed), Event::Retried) => match job.next_retry_at {
            Some(time) => format!("its next attempt is due at {}", time.to_rfc3339()),
            None => "its next attempt is due already".to_owned(),
        },
        (Ok(status), Event::Cancelled) if status.is_final() => "it is over".to_owned(),
        // It moved between the change and this look at it.
        _ => "its status has just changed; try again".to_owned(),
    };
    let detail = format!("job {id} is {status} and can not be {event}: {why}");
    Problem::new(Code::JobState, detail).with_member("job_status", status.as_str())
}
