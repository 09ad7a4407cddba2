//! What admins do to a connection: change it and delete it.

use axum::extract::{FromRequestParts, Path, Request};
use axum::{Extension, Json, extract};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::connections::{
    BODY_MAX, OneConnection, base_url, name, of_mistake, one, sealed, unknown,
};
use super::observe::RequestId;
use super::problem::Problem;
use super::state::State;
use crate::job::connection::{Credentials, Provider};
use crate::record::access::Permission;
use crate::record::connections::{self, ConnectionChange};

/// What is to be different; what is not given stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = ConnectionChange)]
struct Change {
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 100)]
    name: Option<String>,
    /// `null`: the provider's own. Needs `credentials` beside it: those that are there were given
    /// for the address that is there, and go nowhere else.
    #[serde(default, deserialize_with = "given", alias = "base_url")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 2048)]
    base_url: Option<Option<String>>,
    /// All of them.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = Object)]
    settings: Option<Map<String, Value>>,
    /// All of them.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = std::collections::HashMap<String, String>)]
    credentials: Option<Credentials>,
    /// `true` puts it into service again, and clears why it was out of it.
    #[serde(default, deserialize_with = "given", alias = "is_active")]
    #[schema(nullable = false)]
    is_active: Option<bool>,
}

/// What is there is given: `null` only where that means something.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// Change a connection
///
/// For admins. Calls that are under way end as they began.
#[utoipa::path(patch, path = "/api/connections/{id}", operation_id = "changeConnection",
    tag = "connections",
    params(("id" = Uuid, Path, description = "The connection")),
    request_body = Change,
    responses(
        (status = 200, description = "The connection as it is now", body = OneConnection),
        (status = 409, description = "The name is another's: `connection_name_taken`")))]
pub(super) async fn patch(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<OneConnection>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Admin)?;
    let path = Path::<String>::from_request_parts(&mut parts, &state).await;
    let id = path.ok().and_then(|Path(id)| id.parse().ok());
    let id: Uuid = id.ok_or_else(unknown)?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let wish: Change = body::object(&whole.bytes, &json!({}))?;
    let about = (caller.workspace_id, id);
    let mut view = state.view(caller).await?;
    let was = connections::get(&mut view, about).await?;
    let was = was.ok_or_else(unknown)?;
    drop(view);
    let provider: Provider = was.provider.parse().map_err(|_| unknown())?;

    let base_url = match wish.base_url {
        None => None,
        Some(url) => Some(base_url(&state, provider, url.as_deref())?),
    };
    let settings = wish.settings;
    if let Some(settings) = &settings {
        provider.check_settings(settings).map_err(of_mistake)?;
    }
    let change = ConnectionChange {
        name: wish.name.map(|text| name(&text)).transpose()?,
        base_url,
        settings: settings.map(Value::Object),
        credentials: match &wish.credentials {
            Some(credentials) => Some(sealed(&state, about, provider, credentials).await?),
            None => None,
        },
        is_active: wish.is_active,
    };
    let (record, by) = (&state.services.record, caller.by(&request_id));
    let changed = connections::change(record, about, &change, &by).await?;
    Ok(Json(one(changed)?))
}

/// That it is done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConnectionDeleted)]
pub(super) struct Deleted {
    success: bool,
}

/// Delete a connection
///
/// For admins. Jobs that name it fail for good.
#[utoipa::path(delete, path = "/api/connections/{id}", operation_id = "deleteConnection",
    tag = "connections",
    params(("id" = Uuid, Path, description = "The connection")),
    responses((status = 200, description = "It is gone", body = Deleted)))]
pub(super) async fn delete(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let (record, by) = (&state.services.record, caller.by(&request_id));
    match connections::delete(record, (caller.workspace_id, id), &by).await? {
        true => Ok(Json(Deleted { success: true })),
        false => Err(unknown()),
    }
}
