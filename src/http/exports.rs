//! Exports and reports: asked for, looked at, downloaded.

use axum::extract::Request;
use axum::http::header::LOCATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::{Json, extract};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::files::{self, At, Sent};
use super::jobs::JobId;
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::state::State;
use super::{body, enqueue};
use crate::handlers::export::{ExportData, Plan, file_path};
use crate::job::JobRequest;
use crate::record::access::Permission;
use crate::record::exports::{self, ExportRow, KEPT_BYTES_MAX};

/// The largest request for an export.
const BODY_MAX: usize = 256 * 1024;
/// Exports of a page when nothing else is said, and at most.
const LIMIT: i64 = 50;
const LIMIT_MAX: i64 = 200;

/// A page of exports.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Exports {
    exports: Vec<ExportRow>,
    /// Goes into `before` for the next page; none: there is none.
    next_before: Option<Uuid>,
}

/// One export.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneExport {
    export: ExportRow,
}

/// Export records
///
/// A job of the type `export_data` with this body as its payload, which has the same id. Its file
/// is kept for seven days.
#[utoipa::path(post, path = "/api/exports", operation_id = "startExport", tag = "exports",
    params(("Idempotency-Key" = Option<String>, Header, nullable = false,
        min_length = 1, max_length = 255,
        description = "The same request with the same key gives the same export back.")),
    request_body = ExportData,
    responses(
        (status = 201, description = "It is accepted", body = OneExport,
            headers(("Location" = String, description = "Where it is shown"))),
        (status = 202, description = "It is accepted, and begins when Redis is back",
            body = OneExport, headers(("Location" = String, description = "Where it is shown"))),
        (status = 200, description = "The export that this key made", body = OneExport,
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
    let payload: ExportData = body::object(&whole.bytes, &json!({ "entity_type": "accounts" }))?;
    drop(whole);
    Plan::new(&payload).map_err(Problem::of_fields)?;
    let (entity, format) = (payload.entity_type.as_str(), payload.format.as_str());
    let job = JobRequest::new("export_data", json!(payload));
    accept(&state, caller, &headers, job, (entity, format)).await
}

/// Accepts the job of a file, and answers with what will be its row.
pub(super) async fn accept(
    state: &State,
    caller: Caller,
    headers: &HeaderMap,
    mut job: JobRequest,
    (entity_type, format): (&str, &str),
) -> Result<Response, Problem> {
    job.workspace_id = Some(caller.workspace_id);
    job.created_by = caller.user_id();
    job.idempotency_key = enqueue::key(headers)?;
    // With a key it may be there already. The job itself looks in any case before it begins.
    if job.idempotency_key.is_none() {
        check_room(state, caller).await?;
    }
    let (accepted, grant) = enqueue::accept(state, caller, job).await?;

    let id = accepted.id;
    let (status, export) = if accepted.is_new {
        let status = match state.is_redis_well() {
            true => StatusCode::CREATED,
            false => StatusCode::ACCEPTED,
        };
        let export = ExportRow {
            id,
            entity_type: entity_type.to_owned(),
            format: format.to_owned(),
            file_name: None,
            status: "pending".to_owned(),
            rows: 0,
            bytes: 0,
            sha256: None,
            created_at: accepted.created_at.unwrap_or_else(crate::clock::now),
            finished_at: None,
            expires_at: None,
            object_key: None,
        };
        (status, export)
    } else {
        let mut view = state.view(caller).await?;
        let export = exports::get(&mut view, caller.workspace_id, id).await?;
        (
            StatusCode::OK,
            export.ok_or_else(|| enqueue::gone(&accepted))?,
        )
    };
    let location = [(LOCATION, format!("/api/exports/{id}"))];
    let answer = (status, location, Json(OneExport { export }));
    Ok(enqueue::with_standing(answer, &grant))
}

/// Refuses an export for whose file there would be no room.
async fn check_room(state: &State, caller: Caller) -> Result<(), Problem> {
    let mut view = state.view(caller).await?;
    let kept = exports::kept(&mut view, caller.workspace_id).await?;
    if kept < KEPT_BYTES_MAX {
        return Ok(());
    }
    let detail = format!(
        "the files of this workspace's exports have {kept} bytes and may have {KEPT_BYTES_MAX}: \
         delete jobs of exports that nobody needs, or wait until files are seven days old"
    );
    Err(Problem::new(Code::ExportsFull, detail))
}

/// List exports
///
/// Those that have begun, and reports among them.
#[utoipa::path(get, path = "/api/exports", operation_id = "listExports", tag = "exports",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "50 if not said"),
        ("before" = Option<Uuid>, Query, description = "The `next_before` of the page before")),
    responses((status = 200, description = "Newest first", body = Exports)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Exports>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let given = Parameters::parse(&uri, &["limit", "before"])?;
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT);
    let before: Option<Uuid> = given.parsed("before")?;
    let mut view = state.view(caller).await?;
    let exports = exports::page(&mut view, caller.workspace_id, before, limit).await?;
    let is_full = exports.len() as i64 == limit;
    let next_before = exports.last().filter(|_| is_full).map(|export| export.id);
    Ok(Json(Exports {
        exports,
        next_before,
    }))
}

/// Show an export
///
/// The job of the same id has its progress and its log.
#[utoipa::path(get, path = "/api/exports/{id}", operation_id = "getExport", tag = "exports",
    params(("id" = Uuid, Path, description = "The id of its job")),
    responses((status = 200, description = "The export", body = OneExport)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
    JobId(id): JobId,
) -> Result<Json<OneExport>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let export = find(&state, caller, id).await?;
    Ok(Json(OneExport { export }))
}

/// Download an export
///
/// A part of the file can be asked for with `Range`, and whether it is still the same one with the
/// `ETag`.
#[utoipa::path(get, path = "/api/exports/{id}/file", operation_id = "downloadExport",
    tag = "exports",
    params(("id" = Uuid, Path, description = "The id of its job")),
    responses(
        (status = 200, description = "The file, in the type of its format", body = String,
            content_type = "application/octet-stream",
            headers(("Content-Disposition" = String, description = "The name of the file"))),
        (status = 206, description = "A part of it", body = String,
            content_type = "application/octet-stream"),
        (status = 304, description = "It is still the same"),
        (status = 409, description = "It is not written, or not yet: `export_state`"),
        (status = 410, description = "Its days are over: `export_expired`"),
        (status = 412, description = "`If-Match` names another file: `precondition_failed`"),
        (status = 416, description = "It has no such part: `range_not_satisfiable`")))]
pub(super) async fn file(
    extract::State(state): extract::State<State>,
    caller: Caller,
    JobId(id): JobId,
    request: Request,
) -> Result<Response, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let export = find(&state, caller, id).await?;
    whole(&export)?;
    let sent = send(&state, &request.into_parts().0, &export).await?;
    sent.ok_or_else(|| {
        let detail = format!(
            "the file of export {id} is not on this server: servers and workers must have one \
             data directory, or the settings of one object storage"
        );
        Problem::new(Code::FileNotFound, detail)
    })
}

/// An export of the caller's workspace.
pub(super) async fn find(state: &State, caller: Caller, id: Uuid) -> Result<ExportRow, Problem> {
    let mut view = state.view(caller).await?;
    let export = exports::get(&mut view, caller.workspace_id, id).await?;
    export.ok_or_else(|| Problem::new(Code::ExportNotFound, format!("there is no export {id}")))
}

/// Refuses an export without a whole file, and says why.
pub(super) fn whole(export: &ExportRow) -> Result<(), Problem> {
    let (id, status) = (export.id, export.status.as_str());
    match status {
        "completed" => Ok(()),
        "expired" => {
            let detail = format!("the days of the file of export {id} are over; export again");
            Err(Problem::new(Code::ExportExpired, detail))
        }
        _ => {
            let detail = match status {
                "pending" | "running" => format!("export {id} is {status}: its file is not whole"),
                _ => format!("export {id} is {status}: it has no file; job {id} says why"),
            };
            Err(Problem::new(Code::ExportState, detail).with_member("export_status", status))
        }
    }
}

/// The file of an export that has one; none: it is not on this server.
pub(super) async fn send(
    state: &State,
    request: &Parts,
    export: &ExportRow,
) -> Result<Option<Response>, Problem> {
    let storage = &state.services.storage;
    let path = file_path(storage.data_dir(), export.id, &export.format);
    let name = export.file_name.clone();
    let name = name.unwrap_or_else(|| format!("{}.{}", export.entity_type, export.format));
    let sent = Sent {
        at: match (&export.object_key, storage.objects()) {
            (None, _) => At::Here(&path),
            (Some(key), Some(objects)) => At::Object(objects, key),
            (Some(key), None) => {
                tracing::warn!(
                    key,
                    "the file of an export is in a bucket that this server lacks"
                );
                return Ok(None);
            }
        },
        content_type: match export.format.as_str() {
            "csv" => "text/csv; charset=utf-8",
            "html" => "text/html; charset=utf-8",
            "json" => "application/json",
            "ndjson" => "application/x-ndjson",
            "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            _ => "application/octet-stream",
        },
        name: &name,
    };
    let sent = files::send(request, sent).await?;
    if sent.is_none() {
        let key = &export.object_key;
        tracing::warn!(path = %path.display(), ?key, "the file of an export is not here");
    }
    Ok(sent)
}
