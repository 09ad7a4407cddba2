//! `GET /api/jobs/{id}/report`: the rows that an import could not take, as a file.

use std::io;

use axum::extract::{self, Request};
use axum::http::request::Parts;
use axum::response::Response;
use uuid::Uuid;

use super::auth::Caller;
use super::files::{self, At, Sent};
use super::jobs::{self, JobId};
use super::problem::{Code, Problem};
use super::state::State;
use crate::record::access::Permission;
use crate::record::jobs::JobRow;
use crate::uploads::{report_key, report_path};

/// Download a report
///
/// The rows that an import could not take, as CSV. A part of it can be asked for with `Range`.
#[utoipa::path(get, path = "/api/jobs/{id}/report", operation_id = "getJobReport", tag = "jobs",
    params(JobId),
    responses(
        (status = 200, description = "The file", body = String, content_type = "text/csv",
            headers(("Content-Disposition" = String, description = "The name of the file"))),
        (status = 206, description = "A part of it", body = String, content_type = "text/csv"),
        (status = 304, description = "It is still the same"),
        (status = 412, description = "`If-Match` names another file: `precondition_failed`"),
        (status = 416, description = "It has no such part: `range_not_satisfiable`")))]
pub(super) async fn report(
    extract::State(state): extract::State<State>,
    caller: Caller,
    JobId(id): JobId,
    request: Request,
) -> Result<Response, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let job = find(&state, caller, id).await?;
    let sent = send(&state, &request.into_parts().0, id).await?;
    sent.ok_or_else(|| none(&job))
}

/// The job, if it is the caller's and has a report.
pub(super) async fn find(state: &State, caller: Caller, id: Uuid) -> Result<JobRow, Problem> {
    let job = jobs::find(&mut state.view(caller).await?, id, caller).await?;
    let storage = &state.services.storage;
    if let Some(objects) = storage.objects() {
        let found = objects.look(&report_key(id)).await;
        if found.map_err(|error| files::away(&error))?.is_some() {
            return Ok(job);
        }
    }
    match tokio::fs::metadata(report_path(storage.data_dir(), id)).await {
        Ok(_) => Ok(job),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(none(&job)),
        Err(error) => Err(Problem::internal(&error)),
    }
}

/// The report of a job; none: there is none.
pub(super) async fn send(
    state: &State,
    request: &Parts,
    id: Uuid,
) -> Result<Option<Response>, Problem> {
    let storage = &state.services.storage;
    let name = format!("import-errors-{id}.csv");
    if let Some(objects) = storage.objects() {
        let key = report_key(id);
        let sent = files::send(request, csv(At::Object(objects, &key), &name)).await?;
        if sent.is_some() {
            return Ok(sent);
        }
    }
    // Here are those of the time before there was a bucket.
    let path = report_path(storage.data_dir(), id);
    files::send(request, csv(At::Here(&path), &name)).await
}

fn csv<'a>(at: At<'a>, name: &'a str) -> Sent<'a> {
    Sent {
        at,
        content_type: "text/csv; charset=utf-8",
        name,
    }
}

fn none(job: &JobRow) -> Problem {
    let detail = format!(
        "job {} ({}, {}) has no report: there is one when an import is over and rejected rows",
        job.id, job.job_type, job.status
    );
    Problem::new(Code::ReportNotFound, detail)
}
