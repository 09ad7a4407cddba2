//! Imports and exports of a span, by kind and end. A run belongs to the time when it was asked for,
//! which its id tells: both are found by their indexes of workspace and id.

use uuid::Uuid;

use crate::job::period::Span;
use crate::record::open::first_id_at;
use crate::record::{RecordError, View};

/// Runs that are looked at, the newest ones.
const RUNS_MAX: i64 = 100_000;

/// Imports of one kind that ended alike. Dry runs are not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct ImportSum {
    pub entity_type: String,
    pub status: String,
    pub runs: i64,
    pub processed: i64,
    pub inserted: i64,
    pub updated: i64,
    pub unchanged: i64,
    pub skipped: i64,
    pub failed: i64,
}

impl ImportSum {
    /// Rows that met one that was there.
    pub fn matched(&self) -> i64 {
        self.updated + self.unchanged
    }
}

/// Exports of one kind and format that ended alike. Reports are not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct ExportSum {
    pub entity_type: String,
    pub format: String,
    pub status: String,
    pub files: i64,
    pub rows: i64,
    pub bytes: i64,
}

pub(super) async fn imports(
    view: &mut View,
    workspace_id: Uuid,
    span: Span,
) -> Result<Vec<ImportSum>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT entity_type, status, count(*) AS runs, sum(processed)::bigint AS processed,
           sum(inserted)::bigint AS inserted, sum(updated)::bigint AS updated,
           sum(unchanged)::bigint AS unchanged, sum(skipped)::bigint AS skipped,
           sum(failed)::bigint AS failed
         FROM (SELECT * FROM imports WHERE workspace_id = $1 AND id >= $2 AND id < $3
               ORDER BY id DESC LIMIT $4) looked_at
         WHERE NOT dry_run GROUP BY entity_type, status ORDER BY entity_type, status",
    )
    .bind(workspace_id)
    .bind(first_id_at(span.from))
    .bind(first_id_at(span.to))
    .bind(RUNS_MAX)
    .fetch_all(view.connection())
    .await?)
}

pub(super) async fn exports(
    view: &mut View,
    workspace_id: Uuid,
    span: Span,
) -> Result<Vec<ExportSum>, RecordError> {
    // Whether the file is still there is nothing that the export did.
    Ok(sqlx::query_as(
        "SELECT entity_type, format,
           CASE status WHEN 'expired' THEN 'completed' ELSE status END AS status,
           count(*) AS files, sum(rows)::bigint AS rows, sum(bytes)::bigint AS bytes
         FROM (SELECT * FROM exports WHERE workspace_id = $1 AND id >= $2 AND id < $3
               ORDER BY id DESC LIMIT $4) looked_at
         WHERE entity_type <> 'pipeline' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    )
    .bind(workspace_id)
    .bind(first_id_at(span.from))
    .bind(first_id_at(span.to))
    .bind(RUNS_MAX)
    .fetch_all(view.connection())
    .await?)
}
