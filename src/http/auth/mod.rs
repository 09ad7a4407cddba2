//! Who calls, in which workspace, and what the caller may do there.
//!
//! An API key is of one workspace and may what its scopes say. A token names a user, whose
//! memberships tell the workspaces and the role in each; or the database's service role, which may
//! do everything in the workspace that the request names. Whoever has no business in a workspace is
//! not told whether there is one. A browser's session stands for a key or a user (`cookie`).

pub(super) mod cookie;
mod jwks;
mod remembered;
mod tokens;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::bounds::Place;
use super::problem::{Code, Problem};
use super::state::State;
use crate::clock;
use crate::record::access::{self, Actor, By, Membership, Permission, Permissions};
use crate::record::api_keys::{self, KeyAccess};
use crate::record::sessions::{self, SessionAccess};
use crate::record::workspaces::{self, DEFAULT_WORKSPACE};
use crate::record::{Record, RecordError, Viewer};
use crate::tasks::Tasks;
pub(super) use remembered::Remembered;
pub use tokens::{AUDIENCE, TokenOptions};
use tokens::{Bearer, Tokens};

/// The longest key, in bytes.
const KEY_MAX: usize = 512;
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
                state.callers.of_session(record, session, workspace).await
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

fn no_access() -> Problem {
    let detail = "you have no access to this workspace";
    Problem::new(Code::Forbidden, detail)
}

/// What is known of callers.
#[derive(Debug)]
pub(super) struct Callers {
    keys: Remembered<[u8; 32], KeyAccess>,
    sessions: Remembered<[u8; 32], SessionAccess>,
    users: Remembered<Uuid, Vec<Membership>>,
    workspaces: Remembered<Uuid, ()>,
    tokens: Tokens,
}

impl Callers {
    pub(super) fn new(options: &TokenOptions) -> Self {
        Self {
            keys: Remembered::default(),
            sessions: Remembered::default(),
            users: Remembered::default(),
            workspaces: Remembered::default(),
            tokens: Tokens::new(options),
        }
    }

    /// Keeps up with what is published elsewhere until `tasks` stop.
    pub(super) async fn run(&self, tasks: &Tasks) {
        self.tokens.run(tasks).await;
    }

    /// This server takes the key no longer, from now on.
    pub(super) fn forget_key(&self, id: Uuid) {
        self.keys.forget(|access| access.id == id);
        self.sessions
            .forget(|access| access.actor == Actor::ApiKey(id));
    }

    /// This server takes the session no longer, from now on.
    pub(super) fn forget_session(&self, session: &str) {
        self.sessions.forget_one(&Sha256::digest(session).into());
    }

    async fn of_key(
        &self,
        record: &Record,
        key: &str,
        workspace: Option<Uuid>,
    ) -> Result<Caller, Problem> {
        let invalid = || {
            let detail = "the API key is unknown, revoked or expired";
            unauthorized(Code::InvalidApiKey, detail)
        };
        if key.len() > KEY_MAX {
            return Err(invalid());
        }
        let hash: [u8; 32] = Sha256::digest(key).into();
        let access = self.keys.answer(hash, api_keys::find(record, key)).await?;
        let access = access.ok_or_else(invalid)?;
        // A remembered one may have expired since.
        if access.expires_at.is_some_and(|at| at <= clock::now()) {
            return Err(invalid());
        }
        if workspace.is_some_and(|named| named != access.workspace_id) {
            return Err(no_access());
        }
        Ok(Caller {
            workspace_id: access.workspace_id,
            actor: Actor::ApiKey(access.id),
            permissions: access.permissions,
            expires_at: access.expires_at,
            until: access.expires_at,
            has_session: false,
        })
    }

    /// The rights are those that its key or its user has now.
    async fn of_session(
        &self,
        record: &Record,
        session: &str,
        workspace: Option<Uuid>,
    ) -> Result<Caller, Problem> {
        let hash: [u8; 32] = Sha256::digest(session).into();
        let lookup = sessions::find(record, session);
        let access = self.sessions.answer(hash, lookup).await?;
        let access = access.filter(|access| access.expires_at > clock::now());
        let access = access.ok_or_else(|| {
            let detail = "the session has ended: open another one with `POST /api/session`";
            unauthorized(Code::InvalidSession, detail)
        })?;
        let named = workspace.unwrap_or(access.workspace_id);
        let caller = match (access.actor, access.key) {
            (Actor::User(id), _) => self.of_user(record, id, Some(named)).await?,
            (_, Some((permissions, expires_at))) if named == access.workspace_id => Caller {
                workspace_id: named,
                actor: access.actor,
                permissions,
                expires_at,
                until: None,
                has_session: false,
            },
            _ => return Err(no_access()),
        };
        Ok(Caller {
            until: Some(access.expires_at),
            has_session: true,
            ..caller
        })
    }

    async fn of_token(
        &self,
        record: &Record,
        token: &str,
        workspace: Option<Uuid>,
    ) -> Result<Caller, Problem> {
        let token = self.tokens.check(token).await?;
        let named = workspace.or(token.workspace_id);
        let caller = match token.bearer {
            Bearer::Service => self.of_service(record, named).await?,
            Bearer::User(user_id) => self.of_user(record, user_id, named).await?,
        };
        Ok(Caller {
            until: Some(token.until),
            ..caller
        })
    }

    async fn of_user(
        &self,
        record: &Record,
        user_id: Uuid,
        named: Option<Uuid>,
    ) -> Result<Caller, Problem> {
        let lookup = async { access::memberships(record, user_id).await.map(Some) };
        let memberships = self.users.answer(user_id, lookup).await?;
        let memberships = memberships.unwrap_or_default();
        let membership = match (named, memberships.as_slice()) {
            (Some(named), all) => all.iter().find(|m| m.workspace_id == named),
            (None, [only]) => Some(only),
            (None, []) => None,
            (None, _) => return Err(workspace_required()),
        };
        let membership = membership.ok_or_else(no_access)?;
        Ok(Caller {
            workspace_id: membership.workspace_id,
            actor: Actor::User(user_id),
            permissions: membership.permissions,
            expires_at: None,
            until: None,
            has_session: false,
        })
    }

    async fn of_service(&self, record: &Record, named: Option<Uuid>) -> Result<Caller, Problem> {
        let workspace_id = named.ok_or_else(workspace_required)?;
        let lookup = async {
            let exists = workspaces::exists(record, workspace_id).await?;
            Ok::<_, RecordError>(exists.then_some(()))
        };
        let found = self.workspaces.answer(workspace_id, lookup).await?;
        found.ok_or_else(no_access)?;
        Ok(Caller {
            workspace_id,
            actor: Actor::Service,
            permissions: Permissions::ALL,
            expires_at: None,
            until: None,
            has_session: false,
        })
    }
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

fn workspace_required() -> Problem {
    let detail = "say which workspace: send its id in the header `X-Workspace-Id`";
    Problem::new(Code::WorkspaceRequired, detail)
}
