//! API keys of a workspace: made, listed and revoked by its admins.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::{Extension, Json, extract};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::state::State;
use crate::clock;
use crate::record::access::{Permission, Permissions};
use crate::record::api_keys::{self, KEYS_MAX, NewApiKey};

/// The largest request for a key.
const BODY_MAX: usize = 16 * 1024;
/// The longest name, in characters.
const NAME_MAX: usize = 100;

pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Value>, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let _turn = state.read_turn().await?;
    let keys = api_keys::list(&state.services.record, caller.workspace_id).await?;
    Ok(Json(json!({ "api_keys": keys })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    name: String,
    scopes: Vec<String>,
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

/// Makes a key and shows it, once.
pub(super) async fn create(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Admin)?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, &parts.headers, body, BODY_MAX).await?;
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
    let (key, row) = made.ok_or_else(|| {
        let detail = format!("this workspace has {KEYS_MAX} keys, which is the most: revoke some");
        Problem::new(Code::TooManyKeys, detail)
    })?;
    let body = json!({ "key": key, "api_key": row });
    Ok((StatusCode::CREATED, Json(body)))
}

/// Ends a key. Other servers notice within seconds.
pub(super) async fn revoke(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let unknown = || Problem::new(Code::ApiKeyNotFound, "there is no such API key here");
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let (record, actor) = (&state.services.record, caller.actor);
    let revoked =
        api_keys::revoke(record, caller.workspace_id, id, actor, Some(&request_id)).await?;
    let row = revoked.ok_or_else(unknown)?;
    state.callers.forget_key(id);
    Ok(Json(json!({ "api_key": row })))
}
