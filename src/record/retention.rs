//! What a workspace lets `cleanup_data` jobs remove: set by its admins, noted in the audit.

use serde_json::json;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::access::{self, Audit, By};
use super::{Record, RecordError, Tx, View};
use crate::job::retention::Retention;

type Row = (
    Option<i32>,
    Option<i32>,
    Option<i32>,
    Option<i32>,
    Option<i32>,
    Option<i32>,
);

async fn get(executor: impl PgExecutor<'_>, workspace_id: Uuid) -> Result<Retention, RecordError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT completed_jobs, cancelled_jobs, dead_letters, job_logs, exports, webhook_deliveries
         FROM bullwark.retention WHERE workspace_id = $1",
    )
    .bind(workspace_id)
    .fetch_optional(executor)
    .await?;
    let row = row.unwrap_or_default();
    Ok(Retention {
        completed_jobs: row.0,
        cancelled_jobs: row.1,
        dead_letters: row.2,
        job_logs: row.3,
        exports: row.4,
        webhook_deliveries: row.5,
    })
}

/// As a caller sees it. Where nothing was set, everything is kept.
pub async fn show(view: &mut View, workspace_id: Uuid) -> Result<Retention, RecordError> {
    get(view.connection(), workspace_id).await
}

/// As it holds until the transaction ends: whoever changes it waits.
pub async fn hold(tx: &mut Tx, workspace_id: Uuid) -> Result<Retention, RecordError> {
    sqlx::query("SELECT FROM bullwark.retention WHERE workspace_id = $1 FOR SHARE")
        .bind(workspace_id)
        .execute(tx.connection())
        .await?;
    get(tx.connection(), workspace_id).await
}

/// Replaces it, with a row in the audit.
pub async fn put(
    record: &Record,
    workspace_id: Uuid,
    new: &Retention,
    by: &By<'_>,
) -> Result<(), RecordError> {
    let mut tx = record.begin().await?;
    // One after the other, so that the audit has what was before each.
    sqlx::query("SELECT FROM workspaces WHERE id = $1 FOR NO KEY UPDATE")
        .bind(workspace_id)
        .execute(tx.connection())
        .await?;
    let was = get(tx.connection(), workspace_id).await?;
    sqlx::query(
        "INSERT INTO bullwark.retention (workspace_id, completed_jobs, cancelled_jobs,
           dead_letters, job_logs, exports, webhook_deliveries)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (workspace_id) DO UPDATE SET completed_jobs = $2, cancelled_jobs = $3,
           dead_letters = $4, job_logs = $5, exports = $6, webhook_deliveries = $7,
           updated_at = now()",
    )
    .bind(workspace_id)
    .bind(new.completed_jobs)
    .bind(new.cancelled_jobs)
    .bind(new.dead_letters)
    .bind(new.job_logs)
    .bind(new.exports)
    .bind(new.webhook_deliveries)
    .execute(tx.connection())
    .await?;
    let audit = Audit {
        workspace_id: Some(workspace_id),
        actor: by.actor,
        action: "retention.set",
        target: ("workspace", workspace_id.to_string()),
        reason: None,
        before: Some(json!(was)),
        after: Some(json!(new)),
        request_id: by.request_id,
    };
    access::note(tx.connection(), &audit).await?;
    tx.commit().await
}
