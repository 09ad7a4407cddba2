//! One attempt of an import, from the address of the file to the summary.
//!
//! Where it may die, and what the next attempt finds:
//!
//! | between | finds | does |
//! |---|---|---|
//! | start and first commit | no checkpoint | begins anew; nothing was written |
//! | two chunks | the checkpoint behind the last committed chunk | goes on with the next row |
//! | a commit and its answer | the same, or one chunk more | repeats the chunk: its rows have a fate |
//! | last chunk and summary | a checkpoint that says "all read" | writes report and summary |
//! | report and last commit | a finished report | writes it again; same rows, same bytes |
//!
//! The file itself is fetched and decoded again by each attempt, on whatever machine it runs: both
//! are deterministic, and checksum and dialect are compared before a byte offset is trusted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::cells::Warnings;
use super::chunks::{self, Start, Work};
use super::fields;
use super::mapping::Target;
use super::payload::{EmptyValues, EntityType, ImportCsv, NumberFormat, UpdatePolicy};
use super::prepare::{PrepareError, Prepared, prepare};
use super::report_file;
use super::source::{self, SourceError, SourceOptions};
use super::summary::{self, Checkpoint, Ending, Summary};
use super::validate::Validator;
use crate::job::{JobError, Progress};
use crate::record::RecordError;
use crate::record::import_chunk::{self, ChunkOptions, OnExisting};
use crate::record::imports::{self, ImportCounts, ImportStatus, NewImport};
use crate::record::logs::LogLevel;
use crate::record::merge::Merge;
use crate::worker::JobContext;

/// Times that a chunk is tried again before the attempt gives up.
const CHUNK_RETRIES: u32 = 5;
/// The wait before the first of them; it doubles.
const CHUNK_RETRY_DELAY: Duration = Duration::from_millis(200);
/// Rejected rows that are written into the job's log, one line each.
const LOGGED_ROWS_MAX: u64 = 100;

/// Runs an import to its end, or says how the job goes on.
pub(super) async fn run(
    ctx: &JobContext,
    payload: &ImportCsv,
    options: &SourceOptions,
) -> Result<Summary, JobError> {
    let ended = run_attempt(ctx, payload, options).await;
    match &ended {
        // Whoever took the lease writes from here on; only a cancelled job has nobody left to say
        // so.
        Err(JobError::LeaseLost) => {
            imports::mark_cancelled(ctx.record(), ctx.job_id())
                .await
                .map_err(record_error)?;
        }
        Err(JobError::Permanent(_)) => mark_failed(ctx).await?,
        Ok(_) | Err(JobError::Retry(_) | JobError::RetryAfter(..) | JobError::Snooze(..)) => {}
    }
    ended
}

/// Says of the import, if it had begun, that it will not go on.
async fn mark_failed(ctx: &JobContext) -> Result<(), JobError> {
    let mut step = ctx.begin_step().await?;
    let id = ctx.job_id();
    if let Some(counts) = imports::find_counts(step.tx(), id)
        .await
        .map_err(record_error)?
    {
        imports::finish(step.tx(), id, ImportStatus::Failed, &json!({}), None)
            .await
            .map_err(record_error)?;
        let (total, processed) = (counts.total.unsigned_abs(), counts.processed.unsigned_abs());
        let message = format!("stopped behind row {processed} of {total}");
        let progress = Progress::new(total, processed, counts.failed.unsigned_abs(), message);
        let checkpoint = ctx.checkpoint().cloned().unwrap_or_default();
        step.commit(checkpoint, progress).await?;
    }
    Ok(())
}

async fn run_attempt(
    ctx: &JobContext,
    payload: &ImportCsv,
    options: &SourceOptions,
) -> Result<Summary, JobError> {
    payload.check().map_err(JobError::permanent)?;
    let begun = Instant::now();
    let spool = Spool::create(options.data_dir.join("work").join(ctx.job_id().to_string()))?;
    let file = source::open(&payload.file_url, options, &spool.path, ctx.cancelled())
        .await
        .map_err(source_error)?;
    let prepared = look_at(ctx, payload, file.path.clone(), &spool.path).await?;
    let earlier = earlier_checkpoint(ctx, &prepared)?;
    let begin = Checkpoint::new(&prepared, prepared.first, Warnings::default(), false);
    let is_resumed = earlier.is_some();
    let from = earlier.unwrap_or(begin);
    let file_name = payload.file_name.clone().or(file.name);
    let mut import = Import {
        ctx,
        payload,
        prepared: &prepared,
        counts: ImportCounts::default(),
        begun_at_row: from.position.row,
        logged_rows: 0,
    };
    let same_file = import.start(&from, is_resumed, file_name.clone()).await?;
    let end = if from.is_read {
        from
    } else {
        import.write_chunks(from).await?
    };
    let mut warnings = summary::sentences(&end.warnings, &prepared);
    if let Some(id) = same_file {
        warnings.push(format!("the same file was imported before, as {id}"));
    }
    let bom = payload.options.report_bom;
    let report = report_file::write(
        ctx.record(),
        ctx.job_id(),
        &prepared,
        &options.data_dir,
        bom,
    )
    .await?;
    import.finish(&end, report.as_deref()).await?;
    Ok(Summary::new(Ending {
        import_id: ctx.job_id(),
        entity_type: payload.entity_type.as_str(),
        dry_run: payload.options.dry_run,
        counts: &import.counts,
        prepared: &prepared,
        report,
        file_name,
        elapsed: begun.elapsed(),
        rows: end.position.row - import.begun_at_row,
        warnings,
    }))
}

/// One attempt under way.
struct Import<'a> {
    ctx: &'a JobContext,
    payload: &'a ImportCsv,
    prepared: &'a Prepared,
    /// As the record has them.
    counts: ImportCounts,
    begun_at_row: u64,
    logged_rows: u64,
}

impl Import<'_> {
    /// Writes down that the run begins, or goes on; finds an earlier import of the same bytes.
    async fn start(
        &mut self,
        from: &Checkpoint,
        is_resumed: bool,
        file_name: Option<String>,
    ) -> Result<Option<uuid::Uuid>, JobError> {
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
        };
        let mut step = self.ctx.begin_step().await?;
        imports::start(step.tx(), &import)
            .await
            .map_err(record_error)?;
        let same_file = imports::find_same_file(step.tx(), &import)
            .await
            .map_err(record_error)?;
        self.counts = imports::counts(step.tx(), import.id)
            .await
            .map_err(record_error)?;
        step.commit(json!(from), self.progress(0)).await?;
        let metadata = json!({
            "rows": prepared.census.rows, "bytes": prepared.bytes, "sha256": prepared.sha256,
            "encoding": prepared.text.encoding, "delimiter": prepared.dialect.delimiter_name(),
            "header_line": prepared.dialect.header.line, "mapping": import.header_mapping,
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
    async fn write_chunks(&mut self, from: Checkpoint) -> Result<Checkpoint, JobError> {
        let payload = self.payload;
        let validator = Validator::new(
            payload.entity_type,
            &self.prepared.mapping,
            number_format(payload, self.prepared),
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
        let mut step = self.ctx.begin_step().await?;
        let mut shown = 0;
        let on_batch = |rows: usize| {
            shown += rows as u64;
            self.ctx.progress(self.progress(shown));
        };
        import_chunk::apply(step.tx(), options, &work.chunk, on_batch)
            .await
            .map_err(record_error)?;
        // Read back instead of added up: a chunk whose commit went through unseen is not counted
        // twice.
        let counts = imports::counts(step.tx(), options.import_id)
            .await
            .map_err(record_error)?;
        let before = std::mem::replace(&mut self.counts, counts);
        let committed = step.commit(json!(checkpoint), self.progress(0)).await;
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
    /// When the job was cancelled, the fence of the next step would say so; ask it here.
    async fn interrupted(&self, at: &Checkpoint) -> JobError {
        if let Err(JobError::LeaseLost) = self.ctx.begin_step().await {
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
    async fn finish(&mut self, end: &Checkpoint, report: Option<&str>) -> Result<(), JobError> {
        let mut step = self.ctx.begin_step().await?;
        let id = self.ctx.job_id();
        self.counts = imports::counts(step.tx(), id).await.map_err(record_error)?;
        let status = summary::status_of(&self.counts);
        imports::finish(step.tx(), id, status, &json!(end.warnings), report)
            .await
            .map_err(record_error)?;
        let mut progress = self.progress(0);
        progress.message = format!("Processed {} rows", self.counts.processed);
        step.commit(json!(end), progress).await
    }
}

/// Looks at the file on a thread of its own.
async fn look_at(
    ctx: &JobContext,
    payload: &ImportCsv,
    path: PathBuf,
    spool: &Path,
) -> Result<Prepared, JobError> {
    let (payload, spool, cancelled) = (payload.clone(), spool.to_owned(), ctx.cancelled().clone());
    let looking = tokio::task::spawn_blocking(move || {
        prepare(&path, &payload, &spool, || !cancelled.is_cancelled())
    });
    match looking.await {
        Ok(Ok(prepared)) => Ok(prepared),
        Ok(Err(error @ (PrepareError::Io(_) | PrepareError::Stopped))) => {
            Err(JobError::retry(error))
        }
        Ok(Err(
            error @ (PrepareError::Content(_) | PrepareError::Format(_) | PrepareError::Mapping(_)),
        )) => Err(JobError::permanent(error)),
        Err(error) => Err(JobError::Retry(format!("look at the file: {error}"))),
    }
}

/// The checkpoint of an earlier attempt, if it is about this very file.
fn earlier_checkpoint(
    ctx: &JobContext,
    prepared: &Prepared,
) -> Result<Option<Checkpoint>, JobError> {
    let Some(value) = ctx.checkpoint() else {
        return Ok(None);
    };
    let checkpoint: Checkpoint = serde_json::from_value(value.clone())
        .map_err(|error| JobError::Permanent(format!("the checkpoint cannot be read: {error}")))?;
    if !checkpoint.fits(prepared) {
        return Err(JobError::Permanent(format!(
            "the file is not the one that the import began with; rows up to {} were taken from the \
             earlier one (sha256 {}, now {})",
            checkpoint.position.row, checkpoint.sha256, prepared.sha256
        )));
    }
    Ok(Some(checkpoint))
}

fn header_mapping(entity: EntityType, prepared: &Prepared) -> serde_json::Value {
    let columns = prepared.mapping.columns.iter().map(|column| {
        let field = match &column.target {
            Target::Field(field) => fields::def_of(entity, *field).map(|def| def.name.to_owned()),
            Target::Custom(name) => Some(format!("custom.{name}")),
            Target::Ignored => None,
        };
        json!({"header": column.header, "field": field, "reason": column.reason})
    });
    columns.collect()
}

/// Files with semicolons come from places where the comma is the decimal mark.
fn number_format(payload: &ImportCsv, prepared: &Prepared) -> NumberFormat {
    let usual = match prepared.dialect.delimiter {
        b';' => NumberFormat::Comma,
        _ => NumberFormat::Point,
    };
    payload.options.number_format.unwrap_or(usual)
}

fn on_existing(payload: &ImportCsv, prepared: &Prepared) -> OnExisting {
    let options = &payload.options;
    if !options.update_existing {
        return if options.skip_duplicates {
            OnExisting::Skip
        } else {
            OnExisting::Reject
        };
    }
    let keys = ["name", "external_id", "domain", "email", "linkedin_url"];
    let not_columns = ["full_name", "company_domain"];
    let clear = match options.empty_values {
        EmptyValues::Ignore => Vec::new(),
        EmptyValues::Clear => fields::fields_of(payload.entity_type)
            .iter()
            .filter(|def| {
                let target = Target::Field(def.field);
                prepared
                    .mapping
                    .columns
                    .iter()
                    .any(|column| column.target == target)
            })
            .map(|def| def.name)
            .filter(|name| !keys.contains(name) && !not_columns.contains(name))
            .collect(),
    };
    let fill_blank = options.update_policy == UpdatePolicy::FillBlank;
    OnExisting::Update(Merge { fill_blank, clear })
}

fn source_error(error: SourceError) -> JobError {
    match error {
        SourceError::Refused(message) => JobError::Permanent(message),
        SourceError::Unavailable {
            message,
            after: Some(after),
        } => JobError::RetryAfter(after, message),
        SourceError::Unavailable {
            message,
            after: None,
        } => JobError::Retry(message),
        SourceError::Cancelled => JobError::Retry("the download was interrupted".to_owned()),
    }
}

/// Single rows that the schema refuses are handled by the chunk; here it means the import's own
/// rows.
fn record_error(error: RecordError) -> JobError {
    match error {
        RecordError::Refused { .. } => JobError::Permanent(error.to_string()),
        RecordError::Unavailable(_)
        | RecordError::Address(_)
        | RecordError::Schema(_)
        | RecordError::Corrupt(_) => JobError::Retry(error.to_string()),
    }
}

/// The files of one attempt. They go with the attempt; what a crash leaves goes with the next one.
struct Spool {
    path: PathBuf,
}

impl Spool {
    fn create(path: PathBuf) -> Result<Self, JobError> {
        let made = match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => std::fs::create_dir_all(&path),
        };
        made.map_err(|error| JobError::Retry(format!("prepare a work directory: {error}")))?;
        Ok(Self { path })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Nothing to do about an error: the next attempt removes it too.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
