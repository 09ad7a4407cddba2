//! Connections of a workspace to providers outside. Members see them, admins make them; credentials
//! go in and never come out.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::{Extension, Json, extract};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::sealing::seal;
use super::state::State;
use crate::handlers::connection::SEALED_AS;
use crate::job::connection::{Credentials, Provider};
use crate::outbound::{Forbidden, check_url};
use crate::record::access::Permission;
use crate::record::connections::{
    self, CONNECTIONS_MAX, ConnectionRow, Made, NewConnection, Sealed,
};
use crate::sealed::Place;
use crate::secret::Secret;

/// The largest request for a connection: it may have a private key.
pub(super) const BODY_MAX: usize = 64 * 1024;
/// The longest name, in characters.
const NAME_MAX: usize = 100;

/// The connections of a workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Connections {
    connections: Vec<ConnectionRow>,
}

/// One connection.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneConnection {
    pub(super) connection: ConnectionRow,
}

/// List connections
///
/// Oldest first, without their credentials.
#[utoipa::path(get, path = "/api/connections", operation_id = "listConnections",
    tag = "connections",
    responses((status = 200, description = "The connections", body = Connections)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Connections>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let mut view = state.view(caller).await?;
    let connections = connections::list(&mut view, caller.workspace_id).await?;
    Ok(Json(Connections { connections }))
}

/// Look at a connection
#[utoipa::path(get, path = "/api/connections/{id}", operation_id = "getConnection",
    tag = "connections",
    params(("id" = Uuid, Path, description = "The connection")),
    responses((status = 200, description = "The connection", body = OneConnection)))]
pub(super) async fn show(
    extract::State(state): extract::State<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OneConnection>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let mut view = state.view(caller).await?;
    let connection = connections::get(&mut view, (caller.workspace_id, id)).await?;
    let connection = connection.ok_or_else(unknown)?;
    Ok(Json(OneConnection { connection }))
}

/// A connection that is wished for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = NewConnection)]
struct Wish {
    provider: Provider,
    /// For people; each name once in a workspace.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Where the provider is called: `https://`, to an address of the public internet. The
    /// provider's own without it; `http` needs one, and calls nothing outside of it.
    #[serde(default, alias = "base_url")]
    #[schema(min_length = 1, max_length = 2048, example = "https://api.example.com")]
    base_url: Option<String>,
    /// Not secret, such as the `region` of `ses`.
    #[serde(default)]
    #[schema(value_type = Object)]
    settings: Map<String, Value>,
    /// By the provider's own names, such as `api_key`. They are sealed, and never shown.
    #[schema(value_type = std::collections::HashMap<String, String>)]
    credentials: Credentials,
}

/// Make a connection
///
/// For admins. Job types that call the provider find it by its id, or the oldest of the provider
/// if none is named. A workspace may have 100.
#[utoipa::path(post, path = "/api/connections", operation_id = "createConnection",
    tag = "connections", request_body = Wish,
    responses(
        (status = 201, description = "The new connection", body = OneConnection),
        (status = 409, description = "The workspace has too many (`too_many_connections`), or \
            another one of this name (`connection_name_taken`)")))]
pub(super) async fn create(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<OneConnection>), Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Admin)?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let minimal = json!({ "provider": "apollo", "name": "", "credentials": {} });
    let wish: Wish = body::object(&whole.bytes, &minimal)?;
    let id = Uuid::now_v7();
    let base_url = base_url(&state, wish.provider, wish.base_url.as_deref())?;
    wish.provider
        .check_settings(&wish.settings)
        .map_err(of_mistake)?;
    let place = (caller.workspace_id, id);
    let new = NewConnection {
        id,
        workspace_id: caller.workspace_id,
        provider: wish.provider,
        name: name(&wish.name)?,
        base_url,
        settings: Value::Object(wish.settings),
        credentials: sealed(&state, place, wish.provider, &wish.credentials).await?,
        created_by: caller.user_id(),
    };
    let by = caller.by(&request_id);
    let made = connections::create(&state.services.record, &new, &by).await?;
    Ok((StatusCode::CREATED, Json(one(made)?)))
}

/// The connection, or why there is none.
pub(super) fn one(made: Made) -> Result<OneConnection, Problem> {
    match made {
        Made::Done(connection) => Ok(OneConnection {
            connection: *connection,
        }),
        Made::TooMany => {
            let detail =
                format!("this workspace has {CONNECTIONS_MAX} connections, which is the most");
            Err(Problem::new(Code::TooManyConnections, detail))
        }
        Made::NameTaken => {
            let detail = "this workspace has another connection of this name";
            Err(Problem::new(Code::ConnectionNameTaken, detail))
        }
        Made::WouldLeak => {
            let message = "must be given beside another address: those that are there were given \
                for the address that is there";
            Err(Problem::of_field("/credentials", message))
        }
        Made::Unknown => Err(unknown()),
    }
}

/// Checked and sealed.
pub(super) async fn sealed(
    state: &State,
    (workspace_id, id): (Uuid, Uuid),
    provider: Provider,
    credentials: &Credentials,
) -> Result<Sealed, Problem> {
    provider
        .check_credentials(credentials)
        .map_err(of_mistake)?;
    let place = Place {
        kind: SEALED_AS,
        workspace_id,
        id,
    };
    let text = Secret(json!(credentials).to_string());
    Ok(Sealed {
        names: credentials.keys().cloned().collect(),
        text: seal(state, &place, &text).await?,
    })
}

/// Where it is called, if that may be called.
pub(super) fn base_url(
    state: &State,
    provider: Provider,
    given: Option<&str>,
) -> Result<Option<String>, Problem> {
    let refused = |why: String| Err(Problem::of_field("/baseUrl", why));
    let Some(given) = given else {
        return match provider.needs_base_url() {
            true => refused(format!(
                "{provider} needs one: nothing outside of it is called"
            )),
            false => Ok(None),
        };
    };
    match check_url(given, state.services.allows_private_addresses) {
        Err(Forbidden(why)) => refused(why),
        Ok(url) if url.query().is_some() => refused("must have no query (`?…`)".to_owned()),
        Ok(_) => Ok(Some(given.trim_end_matches('/').to_owned())),
    }
}

pub(super) fn name(text: &str) -> Result<String, Problem> {
    let is_name = (1..=NAME_MAX).contains(&text.chars().count())
        && text.trim() == text
        && !text.contains(char::is_control);
    if is_name {
        return Ok(text.to_owned());
    }
    let message = format!(
        "must have 1 to {NAME_MAX} characters, no blanks around them and no control characters"
    );
    Err(Problem::of_field("/name", message))
}

pub(super) fn of_mistake(mistake: crate::job::Problem) -> Problem {
    Problem::of_field(&mistake.pointer, mistake.message)
}

pub(super) fn unknown() -> Problem {
    Problem::new(Code::ConnectionNotFound, "there is no such connection here")
}
