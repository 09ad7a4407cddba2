//! Undoing an import: an admin asks for it, a job does it.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, extract};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::enqueue;
use super::imports::{find, unknown};
use super::jobs::JobId;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::state::State;
use crate::handlers::undo_import::{UndoImport, UndoImportHandler};
use crate::job::JobRequest;
use crate::record::access::Permission;
use crate::record::import_undo::{self, Asked};
use crate::record::imports::ImportRow;
use crate::worker::Handler;

/// An import that is undone.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ImportUndo {
    import: ImportRow,
    /// The job that does it, or has done it; its progress and its result tell how much.
    job_id: Option<Uuid>,
}

/// Undo an import
///
/// For admins. A job (`undo_import`) removes the accounts or contacts that the import created, as
/// far as nobody has changed them since; accounts that have contacts stay. What the import updated
/// stays as it is. The import does not go on any more.
#[utoipa::path(post, path = "/api/imports/{id}/undo", operation_id = "undoImport",
    tag = "imports",
    params(("id" = Uuid, Path, description = "The id of its job")),
    responses(
        (status = 202, description = "It is undone by a new job", body = ImportUndo),
        (status = 200, description = "A job is at it, or it is done", body = ImportUndo),
        (status = 404, description = "`import_not_found`"),
        (status = 409, description = "It is not over, or was a dry run: `import_state`")))]
pub(super) async fn undo(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    JobId(id): JobId,
) -> Result<Response, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let (record, by) = (&state.services.record, caller.by(&request_id));
    let refused = |why: &str| {
        let detail = format!("import {id} {why}");
        Err(Problem::new(Code::ImportState, detail))
    };
    match import_undo::ask(record, (caller.workspace_id, id), &by).await? {
        Asked::Noted => {}
        Asked::UnderWay(job) => {
            let import = find(&state, caller, id).await?;
            let job_id = Some(job);
            return Ok(Json(ImportUndo { import, job_id }).into_response());
        }
        Asked::Done => {
            let import = find(&state, caller, id).await?;
            let job_id = import.undo_job_id;
            return Ok(Json(ImportUndo { import, job_id }).into_response());
        }
        Asked::Open => return refused("is not over; cancel its job first"),
        Asked::DryRun => return refused("was a dry run, which created nothing"),
        Asked::Unknown => return Err(unknown(id)),
    }
    // Whoever dies here has noted the wish; asking again makes the job.
    let payload = UndoImport { import_id: id };
    let mut job = JobRequest::new(UndoImportHandler::TYPE, json!(payload));
    job.workspace_id = Some(caller.workspace_id);
    job.created_by = caller.user_id();
    let (accepted, grant) = enqueue::accept(&state, caller, job).await?;
    let undo = ImportUndo {
        import: find(&state, caller, id).await?,
        job_id: Some(accepted.id),
    };
    let answer = (StatusCode::ACCEPTED, Json(undo));
    Ok(enqueue::with_standing(answer, &grant))
}
