//! The relay of the outbox: makes Redis agree with the record about single jobs.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use uuid::Uuid;

use super::ReconcileError;
use super::halves::{Halves, passed_over};
use crate::broker::{self, Broker, Cancelled};
use crate::enqueue::stored_entry;
use crate::fault::{self, Point};
use crate::job::QueueName;
use crate::record::jobs::{self, CancelledJob};
use crate::record::open::StoredJob;
use crate::record::{Record, open, outbox};

/// How long a job that was cancelled before it was in Redis may still arrive there: longer than its
/// delivery may be under way (1.5 s), or that of a pass that saw it open.
const ARRIVES: Duration = Duration::from_secs(2);

/// Delivers the oldest entries of the outbox; returns how many.
///
/// An entry is removed only when Redis
/// has been told, so dying in between repeats it, which changes nothing. One that Redis refuses
/// stays, behind all others, so that however many of them there are, the others go out. So does one
/// of a cancelled job that may still be on its way to Redis, for as long as it may be.
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
        if let Some(coming) = told {
            fault::point(Point::AfterOutboxTold);
            let (coming, done) = split(part, &coming);
            outbox::delivered(record, &done).await?;
            relayed += done.len();
            staying.extend(coming.iter().map(|(seq, _)| *seq));
        }
    }
    if !staying.is_empty() {
        outbox::put_last(record, &staying).await?;
    }
    metrics::counter!("bullwark_outbox_relayed_total").increment(relayed as u64);
    Ok(relayed)
}

/// Tells Redis of these jobs now and removes their entries of the outbox; [`relay_outbox`] has the
/// rest.
pub async fn relay(record: &Record, broker: &Broker, ids: &[Uuid]) -> Result<(), ReconcileError> {
    for ids in ids.chunks(open::LOAD_MAX) {
        let entries = outbox::of_jobs(record, ids).await?;
        let coming = tell(record, broker, ids).await?;
        fault::point(Point::AfterOutboxTold);
        outbox::delivered(record, &split(&entries, &coming).1).await?;
    }
    Ok(())
}

/// Entries of these jobs, and the others.
fn split(entries: &[(i64, Uuid)], of: &HashSet<Uuid>) -> (Vec<(i64, Uuid)>, Vec<(i64, Uuid)>) {
    entries.iter().partition(|(_, id)| of.contains(id))
}

/// Open jobs go (back) into their queue, cancelled ones leave Redis, in the record's words.
///
/// Returns the cancelled ones that Redis lacks and that may still come. Whoever enqueued such a job
/// does not know that it was cancelled: it would be added, and run.
async fn tell(
    record: &Record,
    broker: &Broker,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>, ReconcileError> {
    requeue_stored(broker, &open::load(record, ids).await?).await?;
    let mut cancelled: HashMap<String, Vec<CancelledJob>> = HashMap::new();
    for job in jobs::cancelled_among(record, ids, ARRIVES).await? {
        cancelled
            .entry(job.job_queue.clone())
            .or_default()
            .push(job);
    }
    let mut coming = HashSet::new();
    for (queue, jobs) in cancelled {
        let Ok(queue) = queue.parse() else { continue };
        let wire_ids: Vec<String> = jobs.iter().map(|job| job.wire_id.clone()).collect();
        let answers = broker.cancel(&queue, &wire_ids).await?;
        let may_come = jobs
            .iter()
            .zip(answers)
            .filter(|(job, answer)| job.is_recent && *answer == Cancelled::Absent);
        coming.extend(may_come.map(|(job, _)| job.id));
    }
    Ok(coming)
}

/// Makes stored jobs wait in Redis; those that are live there stay as they are.
pub(super) async fn requeue_stored(
    broker: &Broker,
    jobs: &[StoredJob],
) -> Result<(), ReconcileError> {
    let mut waiting: HashMap<QueueName, Vec<broker::NewJob>> = HashMap::new();
    for stored in jobs {
        waiting
            .entry(stored.job.queue.clone())
            .or_default()
            .push(stored_entry(stored));
    }
    for (queue, entries) in waiting {
        broker.requeue(&queue, &entries).await?;
    }
    Ok(())
}
