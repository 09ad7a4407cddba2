//! Whom a key, a token or a session stands for, and what that caller may do now.
//!
//! Answers of the record are remembered for some seconds (`remembered`): what was taken away stops
//! working soon, and at once on the server that took it away.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::remembered::Remembered;
use super::tokens::{Bearer, TokenOptions, Tokens};
use super::{Caller, unauthorized};
use crate::clock;
use crate::http::problem::{Code, Problem};
use crate::record::access::{self, Actor, Membership, Permissions};
use crate::record::api_keys::{self, KeyAccess};
use crate::record::sessions::{self, SessionAccess};
use crate::record::{Record, RecordError, workspaces};
use crate::tasks::Tasks;

/// The longest key, in bytes.
const KEY_MAX: usize = 512;

/// What is known of callers.
#[derive(Debug)]
pub(in crate::http) struct Callers {
    keys: Remembered<[u8; 32], KeyAccess>,
    sessions: Remembered<[u8; 32], SessionAccess>,
    users: Remembered<Uuid, Vec<Membership>>,
    workspaces: Remembered<Uuid, ()>,
    tokens: Tokens,
}

impl Callers {
    pub(in crate::http) fn new(options: &TokenOptions) -> Self {
        Self {
            keys: Remembered::default(),
            sessions: Remembered::default(),
            users: Remembered::default(),
            workspaces: Remembered::default(),
            tokens: Tokens::new(options),
        }
    }

    /// Keeps up with what is published elsewhere until `tasks` stop.
    pub(in crate::http) async fn run(&self, tasks: &Tasks) {
        self.tokens.run(tasks).await;
    }

    /// This server takes the key no longer, from now on.
    pub(in crate::http) fn forget_key(&self, id: Uuid) {
        self.keys.forget(|access| access.id == id);
        self.sessions
            .forget(|access| access.actor == Actor::ApiKey(id));
    }

    /// This server asks anew about the sessions of a key or user, from now on.
    pub(in crate::http) fn forget_sessions(&self, actor: Actor) {
        self.sessions.forget(|access| access.actor == actor);
    }

    pub(super) async fn of_key(
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
    pub(super) async fn of_session(
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

    pub(super) async fn of_token(
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

fn workspace_required() -> Problem {
    let detail = "say which workspace: send its id in the header `X-Workspace-Id`";
    Problem::new(Code::WorkspaceRequired, detail)
}

fn no_access() -> Problem {
    let detail = "you have no access to this workspace";
    Problem::new(Code::Forbidden, detail)
}
