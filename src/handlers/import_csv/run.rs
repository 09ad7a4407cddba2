//! One attempt of an import, from the address of the file to the summary.
//!
//! Where it may die, and what the next attempt finds:
//!
//! | between | finds | does |
//! |---|---|---|
//! | start and first commit | no checkpoint | begins anew; nothing was written |
//! | two chunks | the checkpoint behind the last committed chunk | goes on with the next row |
//! | a commit and its answer | the same, or one chunk more | repeats it: its rows have a fate |
//! | last chunk and summary | a checkpoint that says "all read" | writes report and summary |
//! | report and last commit | a finished report | writes it again; same rows, same bytes |
//!
//! The file is decoded again by each attempt, on whatever machine it runs: that is deterministic,
//! and checksum and dialect are compared before a byte offset is trusted. What was downloaded is
//! kept on its machine until the import is over: the link may have run out by the next attempt.

use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::cells::Warnings;
use super::custom::{self, Known};
use super::import::Import;
use super::payload::ImportCsv;
use super::prepare::{PrepareError, Prepared, prepare};
use super::report_file;
use super::source::{self, SourceError, SourceOptions};
use super::summary::{self, Checkpoint, Ending, Summary};
use super::template::{self, Template};
use super::writing;
use crate::handlers::ending::{Verdict, record_error};
use crate::handlers::spool::JobSpool;
use crate::job::{JobError, Progress};
use crate::record::custom_fields;
use crate::record::import_templates;
use crate::record::imports::{self, ImportStatus};
use crate::worker::JobContext;

/// Runs an import to its end, or says how the job goes on.
pub(super) async fn run(
    ctx: &JobContext,
    payload: &ImportCsv,
    options: &SourceOptions,
) -> Result<Summary, JobError> {
    let work = options.storage.data_dir().join("work");
    let mut spool = JobSpool::open(&work, ctx.job_id(), ctx.attempt())?;
    let ended = run_attempt(ctx, payload, options, &spool).await;
    match Verdict::of(&ended) {
        Verdict::Open if ended.is_err() => {}
        Verdict::Open => spool.end(),
        Verdict::LeaseLost => {
            let is_cancelled = imports::mark_cancelled(ctx.record(), ctx.job_id()).await;
            if is_cancelled.map_err(record_error)? {
                spool.end();
            }
        }
        Verdict::Failed => {
            mark_failed(ctx).await?;
            spool.end();
        }
    }
    ended
}

/// Says of the import, if it had begun, that it will not go on.
async fn mark_failed(ctx: &JobContext) -> Result<(), JobError> {
    let mut begun = ctx.begin_checkpoint().await?;
    let id = ctx.job_id();
    if let Some(counts) = imports::find_counts(begun.tx(), id)
        .await
        .map_err(record_error)?
    {
        imports::finish(begun.tx(), id, ImportStatus::Failed, &json!({}), None)
            .await
            .map_err(record_error)?;
        let (total, processed) = (counts.total.unsigned_abs(), counts.processed.unsigned_abs());
        let message = format!("stopped behind row {processed} of {total}");
        let progress = Progress::new(total, processed, counts.failed.unsigned_abs(), message);
        begun.commit_in_place(progress).await?;
    }
    Ok(())
}

async fn run_attempt(
    ctx: &JobContext,
    payload: &ImportCsv,
    options: &SourceOptions,
    spool: &JobSpool,
) -> Result<Summary, JobError> {
    payload.check().map_err(JobError::permanent)?;
    let begun = Instant::now();
    let file = source::open(
        &payload.file_url,
        options,
        ctx.workspace_id(),
        &spool.kept(),
        ctx.cancelled(),
    )
    .await
    .map_err(|error| source_error(ctx, error))?;
    let known = known(ctx, payload).await?;
    let prepared = look_at(ctx, payload, known, (&file.path, &spool.own())).await?;
    let earlier = earlier_checkpoint(ctx, &prepared)?;
    let begin = Checkpoint::new(&prepared, prepared.first, Warnings::default(), false);
    let is_resumed = earlier.is_some();
    let from = earlier.unwrap_or(begin);
    let file_name = payload.file_name.clone().or(file.name);
    let import = Import::new(ctx, payload, &prepared, from.position.row);
    let same_file = import.start(&from, is_resumed, file_name.clone()).await?;
    let end = if from.is_read {
        from
    } else {
        writing::write_chunks(&import, from).await?
    };
    let mut warnings = summary::sentences(&end.warnings, &prepared);
    if let Some(id) = same_file {
        warnings.push(format!("the same file was imported before, as {id}"));
    }
    let bom = payload.options.report_bom;
    let report =
        report_file::write(ctx.record(), ctx.job_id(), &prepared, &options.storage, bom).await?;
    import.finish(&end, report.as_deref()).await?;
    Ok(Summary::new(Ending {
        import_id: ctx.job_id(),
        entity_type: payload.entity_type.as_str(),
        dry_run: payload.options.dry_run,
        counts: &import.counts(),
        prepared: &prepared,
        report,
        file_name,
        elapsed: begun.elapsed(),
        rows: end.position.row - import.begun_at_row,
        warnings,
    }))
}

/// What the workspace has said of files and fields; when an earlier attempt began, as it was then.
/// Rows before and behind a crash are read alike.
async fn known(ctx: &JobContext, payload: &ImportCsv) -> Result<Known, JobError> {
    let Some(workspace_id) = ctx.workspace_id() else {
        return Ok(Known::default());
    };
    if ctx.checkpoint().is_some() {
        let pinned = imports::pinned(ctx.record(), ctx.job_id()).await;
        let (template, kinds) = pinned.map_err(record_error)?.unwrap_or_default();
        let unreadable = |error: serde_json::Error| {
            JobError::Permanent(format!(
                "what the import began with cannot be read: {error}"
            ))
        };
        let template: Option<Template> = template
            .map(serde_json::from_value)
            .transpose()
            .map_err(unreadable)?;
        return Ok(Known {
            templates: template.into_iter().collect(),
            kinds: serde_json::from_value(kinds.unwrap_or_else(|| json!({})))
                .map_err(unreadable)?,
        });
    }
    let (record, entity) = (ctx.record(), payload.entity_type.as_str());
    let mut templates = Vec::new();
    if template::is_wanted(payload) {
        let rows = import_templates::for_import(record, workspace_id, entity).await;
        let rows = rows.map_err(record_error)?.into_iter();
        templates.extend(rows.filter_map(Template::of));
    }
    let fields = custom_fields::for_import(record, workspace_id, entity).await;
    Ok(Known {
        templates,
        kinds: custom::kinds(fields.map_err(record_error)?),
    })
}

/// Looks at the file on a thread of its own.
async fn look_at(
    ctx: &JobContext,
    payload: &ImportCsv,
    known: Known,
    (path, spool): (&Path, &Path),
) -> Result<Prepared, JobError> {
    let (path, spool) = (path.to_owned(), spool.to_owned());
    let (payload, cancelled) = (payload.clone(), ctx.cancelled().clone());
    let looking = tokio::task::spawn_blocking(move || {
        let go_on = || !cancelled.is_cancelled();
        prepare(&path, &payload, &known, &spool, go_on)
    });
    match looking.await {
        Ok(Ok(prepared)) => Ok(prepared),
        Ok(Err(error @ (PrepareError::Io(_) | PrepareError::Stopped))) => {
            Err(JobError::retry(error))
        }
        Ok(Err(
            error @ (PrepareError::Content(_)
            | PrepareError::Packed(_)
            | PrepareError::Format(_)
            | PrepareError::Mapping(_)),
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

fn source_error(ctx: &JobContext, error: SourceError) -> JobError {
    match error {
        SourceError::Refused(message) if ctx.checkpoint().is_some() => {
            JobError::Permanent(format!(
                "{message}; the import had begun: what it has written stays, and an import of the \
                 same file from another address goes on behind it, as rows that are there are \
                 recognized"
            ))
        }
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
