//! `crm_links`: which record here is which one there, and what both last agreed on.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::super::{Record, RecordError, Tx, View};
use super::Scope;

/// A link that holds now.
#[derive(Debug, Clone)]
pub struct Link<'a> {
    pub local_id: Uuid,
    pub remote_id: &'a str,
    /// An object.
    pub agreed: &'a Value,
    pub hash: &'a str,
    /// None: what is known stays.
    pub remote_modified_at: Option<DateTime<Utc>>,
}

/// Writes a link. Refused if the record there is linked with another one here.
pub async fn put(tx: &mut Tx, scope: Scope, link: &Link<'_>) -> Result<(), RecordError> {
    sqlx::query(
        "INSERT INTO crm_links (connection_id, entity_type, local_id, remote_id, workspace_id,
           agreed, hash, remote_modified_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (connection_id, entity_type, local_id) DO UPDATE
           SET remote_id = excluded.remote_id, agreed = excluded.agreed, hash = excluded.hash,
             remote_modified_at =
               coalesce(excluded.remote_modified_at, crm_links.remote_modified_at),
             state = 'linked', synced_at = now()",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(link.local_id)
    .bind(link.remote_id)
    .bind(scope.workspace_id)
    .bind(link.agreed)
    .bind(link.hash)
    .bind(link.remote_modified_at)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The records here of records there, whether they are still here or not.
pub async fn locals_of(
    tx: &mut Tx,
    scope: Scope,
    remote_ids: &[String],
) -> Result<Vec<(String, Uuid)>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT remote_id, local_id FROM crm_links
         WHERE connection_id = $1 AND entity_type = $2 AND remote_id = ANY($3)",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(remote_ids)
    .fetch_all(tx.connection())
    .await?)
}

/// What becomes of a record here whose other half was deleted there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It stays.
    Kept,
    /// It is to be deleted, as far as the brake allows.
    Leaving,
}

/// Notes that records there are deleted: of how many that was not known.
pub async fn set_gone(
    tx: &mut Tx,
    scope: Scope,
    remote_ids: &[String],
    loss: Loss,
) -> Result<u64, RecordError> {
    let done = sqlx::query(
        "UPDATE crm_links SET state = $4, synced_at = now()
         WHERE connection_id = $1 AND entity_type = $2 AND remote_id = ANY($3)
           AND state = 'linked'",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(remote_ids)
    .bind(match loss {
        Loss::Kept => "gone",
        Loss::Leaving => "leaving",
    })
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected())
}

/// What an earlier run meant to delete here stays after all: how many.
pub async fn keep_leaving(tx: &mut Tx, scope: Scope) -> Result<u64, RecordError> {
    let done = sqlx::query(
        "UPDATE crm_links SET state = 'gone', synced_at = now()
         WHERE connection_id = $1 AND entity_type = $2 AND state = 'leaving'",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected())
}

/// The first of them.
pub async fn leaving(record: &Record, scope: Scope, limit: i64) -> Result<Vec<Uuid>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT local_id FROM crm_links
         WHERE connection_id = $1 AND entity_type = $2 AND state = 'leaving'
         ORDER BY local_id LIMIT $3",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(limit)
    .fetch_all(&record.pool)
    .await?)
}

/// Forgets those that are leaving still, of records that the transaction holds: which.
pub async fn delete_leaving(
    tx: &mut Tx,
    scope: Scope,
    local_ids: &[Uuid],
) -> Result<Vec<Uuid>, RecordError> {
    Ok(sqlx::query_scalar(
        "DELETE FROM crm_links
         WHERE connection_id = $1 AND entity_type = $2 AND local_id = ANY($3)
           AND state = 'leaving'
         RETURNING local_id",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(local_ids)
    .fetch_all(tx.connection())
    .await?)
}

/// How many links hold, and how many records here are to be deleted.
pub async fn count(record: &Record, scope: Scope) -> Result<(i64, i64), RecordError> {
    Ok(sqlx::query_as(
        "SELECT count(*) FILTER (WHERE state = 'linked'), count(*) FILTER (WHERE state = 'leaving')
         FROM crm_links WHERE connection_id = $1 AND entity_type = $2",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .fetch_one(&record.pool)
    .await?)
}

/// How many of them have no record here any more.
pub async fn count_deleted_here(record: &Record, scope: Scope) -> Result<i64, RecordError> {
    let sql = format!(
        "SELECT count(*) FROM crm_links l
         WHERE connection_id = $1 AND entity_type = $2 AND state = 'linked'
           AND NOT EXISTS (SELECT FROM {} t WHERE t.id = l.local_id)",
        scope.entity
    );
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(scope.connection_id)
        .bind(scope.entity)
        .fetch_one(&record.pool)
        .await?)
}

/// Some of them, by id here: that id and the one there.
pub async fn deleted_here(
    record: &Record,
    scope: Scope,
    after: Uuid,
    limit: i64,
) -> Result<Vec<(Uuid, String)>, RecordError> {
    let sql = format!(
        "SELECT local_id, remote_id FROM crm_links l
         WHERE connection_id = $1 AND entity_type = $2 AND state = 'linked' AND local_id > $3
           AND NOT EXISTS (SELECT FROM {} t WHERE t.id = l.local_id)
         ORDER BY local_id LIMIT $4",
        scope.entity
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(scope.connection_id)
        .bind(scope.entity)
        .bind(after)
        .bind(limit)
        .fetch_all(&record.pool)
        .await?)
}

/// Forgets links.
pub async fn delete(tx: &mut Tx, scope: Scope, local_ids: &[Uuid]) -> Result<(), RecordError> {
    sqlx::query(
        "DELETE FROM crm_links
         WHERE connection_id = $1 AND entity_type = $2 AND local_id = ANY($3)",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(local_ids)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// A link, for people.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = CrmLink))]
pub struct LinkRow {
    pub connection_id: Uuid,
    /// `accounts`, `contacts` or `opportunities`.
    pub entity_type: String,
    pub local_id: Uuid,
    /// Its id in the CRM.
    pub remote_id: String,
    /// `linked`; `gone`: it was deleted there; or `leaving`: and is to be deleted here as well.
    pub state: String,
    /// What both sides last agreed on, by field.
    pub agreed: Value,
    /// By the CRM's clock, when it was last seen or written.
    pub remote_modified_at: Option<DateTime<Utc>>,
    pub synced_at: DateTime<Utc>,
}

/// Which links.
#[derive(Debug, Clone, Default)]
pub struct LinkFilter {
    pub connection_id: Option<Uuid>,
    pub local_id: Option<Uuid>,
    pub remote_id: Option<String>,
    /// Behind this record here.
    pub after: Option<Uuid>,
}

/// The links of a workspace, by id here.
pub async fn list(
    view: &mut View,
    workspace_id: Uuid,
    filter: &LinkFilter,
    limit: i64,
) -> Result<Vec<LinkRow>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT connection_id, entity_type, local_id, remote_id, state, agreed,
           remote_modified_at, synced_at
         FROM crm_links
         WHERE workspace_id = $1 AND ($2::uuid IS NULL OR connection_id = $2)
           AND ($3::uuid IS NULL OR local_id = $3) AND ($4::text IS NULL OR remote_id = $4)
           AND ($5::uuid IS NULL OR local_id > $5)
         ORDER BY local_id, connection_id LIMIT $6",
    )
    .bind(workspace_id)
    .bind(filter.connection_id)
    .bind(filter.local_id)
    .bind(&filter.remote_id)
    .bind(filter.after)
    .bind(limit)
    .fetch_all(view.connection())
    .await?)
}
