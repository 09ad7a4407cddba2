//! Sessions of browsers: what a cookie stands for. The record holds hashes only.
//!
//! A session is of one key or one user in one workspace. Opening one twice makes two; ending one
//! twice changes nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::access::{self, Actor, Audit, Permissions};
use super::{Record, RecordError};

/// The longest life of a session, in hours: a working day.
const HOURS_MAX: i64 = 12;
/// Sessions of one key or user in a workspace; the oldest give way.
const SESSIONS_MAX: i64 = 20;
/// Expired sessions that an opening takes away.
const EXPIRED_MAX: i64 = 100;

/// What a valid session opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionAccess {
    /// A key or a user.
    pub actor: Actor,
    pub workspace_id: Uuid,
    pub expires_at: DateTime<Utc>,
    /// Of its key, if it is one's: what that may do, and when it ends.
    pub key: Option<(Permissions, Option<DateTime<Utc>>)>,
}

#[derive(sqlx::FromRow)]
struct Row {
    api_key_id: Option<Uuid>,
    user_id: Option<Uuid>,
    workspace_id: Uuid,
    expires_at: DateTime<Utc>,
    scopes: Option<Vec<String>>,
    key_expires_at: Option<DateTime<Utc>>,
}

/// Opens a session for a key or a user, until `until` at most. Returns what the cookie is to say,
/// and when the session ends. None: the key or its time is over, or nobody of that kind has one.
pub async fn open(
    record: &Record,
    actor: Actor,
    workspace_id: Uuid,
    until: Option<DateTime<Utc>>,
    request_id: Option<&str>,
) -> Result<Option<(String, DateTime<Utc>)>, RecordError> {
    let (api_key_id, user_id) = match actor {
        Actor::ApiKey(id) => (Some(id), None),
        Actor::User(id) => (None, Some(id)),
        Actor::Service | Actor::Operator => return Ok(None),
    };
    let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let mut tx = record.begin().await?;
    sqlx::query(
        "DELETE FROM bullwark.sessions WHERE hash IN (
           SELECT hash FROM bullwark.sessions WHERE expires_at < now() ORDER BY expires_at LIMIT $1
           FOR UPDATE SKIP LOCKED)",
    )
    .bind(EXPIRED_MAX)
    .execute(tx.connection())
    .await?;
    sqlx::query(
        "DELETE FROM bullwark.sessions WHERE hash IN (
           SELECT hash FROM bullwark.sessions
           WHERE workspace_id = $1 AND coalesce(api_key_id, user_id) = $2
           ORDER BY created_at DESC OFFSET $3)",
    )
    .bind(workspace_id)
    .bind(api_key_id.or(user_id))
    .bind(SESSIONS_MAX - 1)
    .execute(tx.connection())
    .await?;
    let expires_at: Option<DateTime<Utc>> = sqlx::query_scalar(
        "INSERT INTO bullwark.sessions (hash, api_key_id, user_id, workspace_id, expires_at)
         SELECT $1, $2, $3, $4, least(now() + $5, $6) WHERE coalesce($6 > now(), true)
         RETURNING expires_at",
    )
    .bind(Sha256::digest(&token).to_vec())
    .bind(api_key_id)
    .bind(user_id)
    .bind(workspace_id)
    .bind(TimeDelta::hours(HOURS_MAX))
    .bind(until)
    .fetch_optional(tx.connection())
    .await?;
    let Some(expires_at) = expires_at else {
        return Ok(None);
    };
    let (kind, id) = actor.parts();
    let audit = Audit {
        workspace_id: Some(workspace_id),
        actor,
        action: "session.open",
        target: (kind, id.map(|id| id.to_string()).unwrap_or_default()),
        reason: None,
        before: None,
        after: Some(json!({ "expires_at": expires_at })),
        request_id,
    };
    access::note(tx.connection(), &audit).await?;
    tx.commit().await?;
    Ok(Some((token, expires_at)))
}

/// What a session opens, if it is valid and its key is.
pub async fn find(record: &Record, token: &str) -> Result<Option<SessionAccess>, RecordError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT s.api_key_id, s.user_id, s.workspace_id, s.expires_at, k.scopes,
           k.expires_at AS key_expires_at
         FROM bullwark.sessions s LEFT JOIN bullwark.api_keys k ON k.id = s.api_key_id
         WHERE s.hash = $1 AND s.expires_at > now() AND (s.api_key_id IS NULL OR (
           k.revoked_at IS NULL AND coalesce(k.expires_at > now(), true)))",
    )
    .bind(Sha256::digest(token).to_vec())
    .fetch_optional(&record.pool)
    .await?;
    Ok(row.and_then(|row| {
        let key = row.api_key_id.map(Actor::ApiKey);
        Some(SessionAccess {
            actor: key.or(row.user_id.map(Actor::User))?,
            workspace_id: row.workspace_id,
            expires_at: row.expires_at,
            key: key.map(|_| {
                let scopes = row.scopes.unwrap_or_default();
                (Permissions::named(&scopes), row.key_expires_at)
            }),
        })
    }))
}

/// Which sessions of a key or user end.
#[derive(Debug, Clone, Copy)]
pub enum Ends<'a> {
    One(&'a str),
    All,
}

/// Ends sessions of a key or user in a workspace.
pub async fn end(
    record: &Record,
    actor: Actor,
    workspace_id: Uuid,
    which: Ends<'_>,
    request_id: Option<&str>,
) -> Result<(), RecordError> {
    let (kind, Some(id)) = actor.parts() else {
        return Ok(());
    };
    let hash = match which {
        Ends::One(token) => Some(Sha256::digest(token).to_vec()),
        Ends::All => None,
    };
    let mut tx = record.begin().await?;
    let ended = sqlx::query(
        "DELETE FROM bullwark.sessions WHERE coalesce(api_key_id, user_id) = $1
           AND CASE WHEN $3::bytea IS NULL THEN workspace_id = $2 ELSE hash = $3 END",
    )
    .bind(id)
    .bind(workspace_id)
    .bind(hash)
    .execute(tx.connection())
    .await?;
    if ended.rows_affected() > 0 {
        let audit = Audit {
            workspace_id: Some(workspace_id),
            actor,
            action: "session.end",
            target: (kind, id.to_string()),
            reason: None,
            before: Some(json!({ "sessions": ended.rows_affected() })),
            after: None,
            request_id,
        };
        access::note(tx.connection(), &audit).await?;
    }
    tx.commit().await
}
