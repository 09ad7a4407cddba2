//! Schedules, as the record keeps them for the day when Redis forgets.

mod change;

use std::collections::BTreeMap;

use sqlx::types::Json;
use uuid::Uuid;

use super::{Record, RecordError, View};
use crate::job::QueueName;
use crate::job::schedule::StoredSchedule;
pub use change::{Put, change, put, remove};

/// The most schedules of one statement.
pub const SCHEDULES_PAGE: usize = 1000;

/// A schedule with what the record says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSchedule {
    pub queue: QueueName,
    pub schedule: StoredSchedule,
    /// Grows with every change that Bullwark makes.
    pub version: i64,
    /// False: Redis has not been told of this version.
    pub is_told: bool,
    /// It is to be removed from Redis.
    pub is_removed: bool,
}

#[derive(sqlx::FromRow)]
struct Row {
    job_queue: String,
    schedule_id: String,
    due_ms: Option<i64>,
    fields: Json<BTreeMap<String, String>>,
    version: i64,
    is_told: bool,
    is_removed: bool,
}

const COLUMNS: &str = "SELECT job_queue, schedule_id, due_ms, fields, version, is_told, is_removed
  FROM bullwark.schedules";

impl Row {
    /// None: a name that no queue can have, which a person wrote.
    fn known(self) -> Option<KnownSchedule> {
        Some(KnownSchedule {
            queue: self.job_queue.parse().ok()?,
            schedule: StoredSchedule {
                id: self.schedule_id,
                due_ms: self.due_ms,
                fields: self.fields.0,
            },
            version: self.version,
            is_told: self.is_told,
            is_removed: self.is_removed,
        })
    }
}

/// A page of the known schedules after this queue and id, by both, and where to go on; none: it was
/// the last one. A row that no schedule can have is left out.
pub async fn page(
    record: &Record,
    prefix: &str,
    after: (&str, &str),
) -> Result<(Vec<KnownSchedule>, Option<(String, String)>), RecordError> {
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE prefix = $1 AND (job_queue, schedule_id) > ($2, $3)
         ORDER BY job_queue, schedule_id LIMIT $4"
    )))
    .bind(prefix)
    .bind(after.0)
    .bind(after.1)
    .bind(SCHEDULES_PAGE as i64)
    .fetch_all(&record.pool)
    .await?;
    let next = rows.last().filter(|_| rows.len() == SCHEDULES_PAGE);
    let next = next.map(|row| (row.job_queue.clone(), row.schedule_id.clone()));
    Ok((rows.into_iter().filter_map(Row::known).collect(), next))
}

/// Of these schedules of a queue, those that the record knows.
pub async fn known(
    record: &Record,
    prefix: &str,
    queue: &QueueName,
    ids: &[String],
) -> Result<Vec<KnownSchedule>, RecordError> {
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE prefix = $1 AND job_queue = $2 AND schedule_id = ANY($3)"
    )))
    .bind(prefix)
    .bind(queue.as_str())
    .bind(ids)
    .fetch_all(&record.pool)
    .await?;
    Ok(rows.into_iter().filter_map(Row::known).collect())
}

/// A schedule of a queue that is not to be removed; none: the record knows none.
pub async fn get(
    view: &mut View,
    prefix: &str,
    queue: &QueueName,
    id: &str,
) -> Result<Option<KnownSchedule>, RecordError> {
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE prefix = $1 AND job_queue = $2 AND schedule_id = $3 AND NOT is_removed"
    )))
    .bind(prefix)
    .bind(queue.as_str())
    .bind(id)
    .fetch_optional(view.connection())
    .await?;
    Ok(row.and_then(Row::known))
}

/// A page of a workspace's schedules, or of those that no workspace owns, after this queue and id,
/// by both. The index `schedules_workspace` serves it.
pub async fn page_of(
    view: &mut View,
    prefix: &str,
    owner: Option<Uuid>,
    after: (&str, &str),
    limit: i64,
) -> Result<Vec<KnownSchedule>, RecordError> {
    let owned = match owner {
        Some(_) => "workspace_id = $2",
        None => "workspace_id IS NULL AND $2::uuid IS NULL",
    };
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE prefix = $1 AND {owned} AND NOT is_removed
           AND (job_queue, schedule_id) > ($3, $4)
         ORDER BY job_queue, schedule_id LIMIT $5"
    )))
    .bind(prefix)
    .bind(owner)
    .bind(after.0)
    .bind(after.1)
    .bind(limit)
    .fetch_all(view.connection())
    .await?;
    Ok(rows.into_iter().filter_map(Row::known).collect())
}

/// Redis has been told of this version, and shows the schedule so; none: it is gone there, and
/// here.
pub async fn set_told(
    record: &Record,
    prefix: &str,
    queue: &QueueName,
    id: &str,
    version: i64,
    shown: Option<&StoredSchedule>,
) -> Result<(), RecordError> {
    let sql = match shown {
        Some(_) => {
            "UPDATE bullwark.schedules SET is_told = true, is_removed = false, due_ms = $5,
               fields = $6
             WHERE prefix = $1 AND job_queue = $2 AND schedule_id = $3 AND version = $4"
        }
        None => {
            "DELETE FROM bullwark.schedules
             WHERE prefix = $1 AND job_queue = $2 AND schedule_id = $3 AND version = $4
               AND $5::bigint IS NULL AND $6::json IS NULL"
        }
    };
    sqlx::query(sql)
        .bind(prefix)
        .bind(queue.as_str())
        .bind(id)
        .bind(version)
        .bind(shown.and_then(|shown| shown.due_ms))
        .bind(shown.map(|shown| Json(&shown.fields)))
        .execute(&record.pool)
        .await?;
    Ok(())
}

/// Copies what Redis shows of schedules, each unless Bullwark has changed it since its version was
/// read; 0 for one that was not known. Returns how many were written.
pub async fn copy_many(
    record: &Record,
    prefix: &str,
    queue: &QueueName,
    schedules: &[(StoredSchedule, i64)],
) -> Result<u64, RecordError> {
    let done = sqlx::query(
        "INSERT INTO bullwark.schedules AS s (prefix, job_queue, schedule_id, due_ms, fields)
         SELECT $1, $2, u.id, u.due_ms, u.fields
         FROM unnest($3::text[], $4::bigint[], $5::json[]) AS u (id, due_ms, fields)
         ORDER BY u.id
         ON CONFLICT (prefix, job_queue, schedule_id) DO UPDATE
           SET due_ms = excluded.due_ms, fields = excluded.fields, changed_at = now()
           WHERE s.is_told AND s.version = (
             SELECT v.version FROM unnest($3::text[], $6::bigint[]) AS v (id, version)
             WHERE v.id = s.schedule_id)",
    )
    .bind(prefix)
    .bind(queue.as_str())
    .bind(
        schedules
            .iter()
            .map(|(s, _)| s.id.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(schedules.iter().map(|(s, _)| s.due_ms).collect::<Vec<_>>())
    .bind(
        schedules
            .iter()
            .map(|(s, _)| Json(&s.fields))
            .collect::<Vec<_>>(),
    )
    .bind(
        schedules
            .iter()
            .map(|(_, version)| *version)
            .collect::<Vec<_>>(),
    )
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets schedules that a client has removed, each unless Bullwark has changed it since.
pub async fn forget_many(
    record: &Record,
    prefix: &str,
    queue: &QueueName,
    gone: &[(String, i64)],
) -> Result<u64, RecordError> {
    let done = sqlx::query(
        "DELETE FROM bullwark.schedules s
         USING unnest($3::text[], $4::bigint[]) AS u (id, version)
         WHERE s.prefix = $1 AND s.job_queue = $2 AND s.schedule_id = u.id
           AND s.version = u.version AND s.is_told",
    )
    .bind(prefix)
    .bind(queue.as_str())
    .bind(gone.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>())
    .bind(gone.iter().map(|(_, version)| *version).collect::<Vec<_>>())
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected())
}
