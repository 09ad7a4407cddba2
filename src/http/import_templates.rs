//! Templates of mappings: what a workspace has said of files with certain headers, for the next
//! ones.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::{Extension, Json, extract};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::connections::name;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::state::State;
use crate::handlers::import_csv::mapping::MappingError;
use crate::handlers::import_csv::payload::{EntityType, MAPPING_MAX};
use crate::handlers::import_csv::template;
use crate::record::access::Permission;
use crate::record::import_templates::{self, NewTemplate, Saved, TEMPLATES_MAX, TemplateRow};

/// The largest template: as many headers as a file may have columns.
const BODY_MAX: usize = 1024 * 1024;
/// The longest header, in characters.
const HEADER_MAX: usize = 1_000;

/// The templates of a workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ImportTemplates {
    templates: Vec<TemplateRow>,
}

/// One template.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneImportTemplate {
    template: TemplateRow,
}

/// List import templates
///
/// Oldest first.
#[utoipa::path(get, path = "/api/import-templates", operation_id = "listImportTemplates",
    tag = "imports",
    responses((status = 200, description = "The templates", body = ImportTemplates)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<ImportTemplates>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let mut view = state.view(caller).await?;
    let templates = import_templates::list(&mut view, caller.workspace_id).await?;
    Ok(Json(ImportTemplates { templates }))
}

/// A template that is wished for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewImportTemplate)]
struct Wish {
    /// For people.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    entity_type: EntityType,
    /// All headers of the file, as a look at it shows them.
    #[schema(min_items = 1, max_items = 1000)]
    headers: Vec<String>,
    /// Header and field, as in the payload of an import.
    mapping: BTreeMap<String, String>,
}

/// Save an import template
///
/// Files with these headers, in any order, case and punctuation, are mapped like this from now on,
/// where an import or a look says no mapping of its own. It replaces what there is for these
/// headers. A workspace may have 200.
#[utoipa::path(post, path = "/api/import-templates", operation_id = "saveImportTemplate",
    tag = "imports", request_body = Wish,
    responses(
        (status = 201, description = "The new template", body = OneImportTemplate),
        (status = 200, description = "It replaced the one for these headers",
            body = OneImportTemplate),
        (status = 409, description = "The workspace has too many: `too_many_import_templates`")))]
pub(super) async fn save(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<OneImportTemplate>), Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Write)?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let minimal = json!({ "name": "", "entity_type": "accounts", "headers": [], "mapping": {} });
    let wish: Wish = body::object(&whole.bytes, &minimal)?;
    drop(whole);
    check(&wish)?;
    let new = NewTemplate {
        workspace_id: caller.workspace_id,
        entity_type: wish.entity_type.as_str(),
        name: name(&wish.name)?,
        fingerprint: template::fingerprint(&wish.headers),
        headers: wish.headers,
        mapping: json!(wish.mapping),
        created_by: caller.user_id(),
    };
    let by = caller.by(&request_id);
    match import_templates::save(&state.services.record, &new, &by).await? {
        Saved::New(row) => Ok((StatusCode::CREATED, one(*row))),
        Saved::Replaced(row) => Ok((StatusCode::OK, one(*row))),
        Saved::TooMany => {
            let detail =
                format!("this workspace has {TEMPLATES_MAX} import templates, which is the most");
            Err(Problem::new(Code::TooManyImportTemplates, detail))
        }
    }
}

fn one(template: TemplateRow) -> Json<OneImportTemplate> {
    Json(OneImportTemplate { template })
}

fn check(wish: &Wish) -> Result<(), Problem> {
    if !(1..=MAPPING_MAX).contains(&wish.headers.len()) {
        let message = format!("must have 1 to {MAPPING_MAX} headers");
        return Err(Problem::of_field("/headers", message));
    }
    let is_header =
        |header: &String| header.chars().count() <= HEADER_MAX && !header.contains('\0');
    if let Some(at) = wish.headers.iter().position(|header| !is_header(header)) {
        let message = format!("must have at most {HEADER_MAX} characters, and none that is NUL");
        return Err(Problem::of_field(&format!("/headers/{at}"), message));
    }
    template::check(wish.entity_type, &wish.headers, &wish.mapping).map_err(|error| {
        let pointer = match error {
            MappingError::NoHeader => "/headers",
            _ => "/mapping",
        };
        let text = error.to_string();
        Problem::new(Code::InvalidRequest, text.clone()).with_error(pointer, text)
    })
}

/// That it is done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImportTemplateDeleted)]
pub(super) struct Deleted {
    success: bool,
}

/// Delete an import template
///
/// Imports that began with it go on with it.
#[utoipa::path(delete, path = "/api/import-templates/{id}", operation_id = "deleteImportTemplate",
    tag = "imports",
    params(("id" = Uuid, Path, description = "The template")),
    responses((status = 200, description = "It is gone", body = Deleted),
        (status = 404, description = "`import_template_not_found`")))]
pub(super) async fn delete(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, Problem> {
    let caller = caller.who_may(Permission::Write)?;
    let unknown = || {
        let detail = "there is no such import template here";
        Problem::new(Code::ImportTemplateNotFound, detail)
    };
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let (record, by) = (&state.services.record, caller.by(&request_id));
    match import_templates::delete(record, (caller.workspace_id, id), &by).await? {
        true => Ok(Json(Deleted { success: true })),
        false => Err(unknown()),
    }
}
