//! Carrying out an action: the next batch of jobs, in one transaction that also notes how far it
//! has come.
//!
//! Whoever dies leaves nothing half done: either the jobs are changed and the cursor stands behind
//! them, or neither. Each job is looked at once, newest first, so each gets the change once; jobs
//! that were made after the action are not looked at.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::Failure;
use super::undo::{self, UNDO_WINDOW};
use crate::job::Change;
use crate::record::access::{Actor, By};
use crate::record::control::{self, CONTROL_MAX};
use crate::record::filter::{self, JobFilter};
use crate::record::{Record, RecordError, Trouble, Tx};

/// Jobs that are looked at for a batch: more than it takes, for those that do not match.
const WINDOW: i64 = 2_000;
/// Jobs of a batch after a larger one took too long; of its window four times as many.
const SLOW_SIZE: usize = 20;
/// Actions that are carried out in turn by one look.
const RUNNING_LOOK_MAX: i64 = 100;
/// Tries that come to nothing in a row, because something takes too long, before the jobs that are
/// in the way are passed over: half a minute or so.
pub const TRIES_MAX: i32 = 10;
/// Jobs of an action that are named as failed; the others are only counted.
const FAILURES_MAX: i64 = 20;
/// Why jobs failed.
const HELD: &str = "something else held the job for too long";
const REFUSED: &str = "the record refused the change";

/// What one batch came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The action is over, or somebody else is at it just now.
    Left,
    Went {
        /// The jobs that Redis is to be told of.
        changed: Vec<Uuid>,
        /// There are no more jobs.
        is_over: bool,
    },
}

/// How a batch deals with jobs that are in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Waits a little for those that something else holds.
    Waits,
    /// Passes over those that something else holds.
    SkipsHeld,
    /// Leaves all jobs as they are, and counts them as failed for this reason.
    PassesOver(&'static str),
}

/// An action that is held until the transaction ends.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Held {
    pub(super) id: Uuid,
    pub(super) workspace_id: Uuid,
    action: String,
    filter: Value,
    pub(super) reason: String,
    max_jobs: Option<i64>,
    pub(super) undoes: Option<Uuid>,
    actor_kind: String,
    actor_id: Option<Uuid>,
    request_id: Option<String>,
    pub(super) cursor: Option<Uuid>,
    matched: i64,
    created_at: DateTime<Utc>,
}

impl Held {
    pub(super) fn corrupt(&self, what: &dyn std::fmt::Display) -> RecordError {
        RecordError::Corrupt(format!("action {}: {what}", self.id))
    }

    pub(super) fn by(&self) -> Result<By<'_>, RecordError> {
        let actor = Actor::from_parts(&self.actor_kind, self.actor_id);
        Ok(By {
            actor: actor.ok_or_else(|| self.corrupt(&"nobody knows who made it"))?,
            workspace_id: Some(self.workspace_id),
            request_id: self.request_id.as_deref(),
        })
    }

    fn change(&self) -> Result<Change, RecordError> {
        let change = self.action.parse();
        change.map_err(|()| self.corrupt(&format_args!("what is `{}`?", self.action)))
    }

    /// The next jobs that it is about, at most `size`.
    fn next(&self, size: i64) -> Result<JobFilter, RecordError> {
        let filter = JobFilter::deserialize(&self.filter);
        let filter = filter.map_err(|error| self.corrupt(&error))?;
        let left = self.max_jobs.map_or(size, |max| max - self.matched);
        Ok(JobFilter {
            workspace_id: Some(self.workspace_id),
            before: self.cursor,
            limit: left.min(size),
            ..made_before(filter, self.created_at)
        })
    }
}

/// The jobs of a filter that were made before this moment, by the record's clock.
pub(super) fn made_before(filter: JobFilter, moment: DateTime<Utc>) -> JobFilter {
    let until = filter.created_to.map_or(moment, |to| to.min(moment));
    JobFilter {
        created_to: Some(until),
        ..filter
    }
}

/// What became of the jobs of a batch.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) matched: usize,
    pub(super) changed: Vec<Uuid>,
    pub(super) failed: Vec<Failure>,
    /// Where to go on. None: that was all.
    pub(super) next: Option<Uuid>,
}

/// Actions that run, those that nobody has been at for longest first. By a partial index over as
/// many rows as there are running ones.
pub async fn running(record: &Record) -> Result<Vec<Uuid>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT id FROM bullwark.actions WHERE state = 'running' ORDER BY updated_at LIMIT $1",
    )
    .bind(RUNNING_LOOK_MAX)
    .fetch_all(&record.pool)
    .await?)
}

/// Carries out the next batch.
///
/// If the record refuses one of its jobs, smaller ones are tried down to that job, which is counted
/// as failed and passed over. So is a job that something else holds, but only after [`TRIES_MAX`]
/// tries, of this process and others.
pub async fn step(record: &Record, id: Uuid) -> Result<Step, RecordError> {
    let mut size = match tries(record, id).await? {
        0 => CONTROL_MAX,
        _ => SLOW_SIZE,
    };
    let mut manner = Manner::Waits;
    loop {
        let error = match carry_out(record, id, size, manner).await {
            Err(error) => error,
            went => return went,
        };
        match error {
            RecordError::Refused { .. } if size > 1 => size /= 2,
            RecordError::Refused { .. } => return pass_over(record, id, REFUSED, &error).await,
            // Too much at once, or one of them is held by somebody who takes his time.
            _ if is_slow(&error) && size > SLOW_SIZE => size = SLOW_SIZE,
            _ if is_slow(&error) && count_try(record, id).await? >= TRIES_MAX => match manner {
                Manner::Waits => manner = Manner::SkipsHeld,
                _ if size > 1 => size = 1,
                // It is not the job itself that is held, but something that goes with it.
                _ => return pass_over(record, id, HELD, &error).await,
            },
            _ => return Err(error),
        }
    }
}

fn is_slow(error: &RecordError) -> bool {
    error.trouble() == Some(Trouble::Slow)
}

/// Counts the next job as failed, and leaves it as it is.
async fn pass_over(
    record: &Record,
    id: Uuid,
    why: &'static str,
    error: &RecordError,
) -> Result<Step, RecordError> {
    tracing::warn!(%error, action = %id, "a job is passed over");
    carry_out(record, id, 1, Manner::PassesOver(why)).await
}

/// How often it came to nothing since its last batch.
async fn tries(record: &Record, id: Uuid) -> Result<i32, RecordError> {
    let tries = sqlx::query_scalar("SELECT tries FROM bullwark.actions WHERE id = $1")
        .bind(id)
        .fetch_optional(&record.pool)
        .await?;
    Ok(tries.unwrap_or_default())
}

async fn count_try(record: &Record, id: Uuid) -> Result<i32, RecordError> {
    let tries = sqlx::query_scalar(
        "UPDATE bullwark.actions SET tries = tries + 1 WHERE id = $1 RETURNING tries",
    )
    .bind(id)
    .fetch_optional(&record.pool)
    .await?;
    Ok(tries.unwrap_or_default())
}

async fn carry_out(
    record: &Record,
    id: Uuid,
    size: usize,
    manner: Manner,
) -> Result<Step, RecordError> {
    let mut tx = record.begin().await?;
    // Whatever it is that takes so long must not keep its jobs from their workers.
    sqlx::raw_sql("SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '1s'")
        .execute(tx.connection())
        .await?;
    match batch(&mut tx, id, size, manner).await {
        Ok(step) => {
            tx.commit().await?;
            Ok(step)
        }
        Err(error) => {
            // To its end: until then the action is held, and who tries again passes it over.
            tx.rollback().await.ok();
            // Whoever looks next begins with another action.
            sqlx::query("UPDATE bullwark.actions SET updated_at = clock_timestamp() WHERE id = $1")
                .bind(id)
                .execute(&record.pool)
                .await
                .ok();
            Err(error)
        }
    }
}

async fn batch(tx: &mut Tx, id: Uuid, size: usize, manner: Manner) -> Result<Step, RecordError> {
    let held: Option<Held> = sqlx::query_as(
        "SELECT id, workspace_id, action, filter, reason, max_jobs, undoes, actor_kind, actor_id,
           request_id, cursor, matched, created_at
         FROM bullwark.actions WHERE id = $1 AND state = 'running' FOR UPDATE SKIP LOCKED",
    )
    .bind(id)
    .fetch_optional(tx.connection())
    .await?;
    let Some(held) = held else {
        return Ok(Step::Left);
    };
    let part = match held.undoes {
        Some(cancel) => undo::part(tx, &held, cancel, size, manner).await?,
        None => part(tx, &held, size, manner).await?,
    };
    let matched = held.matched + part.matched as i64;
    let is_full = held.max_jobs.is_some_and(|max| matched >= max);
    let is_over = part.next.is_none() || is_full;
    advance(tx, id, &part, is_over).await?;
    let changed = part.changed;
    Ok(Step::Went { changed, is_over })
}

/// The jobs are found without holding them, then those that still match are held: one that is
/// started, or changed by somebody else, meanwhile is judged as it is then.
async fn part(tx: &mut Tx, held: &Held, size: usize, manner: Manner) -> Result<Part, RecordError> {
    let change = held.change()?;
    let filter = held.next(size as i64)?;
    let window = WINDOW.min(4 * size as i64);
    let found = filter::find_next(tx.connection(), &filter, window).await?;
    let ids: Vec<Uuid> = found.matches.iter().map(|job| job.id).collect();
    let (ids, failed) = free(tx, ids, manner).await?;
    let mut part = Part {
        next: found.next,
        failed,
        ..Part::default()
    };
    let held_jobs = filter::hold(tx.connection(), &filter, &ids).await?;
    part.matched = held_jobs.len() + part.failed.len();
    let fit = held_jobs
        .iter()
        .filter(|job| change.misfit(job.status.0, job.is_delayed).is_none());
    let ids: Vec<Uuid> = fit.map(|job| job.id).collect();
    if ids.is_empty() {
        return Ok(part);
    }
    if change == Change::Cancel {
        undo::remember(tx, held.id, &ids).await?;
    }
    let (by, reason) = (held.by()?, Some(held.reason.as_str()));
    part.changed = control::change_in(tx.connection(), change, &ids, &by, reason).await?;
    Ok(part)
}

/// Of these jobs those that a batch may deal with, and those that it passes over.
pub(super) async fn free(
    tx: &mut Tx,
    ids: Vec<Uuid>,
    manner: Manner,
) -> Result<(Vec<Uuid>, Vec<Failure>), RecordError> {
    let (free, why): (HashSet<Uuid>, _) = match manner {
        Manner::Waits => return Ok((ids, Vec::new())),
        Manner::PassesOver(why) => (HashSet::new(), why),
        Manner::SkipsHeld => {
            let free: Vec<Uuid> = sqlx::query_scalar(
                "SELECT id FROM jobs WHERE id = ANY($1) ORDER BY id
                 FOR NO KEY UPDATE SKIP LOCKED",
            )
            .bind(&ids)
            .fetch_all(tx.connection())
            .await?;
            (free.into_iter().collect(), HELD)
        }
    };
    let (free, passed): (Vec<Uuid>, _) = ids.into_iter().partition(|id| free.contains(id));
    let failure = |job_id| Failure {
        job_id,
        reason: why.to_owned(),
    };
    Ok((free, passed.into_iter().map(failure).collect()))
}

async fn advance(tx: &mut Tx, id: Uuid, part: &Part, is_over: bool) -> Result<(), RecordError> {
    let skipped = part.matched - part.changed.len() - part.failed.len();
    sqlx::query(
        "UPDATE bullwark.actions
         SET cursor = coalesce($2, cursor), matched = matched + $3, done = done + $4,
           skipped = skipped + $5, failed = failed + $6, updated_at = clock_timestamp(), tries = 0,
           failures = (SELECT coalesce(jsonb_agg(f.failure ORDER BY f.nth), '[]')
                       FROM jsonb_array_elements(failures || $9)
                         WITH ORDINALITY AS f (failure, nth) WHERE f.nth <= $10),
           state = CASE WHEN $7 THEN 'done' ELSE state END,
           ended_at = CASE WHEN $7 THEN clock_timestamp() END,
           undoable_until = CASE WHEN $7 AND action = 'cancel'
             THEN clock_timestamp() + make_interval(secs => $8) END
         WHERE id = $1",
    )
    .bind(id)
    .bind(part.next)
    .bind(part.matched as i64)
    .bind(part.changed.len() as i64)
    .bind(skipped as i64)
    .bind(part.failed.len() as i64)
    .bind(is_over)
    .bind(UNDO_WINDOW.as_secs_f64())
    .bind(sqlx::types::Json(&part.failed))
    .bind(FAILURES_MAX)
    .execute(tx.connection())
    .await?;
    Ok(())
}
