//! What Bullwark wants of schedules: made, changed and ended, each with its row in the audit.
//!
//! Redis is to be told afterwards; whoever dies in between leaves that to upkeep.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::{COLUMNS, Row};
use crate::job::QueueName;
use crate::job::schedule::StoredSchedule;
use crate::record::access::{self, Audit, By};
use crate::record::{Record, RecordError};

/// Writes what Bullwark wants of a schedule, and who wanted it; Redis is to be told. Returns the
/// new version.
pub async fn change(
    record: &Record,
    prefix: &str,
    queue: &QueueName,
    schedule: &StoredSchedule,
    by: &By<'_>,
) -> Result<i64, RecordError> {
    let mut tx = record.begin().await?;
    let before = lock(tx.connection(), prefix, queue, &schedule.id).await?;
    let change = (before.as_ref(), schedule);
    let version = write(tx.connection(), prefix, queue, change, by).await?;
    tx.commit().await?;
    Ok(version)
}

/// A schedule that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    pub version: i64,
    /// There was none of this name.
    pub is_new: bool,
}

/// The same for a schedule of this workspace's own, of which it may have so many; none: it has.
pub async fn put(
    record: &Record,
    prefix: &str,
    queue: &QueueName,
    schedule: &StoredSchedule,
    by: &By<'_>,
    (owner, max): (Uuid, i64),
) -> Result<Option<Put>, RecordError> {
    let mut tx = record.begin().await?;
    // One after the other in a workspace, or two at once would both be the last.
    sqlx::query("SELECT FROM workspaces WHERE id = $1 FOR NO KEY UPDATE")
        .bind(owner)
        .execute(tx.connection())
        .await?;
    let before = lock(tx.connection(), prefix, queue, &schedule.id).await?;
    let is_new = before.is_none();
    if is_new {
        let others: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM bullwark.schedules
             WHERE prefix = $1 AND workspace_id = $2 AND NOT is_removed",
        )
        .bind(prefix)
        .bind(owner)
        .fetch_one(tx.connection())
        .await?;
        if others >= max {
            return Ok(None);
        }
    }
    let change = (before.as_ref(), schedule);
    let version = write(tx.connection(), prefix, queue, change, by).await?;
    tx.commit().await?;
    Ok(Some(Put { version, is_new }))
}

async fn write(
    connection: &mut PgConnection,
    prefix: &str,
    queue: &QueueName,
    (before, schedule): (Option<&Fields>, &StoredSchedule),
    by: &By<'_>,
) -> Result<i64, RecordError> {
    let version = sqlx::query_scalar(
        "INSERT INTO bullwark.schedules AS s (prefix, job_queue, schedule_id, fields, version,
           is_told)
         VALUES ($1, $2, $3, $4, 1, false)
         ON CONFLICT (prefix, job_queue, schedule_id) DO UPDATE
           SET fields = excluded.fields, version = s.version + 1, is_told = false,
             is_removed = false, changed_at = now()
         RETURNING version",
    )
    .bind(prefix)
    .bind(queue.as_str())
    .bind(&schedule.id)
    .bind(Json(&schedule.fields))
    .fetch_one(&mut *connection)
    .await?;
    let change = (before, Some(&schedule.fields));
    note(connection, (queue, &schedule.id), change, by).await?;
    Ok(version)
}

/// Notes that Bullwark wants a schedule gone, and who wants it; Redis is to be told. Returns the
/// new version.
pub async fn remove(
    record: &Record,
    prefix: &str,
    queue: &QueueName,
    id: &str,
    by: &By<'_>,
) -> Result<i64, RecordError> {
    let mut tx = record.begin().await?;
    let before = lock(tx.connection(), prefix, queue, id).await?;
    // Also one that the record does not know yet: a client may have made it a moment ago.
    let version = sqlx::query_scalar(
        "INSERT INTO bullwark.schedules AS s (prefix, job_queue, schedule_id, fields, version,
           is_told, is_removed)
         VALUES ($1, $2, $3, '{}', 1, false, true)
         ON CONFLICT (prefix, job_queue, schedule_id) DO UPDATE
           SET version = s.version + 1, is_told = false, is_removed = true, changed_at = now()
         RETURNING version",
    )
    .bind(prefix)
    .bind(queue.as_str())
    .bind(id)
    .fetch_one(tx.connection())
    .await?;
    if before.is_some() {
        note(tx.connection(), (queue, id), (before.as_ref(), None), by).await?;
    }
    tx.commit().await?;
    Ok(version)
}

/// The texts of a schedule.
type Fields = BTreeMap<String, String>;

/// What a schedule is now, kept so until the transaction ends; none: it is to be removed, or
/// unknown.
async fn lock(
    connection: &mut PgConnection,
    prefix: &str,
    queue: &QueueName,
    id: &str,
) -> Result<Option<Fields>, RecordError> {
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE prefix = $1 AND job_queue = $2 AND schedule_id = $3 FOR NO KEY UPDATE"
    )))
    .bind(prefix)
    .bind(queue.as_str())
    .bind(id)
    .fetch_optional(connection)
    .await?;
    let row = row.filter(|row| !row.is_removed);
    Ok(row.map(|row| row.fields.0))
}

async fn note(
    connection: &mut PgConnection,
    (queue, id): (&QueueName, &str),
    (before, after): (Option<&Fields>, Option<&Fields>),
    by: &By<'_>,
) -> Result<(), RecordError> {
    // When it runs and what. Payloads may be large, and options are those of each job.
    let shown = |fields: &Fields| {
        let mut fields = fields.clone();
        fields.retain(|name, _| name != "data" && name != "opts");
        serde_json::json!(fields)
    };
    let audit = Audit {
        workspace_id: by.workspace_id,
        actor: by.actor,
        action: match after {
            Some(_) => "schedule.put",
            None => "schedule.delete",
        },
        target: ("schedule", format!("{queue}/{id}")),
        reason: None,
        before: before.map(shown),
        after: after.map(shown),
        request_id: by.request_id,
    };
    access::note(connection, &audit).await
}
