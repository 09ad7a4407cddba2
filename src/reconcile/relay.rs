//! The relay of the outbox: makes Redis agree with the record about single jobs.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use uuid::Uuid;

use super::halves::{Halves, passed_over};
use super::{ReconcileError, flows, passes};
use crate::broker::{Broker, Cancelled, NewJob, Requeued};
use crate::enqueue::stored_entry;
use crate::fault::{self, Point};
use crate::job::QueueName;
use crate::record::control::{self, GoneJob};
use crate::record::open::StoredJob;
use crate::record::{Record, open, outbox};

/// How long a job that was cancelled before it was in Redis may still arrive there: longer than its
/// delivery may be under way (1.9 s), or that of a pass that saw it open.
const ARRIVES: Duration = Duration::from_secs(2);

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
    let (mut relayed, mut staying, mut halves) = (0, Vec::new(), Halves::of(&entries));
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
            outbox::delivered(record, &done).await?;
            relayed += done.len();
        }
    }
    if !staying.is_empty() {
        outbox::put_last(record, &staying).await?;
    }
    metrics::counter!("bullwark_outbox_relayed_total").increment(relayed as u64);
    Ok(relayed)
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
    let mut early = requeue_stored(record, broker, open::load(record, ids).await?).await?;
    let mut gone: HashMap<String, Vec<GoneJob>> = HashMap::new();
    for job in control::gone_among(record, ids, ARRIVES).await? {
        gone.entry(job.job_queue.clone()).or_default().push(job);
    }
    for (queue, jobs) in gone {
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
/// A young job that was cancelled and run again may come to Redis by itself between the look and
/// the add, as it was accepted: with a delay that nobody means any more. So it is looked at once
/// more; whatever comes later finds it.
pub(super) async fn requeue_stored(
    record: &Record,
    broker: &Broker,
    jobs: Vec<StoredJob>,
) -> Result<HashSet<Uuid>, ReconcileError> {
    let (mut early, mut absent) = requeue_those_there(broker, jobs).await?;
    absent.sort_by_key(|stored| stored.job.id);
    passes::keep_counters(broker, &absent).await?;
    flows::deliver(record, broker, &absent).await?;
    // Those that were never run again are wanted as they were accepted.
    absent.retain(|stored| stored.attempt > 0 && stored.age_ms < ARRIVES.as_millis() as i64);
    if !absent.is_empty() {
        early.extend(requeue_those_there(broker, absent).await?.0);
    }
    Ok(early)
}

/// Returns those for which it is too early, and those that are not there.
async fn requeue_those_there(
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
        for ((stored, _), requeued) in there.into_iter().zip(requeued) {
            if requeued == Requeued::IsEnding && !stored.is_running {
                early.insert(stored.job.id);
            }
        }
    }
    Ok((early, absent))
}
