//! `cleanup_data`: removes what a workspace has kept for long enough.
//!
//! ```text
//! what admins allow ─┐
//! payload ───────────┴► plan ─► log lines ─► jobs ─► files of exports ─► deliveries ─► summary
//! ```
//!
//! Each page is removed in the transaction that also commits the checkpoint and the row in the
//! audit: whoever dies, or is cancelled, has removed what the checkpoint counts, and no more.
//!
//! Promises: nothing goes of another workspace, nothing that is not over, nothing earlier than the
//! admins of the workspace allow; a dry run removes nothing. Refuses to remove what nobody allowed:
//! whoever may enqueue can make such a job, but only admins may delete. Jobs go from Redis by the
//! outbox; while many are waiting there the job waits too, so that nobody's job waits behind them.

mod state;

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::ending::record_error;
use crate::job::JobError;
use crate::job::retention::Retention;
use crate::record::cleanup::{self, Wanted};
use crate::record::logs::LogLevel;
use crate::record::retention;
use crate::worker::{Handler, JobContext};
pub use state::{Counts, Summary};
use state::{Part, Stage, State};

/// After this long an attempt makes room for others and goes on later.
const SLICE: Duration = Duration::from_secs(10 * 60);
/// Between two looks whether Redis has been told, and how many before the job is put off.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOKS_MAX: u32 = 150;
/// How long it is put off when Redis is away.
const REDIS_AWAY: Duration = Duration::from_secs(60);

/// What a `cleanup_data` job is asked to do.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CleanupData {
    /// What goes after how many days. None: what admins of the workspace allow. Never more than
    /// that, but for a dry run.
    pub retention: Option<Retention>,
    /// Counts what would go, and removes nothing.
    pub dry_run: bool,
}

/// The handler of `cleanup_data` jobs.
#[derive(Debug, Clone, Copy)]
pub struct CleanupDataHandler;

impl Handler for CleanupDataHandler {
    const TYPE: &'static str = "cleanup_data";
    type Payload = CleanupData;
    type Output = Summary;

    async fn run(&self, ctx: JobContext, payload: CleanupData) -> Result<Summary, JobError> {
        let workspace_id = ctx.workspace_id().ok_or_else(|| {
            JobError::permanent("the job belongs to no workspace: there is nothing to clean")
        })?;
        if let Some(field) = payload.retention.and_then(|asked| asked.misfit()) {
            let why = format!("`/retention/{field}` must be 1 to 3650 days");
            return Err(JobError::Permanent(why));
        }
        let begun = Instant::now();
        let mut at = match ctx.checkpoint().and_then(State::read) {
            Some(at) => at,
            None => begin(&ctx, workspace_id, &payload).await?,
        };
        let mut pages = 0_u64;
        while let Some(stage) = at.stage {
            let is_stopped = ctx.cancelled().is_cancelled();
            if is_stopped || (begun.elapsed() > SLICE && pages > 0) {
                return Err(later(&at, pages));
            }
            if stage == Stage::Jobs && !at.is_dry {
                wait_for_redis(&ctx).await?;
            }
            page(&ctx, workspace_id, &mut at, stage).await?;
            pages += 1;
        }
        ctx.log(LogLevel::Info, &at.message(), None);
        Ok(at.summary())
    }
}

/// An attempt that got on spends no retry; one that did not is counted, so that a job whose time
/// limit is too short for a page comes to an end.
fn later(at: &State, pages: u64) -> JobError {
    let why = format!("goes on later: {}", at.message());
    match pages > 0 {
        true => JobError::Snooze(Duration::from_secs(1), why),
        false => JobError::Retry(why),
    }
}

/// Decides what goes, once for the job.
async fn begin(
    ctx: &JobContext,
    workspace_id: Uuid,
    payload: &CleanupData,
) -> Result<State, JobError> {
    let mut begun = ctx.begin_checkpoint().await?;
    let allowed = retention::hold(begun.tx(), workspace_id)
        .await
        .map_err(record_error)?;
    let wanted = payload.retention.unwrap_or(allowed);
    if wanted.is_empty() {
        return Err(JobError::permanent(
            "nothing says what may go: an admin sets that with `PUT /api/retention`",
        ));
    }
    let moment = cleanup::moment(begun.tx()).await.map_err(record_error)?;
    let at = State::new(wanted, moment, payload.dry_run);
    check(&at, &allowed)?;
    begun.commit_without_gain(at.write(), at.progress()).await?;
    Ok(at)
}

/// What may not go any more does not go, in the middle of a job, too.
fn check(at: &State, allowed: &Retention) -> Result<(), JobError> {
    let beyond = at.retention.beyond(allowed);
    if at.is_dry || beyond.is_empty() {
        return Ok(());
    }
    Err(JobError::Permanent(format!(
        "more than the retention of the workspace allows: {}. An admin changes it with \
         `PUT /api/retention`; a dry run may ask for anything",
        beyond.join(", ")
    )))
}

/// The next page, with its checkpoint and its row in the audit.
async fn page(
    ctx: &JobContext,
    workspace_id: Uuid,
    at: &mut State,
    stage: Stage,
) -> Result<(), JobError> {
    let mut begun = ctx.begin_checkpoint().await?;
    let tx = begun.tx();
    let allowed = retention::hold(tx, workspace_id).await;
    check(at, &allowed.map_err(record_error)?)?;
    let wanted = Wanted {
        workspace_id,
        at: at.at,
        retention: at.retention,
        is_dry: at.is_dry,
    };
    let part = match stage {
        Stage::Logs => cleanup::logs(tx, &wanted, at.after).await.map(Part::Logs),
        Stage::Jobs => cleanup::jobs(tx, &wanted, at.after).await.map(Part::Jobs),
        Stage::Exports => cleanup::exports(tx, &wanted, at.after)
            .await
            .map(Part::Exports),
        Stage::Deliveries => cleanup::deliveries(tx, &wanted, at.after)
            .await
            .map(Part::Deliveries),
    };
    let mut next = at.clone();
    let removed = next.add(part.map_err(record_error)?);
    if !at.is_dry {
        let noted = cleanup::note(tx, &wanted, ctx.job_id(), &removed).await;
        noted.map_err(record_error)?;
    }
    begun.commit(next.write(), next.progress()).await?;
    *at = next;
    Ok(())
}

async fn wait_for_redis(ctx: &JobContext) -> Result<(), JobError> {
    for _ in 0..LOOKS_MAX {
        let is_behind = cleanup::is_behind(ctx.record()).await;
        if !is_behind.map_err(record_error)? {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = ctx.cancelled().cancelled() => break,
        }
    }
    let why = "waits until Redis was told of what is deleted already";
    Err(JobError::Snooze(REDIS_AWAY, why.to_owned()))
}
