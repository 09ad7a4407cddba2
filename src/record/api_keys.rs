//! Keys of the HTTP API. The record holds hashes only; a key itself is shown once, when it is made.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::access::{self, Actor, Audit, Permissions};
use super::{Record, RecordError, View};

/// The start of every key that is made here: whoever finds one in a log knows what it is.
const MARK: &str = "bw_";
/// So much of a key is kept to be shown. The mark and 48 of its 256 random bits: enough to tell
/// keys apart, and of no use for guessing the rest.
const PREFIX_BYTES: usize = MARK.len() + 8;
/// How exactly the last use is known: a busy key costs one write in so long.
const LAST_USED_EVERY: Duration = Duration::from_secs(60);
/// How long that write may take.
const NOTE_PATIENCE: Duration = Duration::from_millis(300);
/// Keys of a workspace that are not revoked.
pub const KEYS_MAX: i64 = 1000;

/// What a valid key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyAccess {
    pub id: Uuid,
    pub workspace_id: Uuid,
    pub permissions: Permissions,
    pub expires_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    id: Uuid,
    workspace_id: Uuid,
    scopes: Vec<String>,
    expires_at: Option<DateTime<Utc>>,
    is_use_due: bool,
}

/// What a key opens, if it is valid.
pub async fn find(record: &Record, key: &str) -> Result<Option<KeyAccess>, RecordError> {
    // The key has 256 random bits, so a plain hash needs no salt, and looking it up by its hash
    // tells nothing about other keys.
    let row: Option<KeyRow> = sqlx::query_as(
        "SELECT id, workspace_id, scopes, expires_at,
           coalesce(last_used_at < now() - $2 * interval '1 second', true) AS is_use_due
         FROM bullwark.api_keys
         WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
    )
    .bind(Sha256::digest(key).to_vec())
    .bind(LAST_USED_EVERY.as_secs_f64())
    .fetch_optional(&record.pool)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    // For people only: a record that takes no writes, or not now, keeps nobody out.
    if row.is_use_due {
        let noted = tokio::time::timeout(NOTE_PATIENCE, note_use(record, row.id)).await;
        if !matches!(noted, Ok(Ok(()))) {
            tracing::debug!(?noted, "the use of a key is not noted");
        }
    }
    Ok(Some(KeyAccess {
        id: row.id,
        workspace_id: row.workspace_id,
        permissions: Permissions::named(&row.scopes),
        expires_at: row.expires_at,
    }))
}

async fn note_use(record: &Record, id: Uuid) -> Result<(), RecordError> {
    let due = "UPDATE bullwark.api_keys SET last_used_at = now()
      WHERE id = $1 AND coalesce(last_used_at < now() - $2 * interval '1 second', true)";
    sqlx::query(due)
        .bind(id)
        .bind(LAST_USED_EVERY.as_secs_f64())
        .execute(&record.pool)
        .await?;
    Ok(())
}

/// Makes a given key valid for a workspace, with every scope. Doing it again changes nothing.
pub async fn ensure(
    record: &Record,
    key: &str,
    workspace_id: Uuid,
    name: &str,
) -> Result<(), RecordError> {
    sqlx::query(
        "INSERT INTO bullwark.api_keys (workspace_id, name, hash) VALUES ($1, $2, $3)
         ON CONFLICT (hash) DO NOTHING",
    )
    .bind(workspace_id)
    .bind(name)
    .bind(Sha256::digest(key).to_vec())
    .execute(&record.pool)
    .await?;
    Ok(())
}

/// A key as people see it.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = ApiKey))]
pub struct ApiKeyRow {
    pub id: Uuid,
    pub name: String,
    /// How the key begins.
    pub prefix: String,
    /// What it may do.
    #[cfg_attr(feature = "server", schema(value_type = Vec<access::Permission>))]
    pub scopes: Vec<String>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "id, name, prefix, scopes, created_at, expires_at, last_used_at, revoked_at";

/// The keys of a workspace: those that are valid, then the revoked ones, newest first.
pub async fn list(view: &mut View, workspace_id: Uuid) -> Result<Vec<ApiKeyRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM bullwark.api_keys WHERE workspace_id = $1
         ORDER BY revoked_at IS NOT NULL, id DESC LIMIT 1000"
    )))
    .bind(workspace_id)
    .fetch_all(view.connection())
    .await?)
}

/// What a new key is to be.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    pub workspace_id: Uuid,
    pub name: String,
    pub scopes: Vec<String>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// Makes a key. Returns it with its row; it can not be shown again. None: the workspace has
/// [`KEYS_MAX`] already. Two that are made at once may go above that.
pub async fn create(
    record: &Record,
    new: &NewApiKey,
    actor: Actor,
    request_id: Option<&str>,
) -> Result<Option<(String, ApiKeyRow)>, RecordError> {
    let random: [u8; 32] = rand::random();
    let key = format!("{MARK}{}", URL_SAFE_NO_PAD.encode(random));
    let mut tx = record.begin().await?;
    let count = "SELECT count(*) FROM bullwark.api_keys
      WHERE workspace_id = $1 AND revoked_at IS NULL";
    let keys: i64 = sqlx::query_scalar(count)
        .bind(new.workspace_id)
        .fetch_one(tx.connection())
        .await?;
    if keys >= KEYS_MAX {
        return Ok(None);
    }
    let row: ApiKeyRow = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "INSERT INTO bullwark.api_keys (workspace_id, name, prefix, hash, scopes, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING {COLUMNS}"
    )))
    .bind(new.workspace_id)
    .bind(&new.name)
    .bind(&key[..PREFIX_BYTES])
    .bind(Sha256::digest(&key).to_vec())
    .bind(&new.scopes)
    .bind(new.expires_at)
    .fetch_one(tx.connection())
    .await?;
    let audit = Audit {
        workspace_id: Some(new.workspace_id),
        actor,
        action: "api_key.create",
        target: ("api_key", row.id.to_string()),
        reason: None,
        before: None,
        after: Some(json!({
            "name": row.name, "prefix": row.prefix, "scopes": row.scopes,
            "expires_at": row.expires_at,
        })),
        request_id,
    };
    access::note(tx.connection(), &audit).await?;
    tx.commit().await?;
    Ok(Some((key, row)))
}

/// Makes a key of this workspace worthless, from now on and for good. None: there is no such key;
/// one that was revoked before stays as it is.
pub async fn revoke(
    record: &Record,
    workspace_id: Uuid,
    id: Uuid,
    actor: Actor,
    request_id: Option<&str>,
) -> Result<Option<ApiKeyRow>, RecordError> {
    let mut tx = record.begin().await?;
    let was: Option<ApiKeyRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM bullwark.api_keys WHERE workspace_id = $1 AND id = $2
         FOR NO KEY UPDATE"
    )))
    .bind(workspace_id)
    .bind(id)
    .fetch_optional(tx.connection())
    .await?;
    let Some(was) = was else {
        return Ok(None);
    };
    if was.revoked_at.is_some() {
        return Ok(Some(was));
    }
    let row: ApiKeyRow = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "UPDATE bullwark.api_keys SET revoked_at = now() WHERE id = $1 RETURNING {COLUMNS}"
    )))
    .bind(id)
    .fetch_one(tx.connection())
    .await?;
    let audit = Audit {
        workspace_id: Some(workspace_id),
        actor,
        action: "api_key.revoke",
        target: ("api_key", id.to_string()),
        reason: None,
        before: Some(json!({ "name": was.name, "scopes": was.scopes })),
        after: None,
        request_id,
    };
    access::note(tx.connection(), &audit).await?;
    tx.commit().await?;
    Ok(Some(row))
}
