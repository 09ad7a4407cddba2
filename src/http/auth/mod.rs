//! Who calls, in which workspace, and what the caller may do there.
//!
//! An API key is of one workspace and may what its scopes say. A token names a user, whose
//! memberships tell the workspaces and the role in each; or the database's service role, which may
//! do everything in the workspace that the request names. Whoever has no business in a workspace is
//! not told whether there is one. A browser's session stands for a key or a user (`cookie`).

mod callers;
pub(super) mod cookie;
mod jwks;
mod remembered;
mod tokens;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::bounds::Place;
use super::problem::{Code, Problem};
use super::state::State;
use crate::record::Viewer;
use crate::record::access::{Actor, By, Permission, Permissions};
use crate::record::workspaces::DEFAULT_WORKSPACE;
pub(super) use callers::Callers;
pub(super) use remembered::Remembered;
pub use tokens::{AUDIENCE, TokenOptions};

/// Names the workspace, for callers that have several.
const WORKSPACE: &str = "x-workspace-id";

/// The caller of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) workspace_id: Uuid,
    pub(super) actor: Actor,
    permissions: Permissions,
    /// When the key ends that is used.
    expires_at: Option<DateTime<Utc>>,
    /// Until when it is believed: the end of its key, token or session.
    pub(super) until: Option<DateTime<Utc>>,
    /// It is known by a browser's session.
    pub(super) has_session: bool,
}

impl Caller {
    /// The same, if it may do this.
    pub(super) fn who_may(self, permission: Permission) -> Result<Self, Problem> {
        if self.permissions.allow(permission) {
            return Ok(self);
        }
        let needed = permission.as_str();
        let detail = match self.actor {
            Actor::ApiKey(_) => format!("this needs an API key with the scope `{needed}`"),
            _ => format!("this needs the right to `{needed}` in this workspace"),
        };
        Err(Problem::new(Code::Forbidden, detail).with_member("needed", needed))
    }

    /// The same, if it runs the installation: what it changes holds for every workspace.
    pub(super) fn who_operates(self) -> Result<Self, Problem> {
        let caller = self.who_may(Permission::Admin)?;
        if caller.actor == Actor::Service || caller.workspace_id == DEFAULT_WORKSPACE {
            return Ok(caller);
        }
        let detail = "this holds for every workspace: only admins of the default one may do it";
        Err(Problem::new(Code::Forbidden, detail).with_member("needed", "operator"))
    }

    /// The same, if it may see figures of every workspace: who runs the installation, and keys that
    /// were given for that.
    pub(super) fn who_sees_all(self) -> Result<Self, Problem> {
        let needed = match self.actor {
            Actor::User(_) => Permission::Admin,
            Actor::ApiKey(_) | Actor::Service | Actor::Operator => Permission::Read,
        };
        let caller = self.who_may(needed)?;
        if caller.actor == Actor::Service || caller.workspace_id == DEFAULT_WORKSPACE {
            return Ok(caller);
        }
        let detail = "this shows every workspace: only keys of the default one may see it";
        Err(Problem::new(Code::Forbidden, detail).with_member("needed", "operator"))
    }

    /// Whether it may hand on these rights until then: nobody gives more than it has.
    pub(super) fn may_give(self, rights: Permissions, until: Option<DateTime<Utc>>) -> bool {
        let is_longer = match (self.expires_at, until) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(own), Some(until)) => until > own,
        };
        self.permissions.include(rights) && !is_longer
    }

    /// As whoever does something to jobs of its workspace, in this request.
    pub(super) fn by(self, request_id: &str) -> By<'_> {
        By {
            actor: self.actor,
            workspace_id: Some(self.workspace_id),
            request_id: Some(request_id),
        }
    }

    /// Whose eyes it reads the record with. A key and the service role see the workspace that they
    /// act in, and no other.
    pub(super) fn viewer(self) -> Viewer {
        match self.actor {
            Actor::User(id) => Viewer::User(id),
            Actor::ApiKey(_) | Actor::Service | Actor::Operator => {
                Viewer::Tenant(self.workspace_id)
            }
        }
    }

    /// The user, if it is one.
    pub(super) fn user_id(self) -> Option<Uuid> {
        match self.actor {
            Actor::User(id) => Some(id),
            Actor::ApiKey(_) | Actor::Service | Actor::Operator => None,
        }
    }
}

impl FromRequestParts<State> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let record = &state.services.record;
        let given = given(parts)?;
        let workspace = named_workspace(parts)?;
        let caller = match given {
            Given::Bearer(token) if tokens::is_token(token) => {
                state.callers.of_token(record, token, workspace).await
            }
            Given::Bearer(key) | Given::Key(key) => {
                state.callers.of_key(record, key, workspace).await
            }
            Given::Session(session) => {
                cookie::check(parts, session)?;
                let caller = state.callers.of_session(record, session, workspace).await;
                caller.map_err(|problem| match problem.code() {
                    // No script of the page could take it away.
                    Code::InvalidSession => {
                        problem.with_header(SET_COOKIE, cookie::forget(&parts.headers))
                    }
                    _ => problem,
                })
            }
        }?;
        if let Some(place) = parts.extensions.get::<Place>() {
            let max = state.options.requests_per_caller;
            let who = (caller.actor, caller.workspace_id);
            state.bounds.enter(place, who, max)?;
        }
        Ok(caller)
    }
}

/// What the request was sent with.
enum Given<'a> {
    Bearer(&'a str),
    Key(&'a str),
    /// By a browser, which sends its cookie by itself.
    Session(&'a str),
}

fn given(parts: &Parts) -> Result<Given<'_>, Problem> {
    if let Some(value) = parts.headers.get(AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        let (scheme, key) = text.split_once(' ').unwrap_or((text, ""));
        if !scheme.eq_ignore_ascii_case("bearer") || key.trim().is_empty() {
            let detail = "the Authorization header must read `Bearer <API key or token>`";
            return Err(unauthorized(Code::MissingApiKey, detail));
        }
        return Ok(Given::Bearer(key.trim()));
    }
    let value = parts.headers.get("x-api-key");
    let key = value
        .and_then(|value| value.to_str().ok())
        .map(str::trim)
        .filter(|key| !key.is_empty());
    let session = || cookie::session(&parts.headers).map(Given::Session);
    key.map(Given::Key).or_else(session).ok_or_else(|| {
        let detail = "this route needs an API key or a token: send the header \
            `Authorization: Bearer <API key or token>` or `X-API-Key: <API key>`";
        unauthorized(Code::MissingApiKey, detail)
    })
}

fn named_workspace(parts: &Parts) -> Result<Option<Uuid>, Problem> {
    let Some(value) = parts.headers.get(WORKSPACE) else {
        return Ok(None);
    };
    let id = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    id.map(Some).ok_or_else(|| {
        let detail = "the header `X-Workspace-Id` must be the id of a workspace, a UUID";
        Problem::new(Code::InvalidWorkspace, detail)
    })
}

fn unauthorized(code: Code, detail: &str) -> Problem {
    let challenge = match code {
        Code::InvalidApiKey | Code::InvalidToken | Code::InvalidSession => {
            "Bearer realm=\"bullwark\", error=\"invalid_token\""
        }
        _ => "Bearer realm=\"bullwark\"",
    };
    let challenge = HeaderValue::from_static(challenge);
    Problem::new(code, detail).with_header(WWW_AUTHENTICATE, challenge)
}

/// Who the server takes the caller for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Me {
    workspace_id: Uuid,
    actor: Someone,
    /// What may be done in this workspace.
    #[schema(value_type = Vec<Permission>)]
    permissions: Vec<&'static str>,
}

/// Who does something.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Actor)]
struct Someone {
    #[schema(example = "api_key")]
    kind: &'static str,
    id: Option<Uuid>,
}

/// Who am I
///
/// For clients that want to show what may be done.
#[utoipa::path(get, path = "/api/me", operation_id = "getMe", tag = "access",
    responses((status = 200, description = "Whom the server takes the caller for", body = Me)))]
pub(super) async fn me(caller: Caller) -> Json<Me> {
    Json(Me::from(caller))
}

impl From<Caller> for Me {
    fn from(caller: Caller) -> Self {
        let (kind, id) = caller.actor.parts();
        let all = Permission::ALL.into_iter();
        Self {
            workspace_id: caller.workspace_id,
            actor: Someone { kind, id },
            permissions: all
                .filter(|permission| caller.permissions.allow(*permission))
                .map(Permission::as_str)
                .collect(),
        }
    }
}
