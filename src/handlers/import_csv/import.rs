//! One attempt of an import under way: begins it, writes its chunks, ends it.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::choices::{header_mapping, number_format, on_existing};
use super::chunks::{self, Start, Work};
use super::payload::ImportCsv;
use super::prepare::Prepared;
use super::summary::{self, Checkpoint};
use super::validate::Validator;
use crate::handlers::ending::record_error;
use crate::job::{JobError, Progress};
use crate::record::import_chunk::{self, ChunkOptions};
use crate::record::imports::{self, ImportCounts, NewImport};
use crate::record::logs::LogLevel;
use crate::worker::JobContext;

/// Times that a chunk is tried again before the attempt gives up.
const CHUNK_RETRIES: u32 = 5;
/// The wait before the first of them; it doubles.
const CHUNK_RETRY_DELAY: Duration = Duration::from_millis(200);
/// Rejected rows that are written into the job's log, one line each.
const LOGGED_ROWS_MAX: u64 = 100;

/// One attempt under way.
pub(super) struct Import<'a> {
    pub(super) ctx: &'a JobContext,
    pub(super) payload: &'a ImportCsv,
    pub(super) prepared: &'a Prepared,
    /// As the record has them.
    pub(super) counts: ImportCounts,
    pub(super) begun_at_row: u64,
    pub(super) logged_rows: u64,
}

impl Import<'_> {
    /// Writes down that the run begins, or goes on; finds an earlier import of the same bytes.
    pub(super) async fn start(
        &mut self,
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
        self.counts = imports::counts(begun.tx(), import.id)
            .await
            .map_err(record_error)?;
        let progress = self.progress(0);
        begun.commit_without_gain(json!(from), progress).await?;
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

    /// Writes chunk after chunk, from where `from` stands to the end of the file.
    pub(super) async fn write_chunks(&mut self, from: Checkpoint) -> Result<Checkpoint, JobError> {
        let payload = self.payload;
        let validator = Validator::new(
            payload.entity_type,
            &self.prepared.mapping,
            number_format(payload, &self.prepared.dialect),
            payload.options.default_country.as_deref(),
        );
        let batch_size = payload.options.batch_size as usize;
        let start = Start {
            position: from.position,
            warnings: from.warnings,
        };
        let mut chunks = chunks::read_chunks(
            self.prepared,
            validator,
            payload.entity_type,
            batch_size,
            start,
        );
        let options = ChunkOptions {
            import_id: self.ctx.job_id(),
            workspace_id: self.ctx.workspace_id(),
            on_existing: on_existing(payload, self.prepared),
            batch_size,
            dry_run: payload.options.dry_run,
        };
        let mut at = from;
        while let Some(work) = chunks.recv().await {
            let work = work.map_err(JobError::permanent)?;
            if self.ctx.cancelled().is_cancelled() {
                return Err(self.interrupted(&at).await);
            }
            let checkpoint = Checkpoint::new(self.prepared, work.next, work.warnings, false);
            self.write_chunk(&options, &work, &checkpoint).await?;
            self.log_rejected(&work);
            at = checkpoint;
        }
        if at.position.row < self.prepared.census.rows {
            // The thread that reads ended without an error and without the end of the file.
            return Err(JobError::Retry(
                "reading the file stopped half-way".to_owned(),
            ));
        }
        at.is_read = true;
        Ok(at)
    }

    /// Commits a chunk; tries again when the record is away or another transaction was in the way.
    async fn write_chunk(
        &mut self,
        options: &ChunkOptions,
        work: &Work,
        checkpoint: &Checkpoint,
    ) -> Result<(), JobError> {
        let mut delay = CHUNK_RETRY_DELAY;
        for retry in 0..=CHUNK_RETRIES {
            match self.try_chunk(options, work, checkpoint).await {
                Err(JobError::Retry(message)) if retry < CHUNK_RETRIES => {
                    let metadata = json!({"row": work.next.row, "error": message});
                    self.ctx
                        .log(LogLevel::Warn, "a chunk is tried again", Some(metadata));
                    tokio::select! {
                        () = tokio::time::sleep(delay) => delay *= 2,
                        () = self.ctx.cancelled().cancelled() => {
                            return Err(JobError::Retry(message));
                        }
                    }
                }
                other => return other,
            }
        }
        Ok(())
    }

    async fn try_chunk(
        &mut self,
        options: &ChunkOptions,
        work: &Work,
        checkpoint: &Checkpoint,
    ) -> Result<(), JobError> {
        let mut begun = self.ctx.begin_checkpoint().await?;
        let mut shown = 0;
        let on_batch = |rows: usize| {
            shown += rows as u64;
            self.ctx.progress(self.progress(shown));
        };
        import_chunk::apply(begun.tx(), options, &work.chunk, on_batch)
            .await
            .map_err(record_error)?;
        // Read back instead of added up: a chunk whose commit went through unseen is not counted
        // twice.
        let counts = imports::counts(begun.tx(), options.import_id)
            .await
            .map_err(record_error)?;
        let before = std::mem::replace(&mut self.counts, counts);
        let committed = begun.commit(json!(checkpoint), self.progress(0)).await;
        if committed.is_err() {
            self.counts = before;
        }
        committed
    }

    /// `written` rows of the chunk under way count as processed.
    fn progress(&self, written: u64) -> Progress {
        let counts = &self.counts;
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

    fn log_rejected(&mut self, work: &Work) {
        for row in &work.chunk.rejected {
            if self.logged_rows == LOGGED_ROWS_MAX {
                let message = "more rows are rejected; the error report lists all of them";
                self.ctx.log(LogLevel::Warn, message, None);
            }
            self.logged_rows += 1;
            if self.logged_rows <= LOGGED_ROWS_MAX {
                let metadata = json!({
                    "row": row.place.row_no, "line": row.place.line_no, "code": row.code,
                    "column": row.column, "suggestion": row.suggestion,
                });
                let message = format!("row {}: {}", row.place.row_no, row.message);
                self.ctx.log(LogLevel::Warn, &message, Some(metadata));
            }
        }
    }

    /// Why the attempt stops before the end. A shutdown or a time limit only interrupts it: the
    /// next one goes on behind the last chunk, and if this one got anywhere it spends no retry.
    /// When the job was cancelled, the fence of the next checkpoint would say so; ask it here.
    async fn interrupted(&self, at: &Checkpoint) -> JobError {
        if let Err(JobError::LeaseLost) = self.ctx.begin_checkpoint().await {
            return JobError::LeaseLost;
        }
        let row = at.position.row;
        let message = format!("interrupted behind row {row} of {}", self.counts.total);
        if row > self.begun_at_row {
            JobError::Snooze(Duration::from_secs(1), message)
        } else {
            JobError::Retry(message)
        }
    }

    /// The last commit: how the run ended.
    pub(super) async fn finish(
        &mut self,
        end: &Checkpoint,
        report: Option<&str>,
    ) -> Result<(), JobError> {
        let mut begun = self.ctx.begin_checkpoint().await?;
        let id = self.ctx.job_id();
        self.counts = imports::counts(begun.tx(), id)
            .await
            .map_err(record_error)?;
        let status = summary::status_of(&self.counts);
        imports::finish(begun.tx(), id, status, &json!(end.warnings), report)
            .await
            .map_err(record_error)?;
        let mut progress = self.progress(0);
        progress.message = format!("Processed {} rows", self.counts.processed);
        begun.commit(json!(end), progress).await
    }
}
