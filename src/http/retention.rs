//! What jobs of the type `cleanup_data` may remove in a workspace. Members see it, admins set it.

use axum::extract::{FromRequestParts, Request};
use axum::{Extension, Json, extract};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::Problem;
use super::state::State;
use crate::job::retention::Retention;
use crate::record::access::Permission;
use crate::record::retention;

const BODY_MAX: usize = 4 * 1024;

/// After how many days a cleanup may remove what; null: never.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OneRetention)]
pub(super) struct Shown {
    retention: Retention,
}

/// Show the retention
///
/// After how many days jobs of the type `cleanup_data` may remove what. Without any, they remove
/// nothing.
#[utoipa::path(get, path = "/api/retention", operation_id = "getRetention", tag = "access",
    responses((status = 200, description = "The retention", body = Shown)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Shown>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let mut view = state.view(caller).await?;
    let retention = retention::show(&mut view, caller.workspace_id).await?;
    Ok(Json(Shown { retention }))
}

/// Set the retention
///
/// For admins. All of it: what is not named is kept. By itself it removes nothing; a `cleanup_data`
/// job does, at once or by a schedule. One that runs stops before it removes what may go no more.
#[utoipa::path(put, path = "/api/retention", operation_id = "putRetention", tag = "access",
    request_body = Retention,
    responses((status = 200, description = "The retention as it is now", body = Shown)))]
pub(super) async fn put(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<Shown>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Admin)?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let new: Retention = body::object(&whole.bytes, &json!({}))?;
    if let Some(field) = new.misfit() {
        let pointer = format!("/{field}");
        return Err(Problem::of_field(&pointer, "must be 1 to 3650 days"));
    }
    let (record, by) = (&state.services.record, caller.by(&request_id));
    retention::put(record, caller.workspace_id, &new, &by).await?;
    Ok(Json(Shown { retention: new }))
}
