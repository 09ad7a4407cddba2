//! The relay of the outbox: makes Redis agree with the record about single jobs.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use uuid::Uuid;

use super::halves::{Halves, passed_over};
use super::{ReconcileError, flows, passes};
use crate::broker::{Broker, BrokerState, Cancelled, NewJob, Requeued, WireJob};
use crate::enqueue::stored_entry;
use crate::fault::{self, Point};
use crate::job::QueueName;
use crate::record::control::{self, GoneJob};
use crate::record::open::StoredJob;
use crate::record::{Record, open, outbox};

/// How long a job that was cancelled before it was in Redis may still arrive there: longer than its
/// delivery may be under way (1.9 s), or that of a pass that saw it open.
const ARRIVES: Duration = Duration::from_secs(2);

/// How many take jobs out of Redis at once, in this process, and how long others wait for that;
/// then the relay does it.
static TAKING_OUT: Semaphore = Semaphore::const_new(3);
const TAKING_OUT_WAIT: Duration = Duration::from_secs(1);

/// Delivers the oldest entries of the outbox; returns how many.
///
/// An entry is removed only when Redis has been told, so dying in between repeats it, which changes
/// nothing. One that Redis refuses, or that comes too early, stays behind all others, so that
/// however many of them there are, the others go out.
pub async fn relay_outbox(record: &Record, broker: &Broker) -> Result<usize, ReconcileError> {
    let entries = outbox::take(record).await?;
    if entries.is_empty() {
        return Ok(0);
    }
    let (mut relayed, mut staying, mut halves) = (0_u64, Vec::new(), Halves::of(&entries));
    while let Some(part) = halves.next() {
        let ids: Vec<Uuid> = part.iter().map(|(_, id)| *id).collect();
        let told = tell(record, broker, &ids).await;
        let told = halves.judge(part, told, |(seq, id), error| {
            passed_over("", &id.to_string(), error);
            staying.push(*seq);
        })?;
        if let Some(early) = told {
            fault::point(Point::AfterOutboxTold);
            let (stay, done): (Vec<_>, Vec<_>) =
                part.iter().partition(|(_, id)| early.contains(id));
            staying.extend(stay.into_iter().map(|(seq, _)| seq));
            relayed += outbox::delivered(record, &done).await?;
        }
    }
    if !staying.is_empty() {
        outbox::put_last(record, &staying).await?;
    }
    metrics::counter!("bullwark_outbox_relayed_total").increment(relayed);
    Ok(relayed as usize)
}

/// Tells Redis of these jobs now and removes their entries of the outbox; for those that come too
/// early the relay tries again.
pub async fn relay(record: &Record, broker: &Broker, ids: &[Uuid]) -> Result<(), ReconcileError> {
    for ids in ids.chunks(open::LOAD_MAX) {
        let mut entries = outbox::of_jobs(record, ids).await?;
        let early = tell(record, broker, ids).await?;
        fault::point(Point::AfterOutboxTold);
        entries.retain(|(_, id)| !early.contains(id));
        outbox::delivered(record, &entries).await?;
    }
    Ok(())
}

/// Open jobs go (back) into their queue, cancelled and deleted ones leave Redis. Returns
/// those for which it is too early.
///
/// A job of which Redis shows an earlier start as active, and that waits by the record, was run
/// again before Redis heard of the end of that start. The end is on its way, or the lease runs out.
/// Until then the entry stays: it keeps the mirror from taking the end for news, and the job from
/// being forgotten among those that are over.
///
/// A cancelled job that Redis lacks may still come there: whoever enqueued it does not know that it
/// was cancelled. It would be added, and run.
async fn tell(
    record: &Record,
    broker: &Broker,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>, ReconcileError> {
    let stored = open::load(record, ids).await?;
    let open: HashSet<Uuid> = stored.iter().map(|stored| stored.job.id).collect();
    let mut early = requeue_stored(record, broker, stored).await?;
    let over: Vec<Uuid> = ids
        .iter()
        .copied()
        .filter(|id| !open.contains(id))
        .collect();
    if !over.is_empty() {
        early.extend(take_out(record, broker, &over).await?);
    }
    Ok(early)
}

/// Those of these jobs leave Redis that are cancelled or deleted.
///
/// One may be run again, or its cancel be undone, by another process, after it was looked at here
/// and before it is taken out. Then it goes back. In between its entry stays, whoever else delivers
/// it: the mirror does not take the removal for a client's, and if this process dies, the relay
/// tells of the job once more.
async fn take_out(
    record: &Record,
    broker: &Broker,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>, ReconcileError> {
    // Each holds a connection to the record while Redis answers, or does not.
    let Ok(Ok(_turn)) = timeout(TAKING_OUT_WAIT, TAKING_OUT.acquire()).await else {
        return Ok(ids.iter().copied().collect());
    };
    let mut keeping = record.begin().await?;
    let kept = outbox::keep(&mut keeping, ids).await?;
    let gone = control::gone_among(&mut keeping, &kept, ARRIVES).await?;
    let ids: Vec<Uuid> = gone.iter().map(|job| job.id).collect();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let mut early = cancel(broker, gone).await?;
    let still = control::gone_among(&mut keeping, &ids, ARRIVES).await?;
    let is_back = |id: &Uuid| still.iter().all(|job| job.id != *id);
    let back: Vec<Uuid> = ids.into_iter().filter(is_back).collect();
    if !back.is_empty() {
        early.retain(|id| !back.contains(id));
        let stored = open::load(record, &back).await?;
        early.extend(requeue_stored(record, broker, stored).await?);
    }
    keeping.rollback().await?;
    Ok(early)
}

/// Returns those that may still come to Redis.
async fn cancel(broker: &Broker, gone: Vec<GoneJob>) -> Result<HashSet<Uuid>, ReconcileError> {
    let (mut early, mut queues) = (HashSet::new(), HashMap::<String, Vec<GoneJob>>::new());
    for job in gone {
        queues.entry(job.job_queue.clone()).or_default().push(job);
    }
    for (queue, jobs) in queues {
        let Ok(queue) = queue.parse() else { continue };
        let wire_ids: Vec<String> = jobs.iter().map(|job| job.wire_id.clone()).collect();
        let answers = broker.cancel(&queue, &wire_ids).await?;
        let may_come = jobs
            .iter()
            .zip(answers)
            .filter(|(job, answer)| job.is_recent && *answer == Cancelled::Absent);
        early.extend(may_come.map(|(job, _)| job.id));
    }
    Ok(early)
}

/// Makes stored jobs wait in Redis; those that are live there stay as they are, and those that it
/// lacks come with their links. Returns those of which an earlier start is active there although
/// they wait by the record.
///
/// A young job that was cancelled and run again, or promoted, may come to Redis by itself between
/// the look and the add, as it was accepted: with a delay that nobody means any more. So it is
/// looked at once more; whatever comes later finds it.
pub(super) async fn requeue_stored(
    record: &Record,
    broker: &Broker,
    jobs: Vec<StoredJob>,
) -> Result<HashSet<Uuid>, ReconcileError> {
    let (mut early, mut absent) = requeue_those_there(record, broker, jobs).await?;
    absent.sort_by_key(|stored| stored.job.id);
    passes::keep_counters(broker, &absent).await?;
    flows::deliver(record, broker, &absent).await?;
    // Others are wanted as they were accepted.
    let may_differ = |stored: &StoredJob| stored.attempt > 0 || stored.due_at.is_some();
    absent.retain(|job| may_differ(job) && job.age_ms < ARRIVES.as_millis() as i64);
    if !absent.is_empty() {
        early.extend(requeue_those_there(record, broker, absent).await?.0);
    }
    Ok(early)
}

/// Returns those for which it is too early, and those that are not there.
async fn requeue_those_there(
    record: &Record,
    broker: &Broker,
    jobs: Vec<StoredJob>,
) -> Result<(HashSet<Uuid>, Vec<StoredJob>), ReconcileError> {
    let mut waiting: HashMap<QueueName, Vec<StoredJob>> = HashMap::new();
    for stored in jobs {
        let queue = waiting.entry(stored.job.queue.clone());
        queue.or_default().push(stored);
    }
    let (mut early, mut absent) = (HashSet::new(), Vec::new());
    for (queue, jobs) in waiting {
        let ids: Vec<String> = jobs.iter().map(|stored| stored.wire_id.clone()).collect();
        let seen = broker.read_jobs(&queue, &ids, false).await?;
        let (there, gone): (Vec<_>, Vec<_>) = jobs
            .into_iter()
            .zip(seen)
            .partition(|(_, seen)| seen.is_some());
        absent.extend(gone.into_iter().map(|(stored, _)| stored));
        let entries: Vec<NewJob> = there
            .iter()
            .map(|(stored, _)| stored_entry(stored))
            .collect();
        let requeued = broker.requeue(&queue, &entries).await?;
        let there: Vec<(StoredJob, WireJob)> = there
            .into_iter()
            .filter_map(|(stored, seen)| Some((stored, seen?)))
            .collect();
        for ((stored, _), requeued) in there.iter().zip(requeued) {
            if requeued == Requeued::IsEnding && !stored.is_running {
                early.insert(stored.job.id);
            }
        }
        early.extend(promote_due(record, broker, &queue, &there).await?);
    }
    Ok((early, absent))
}

/// Jobs that are due by the record do not wait in Redis for an older time: somebody promoted them.
/// Returns those for which it is too early: the end of a start is committed, and not told yet.
///
/// The record is asked again after the look at Redis, and it is ahead of it. So what it says is
/// meant for the start that was seen there, or a later one; and if none was made until the script
/// runs, for that one.
async fn promote_due(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    there: &[(StoredJob, WireJob)],
) -> Result<HashSet<Uuid>, ReconcileError> {
    let waits = |seen: &WireJob| {
        matches!(
            seen.state,
            BrokerState::Delayed | BrokerState::WaitingChildren
        )
    };
    // Of a client's job Redis may be ahead: its failures tell.
    let is_meant = |stored: &StoredJob, seen: &WireJob| {
        stored.wire.is_none() || i64::from(stored.attempts) == i64::from(seen.attempts_made)
    };
    let ends = |stored: &StoredJob, seen: &WireJob| {
        seen.state == BrokerState::Active && stored.attempt > 0 && stored.wire.is_none()
    };
    let timed = there
        .iter()
        .filter(|(stored, _)| stored.due_at.is_some() && !stored.is_running)
        .filter(|(stored, seen)| (waits(seen) && is_meant(stored, seen)) || ends(stored, seen));
    let ids: Vec<Uuid> = timed.clone().map(|(stored, _)| stored.job.id).collect();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let due = open::due_among(record, &ids).await?;
    let timed = timed.filter(|(stored, _)| due.contains(&stored.job.id));
    let (ending, waiting): (Vec<_>, Vec<_>) = timed.partition(|(stored, seen)| ends(stored, seen));
    let waiting: Vec<(String, u32)> = waiting
        .into_iter()
        .map(|(stored, seen)| (stored.wire_id.clone(), seen.attempts_started))
        .collect();
    broker.promote_if_started(queue, &waiting).await?;
    Ok(ending
        .into_iter()
        .map(|(stored, _)| stored.job.id)
        .collect())
}
