//! Control: the door for what people do to jobs: cancel, retry by hand, delete, promote, to one or
//! to all that match a filter; and to queues as a whole: pause, limits, drain, schedules.
//!
//! Decided in the record, in one transaction with an outbox row; Redis is told right after, or by
//! the relay when that fails. So a process that dies in between leaves nothing undone.

pub mod actions;

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::broker::Broker;
use crate::fault::{self, Point};
use crate::job::schedule::StoredSchedule;
use crate::job::schedule::check_schedule_id;
use crate::job::{InvalidSchedule, QueueChange, QueueName, QueueSettings, Schedule, Template};
use crate::reconcile::{self, ReconcileError};
use crate::record::access::By;
use crate::record::control::{self as jobs, CONTROL_MAX};
use crate::record::drain::{Draining, drain_next};
use crate::record::schedules::{self, KnownSchedule};
use crate::record::{Record, RecordError, queues};

/// Cancels jobs that are not over; returns the ids that were cancelled.
///
/// A handler that runs is told to stop when its lease is looked at next, and can write nothing from
/// here on. Doing it again changes nothing.
pub async fn cancel(
    record: &Record,
    broker: &Broker,
    ids: &[Uuid],
    by: &By<'_>,
    reason: &str,
) -> Result<Vec<Uuid>, RecordError> {
    let mut cancelled = Vec::new();
    for ids in ids.chunks(CONTROL_MAX) {
        cancelled.extend(jobs::cancel_many(record, ids, by, reason).await?);
    }
    tell(record, broker, &cancelled).await;
    Ok(cancelled)
}

/// Gives jobs that are over another run with fresh attempts; returns the ids that will run. Doing
/// it again changes nothing while the job is not over.
pub async fn retry(
    record: &Record,
    broker: &Broker,
    ids: &[Uuid],
    by: &By<'_>,
) -> Result<Vec<Uuid>, RecordError> {
    let mut retried = Vec::new();
    for ids in ids.chunks(CONTROL_MAX) {
        retried.extend(jobs::retry_many(record, ids, by).await?);
    }
    tell(record, broker, &retried).await;
    Ok(retried)
}

/// Deletes jobs that do not run, and all that they hold; returns the ids that were deleted. One
/// that waits does not run any more, and one that runs is left as it is: cancel it first.
///
/// To everybody a deleted job is as one that never was. Doing it again changes nothing.
pub async fn delete(
    record: &Record,
    broker: &Broker,
    ids: &[Uuid],
    by: &By<'_>,
    reason: &str,
) -> Result<Vec<Uuid>, RecordError> {
    let mut deleted = Vec::new();
    for ids in ids.chunks(CONTROL_MAX) {
        deleted.extend(jobs::delete_many(record, ids, by, reason).await?);
    }
    tell(record, broker, &deleted).await;
    Ok(deleted)
}

/// Lets jobs run now that wait for a time: delayed ones, and those between two attempts.
///
/// Returns the ids that were promoted. One that is started meanwhile is left as it is. Doing it
/// again changes nothing.
pub async fn promote(
    record: &Record,
    broker: &Broker,
    ids: &[Uuid],
    by: &By<'_>,
) -> Result<Vec<Uuid>, RecordError> {
    let mut promoted = Vec::new();
    for ids in ids.chunks(CONTROL_MAX) {
        promoted.extend(jobs::promote_many(record, ids, by).await?);
    }
    tell(record, broker, &promoted).await;
    Ok(promoted)
}

/// How long whoever changes a queue waits until Redis has been told: where many jobs wait, another
/// order of them takes time.
const TELL_PATIENCE: Duration = Duration::from_secs(10);
/// Batches of one call of [`drain`]: 10,000 jobs.
const DRAIN_BATCHES_MAX: usize = 20;
/// After so long no further batch is begun.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// What [`drain`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    pub cancelled: u64,
    /// There may be more: call it again.
    pub more: bool,
}

/// Cancels what waits in a queue, oldest first, a bounded number of jobs.
///
/// Each batch is committed before Redis is told of it: whoever dies in between leaves some
/// cancelled and the others as they were. Done again it goes on. A job that was handed out a moment
/// ago, which the record has not heard yet, is cancelled as one that runs: its attempt has no say.
pub async fn drain(
    record: &Record,
    broker: &Broker,
    draining: &Draining<'_>,
    by: &By<'_>,
) -> Result<Drained, RecordError> {
    let began = Instant::now();
    let (mut cancelled, mut after, mut more) = (0, Uuid::nil(), true);
    for _ in 0..DRAIN_BATCHES_MAX {
        let batch = drain_next(record, draining, after, by).await?;
        tell(record, broker, &batch.ids).await;
        cancelled += batch.ids.len() as u64;
        more = batch.last.is_some();
        after = batch.last.unwrap_or(after);
        if !more || began.elapsed() >= DRAIN_TIME_MAX {
            break;
        }
    }
    Ok(Drained { cancelled, more })
}

/// False: Redis was not told, and the relay will.
async fn tell(record: &Record, broker: &Broker, ids: &[Uuid]) -> bool {
    fault::point(Point::AfterControlCommit);
    let told = reconcile::relay(record, broker, ids).await;
    if let Err(error) = &told {
        tracing::warn!(%error, jobs = ids.len(), "redis not told; the relay will");
    }
    told.is_ok()
}

/// Changes settings of a queue: it is paused, resumed or limited, for all workers of any kind.
/// Returns what holds now. Doing it again changes nothing, but for the audit.
///
/// It holds when the record has it: if Redis is away, it is told when it is back. What is not
/// changed stays as clients have set it.
pub async fn change_queue(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    change: &QueueChange,
    (by, reason): (&By<'_>, Option<&str>),
) -> Result<QueueSettings, RecordError> {
    // Only for a queue that the record does not know yet.
    let base = broker.queue_meta(queue).await;
    let base = base.map(|meta| meta.settings()).unwrap_or_default();
    let noted = (by, reason);
    let known = queues::change(record, broker.prefix(), queue, &base, change, noted).await?;
    fault::point(Point::AfterSettingsCommit);
    let telling = reconcile::tell_settings(record, broker, &known);
    match tokio::time::timeout(TELL_PATIENCE, telling).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, %queue, "redis not told of a queue's settings; upkeep will");
        }
        Err(_) => tracing::info!(%queue, "upkeep tells redis the rest of a queue's settings"),
    }
    Ok(known.settings)
}

/// Makes a schedule, or changes the one with this id.
///
/// It holds when the record has it: if Redis is away, its first iteration is made when it is back.
pub async fn upsert_schedule(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    id: &str,
    schedule: &Schedule,
    template: &Template,
    by: &By<'_>,
) -> Result<(), ScheduleError> {
    check_schedule_id(id)?;
    schedule.check()?;
    let stored = StoredSchedule::new(id, schedule, template);
    let version = schedules::change(record, broker.prefix(), queue, &stored, by).await?;
    tell_schedule(record, broker, queue, stored, version, false).await;
    Ok(())
}

/// The same for a schedule of this workspace's own, of which it may have so many, and that was
/// checked. Returns whether it is new.
pub async fn put_schedule(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    schedule: StoredSchedule,
    by: &By<'_>,
    (owner, max): (Uuid, i64),
) -> Result<bool, ScheduleError> {
    let most = (owner, max);
    let put = schedules::put(record, broker.prefix(), queue, &schedule, by, most).await?;
    let put = put.ok_or(ScheduleError::TooMany)?;
    tell_schedule(record, broker, queue, schedule, put.version, false).await;
    Ok(put.is_new)
}

/// Ends a schedule; doing it again changes nothing. An iteration that waits or runs stays.
pub async fn remove_schedule(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    id: &str,
    by: &By<'_>,
) -> Result<(), ScheduleError> {
    check_schedule_id(id)?;
    let version = schedules::remove(record, broker.prefix(), queue, id, by).await?;
    let stored = StoredSchedule {
        id: id.to_owned(),
        ..StoredSchedule::default()
    };
    tell_schedule(record, broker, queue, stored, version, true).await;
    Ok(())
}

/// Why a schedule was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    #[error(transparent)]
    Invalid(#[from] InvalidSchedule),
    #[error("the workspace has as many schedules as it may have")]
    TooMany,
    #[error(transparent)]
    Record(#[from] RecordError),
}

async fn tell_schedule(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    schedule: StoredSchedule,
    version: i64,
    is_removed: bool,
) {
    fault::point(Point::AfterSettingsCommit);
    let known = KnownSchedule {
        queue: queue.clone(),
        schedule,
        version,
        is_told: false,
        is_removed,
    };
    let told: Result<(), ReconcileError> = reconcile::tell_schedule(record, broker, &known).await;
    if let Err(error) = told {
        tracing::warn!(%error, %queue, "redis not told of a schedule; upkeep will");
    }
}
