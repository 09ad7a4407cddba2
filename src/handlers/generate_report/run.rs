//! One attempt of a report, from the payload to the summary.
//!
//! Where it may die, and what the next attempt finds:
//!
//! | between | finds | does |
//! |---|---|---|
//! | start and first commit | nothing | begins anew |
//! | first commit and "is whole" | the period | reads the figures of that period |
//! | "is whole" and the name | a whole part file | gives it its name |
//! | the name and the last commit | a whole file | compares its sum, writes the summary |
//! | last commit and outcome | a finished report | the same again |
//!
//! Each attempt writes a part file of its own, as exports do, so one that lost its lease and does
//! not know it yet spoils nobody's file: what has the name is what the newest attempt vouched for.
//! Run again by hand when it was whole, it begins anew with a new period (`control::retry_many`).

use std::path::Path;
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::payload::{ENTITY, GenerateReport, Plan, ReportFormat};
use super::{Report, lines, page};
use crate::fault::{self, Point};
use crate::handlers::deliver_export;
use crate::handlers::ending::{Verdict, record_error};
use crate::handlers::export::attempt::check_kept;
use crate::handlers::export::disk::{off_runtime, on_disk};
use crate::handlers::export::keep::{Saves, WholeFile};
use crate::handlers::export::part_file::{self, PartFile};
use crate::handlers::export::turns;
use crate::job::period::Span;
use crate::job::{JobError, Progress};
use crate::record::exports::{self, NewExport, Whole};
use crate::record::file_deliveries::NewDelivery;
use crate::record::logs::LogLevel;
use crate::record::pipeline;
use crate::storage::{Sending, Storage};
use crate::worker::JobContext;

/// Raised when a checkpoint of an older program could be misread.
const VERSION: u32 = 1;
/// Steps that the progress counts: the period, the figures, the file.
const STEPS: u64 = 3;

/// Where a later attempt goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Checkpoint {
    version: u32,
    /// Fixed once: a report that is tried again tomorrow is about the same days.
    span: Span,
    /// The attempt whose file it is.
    attempt: i32,
    figures: u64,
    bytes: u64,
    sha256: String,
    is_whole: bool,
    /// The whole file is on its way to the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sending: Option<Sending>,
}

impl Checkpoint {
    fn new(span: Span) -> Self {
        Self {
            version: VERSION,
            span,
            attempt: 0,
            figures: 0,
            bytes: 0,
            sha256: String::new(),
            is_whole: false,
            sending: None,
        }
    }

    fn read(value: &serde_json::Value) -> Option<Self> {
        let checkpoint = Self::deserialize(value).ok()?;
        (checkpoint.version == VERSION).then_some(checkpoint)
    }
}

/// The result of the job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub export_id: Uuid,
    /// `Reported 1,203 figures`
    pub message: String,
    pub format: &'static str,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub zone: String,
    pub figures: u64,
    pub bytes: u64,
    pub sha256: String,
    pub file_name: String,
    /// Where it is downloaded.
    pub download: String,
    pub expires_at: DateTime<Utc>,
    /// Seconds of the attempt that finished.
    pub seconds: f64,
}

/// Runs a report to its end, or says how the job goes on.
pub(super) async fn run(
    ctx: &JobContext,
    payload: &GenerateReport,
    to: (&Storage, Option<&str>),
) -> Result<Summary, JobError> {
    let ended = attempt(ctx, payload, to).await;
    match Verdict::of(&ended) {
        Verdict::Open => {}
        Verdict::LeaseLost => {
            let cancelled = exports::mark_cancelled(ctx.record(), ctx.job_id()).await;
            cancelled.map_err(record_error)?;
        }
        Verdict::Failed => mark_failed(ctx).await?,
    }
    ended
}

/// Says of the report, if it had begun, that it will not go on.
async fn mark_failed(ctx: &JobContext) -> Result<(), JobError> {
    let mut begun = ctx.begin_checkpoint().await?;
    let has_begun = exports::mark_failed(begun.tx(), ctx.job_id()).await;
    if !has_begun.map_err(record_error)? {
        return Ok(());
    }
    begun
        .commit_in_place(Progress::new(STEPS, 0, 0, "stopped"))
        .await
}

async fn attempt(
    ctx: &JobContext,
    payload: &GenerateReport,
    (storage, public_url): (&Storage, Option<&str>),
) -> Result<Summary, JobError> {
    let begun = Instant::now();
    let plan = Plan::new(payload).map_err(|mistakes| {
        let texts = mistakes
            .iter()
            .map(|m| format!("{} {}", m.pointer, m.message));
        JobError::Permanent(texts.collect::<Vec<_>>().join("; "))
    })?;
    let workspace_id = ctx.workspace_id().ok_or_else(|| {
        JobError::permanent("the job belongs to no workspace: there is nothing to report")
    })?;
    let wished = (payload.deliver_to, payload.delivery.as_ref());
    let told = deliver_export::payload::recipients(ctx, wished, public_url).await?;
    let (mut at, file_name) = begin(ctx, &plan).await?;
    let (id, attempt, kept) = (ctx.job_id(), ctx.attempt(), at.attempt);
    let data_dir = storage.data_dir();
    let dir = data_dir.to_owned();
    on_disk(move || part_file::clear_earlier(&dir, id, attempt, kept)).await?;
    let file = |at: &Checkpoint| WholeFile {
        id,
        format: plan.format.as_str(),
        attempt: at.attempt,
        bytes: at.bytes,
        sha256: at.sha256.clone(),
    };
    if at.is_whole && !file(&at).is_here(storage).await? {
        let message = "the file is not here; the report is made anew";
        ctx.log(LogLevel::Warn, message, None);
        at = Checkpoint::new(at.span);
    }
    if !at.is_whole {
        at = write(ctx, &plan, (at.span, workspace_id), data_dir).await?;
    }
    let file = file(&at);
    let sending = at.sending.clone();
    let saves = &mut Keeping { ctx, at: &mut at };
    let object_key = file.keep(ctx, storage, sending, saves).await?;
    fault::point(Point::AfterFileKept);
    at.sending = None;
    let expires_at = finish(ctx, &at, object_key.as_deref(), &told).await?;
    if object_key.is_some() {
        file.remove_local(storage).await;
    }
    Ok(Summary {
        export_id: id,
        message: message(at.figures),
        format: plan.format.as_str(),
        from: at.span.from,
        to: at.span.to,
        zone: plan.zone.to_string(),
        figures: at.figures,
        bytes: at.bytes,
        sha256: at.sha256,
        file_name,
        download: format!("/api/exports/{id}/file"),
        expires_at,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

fn message(figures: u64) -> String {
    format!(
        "Reported {} figures",
        super::text::count(figures.cast_signed())
    )
}

/// Fixes the period, or goes on with the one that an earlier attempt fixed; and what the file is
/// called.
async fn begin(ctx: &JobContext, plan: &Plan) -> Result<(Checkpoint, String), JobError> {
    let mut begun = ctx.begin_checkpoint().await?;
    let at = match ctx.checkpoint().and_then(Checkpoint::read) {
        Some(at) => at,
        None => {
            let due = pipeline::due(begun.tx(), ctx.job_id()).await;
            let span = plan.period.span(plan.zone, due.map_err(record_error)?);
            Checkpoint::new(span.map_err(JobError::permanent)?)
        }
    };
    let day = plan.zone.date(at.span.from);
    let usual = format!("pipeline-report-{day}.{}", plan.format.as_str());
    let new = NewExport {
        id: ctx.job_id(),
        workspace_id: ctx.workspace_id(),
        entity_type: ENTITY,
        format: plan.format.as_str(),
        file_name: Some(plan.file_name.as_deref().unwrap_or(&usual)),
    };
    let file_name = exports::start(begun.tx(), &new).await;
    let file_name = file_name.map_err(record_error)?;
    check_kept(ctx, &mut begun, 0).await?;
    let progress = Progress::new(STEPS, 1, 0, "reads the figures");
    begun.commit_without_gain(json!(at), progress).await?;
    Ok((at, file_name))
}

/// Reads the figures, writes the file, and vouches for it.
async fn write(
    ctx: &JobContext,
    plan: &Plan,
    (span, workspace_id): (Span, Uuid),
    data_dir: &Path,
) -> Result<Checkpoint, JobError> {
    let slots = span.slots(plan.zone);
    let figures = {
        let _turn = turns::turn(Some(workspace_id)).await;
        let reading = pipeline::read(ctx.record(), workspace_id, span, &slots);
        tokio::select! {
            figures = reading => figures.map_err(record_error)?,
            () = ctx.cancelled().cancelled() => {
                return Err(JobError::Retry("interrupted while figures were read".to_owned()));
            }
        }
    };
    let report = Report {
        title: plan.title.clone(),
        zone: plan.zone,
        span,
        slots,
        figures,
    };
    let (id, attempt, format) = (ctx.job_id(), ctx.attempt(), plan.format);
    let path = part_file::part_path(data_dir, id, attempt);
    let (content, figures) = off_runtime(move || {
        let lines = lines::lines(&report);
        let content = match format {
            ReportFormat::Html => page::page(&report).into_bytes(),
            ReportFormat::Csv => lines::csv(&lines).map_err(JobError::permanent)?,
        };
        Ok((content, lines.len() as u64))
    })
    .await?;
    let file = on_disk(move || {
        let mut file = PartFile::create(path)?;
        file.append(&content)?;
        file.sync()?;
        Ok(file)
    })
    .await?;
    let at = Checkpoint {
        attempt,
        figures,
        bytes: file.bytes(),
        sha256: file.sha256(),
        is_whole: true,
        ..Checkpoint::new(span)
    };
    let mut begun = ctx.begin_checkpoint().await?;
    let (rows, bytes) = (at.figures.cast_signed(), at.bytes.cast_signed());
    let advanced = exports::advance(begun.tx(), id, rows, bytes).await;
    advanced.map_err(record_error)?;
    let progress = Progress::new(STEPS, 2, 0, "wrote the file");
    begun.commit(json!(at), progress).await?;
    Ok(at)
}

/// How far the whole file has come on its way to the bucket.
struct Keeping<'a> {
    ctx: &'a JobContext,
    at: &'a mut Checkpoint,
}

impl Saves for Keeping<'_> {
    async fn save(&mut self, sending: Option<Sending>) -> Result<(), JobError> {
        self.at.sending = sending;
        let progress = Progress::new(STEPS, 2, 0, "keeps the file");
        let begun = self.ctx.begin_checkpoint().await?;
        begun.commit(json!(self.at), progress).await
    }
}

/// The last commit: the file is there. Answers until when.
async fn finish(
    ctx: &JobContext,
    at: &Checkpoint,
    object_key: Option<&str>,
    told: &[NewDelivery],
) -> Result<DateTime<Utc>, JobError> {
    let mut begun = ctx.begin_checkpoint().await?;
    let whole = Whole {
        rows: at.figures.cast_signed(),
        bytes: at.bytes.cast_signed(),
        sha256: &at.sha256,
        object_key,
    };
    let expires_at = exports::finish(begun.tx(), ctx.job_id(), &whole).await;
    let expires_at = expires_at.map_err(record_error)?;
    deliver_export::plan(ctx, begun.tx(), told).await?;
    let progress = Progress::new(STEPS, STEPS, 0, message(at.figures));
    begun.commit(json!(at), progress).await?;
    Ok(expires_at)
}
