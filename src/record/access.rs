//! Who may do what: permissions, the role of a user in a workspace, and what is noted of privileged
//! actions.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Record, RecordError, Tx, View};

/// What a caller may do in its workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "server",
    derive(utoipa::ToSchema),
    schema(rename_all = "snake_case")
)]
pub enum Permission {
    Read,
    /// Accept jobs, and run them again.
    Write,
    /// Take jobs away, steer queues, make keys.
    Admin,
}

impl Permission {
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Permission {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|p| p.as_str() == text).ok_or(())
    }
}

/// A set of permissions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permissions(u8);

impl Permissions {
    pub const ALL: Self = Self(0b111);
    /// What the specification lets a member do: everything that is not said to be for admins.
    pub const MEMBER: Self = Self(0b011);

    pub fn allow(self, permission: Permission) -> bool {
        self.0 & Self::bit(permission) != 0
    }

    /// Whether all of these are among them.
    pub fn include(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    fn bit(permission: Permission) -> u8 {
        1 << permission as u8
    }

    /// Of names, those that are known.
    pub fn named(names: &[String]) -> Self {
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        let bits = permissions.into_iter().map(Self::bit);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

/// A workspace of a user, and what the user may do there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    pub workspace_id: Uuid,
    pub permissions: Permissions,
}

/// The workspaces of a user.
pub async fn memberships(record: &Record, user_id: Uuid) -> Result<Vec<Membership>, RecordError> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT workspace_id, role FROM workspace_members WHERE user_id = $1
         ORDER BY workspace_id LIMIT 1000",
    )
    .bind(user_id)
    .fetch_all(&record.pool)
    .await?;
    let membership = |(workspace_id, role): (Uuid, String)| Membership {
        workspace_id,
        permissions: match role.as_str() {
            "owner" | "admin" => Permissions::ALL,
            "member" => Permissions::MEMBER,
            _ => Permissions::default(),
        },
    };
    Ok(rows.into_iter().map(membership).collect())
}

/// Whoever does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    ApiKey(Uuid),
    User(Uuid),
    /// A token of the database's service role.
    Service,
    /// The command line.
    Operator,
}

impl Actor {
    /// Its kind and its id, as they are written down.
    pub fn parts(self) -> (&'static str, Option<Uuid>) {
        match self {
            Self::ApiKey(id) => ("api_key", Some(id)),
            Self::User(id) => ("user", Some(id)),
            Self::Service => ("service", None),
            Self::Operator => ("operator", None),
        }
    }

    /// Whoever was written down.
    pub fn from_parts(kind: &str, id: Option<Uuid>) -> Option<Self> {
        match (kind, id) {
            ("api_key", Some(id)) => Some(Self::ApiKey(id)),
            ("user", Some(id)) => Some(Self::User(id)),
            ("service", None) => Some(Self::Service),
            ("operator", None) => Some(Self::Operator),
            _ => None,
        }
    }
}

/// Who does something to jobs, and to which.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    pub actor: Actor,
    /// Jobs of other workspaces are left alone, if it is given.
    pub workspace_id: Option<Uuid>,
    pub request_id: Option<&'a str>,
}

impl By<'static> {
    /// Whoever runs the installation, to any job.
    pub const OPERATOR: Self = Self {
        actor: Actor::Operator,
        workspace_id: None,
        request_id: None,
    };
}

/// A privileged action: who did what, to what, why, and what it was before and after.
#[derive(Debug, Clone)]
pub struct Audit<'a> {
    /// None: of the installation.
    pub workspace_id: Option<Uuid>,
    pub actor: Actor,
    /// Such as `api_key.create`.
    pub action: &'a str,
    pub target: (&'a str, String),
    pub reason: Option<&'a str>,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub request_id: Option<&'a str>,
}

/// Notes what was changed of something that a workspace has. The action, `thing.verb`, names its
/// kind.
pub(super) async fn note_change(
    tx: &mut Tx,
    (workspace_id, id, action): (Uuid, Uuid, &str),
    (before, after): (Option<Value>, Option<Value>),
    by: &By<'_>,
) -> Result<(), RecordError> {
    let kind = action.split_once('.').map_or(action, |(kind, _)| kind);
    let audit = Audit {
        workspace_id: Some(workspace_id),
        actor: by.actor,
        action,
        target: (kind, id.to_string()),
        reason: None,
        before,
        after,
        request_id: by.request_id,
    };
    note(tx.connection(), &audit).await
}

/// Notes an action on the connection that does it: both or neither.
pub async fn note(connection: &mut PgConnection, audit: &Audit<'_>) -> Result<(), RecordError> {
    let (actor_kind, actor_id) = audit.actor.parts();
    sqlx::query(
        "INSERT INTO bullwark.audit_log (workspace_id, actor_kind, actor_id, action, target_kind,
           target_id, reason, before, after, request_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(audit.workspace_id)
    .bind(actor_kind)
    .bind(actor_id)
    .bind(audit.action)
    .bind(audit.target.0)
    .bind(&audit.target.1)
    .bind(audit.reason)
    .bind(&audit.before)
    .bind(&audit.after)
    .bind(audit.request_id)
    .execute(connection)
    .await?;
    Ok(())
}

/// A noted action.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = AuditEntry))]
pub struct AuditRow {
    pub id: Uuid,
    pub actor_kind: String,
    pub actor_id: Option<Uuid>,
    pub action: String,
    pub target_kind: String,
    pub target_id: String,
    pub reason: Option<String>,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub request_id: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// Actions in a workspace, newest first, those before `before` only; of one target, if it is named.
pub async fn audit_page(
    view: &mut View,
    workspace_id: Uuid,
    target: Option<(&str, &str)>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<AuditRow>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT id, actor_kind, actor_id, action, target_kind, target_id, reason, before, after,
           request_id, created_at
         FROM bullwark.audit_log
         WHERE workspace_id = $1 AND ($2::text IS NULL OR (target_kind = $2 AND target_id = $3))
           AND ($4::uuid IS NULL OR id < $4)
         ORDER BY id DESC LIMIT $5",
    )
    .bind(workspace_id)
    .bind(target.map(|(kind, _)| kind))
    .bind(target.map(|(_, id)| id))
    .bind(before)
    .bind(limit)
    .fetch_all(view.connection())
    .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_written_down_reads_back() {
        let id = Uuid::from_u128(1);
        let all = [
            Actor::ApiKey(id),
            Actor::User(id),
            Actor::Service,
            Actor::Operator,
        ];
        for actor in all {
            let (kind, id) = actor.parts();
            assert_eq!(Actor::from_parts(kind, id), Some(actor));
        }
        assert_eq!(Actor::from_parts("user", None), None);
    }

    #[test]
    fn permissions_are_what_was_named_and_no_more() {
        let some = Permissions::named(&["read".into(), "everything".into()]);
        assert!(some.allow(Permission::Read));
        assert!(!some.allow(Permission::Write) && !some.allow(Permission::Admin));
        assert!(!Permissions::MEMBER.allow(Permission::Admin));
        assert!(Permissions::ALL.include(some) && !some.include(Permissions::MEMBER));
        assert!(
            Permission::ALL
                .into_iter()
                .all(|p| Permissions::ALL.allow(p))
        );
        assert_eq!(
            Permission::ALL.into_iter().collect::<Permissions>(),
            Permissions::ALL
        );
    }
}
