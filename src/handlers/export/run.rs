//! One attempt of an export, from the payload to the summary.
//!
//! Where it may die, and what the next attempt finds:
//!
//! | between | finds | does |
//! |---|---|---|
//! | start and first commit | no checkpoint | begins anew; no file |
//! | two checkpoints | a part file with more than was vouched for | takes that, goes on |
//! | file and "is whole" | the same | the same |
//! | "is whole" and the name | a whole part file | gives it its name |
//! | two parts on the way to the bucket | how far it came | goes on behind that |
//! | the name and the last commit | a whole file | compares its sum, writes the summary |
//! | the object and the last commit | an object of its size | writes the summary |
//! | last commit and outcome | a completed export | the same again |
//!
//! Each attempt writes a part file of its own, which begins with a copy of the earlier one's: an
//! attempt that lost its lease and does not know it yet writes where nobody reads.
//!
//! Where the part file is not the one of the checkpoint, as on another machine, the attempt begins
//! anew with the same columns. So does one of a workbook, which can not be gone on with.
//!
//! What an attempt writes before it got on keeps the count of vanished workers, so an export that
//! kills each of its workers at the same row is stopped. Run again by hand after its file was
//! whole, it has no checkpoint (see `control::retry_many`) and begins anew.

use std::time::Instant;

use super::attempt::{Export, Keeping};
use super::checkpoint::{Checkpoint, Ending, Summary};
use super::disk::on_disk;
use super::keep::WholeFile;
use super::part_file;
use super::payload::ExportData;
use super::plan::Plan;
use super::survey;
use crate::fault::{self, Point};
use crate::handlers::deliver_export;
use crate::handlers::ending::{Verdict, record_error};
use crate::job::{JobError, Progress};
use crate::record::exports;
use crate::record::exports::read::{Selection, Windows};
use crate::storage::Storage;
use crate::worker::JobContext;

/// Runs an export to its end, or says how the job goes on.
pub(super) async fn run(
    ctx: &JobContext,
    payload: &ExportData,
    to: (&Storage, Option<&str>),
) -> Result<Summary, JobError> {
    let ended = run_attempt(ctx, payload, to).await;
    match Verdict::of(&ended) {
        Verdict::Open => {}
        Verdict::LeaseLost => {
            exports::mark_cancelled(ctx.record(), ctx.job_id())
                .await
                .map_err(record_error)?;
        }
        Verdict::Failed => mark_failed(ctx).await?,
    }
    ended
}

/// Says of the export, if it had begun, that it will not go on.
async fn mark_failed(ctx: &JobContext) -> Result<(), JobError> {
    let mut begun = ctx.begin_checkpoint().await?;
    let has_begun = exports::mark_failed(begun.tx(), ctx.job_id())
        .await
        .map_err(record_error)?;
    if !has_begun {
        return Ok(());
    }
    let at = ctx.checkpoint().and_then(Checkpoint::read);
    let (total, rows) = at.map_or((0, 0), |at| (at.total, at.rows));
    let message = format!("stopped behind row {rows} of {total}");
    let progress = Progress::new(total, rows, 0, message);
    begun.commit_in_place(progress).await
}

async fn run_attempt(
    ctx: &JobContext,
    payload: &ExportData,
    (storage, public_url): (&Storage, Option<&str>),
) -> Result<Summary, JobError> {
    let plan = Plan::new(payload).map_err(|mistakes| {
        let texts = mistakes
            .iter()
            .map(|m| format!("{}: {}", m.pointer, m.message));
        JobError::Permanent(texts.collect::<Vec<_>>().join("; "))
    })?;
    let wished = (payload.deliver_to, payload.delivery.as_ref());
    let told = deliver_export::payload::recipients(ctx, wished, public_url).await?;
    let begun = Instant::now();
    let selection = Selection {
        workspace_id: ctx.workspace_id(),
        entity: plan.entity,
        conditions: plan.conditions.clone(),
        windows: Windows::default(),
    };
    let earlier = ctx.checkpoint().and_then(Checkpoint::read);
    let is_resumed = earlier.is_some();
    let mut at = match earlier {
        Some(earlier) => earlier,
        None => survey::take(ctx, &plan, &selection).await?,
    };
    let id = ctx.job_id();
    let format = plan.format.as_str();
    let data_dir = storage.data_dir();
    let mut export = Export::new(ctx, &plan, selection, &at)?;
    let file_name = export.start(&at, is_resumed).await?;
    let (dir, attempt, kept) = (data_dir.to_owned(), ctx.attempt(), at.attempt);
    on_disk(move || part_file::clear_earlier(&dir, id, attempt, kept)).await?;
    let file = |at: &Checkpoint| WholeFile {
        id,
        format,
        attempt: at.attempt,
        bytes: at.bytes,
        sha256: at.sha256.clone(),
    };
    if at.is_whole && !file(&at).is_here(storage).await? {
        at = at.anew();
    }
    let before = at.rows;
    if !at.is_whole {
        at = match plan.is_sheet() {
            true => export.write_sheet(at, data_dir).await?,
            false => export.write_text(at, data_dir).await?,
        };
    }
    let file = file(&at);
    let sending = at.sending.clone();
    let saves = &mut Keeping {
        export: &export,
        at: &mut at,
    };
    let object_key = file.keep(ctx, storage, sending, saves).await?;
    fault::point(Point::AfterFileKept);
    at.sending = None;
    let expires_at = export.finish(&at, object_key.as_deref(), &told).await?;
    if object_key.is_some() {
        file.remove_local(storage).await;
    }
    let rows = at.rows.saturating_sub(before);
    let ending = Ending {
        export_id: id,
        entity_type: plan.entity.as_str(),
        format,
        file_name,
        expires_at,
        elapsed: begun.elapsed(),
        object_key,
        rows,
    };
    Ok(Summary::new(at, ending))
}
