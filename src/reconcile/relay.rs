//! The relay of the outbox: makes Redis agree with the record about single jobs.

use std::collections::HashMap;

use uuid::Uuid;

use super::ReconcileError;
use super::halves::{Halves, passed_over};
use crate::broker::{self, Broker};
use crate::enqueue::stored_entry;
use crate::job::QueueName;
use crate::record::open::StoredJob;
use crate::record::{Record, jobs, open, outbox};

/// Delivers the oldest entries of the outbox; returns how many.
///
/// An entry is removed only when Redis
/// has been told, so dying in between repeats it, which changes nothing. One that Redis refuses
/// stays, behind all others, so that however many of them there are, the others go out.
pub async fn relay_outbox(record: &Record, broker: &Broker) -> Result<usize, ReconcileError> {
    let entries = outbox::take(record).await?;
    if entries.is_empty() {
        return Ok(0);
    }
    let (mut relayed, mut refused, mut halves) = (0, Vec::new(), Halves::of(&entries));
    while let Some(part) = halves.next() {
        let ids: Vec<Uuid> = part.iter().map(|(_, id)| *id).collect();
        let told = tell(record, broker, &ids).await;
        let told = halves.judge(part, told, |(seq, id), error| {
            passed_over("", &id.to_string(), error);
            refused.push(*seq);
        })?;
        if told.is_some() {
            outbox::delivered(record, part).await?;
            relayed += part.len();
        }
    }
    if !refused.is_empty() {
        outbox::put_last(record, &refused).await?;
    }
    metrics::counter!("bullwark_outbox_relayed_total").increment(relayed as u64);
    Ok(relayed)
}

/// Tells Redis of these jobs now and removes their entries of the outbox.
pub async fn relay(record: &Record, broker: &Broker, ids: &[Uuid]) -> Result<(), ReconcileError> {
    for ids in ids.chunks(open::LOAD_MAX) {
        let entries = outbox::of_jobs(record, ids).await?;
        tell(record, broker, ids).await?;
        outbox::delivered(record, &entries).await?;
    }
    Ok(())
}

/// Open jobs go (back) into their queue, cancelled ones leave Redis, in the record's words.
async fn tell(record: &Record, broker: &Broker, ids: &[Uuid]) -> Result<(), ReconcileError> {
    requeue_stored(broker, &open::load(record, ids).await?).await?;
    let mut cancelled: HashMap<String, Vec<String>> = HashMap::new();
    for job in jobs::cancelled_among(record, ids).await? {
        cancelled
            .entry(job.job_queue)
            .or_default()
            .push(job.wire_id);
    }
    for (queue, ids) in cancelled {
        if let Ok(queue) = queue.parse() {
            broker.cancel(&queue, &ids).await?;
        }
    }
    Ok(())
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
