//! `undo_import`: what an import created goes again, as far as nobody has touched it since.
//!
//! Made by `POST /api/imports/{id}/undo`. A payload alone gives no right: the job does what an
//! admin has asked for, which is noted in the import, and nothing else.
//!
//! Promises: a record goes once, with a row of the lineage that names this job; one that was
//! changed since, by anybody, stays, and so does an account that has contacts. Refuses to undo what
//! nobody asked for, and to work beside another job that does it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::ending::record_error;
use crate::job::{JobError, Progress};
use crate::record::import_undo::{self, SoFar, Undo};
use crate::worker::{Handler, JobContext};

/// How long an attempt may take; the next one goes on where it stopped.
const TIMEOUT: Duration = Duration::from_secs(2 * 3600);

/// Which import.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UndoImport {
    /// The id of its job.
    pub import_id: Uuid,
}

/// What became of what the import created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undone {
    pub import_id: Uuid,
    #[serde(flatten)]
    pub so_far: SoFar,
}

/// The handler of `undo_import` jobs.
#[derive(Debug, Clone, Copy, Default)]
pub struct UndoImportHandler;

impl Handler for UndoImportHandler {
    const TYPE: &'static str = "undo_import";
    type Payload = UndoImport;
    type Output = Undone;

    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    async fn run(&self, ctx: JobContext, payload: UndoImport) -> Result<Undone, JobError> {
        run(&ctx, payload.import_id).await
    }
}

async fn run(ctx: &JobContext, import_id: Uuid) -> Result<Undone, JobError> {
    let about = (ctx.workspace_id(), import_id);
    let mut begun = ctx.begin_checkpoint().await?;
    let undo = import_undo::begin(begun.tx(), about, ctx.job_id())
        .await
        .map_err(record_error)?;
    let undo = allowed(undo, import_id, ctx.job_id()).map_err(JobError::Permanent)?;
    let mut undone = Undone {
        import_id,
        so_far: undo.so_far,
    };
    begun
        .commit_without_gain(json!(undone), progress(&undo, &undone.so_far))
        .await?;
    if undo.is_done {
        return Ok(undone);
    }
    loop {
        if ctx.cancelled().is_cancelled() {
            return Err(interrupted(ctx, &undone.so_far).await);
        }
        let mut begun = ctx.begin_checkpoint().await?;
        let (so_far, is_last) = import_undo::step(begun.tx(), about, &undo.entity_type)
            .await
            .map_err(record_error)?;
        undone.so_far = so_far;
        begun
            .commit(json!(undone), progress(&undo, &so_far))
            .await?;
        if is_last {
            return Ok(undone);
        }
    }
}

/// No fault of the job, unless it was cancelled or went elsewhere.
async fn interrupted(ctx: &JobContext, so_far: &SoFar) -> JobError {
    if let Err(JobError::LeaseLost) = ctx.begin_checkpoint().await {
        return JobError::LeaseLost;
    }
    let (removed, kept) = (so_far.removed, so_far.kept());
    let message = format!("interrupted; {removed} records removed, {kept} kept");
    JobError::Snooze(Duration::from_secs(1), message)
}

/// The import, if this job may undo it.
fn allowed(undo: Option<Undo>, import_id: Uuid, job_id: Uuid) -> Result<Undo, String> {
    let undo = undo.ok_or_else(|| format!("there is no import {import_id}"))?;
    if !undo.is_asked {
        return Err(format!(
            "no admin has asked for it; POST /api/imports/{import_id}/undo does"
        ));
    }
    match undo.job_id {
        Some(other) if other != job_id && !undo.is_done => {
            Err(format!("job {other} undoes this import already"))
        }
        _ => Ok(undo),
    }
}

fn progress(undo: &Undo, so_far: &SoFar) -> Progress {
    let (removed, kept) = (so_far.removed, so_far.kept());
    let done = removed + kept;
    let (total, done) = (undo.inserted.max(done).unsigned_abs(), done.unsigned_abs());
    let message = format!("{removed} removed, {kept} kept");
    Progress::new(total, done, kept.unsigned_abs(), message)
}
