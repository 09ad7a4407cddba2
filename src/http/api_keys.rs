//! API keys of a workspace: made, listed and revoked by its admins.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::{Extension, Json, extract};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::state::State;
use crate::clock;
use crate::record::access::{Permission, Permissions};
use crate::record::api_keys::{self, ApiKeyRow, KEYS_MAX, NewApiKey};

/// The largest request for a key.
const BODY_MAX: usize = 16 * 1024;
/// The longest name, in characters.
const NAME_MAX: usize = 100;

/// The keys of a workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApiKeys {
    api_keys: Vec<ApiKeyRow>,
}

/// List API keys
///
/// Valid ones first, then the revoked ones, newest first. For admins.
#[utoipa::path(get, path = "/api/api-keys", operation_id = "listApiKeys", tag = "access",
    responses((status = 200, description = "The keys, without their secrets", body = ApiKeys)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<ApiKeys>, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let mut view = state.view(caller).await?;
    let api_keys = api_keys::list(&mut view, caller.workspace_id).await?;
    Ok(Json(ApiKeys { api_keys }))
}

/// A key that is wished for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewApiKey)]
struct Wish {
    /// For people; without control characters.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        example = "nightly import"
    )]
    name: String,
    /// What the key may do; no more than its maker.
    #[schema(value_type = Vec<Permission>, min_items = 1)]
    scopes: Vec<String>,
    /// When it ends, in the future; none: when it is revoked.
    #[serde(default, alias = "expiresAt")]
    expires_at: Option<DateTime<Utc>>,
}

impl Wish {
    fn check(&self) -> Result<(), Problem> {
        let wrong = |pointer: &str, message: String| {
            let detail = format!("`{}` {message}", &pointer[1..]);
            Err(Problem::new(Code::InvalidRequest, detail).with_error(pointer, message))
        };
        let length = self.name.trim().chars().count();
        if !(1..=NAME_MAX).contains(&length) || self.name.contains(char::is_control) {
            let message = format!("must have 1 to {NAME_MAX} characters, and none that controls");
            return wrong("/name", message);
        }
        let known = |scope: &String| scope.parse::<Permission>().is_ok();
        if self.scopes.is_empty() || !self.scopes.iter().all(known) {
            return wrong(
                "/scopes",
                format!(
                    "must be one or more of {}",
                    Permission::ALL.map(Permission::as_str).join(", ")
                ),
            );
        }
        if self.expires_at.is_some_and(|at| at <= clock::now()) {
            return wrong("/expires_at", "must be in the future".to_owned());
        }
        Ok(())
    }
}

/// A key that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MadeApiKey {
    /// The key itself. It is not kept: it is shown this once.
    key: String,
    api_key: ApiKeyRow,
}

/// Make an API key
///
/// For admins. The key is shown once.
#[utoipa::path(post, path = "/api/api-keys", operation_id = "createApiKey", tag = "access",
    request_body = Wish,
    responses(
        (status = 201, description = "The new key", body = MadeApiKey),
        (status = 409, description = "The workspace has too many keys: `too_many_keys`")))]
pub(super) async fn create(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<MadeApiKey>), Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Admin)?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let wish: Wish = body::object(&whole.bytes, &json!({ "name": "", "scopes": [] }))?;
    wish.check()?;
    let rights = Permissions::named(&wish.scopes);
    if !caller.may_give(rights, wish.expires_at) {
        let detail = "a key can not give rights that its maker lacks, nor outlive the maker's key";
        return Err(Problem::new(Code::Forbidden, detail));
    }
    let new = NewApiKey {
        workspace_id: caller.workspace_id,
        name: wish.name.trim().to_owned(),
        scopes: wish.scopes,
        expires_at: wish.expires_at,
    };
    let record = &state.services.record;
    let made = api_keys::create(record, &new, caller.actor, Some(&request_id)).await?;
    let (key, api_key) = made.ok_or_else(|| {
        let detail = format!("this workspace has {KEYS_MAX} keys, which is the most: revoke some");
        Problem::new(Code::TooManyKeys, detail)
    })?;
    Ok((StatusCode::CREATED, Json(MadeApiKey { key, api_key })))
}

/// A key that was revoked.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevokedApiKey {
    api_key: ApiKeyRow,
}

/// Revoke an API key
///
/// For admins. Other servers notice within seconds.
#[utoipa::path(delete, path = "/api/api-keys/{id}", operation_id = "revokeApiKey", tag = "access",
    params(("id" = Uuid, Path, description = "The id of the key")),
    responses((status = 200, description = "The key, which opens nothing now",
        body = RevokedApiKey)))]
pub(super) async fn revoke(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RevokedApiKey>, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let unknown = || Problem::new(Code::ApiKeyNotFound, "there is no such API key here");
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let (record, actor) = (&state.services.record, caller.actor);
    let revoked =
        api_keys::revoke(record, caller.workspace_id, id, actor, Some(&request_id)).await?;
    let api_key = revoked.ok_or_else(unknown)?;
    state.callers.forget_key(id);
    Ok(Json(RevokedApiKey { api_key }))
}
