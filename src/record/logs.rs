//! `job_logs`: what jobs, and the machinery around them, had to say.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{Record, RecordError, View};

/// The most lines of one page.
pub const LOG_PAGE_MAX: i64 = 1000;
/// The most lines of one statement.
pub const LOG_BATCH_MAX: usize = 500;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// A line that an attempt writes.
#[derive(Debug, Clone)]
pub struct NewLog {
    pub job_id: Uuid,
    /// The attempt that says it; 0 for the machinery, which is not fenced.
    pub attempt: i32,
    pub level: LogLevel,
    pub message: String,
    pub metadata: Option<serde_json::Value>,
}

/// A line as it stands in the record.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = LogLine))]
pub struct LogRow {
    pub id: Uuid,
    pub log_level: String,
    pub message: String,
    pub metadata: Option<serde_json::Value>,
    pub created_at: Option<DateTime<Utc>>,
}

/// Writes lines. Lines of an attempt that a newer one has replaced, or of a job that was cancelled
/// or deleted, are dropped. Returns the positions of those that were written.
pub async fn insert_many(record: &Record, lines: &[NewLog]) -> Result<Vec<usize>, RecordError> {
    debug_assert!(lines.len() <= LOG_BATCH_MAX);
    let written: Vec<i64> = sqlx::query_scalar(
        // A microsecond apart: they are read by time, and come in this order.
        "WITH said AS (
           SELECT u.*
           FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::jsonb[]) WITH ORDINALITY
             AS u (job_id, attempt, level, message, metadata, n)
           JOIN jobs j ON j.id = u.job_id
           WHERE j.deleted_at IS NULL
             AND (u.attempt = 0 OR (j.attempt <= u.attempt AND j.status <> 'cancelled'))
         ), written AS (
           INSERT INTO job_logs (job_id, log_level, message, metadata, created_at)
           SELECT job_id, level, message, metadata, now() + n * interval '1 microsecond'
           FROM said
         )
         SELECT n FROM said ORDER BY n",
    )
    .bind(lines.iter().map(|l| l.job_id).collect::<Vec<_>>())
    .bind(lines.iter().map(|l| l.attempt).collect::<Vec<_>>())
    .bind(lines.iter().map(|l| l.level.as_str()).collect::<Vec<_>>())
    .bind(
        lines
            .iter()
            .map(|l| l.message.replace('\0', "\u{fffd}"))
            .collect::<Vec<_>>(),
    )
    .bind(lines.iter().map(|l| l.metadata.clone()).collect::<Vec<_>>())
    .fetch_all(&record.pool)
    .await?;
    let position = |n: i64| usize::try_from(n - 1).ok();
    Ok(written.into_iter().filter_map(position).collect())
}

/// The newest lines of a job, oldest of them first.
pub async fn of_job(view: &mut View, job_id: Uuid, limit: i64) -> Result<Vec<LogRow>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT * FROM (
           SELECT id, log_level, message, metadata, created_at FROM job_logs
           WHERE job_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2
         ) newest ORDER BY created_at, id",
    )
    .bind(job_id)
    .bind(limit.clamp(1, LOG_PAGE_MAX))
    .fetch_all(view.connection())
    .await?)
}
