//! `POST /api/reports`: asks for a report. Its file is shown, downloaded and linked to as that of
//! an export, under the same id.

use axum::extract;
use axum::extract::Request;
use axum::response::Response;
use serde_json::json;

use super::problem::Problem;
use super::state::State;
use super::{body, enqueue, exports};
use crate::handlers::generate_report::{ENTITY, GenerateReport, Plan};
use crate::job::JobRequest;

/// The largest request for a report.
const BODY_MAX: usize = 16 * 1024;

/// Make a report
///
/// What the pipeline did: volumes by type, failures and their causes, times, imports and exports. A
/// job of the type `generate_report` with this body as its payload; its file is kept for seven days
/// at `/api/exports/{id}/file`, where `id` is that of the job.
#[utoipa::path(post, path = "/api/reports", operation_id = "startReport", tag = "exports",
    params(("Idempotency-Key" = Option<String>, Header, nullable = false,
        min_length = 1, max_length = 255,
        description = "The same request with the same key gives the same report back.")),
    request_body = GenerateReport,
    responses(
        (status = 201, description = "It is accepted", body = exports::OneExport,
            headers(("Location" = String, description = "Where it is shown"))),
        (status = 202, description = "It is accepted, and begins when Redis is back",
            body = exports::OneExport,
            headers(("Location" = String, description = "Where it is shown"))),
        (status = 200, description = "The report that this key made", body = exports::OneExport,
            headers(("Location" = String, description = "Where it is shown"))),
        (status = 409, description = "The key was used for another request: \
            `idempotency_key_reused`; or the files of earlier exports take all the room that the \
            workspace has: `exports_full`"),
        (status = 410, description = "The key's job has been removed since: `job_gone`")))]
pub(super) async fn start(
    extract::State(state): extract::State<State>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, headers, body) = enqueue::open(&state, request, body::expect_json).await?;
    let whole = body::read(&state, caller, &headers, body, BODY_MAX).await?;
    let payload: GenerateReport = body::object(&whole.bytes, &json!({}))?;
    drop(whole);
    Plan::new(&payload).map_err(Problem::of_fields)?;
    let file = (ENTITY, payload.format.as_str());
    let job = JobRequest::new("generate_report", json!(payload));
    exports::accept(&state, caller, &headers, job, file).await
}
