//! One attempt of an import: begins it, says how it gets on, ends it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::choices::header_mapping;
use super::payload::ImportCsv;
use super::prepare::Prepared;
use super::summary::{self, Checkpoint};
use crate::handlers::ending::record_error;
use crate::job::{JobError, Progress};
use crate::record::import_chunk::RejectedRow;
use crate::record::imports::{self, ImportCounts, NewImport};
use crate::record::logs::LogLevel;
use crate::worker::JobContext;

/// Rejected rows that are written into the job's log, one line each.
const LOGGED_ROWS_MAX: u64 = 100;

/// One attempt under way.
pub(super) struct Import<'a> {
    pub(super) ctx: &'a JobContext,
    pub(super) payload: &'a ImportCsv,
    pub(super) prepared: &'a Prepared,
    pub(super) begun_at_row: u64,
    /// As the record has them.
    counts: Mutex<ImportCounts>,
    /// Rows that are written and not committed.
    pub(super) uncommitted: AtomicU64,
    logged_rows: AtomicU64,
}

impl<'a> Import<'a> {
    pub(super) fn new(
        ctx: &'a JobContext,
        payload: &'a ImportCsv,
        prepared: &'a Prepared,
        begun_at_row: u64,
    ) -> Self {
        Self {
            ctx,
            payload,
            prepared,
            begun_at_row,
            counts: Mutex::default(),
            uncommitted: AtomicU64::new(0),
            logged_rows: AtomicU64::new(0),
        }
    }

    pub(super) fn counts(&self) -> ImportCounts {
        self.held_counts().clone()
    }

    /// Returns those of before.
    pub(super) fn set_counts(&self, counts: ImportCounts) -> ImportCounts {
        std::mem::replace(&mut *self.held_counts(), counts)
    }

    fn held_counts(&self) -> MutexGuard<'_, ImportCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down that the run begins, or goes on; finds an earlier import of the same bytes.
    pub(super) async fn start(
        &self,
        from: &Checkpoint,
        is_resumed: bool,
        file_name: Option<String>,
    ) -> Result<Option<Uuid>, JobError> {
        let prepared = self.prepared;
        let import = NewImport {
            id: self.ctx.job_id(),
            workspace_id: self.ctx.workspace_id(),
            entity_type: self.payload.entity_type.as_str(),
            file_name,
            sha256: prepared.sha256.clone(),
            bytes: prepared.bytes.cast_signed(),
            dry_run: self.payload.options.dry_run,
            total: prepared.census.rows.cast_signed(),
            encoding: prepared.text.encoding,
            delimiter: prepared.dialect.delimiter_name(),
            header_mapping: header_mapping(self.payload.entity_type, prepared),
            template: prepared.template.as_ref().map(|template| json!(template)),
            custom_fields: json!(prepared.mapping.kinds),
        };
        let mut begun = self.ctx.begin_checkpoint().await?;
        let is_begun = imports::start(begun.tx(), &import).await;
        if !is_begun.map_err(record_error)? {
            let why = "the import was undone; import the file again as a new job";
            return Err(JobError::Permanent(why.to_owned()));
        }
        let same_file = imports::find_same_file(begun.tx(), &import)
            .await
            .map_err(record_error)?;
        let counts = imports::counts(begun.tx(), import.id).await;
        self.set_counts(counts.map_err(record_error)?);
        begun
            .commit_without_gain(json!(from), self.progress())
            .await?;
        let metadata = json!({
            "rows": prepared.census.rows, "bytes": prepared.bytes, "sha256": prepared.sha256,
            "encoding": prepared.text.encoding, "delimiter": prepared.dialect.delimiter_name(),
            "header_line": prepared.dialect.header.line, "mapping": import.header_mapping,
            "template": prepared.template.as_ref().map(|template| &template.name),
        });
        let rows = prepared.census.rows;
        let message = match is_resumed {
            false => format!("{rows} rows to import"),
            true => format!("goes on behind row {} of {rows}", from.position.row),
        };
        self.ctx.log(LogLevel::Info, &message, Some(metadata));
        Ok(same_file)
    }

    /// Rows that are written and not committed count as processed.
    pub(super) fn progress(&self) -> Progress {
        self.progress_with(self.uncommitted.load(Ordering::Relaxed))
    }

    /// What a commit says: no row of a chunk that is ahead of it.
    pub(super) fn committed(&self) -> Progress {
        self.progress_with(0)
    }

    fn progress_with(&self, written: u64) -> Progress {
        let counts = self.counts();
        let total = counts.total.unsigned_abs();
        let processed = (counts.processed.unsigned_abs() + written).min(total);
        let failed = (counts.failed + counts.skipped).unsigned_abs();
        Progress::new(
            total,
            processed,
            failed,
            format!("Processing row {processed}/{total}"),
        )
    }

    pub(super) fn log_rejected(&self, rejected: &[RejectedRow]) {
        let before = self
            .logged_rows
            .fetch_add(rejected.len() as u64, Ordering::Relaxed);
        for (number, row) in (before..).zip(rejected) {
            if number == LOGGED_ROWS_MAX {
                let message = "more rows are rejected; the error report lists all of them";
                self.ctx.log(LogLevel::Warn, message, None);
            }
            if number >= LOGGED_ROWS_MAX {
                return;
            }
            let metadata = json!({
                "row": row.place.row_no, "line": row.place.line_no, "code": row.code,
                "column": row.column, "suggestion": row.suggestion,
            });
            let message = format!("row {}: {}", row.place.row_no, row.message);
            self.ctx.log(LogLevel::Warn, &message, Some(metadata));
        }
    }

    /// Why the attempt stops before the end. A shutdown or a time limit only interrupts it: the
    /// next one goes on behind the last chunk, and if this one got anywhere it spends no retry.
    /// When the job was cancelled, the fence of the next checkpoint would say so; ask it here.
    pub(super) async fn interrupted(&self, at: &Checkpoint) -> JobError {
        if let Err(JobError::LeaseLost) = self.ctx.begin_checkpoint().await {
            return JobError::LeaseLost;
        }
        let row = at.position.row;
        let message = format!("interrupted behind row {row} of {}", self.counts().total);
        if row > self.begun_at_row {
            JobError::Snooze(Duration::from_secs(1), message)
        } else {
            JobError::Retry(message)
        }
    }

    /// The last commit: how the run ended.
    pub(super) async fn finish(
        &self,
        end: &Checkpoint,
        report: Option<&str>,
    ) -> Result<(), JobError> {
        let mut begun = self.ctx.begin_checkpoint().await?;
        let id = self.ctx.job_id();
        let counts = imports::counts(begun.tx(), id).await;
        let counts = counts.map_err(record_error)?;
        let status = summary::status_of(&counts);
        let rows = counts.processed;
        self.set_counts(counts);
        imports::finish(begun.tx(), id, status, &json!(end.warnings), report)
            .await
            .map_err(record_error)?;
        let mut progress = self.progress();
        progress.message = format!("Processed {rows} rows");
        begun.commit(json!(end), progress).await
    }
}
