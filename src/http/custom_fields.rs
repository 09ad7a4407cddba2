//! Custom fields of a workspace that have a kind. Members see them, admins declare them.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::{Extension, Json, extract};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::state::State;
use crate::handlers::import_csv::custom::Kind;
use crate::handlers::import_csv::mapping::CUSTOM_NAME_MAX;
use crate::handlers::import_csv::payload::EntityType;
use crate::record::access::Permission;
use crate::record::custom_fields::{self, Declared, FIELDS_MAX, FieldRow, NewField};

/// The largest declaration.
const BODY_MAX: usize = 16 * 1024;

/// The declared fields of a workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CustomFields {
    custom_fields: Vec<FieldRow>,
}

/// One declared field.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneCustomField {
    custom_field: FieldRow,
}

/// List custom fields
///
/// Those that are declared, oldest first.
#[utoipa::path(get, path = "/api/custom-fields", operation_id = "listCustomFields",
    tag = "imports",
    responses((status = 200, description = "The fields", body = CustomFields)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<CustomFields>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let mut view = state.view(caller).await?;
    let custom_fields = custom_fields::list(&mut view, caller.workspace_id).await?;
    Ok(Json(CustomFields { custom_fields }))
}

/// A field that is to have a kind.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewCustomField)]
struct Wish {
    entity_type: EntityType,
    /// Without the `custom.` of mappings; at most 100 bytes.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    kind: Kind,
}

/// Declare a custom field
///
/// For admins. Imports from now on take only values of this kind into it, and columns of its name
/// for it. Values that are there stay as they are. A workspace may have 400.
#[utoipa::path(post, path = "/api/custom-fields", operation_id = "declareCustomField",
    tag = "imports", request_body = Wish,
    responses(
        (status = 201, description = "The new field", body = OneCustomField),
        (status = 200, description = "It was declared before, and has this kind now",
            body = OneCustomField),
        (status = 409, description = "The workspace has too many: `too_many_custom_fields`")))]
pub(super) async fn declare(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<OneCustomField>), Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Admin)?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let minimal = json!({ "entity_type": "accounts", "name": "", "kind": "text" });
    let wish: Wish = body::object(&whole.bytes, &minimal)?;
    let is_name = (1..=CUSTOM_NAME_MAX).contains(&wish.name.len())
        && wish.name.trim() == wish.name
        && !wish.name.contains(char::is_control);
    if !is_name {
        let message = format!(
            "must have 1 to {CUSTOM_NAME_MAX} bytes, no blanks around them and no control \
             characters"
        );
        return Err(Problem::of_field("/name", message));
    }
    let new = NewField {
        workspace_id: caller.workspace_id,
        entity_type: wish.entity_type.as_str(),
        name: wish.name,
        kind: wish.kind.as_str(),
        created_by: caller.user_id(),
    };
    let one = |row: Box<FieldRow>| Json(OneCustomField { custom_field: *row });
    let by = caller.by(&request_id);
    match custom_fields::declare(&state.services.record, &new, &by).await? {
        Declared::New(row) => Ok((StatusCode::CREATED, one(row))),
        Declared::Changed(row) => Ok((StatusCode::OK, one(row))),
        Declared::TooMany => {
            let detail =
                format!("this workspace has {FIELDS_MAX} custom fields, which is the most");
            Err(Problem::new(Code::TooManyCustomFields, detail))
        }
    }
}

/// That it is done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CustomFieldDeleted)]
pub(super) struct Deleted {
    success: bool,
}

/// Forget the kind of a custom field
///
/// For admins. Its values stay, and imports take any text into it.
#[utoipa::path(delete, path = "/api/custom-fields/{id}", operation_id = "deleteCustomField",
    tag = "imports",
    params(("id" = Uuid, Path, description = "The field")),
    responses((status = 200, description = "It has no kind any more", body = Deleted),
        (status = 404, description = "`custom_field_not_found`")))]
pub(super) async fn delete(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let unknown = || {
        let detail = "there is no such custom field here";
        Problem::new(Code::CustomFieldNotFound, detail)
    };
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let (record, by) = (&state.services.record, caller.by(&request_id));
    match custom_fields::delete(record, (caller.workspace_id, id), &by).await? {
        true => Ok(Json(Deleted { success: true })),
        false => Err(unknown()),
    }
}
