//! Imports: the run as a whole, and what the error report needs. One function per statement.
//!
//! The rows themselves are written by [`super::import_chunk`].

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{Record, RecordError, Tx, View};

/// Most rejected rows that [`list_rejected`] reads at once.
pub const REJECTED_PAGE_MAX: i64 = 500;

/// What is known about a file before its first row.
#[derive(Debug, Clone)]
pub struct NewImport {
    pub id: Uuid,
    pub workspace_id: Option<Uuid>,
    pub entity_type: &'static str,
    pub file_name: Option<String>,
    pub sha256: String,
    pub bytes: i64,
    pub dry_run: bool,
    pub total: i64,
    pub encoding: &'static str,
    pub delimiter: &'static str,
    pub header_mapping: serde_json::Value,
    /// The template that the mapping is from, with the mapping.
    pub template: Option<serde_json::Value>,
    /// The kinds of the custom fields that it fills.
    pub custom_fields: serde_json::Value,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportStatus {
    Running,
    Completed,
    CompletedWithErrors,
    Failed,
    Cancelled,
}

impl ImportStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::CompletedWithErrors => "completed_with_errors",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The counters of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct ImportCounts {
    pub total: i64,
    pub processed: i64,
    pub inserted: i64,
    pub updated: i64,
    pub unchanged: i64,
    pub skipped: i64,
    pub failed: i64,
    pub by_code: serde_json::Value,
}

/// A row that was not taken over, as the error report shows it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct RejectedRow {
    pub row_no: i64,
    pub outcome: String,
    pub code: Option<String>,
    pub column_name: Option<String>,
    pub message: Option<String>,
    pub suggestion: Option<String>,
    pub raw: Vec<u8>,
    pub raw_columns: i32,
}

/// Writes down that a run begins. False: it was undone, or is to be, and does not go on.
///
/// A later attempt of the same job goes on with the same row and its counters; what the attempt has
/// found out about the file is written again.
pub async fn start(tx: &mut Tx, import: &NewImport) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "INSERT INTO imports (id, workspace_id, entity_type, file_name, sha256, bytes, dry_run,
           total, encoding, delimiter, header_mapping, template,
           custom_fields)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (id) DO UPDATE
         SET status = 'running', finished_at = NULL, total = $8, encoding = $9, delimiter = $10,
           header_mapping = $11, template = $12, custom_fields = $13
         WHERE imports.undo_asked_at IS NULL",
    )
    .bind(import.id)
    .bind(import.workspace_id)
    .bind(import.entity_type)
    .bind(&import.file_name)
    .bind(&import.sha256)
    .bind(import.bytes)
    .bind(import.dry_run)
    .bind(import.total)
    .bind(import.encoding)
    .bind(import.delimiter)
    .bind(&import.header_mapping)
    .bind(&import.template)
    .bind(&import.custom_fields)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The template with which an import began, if it was one, and the kinds of its custom fields.
pub async fn pinned(record: &Record, id: Uuid) -> Result<Option<Pinned>, RecordError> {
    Ok(
        sqlx::query_as("SELECT template, custom_fields FROM imports WHERE id = $1")
            .bind(id)
            .fetch_optional(&record.pool)
            .await?,
    )
}

/// See [`pinned`].
pub type Pinned = (Option<serde_json::Value>, Option<serde_json::Value>);

/// The newest earlier import of the very same bytes into the same kind of record, if there is one.
pub async fn find_same_file(tx: &mut Tx, import: &NewImport) -> Result<Option<Uuid>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT id FROM imports
         WHERE workspace_id IS NOT DISTINCT FROM $1 AND sha256 = $2 AND entity_type = $3
           AND id < $4 AND NOT dry_run AND undo_asked_at IS NULL
           AND status IN ('completed', 'completed_with_errors')
         ORDER BY id DESC LIMIT 1",
    )
    .bind(import.workspace_id)
    .bind(&import.sha256)
    .bind(import.entity_type)
    .bind(import.id)
    .fetch_optional(tx.connection())
    .await?)
}

/// The counters as the last committed chunk left them; nothing when the import never began.
pub async fn find_counts(tx: &mut Tx, id: Uuid) -> Result<Option<ImportCounts>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT total, processed, inserted, updated, unchanged, skipped, failed, by_code
         FROM imports WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(tx.connection())
    .await?)
}

/// The counters of an import that has begun.
pub async fn counts(tx: &mut Tx, id: Uuid) -> Result<ImportCounts, RecordError> {
    let found = find_counts(tx, id).await?;
    found.ok_or_else(|| RecordError::Corrupt(format!("import {id} is gone")))
}

/// Writes down how a run ended. Safe to repeat; one that is undone has ended before.
pub async fn finish(
    tx: &mut Tx,
    id: Uuid,
    status: ImportStatus,
    warnings: &serde_json::Value,
    report_path: Option<&str>,
) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE imports
         SET status = $2, warnings = $3, report_path = $4, finished_at = now()
         WHERE id = $1 AND undo_asked_at IS NULL",
    )
    .bind(id)
    .bind(status.as_str())
    .bind(warnings)
    .bind(report_path)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Says of a cancelled job's import that it is cancelled; what is committed stays and is counted.
///
/// No attempt says this, the job's own status does: false when the job is not cancelled.
pub async fn mark_cancelled(record: &Record, id: Uuid) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "UPDATE imports i SET status = 'cancelled', finished_at = now()
         FROM jobs j
         WHERE i.id = $1 AND j.id = i.id AND i.status = 'running' AND j.status = 'cancelled'",
    )
    .bind(id)
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Rejected rows behind `after`, in the order of the file. One pass over the run's rows in all,
/// however few of them are rejected.
pub async fn list_rejected(
    record: &Record,
    id: Uuid,
    after: i64,
) -> Result<Vec<RejectedRow>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT row_no, outcome, code, column_name, message, suggestion, raw, raw_columns
         FROM import_rows
         WHERE import_id = $1 AND row_no > $2 AND raw IS NOT NULL
         ORDER BY row_no
         LIMIT $3",
    )
    .bind(id)
    .bind(after)
    .bind(REJECTED_PAGE_MAX)
    .fetch_all(&record.pool)
    .await?)
}

/// An import as lists show it.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = Import))]
pub struct ImportRow {
    /// Of the job, too.
    pub id: Uuid,
    pub entity_type: String,
    pub file_name: Option<String>,
    pub sha256: String,
    pub bytes: i64,
    /// `running`, `completed`, `completed_with_errors`, `failed` or `cancelled`.
    pub status: String,
    pub dry_run: bool,
    pub total: i64,
    pub processed: i64,
    pub inserted: i64,
    pub updated: i64,
    pub unchanged: i64,
    pub skipped: i64,
    pub failed: i64,
    /// Rows that were not taken over, per code.
    pub by_code: serde_json::Value,
    pub encoding: String,
    pub delimiter: String,
    /// Header, field and reason of every column.
    pub header_mapping: serde_json::Value,
    /// Id and name of the template that the mapping is from, if it is not from the payload.
    #[cfg_attr(feature = "server", schema(value_type = Option<Object>))]
    pub template: Option<serde_json::Value>,
    /// There is an error report: `GET /api/jobs/{id}/report`.
    pub has_report: bool,
    pub created_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    /// When an admin asked for it to be undone.
    pub undo_asked_at: Option<DateTime<Utc>>,
    /// The job that does it, once it has begun.
    pub undo_job_id: Option<Uuid>,
    /// Of the records that it created, those that were removed.
    pub undo_removed: i64,
    /// Those that stay: somebody had changed them since.
    pub undo_changed: i64,
    /// Those that stay: accounts that have contacts.
    pub undo_in_use: i64,
    pub undone_at: Option<DateTime<Utc>>,
}

const SHOWN: &str = "SELECT i.id, i.entity_type, i.file_name, i.sha256, i.bytes, i.status,
  i.dry_run, i.total, i.processed, i.inserted, i.updated, i.unchanged, i.skipped, i.failed,
  i.by_code, i.encoding, i.delimiter, i.header_mapping,
  i.template - '{mapping,fingerprint}'::text[] AS template,
  i.report_path IS NOT NULL AS has_report,
  i.created_at, i.finished_at, i.undo_asked_at, i.undo_job_id, i.undo_removed, i.undo_changed,
  i.undo_in_use, i.undone_at
  FROM imports i JOIN jobs j ON j.id = i.id AND j.deleted_at IS NULL WHERE i.workspace_id = ";

/// Imports of a workspace, newest first, those before `before` only. `imports_workspace` serves it.
pub async fn page(
    view: &mut View,
    workspace_id: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ImportRow>, RecordError> {
    let mut query = sqlx::QueryBuilder::new(SHOWN);
    query.push_bind(workspace_id);
    if let Some(before) = before {
        query.push(" AND i.id < ").push_bind(before);
    }
    query.push(" ORDER BY i.id DESC LIMIT ").push_bind(limit);
    let query = query.build_query_as();
    Ok(query.fetch_all(view.connection()).await?)
}

/// One import of a workspace.
pub async fn get(
    view: &mut View,
    workspace_id: Uuid,
    id: Uuid,
) -> Result<Option<ImportRow>, RecordError> {
    let mut query = sqlx::QueryBuilder::new(SHOWN);
    query
        .push_bind(workspace_id)
        .push(" AND i.id = ")
        .push_bind(id);
    let query = query.build_query_as();
    Ok(query.fetch_optional(view.connection()).await?)
}
