//! `crm_cursors`: how far each direction of a sync is.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::super::{Record, RecordError, Tx, View};
use super::Scope;

/// How far a direction is.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = CrmSyncState))]
pub struct CursorRow {
    pub connection_id: Uuid,
    /// `accounts`, `contacts` or `opportunities`.
    pub entity_type: String,
    /// `push`, `pull` or `deletions` (what was deleted in the CRM).
    pub direction: String,
    /// Changes before this moment of the CRM's clock have been read.
    pub since: Option<DateTime<Utc>>,
    /// The organization or portal that it was read from.
    pub org_id: Option<String>,
    /// When a run last came to its end.
    pub last_sync_at: Option<DateTime<Utc>>,
    pub last_job_id: Option<Uuid>,
    pub updated_at: DateTime<Utc>,
}

const COLUMNS: &str = "connection_id, entity_type, direction, since, org_id, last_sync_at,
    last_job_id, updated_at";

/// Where a direction is, if it ever ran.
pub async fn get(
    record: &Record,
    scope: Scope,
    direction: &'static str,
) -> Result<Option<CursorRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM crm_cursors
         WHERE connection_id = $1 AND entity_type = $2 AND direction = $3"
    )))
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(direction)
    .fetch_optional(&record.pool)
    .await?)
}

/// The organizations that a connection has led to, as far as runs have noted them.
pub async fn organizations(
    record: &Record,
    workspace_id: Uuid,
    connection_id: Uuid,
) -> Result<Vec<String>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT org_id FROM crm_cursors
         WHERE workspace_id = $1 AND connection_id = $2 AND org_id IS NOT NULL",
    )
    .bind(workspace_id)
    .bind(connection_id)
    .fetch_all(&record.pool)
    .await?)
}

/// How far a run has come.
#[derive(Debug, Clone, Copy)]
pub struct Come<'a> {
    pub direction: &'static str,
    /// None: it stays. It never goes back.
    pub since: Option<DateTime<Utc>>,
    pub org_id: Option<&'a str>,
    pub job_id: Uuid,
    /// It came to the end; the run began then.
    pub ended: Option<DateTime<Utc>>,
}

pub async fn put(tx: &mut Tx, scope: Scope, come: &Come<'_>) -> Result<(), RecordError> {
    sqlx::query(
        "INSERT INTO crm_cursors (connection_id, entity_type, direction, workspace_id, since,
           org_id, last_sync_at, last_job_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (connection_id, entity_type, direction) DO UPDATE
           SET since = greatest(crm_cursors.since, excluded.since),
             org_id = coalesce(excluded.org_id, crm_cursors.org_id),
             last_sync_at = greatest(crm_cursors.last_sync_at, excluded.last_sync_at),
             last_job_id = excluded.last_job_id, updated_at = now()",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(come.direction)
    .bind(scope.workspace_id)
    .bind(come.since)
    .bind(come.org_id)
    .bind(come.ended)
    .bind(come.job_id)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// All of a workspace: at most nine per connection.
pub async fn list(view: &mut View, workspace_id: Uuid) -> Result<Vec<CursorRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM crm_cursors WHERE workspace_id = $1
         ORDER BY connection_id, entity_type, direction LIMIT 1000"
    )))
    .bind(workspace_id)
    .fetch_all(view.connection())
    .await?)
}
