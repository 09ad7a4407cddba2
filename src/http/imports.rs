//! Imports: how a file would be read, before it is, and what became of those that were.

use axum::extract::{FromRequestParts, Request};
use axum::http::Uri;
use axum::{Json, extract};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::jobs::JobId;
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::state::State;
use crate::handlers::import_csv::custom::{self, Known};
use crate::handlers::import_csv::template::{self, Template};
use crate::handlers::import_csv::unpack::UnpackError;
use crate::handlers::import_csv::{ImportCsv, Preview, PreviewError, preview};
use crate::record::access::Permission;
use crate::record::custom_fields;
use crate::record::import_templates;
use crate::record::imports::{self, ImportRow};

/// The largest request for a look: its mapping may have a thousand columns.
const BODY_MAX: usize = 1024 * 1024;
/// Imports of a page when nothing else is said, and at most.
const LIMIT: i64 = 50;
const LIMIT_MAX: i64 = 200;

/// A page of imports.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Imports {
    imports: Vec<ImportRow>,
    /// Goes into `before` for the next page; none: there is none.
    next_before: Option<Uuid>,
}

/// One import.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneImport {
    import: ImportRow,
}

/// How a file would be imported.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ImportPreview {
    preview: Preview,
}

/// List imports
#[utoipa::path(get, path = "/api/imports", operation_id = "listImports", tag = "imports",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "50 if not said"),
        ("before" = Option<Uuid>, Query, description = "The `next_before` of the page before")),
    responses((status = 200, description = "Newest first", body = Imports)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Imports>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let given = Parameters::parse(&uri, &["limit", "before"])?;
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT);
    let before: Option<Uuid> = given.parsed("before")?;
    let mut view = state.view(caller).await?;
    let imports = imports::page(&mut view, caller.workspace_id, before, limit).await?;
    let is_full = imports.len() as i64 == limit;
    let next_before = imports.last().filter(|_| is_full).map(|import| import.id);
    Ok(Json(Imports {
        imports,
        next_before,
    }))
}

/// Show an import
///
/// Its rows as they are counted now. The job of the same id has its progress and its log.
#[utoipa::path(get, path = "/api/imports/{id}", operation_id = "getImport", tag = "imports",
    params(("id" = Uuid, Path, description = "The id of its job")),
    responses((status = 200, description = "The import", body = OneImport)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
    JobId(id): JobId,
) -> Result<Json<OneImport>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let import = find(&state, caller, id).await?;
    Ok(Json(OneImport { import }))
}

/// An import of the caller's workspace.
pub(super) async fn find(state: &State, caller: Caller, id: Uuid) -> Result<ImportRow, Problem> {
    let mut view = state.view(caller).await?;
    let import = imports::get(&mut view, caller.workspace_id, id).await?;
    import.ok_or_else(|| unknown(id))
}

pub(super) fn unknown(id: Uuid) -> Problem {
    let detail = format!("there is no import {id}; a job has one from its first attempt on");
    Problem::new(Code::ImportNotFound, detail)
}

/// Look at a file before it is imported
///
/// The body is the payload of the `import_csv` job that is planned, about an upload of this
/// workspace. The answer tells how the file would be read, where its columns would go, and what
/// would become of its first rows. Of a large file the first 8 MiB are looked at. Nothing changes.
#[utoipa::path(post, path = "/api/imports/preview", operation_id = "previewImport",
    tag = "imports", request_body = ImportCsv,
    responses((status = 200, description = "How it would be imported", body = ImportPreview),
        (status = 404, description = "`upload_not_found`")))]
pub(super) async fn look(
    extract::State(state): extract::State<State>,
    request: Request,
) -> Result<Json<ImportPreview>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Write)?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let minimal = json!({ "file_url": "", "entity_type": "accounts" });
    let payload: ImportCsv = body::object(&whole.bytes, &minimal)?;
    drop(whole);
    let wrong = |pointer: &str, text: String| {
        Problem::new(Code::InvalidRequest, text.clone()).with_error(pointer, text)
    };
    payload
        .check()
        .map_err(|error| wrong("", error.to_string()))?;
    let Some(id) = payload.file_url.trim().strip_prefix("upload://") else {
        let text = "only an upload can be looked at: `upload://…`, as POST /api/uploads gives it";
        return Err(wrong("/file_url", text.to_owned()));
    };
    let unknown = || Problem::new(Code::UploadNotFound, "there is no such upload here");
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let found = state.uploads.find(id, caller.workspace_id).await;
    let found = found.map_err(|e| Problem::internal(&e))?;
    let found = found.ok_or_else(unknown)?;

    let known = known(&state, caller, &payload).await?;
    let turn = state.bounds.look_turn(caller.workspace_id).await?;
    let data_dir = state.services.storage.data_dir();
    let preview = preview(found, payload, known, data_dir, turn).await;
    let preview = preview.map_err(|error| match error {
        PreviewError::Packed(UnpackError::NoSuchSheet { .. }) => {
            wrong("/options/sheet", error.to_string())
        }
        PreviewError::Content(_) | PreviewError::Packed(_) | PreviewError::Format(_) => {
            wrong("/file_url", error.to_string())
        }
        PreviewError::Mapping(_) => wrong("/mapping", error.to_string()),
        PreviewError::Stopped => {
            let detail = "the look took too long; import the file, perhaps with `dry_run`";
            Problem::new(Code::Timeout, detail)
        }
        PreviewError::Io(error) => Problem::internal(&error),
    })?;
    Ok(Json(ImportPreview { preview }))
}

/// What the workspace has said of files and fields.
async fn known(state: &State, caller: Caller, payload: &ImportCsv) -> Result<Known, Problem> {
    let (workspace_id, entity) = (caller.workspace_id, payload.entity_type.as_str());
    let mut known = Known::default();
    let mut view = state.view(caller).await?;
    if template::is_wanted(payload) {
        let saved = import_templates::list(&mut view, workspace_id).await?;
        let saved = saved.into_iter().filter(|row| row.entity_type == entity);
        known.templates.extend(saved.filter_map(Template::of));
    }
    let mut fields = custom_fields::list(&mut view, workspace_id).await?;
    fields.retain(|row| row.entity_type == entity);
    known.kinds = custom::kinds(fields);
    Ok(known)
}
