//! Exports, and reports, whose files are kept alike: the run as a whole. One function per
//! statement.
//!
//! What may be exported and filtered by is in `columns` and `filter`; the rows are read by `read`.

pub mod columns;
pub mod filter;
pub mod read;

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::{Record, RecordError, Tx, View};

/// How long the file of an export is kept.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes of files that are kept for a workspace, those that are being written too.
pub const KEPT_BYTES_MAX: i64 = 20 * 1024 * 1024 * 1024;
/// Rows that one call of [`expire`] changes, and files that one call of [`living`] is asked about.
pub const BATCH: usize = 500;

/// What is known of an export before its first row.
#[derive(Debug, Clone)]
pub struct NewExport<'a> {
    pub id: Uuid,
    pub workspace_id: Option<Uuid>,
    pub entity_type: &'a str,
    pub format: &'a str,
    /// None: it is called after what it has and the day of the record.
    pub file_name: Option<&'a str>,
}

/// A file that is whole.
#[derive(Debug, Clone)]
pub struct Whole<'a> {
    pub rows: i64,
    pub bytes: i64,
    pub sha256: &'a str,
    /// None: it is in the data directory.
    pub object_key: Option<&'a str>,
}

/// An export whose file somebody may still want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Living {
    pub is_whole: bool,
    /// Of a whole one; none: it is in the data directory.
    pub object_key: Option<String>,
}

/// Writes down that a run begins. A later attempt of the same job goes on with the same row, and
/// with the name that the file has there, which is answered.
pub async fn start(tx: &mut Tx, export: &NewExport<'_>) -> Result<String, RecordError> {
    Ok(sqlx::query_scalar(
        "INSERT INTO exports (id, workspace_id, entity_type, format, file_name)
         VALUES ($1, $2, $3, $4, coalesce($5,
           $3 || to_char(now() AT TIME ZONE 'UTC', '-YYYY-MM-DD.') || $4))
         ON CONFLICT (id) DO UPDATE
         SET status = 'running', finished_at = NULL, sha256 = NULL, expires_at = NULL,
           object_key = NULL
         RETURNING file_name",
    )
    .bind(export.id)
    .bind(export.workspace_id)
    .bind(export.entity_type)
    .bind(export.format)
    .bind(export.file_name)
    .fetch_one(tx.connection())
    .await?)
}

/// Notes how far a run has come.
pub async fn advance(tx: &mut Tx, id: Uuid, rows: i64, bytes: i64) -> Result<(), RecordError> {
    sqlx::query("UPDATE exports SET rows = $2, bytes = $3 WHERE id = $1")
        .bind(id)
        .bind(rows)
        .bind(bytes)
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// Writes down that the file is whole; answers until when it is kept. Safe to repeat.
pub async fn finish(
    tx: &mut Tx,
    id: Uuid,
    whole: &Whole<'_>,
) -> Result<DateTime<Utc>, RecordError> {
    Ok(sqlx::query_scalar(
        "UPDATE exports
         SET status = 'completed', rows = $2, bytes = $3, sha256 = $4,
           finished_at = now(), expires_at = now() + $5 * interval '1 second', object_key = $6
         WHERE id = $1 RETURNING expires_at",
    )
    .bind(id)
    .bind(whole.rows)
    .bind(whole.bytes)
    .bind(whole.sha256)
    .bind(KEPT.as_secs_f64())
    .bind(whole.object_key)
    .fetch_one(tx.connection())
    .await?)
}

/// Says of an export that it will not go on; false: it had not begun.
pub async fn mark_failed(tx: &mut Tx, id: Uuid) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "UPDATE exports SET status = 'failed', finished_at = now()
         WHERE id = $1 AND status = 'running'",
    )
    .bind(id)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Says of a cancelled job's export that it is cancelled.
///
/// No attempt says this, the job's own status does: false when the job is not cancelled.
pub async fn mark_cancelled(record: &Record, id: Uuid) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "UPDATE exports e SET status = 'cancelled', finished_at = now()
         FROM jobs j
         WHERE e.id = $1 AND j.id = e.id AND e.status = 'running' AND j.status = 'cancelled'",
    )
    .bind(id)
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Says of files whose days are over that they are gone; at most [`BATCH`]. True: there may be
/// more.
pub async fn expire(record: &Record) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "UPDATE exports SET status = 'expired' WHERE id IN (
           SELECT id FROM exports WHERE status = 'completed' AND expires_at <= now()
           ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
    )
    .bind(BATCH as i64)
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected() == BATCH as u64)
}

/// Of these exports, those whose files somebody may still want: whole ones that have not expired,
/// and running ones of jobs that are not over. At most [`BATCH`] are looked at.
pub async fn living(record: &Record, ids: &[Uuid]) -> Result<HashMap<Uuid, Living>, RecordError> {
    let ids = &ids[..ids.len().min(BATCH)];
    let living: Vec<(Uuid, bool, Option<String>)> = sqlx::query_as(
        "SELECT e.id, e.status = 'completed', e.object_key
         FROM exports e JOIN jobs j ON j.id = e.id AND j.deleted_at IS NULL
         WHERE e.id = ANY($1) AND (
           e.status = 'completed' AND e.expires_at > now()
           OR e.status = 'running' AND j.status NOT IN ('dead_letter', 'cancelled'))",
    )
    .bind(ids)
    .fetch_all(&record.pool)
    .await?;
    let entry = |(id, is_whole, object_key)| {
        let living = Living {
            is_whole,
            object_key,
        };
        (id, living)
    };
    Ok(living.into_iter().map(entry).collect())
}

/// Bytes of the files that are kept for a workspace, those that are being written too; without
/// those of one export. `exports_kept` serves it.
async fn kept_bytes(
    executor: impl PgExecutor<'_>,
    (workspace_id, without): (Uuid, Option<Uuid>),
) -> Result<i64, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT coalesce(sum(e.bytes), 0)::bigint
         FROM exports e JOIN jobs j ON j.id = e.id AND j.deleted_at IS NULL
         WHERE e.workspace_id = $1 AND e.id IS DISTINCT FROM $2
           AND e.status IN ('running', 'completed') AND (
             e.status = 'completed' AND e.expires_at > now()
             OR e.status = 'running' AND j.status IN ('pending', 'processing', 'failed'))",
    )
    .bind(workspace_id)
    .bind(without)
    .fetch_one(executor)
    .await?)
}

/// What a workspace keeps, see [`KEPT_BYTES_MAX`].
pub async fn kept(view: &mut View, workspace_id: Uuid) -> Result<i64, RecordError> {
    kept_bytes(view.connection(), (workspace_id, None)).await
}

/// The same without one export, as a transaction sees it.
pub async fn kept_beside(tx: &mut Tx, workspace_id: Uuid, id: Uuid) -> Result<i64, RecordError> {
    kept_bytes(tx.connection(), (workspace_id, Some(id))).await
}

/// An export as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = Export))]
pub struct ExportRow {
    /// Of the job, too.
    pub id: Uuid,
    /// `accounts` or `contacts`; of a report, `pipeline`.
    pub entity_type: String,
    /// `csv`, `json`, `ndjson` or `xlsx`; of a report, `html` or `csv`.
    pub format: String,
    /// What the file is called; none before the first attempt.
    pub file_name: Option<String>,
    /// `pending`, `running`, `completed`, `failed`, `cancelled` or `expired`.
    pub status: String,
    /// Of the file, as far as it is written; of a report, its figures.
    pub rows: i64,
    pub bytes: i64,
    /// Of the whole file, in hexadecimal digits.
    pub sha256: Option<String>,
    pub created_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    /// Until when the file is kept.
    pub expires_at: Option<DateTime<Utc>>,
    /// Where the file is in the bucket; none: in the data directory. Nobody is shown it.
    #[serde(skip)]
    #[cfg_attr(feature = "server", schema(ignore))]
    pub object_key: Option<String>,
}

/// The job is asked how it stands: an export that ran out of attempts is told by its job alone.
macro_rules! shown {
    ($exports:literal) => {
        concat!(
            "SELECT j.id, coalesce(e.entity_type,
                 CASE j.job_type WHEN 'generate_report' THEN 'pipeline' END,
                 j.payload ->> 'entity_type', '') AS entity_type,
               coalesce(e.format, nullif(j.payload ->> 'format', 'excel'),
                 CASE j.job_type WHEN 'generate_report' THEN 'html' END,
                 CASE j.payload ->> 'format' WHEN 'excel' THEN 'xlsx' ELSE 'csv' END) AS format,
               e.file_name,
               CASE
                 WHEN e.status = 'completed' AND e.expires_at <= now() THEN 'expired'
                 WHEN e.status IN ('completed', 'expired') THEN e.status
                 WHEN j.status = 'cancelled' THEN 'cancelled'
                 WHEN j.status = 'dead_letter' THEN 'failed'
                 WHEN e.id IS NULL THEN 'pending'
                 ELSE 'running'
               END AS status,
               coalesce(e.rows, 0) AS rows, coalesce(e.bytes, 0) AS bytes, e.sha256,
               coalesce(e.created_at, j.created_at) AS created_at, e.finished_at, e.expires_at,
               e.object_key
             FROM ",
            $exports,
            " AND j.deleted_at IS NULL "
        )
    };
}

/// Exports of a workspace that have begun, newest first, those before `before` only.
/// `exports_workspace` serves it.
pub async fn page(
    view: &mut View,
    workspace_id: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ExportRow>, RecordError> {
    let mut query = sqlx::QueryBuilder::new(shown!("exports e JOIN jobs j ON j.id = e.id"));
    query.push("WHERE e.workspace_id = ");
    query.push_bind(workspace_id);
    if let Some(before) = before {
        query.push(" AND e.id < ").push_bind(before);
    }
    query.push(" ORDER BY e.id DESC LIMIT ").push_bind(limit);
    let query = query.build_query_as();
    Ok(query.fetch_all(view.connection()).await?)
}

/// One export of a workspace, also one that has not begun.
pub async fn get(
    view: &mut View,
    workspace_id: Uuid,
    id: Uuid,
) -> Result<Option<ExportRow>, RecordError> {
    Ok(sqlx::query_as(concat!(
        shown!("jobs j LEFT JOIN exports e ON e.id = j.id WHERE j.id = $2"),
        "AND j.workspace_id = $1
         AND j.job_type IN ('export_data', 'export_csv', 'generate_report')"
    ))
    .bind(workspace_id)
    .bind(id)
    .fetch_optional(view.connection())
    .await?)
}
