//! `GET /api/jobs/{id}/report`: the rows that an import could not take, as a file.

use std::io;

use axum::body::Body;
use axum::extract;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::auth::Caller;
use super::jobs::{JobId, find};
use super::problem::{Code, Problem};
use super::state::State;
use crate::record::access::Permission;
use crate::uploads::report_path;

/// Bytes that are read from the file at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Download a report
///
/// The rows that an import could not take, as CSV.
#[utoipa::path(get, path = "/api/jobs/{id}/report", operation_id = "getJobReport", tag = "jobs",
    params(JobId),
    responses((status = 200, description = "The file", body = String, content_type = "text/csv",
        headers(("Content-Disposition" = String, description = "The name of the file")))))]
pub(super) async fn report(
    extract::State(state): extract::State<State>,
    caller: Caller,
    JobId(id): JobId,
) -> Result<Response, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let job = find(&mut state.view(caller).await?, id, caller).await?;
    let path = report_path(&state.services.data_dir, id);
    let file = match tokio::fs::File::open(&path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let detail = format!(
                "job {id} ({}, {}) has no report: there is one when an import is over and \
                 rejected rows",
                job.job_type, job.status
            );
            return Err(Problem::new(Code::ReportNotFound, detail));
        }
        Err(error) => return Err(Problem::internal(&error)),
    };
    let bytes = file.metadata().await.map_err(|e| Problem::internal(&e))?;
    let bytes = bytes.len();
    // A report that grows meanwhile must not be longer than announced.
    let content = ReaderStream::with_capacity(file.take(bytes), CHUNK_BYTES);
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (CONTENT_LENGTH, bytes.to_string()),
        (
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"import-errors-{id}.csv\""),
        ),
    ];
    Ok((headers, Body::from_stream(content)).into_response())
}
