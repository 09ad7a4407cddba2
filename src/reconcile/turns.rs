//! A queue becomes fair, or is so no more: the jobs that wait already go where they do in a queue
//! of its kind.
//!
//! What comes meanwhile comes to its place by itself. Whoever dies in the middle leaves some where
//! they were; it is done again from the beginning, since nothing says that it was done.

use uuid::Uuid;

use super::ReconcileError;
use crate::broker::Broker;
use crate::job::QueueName;
use crate::record::Record;
use crate::record::open::{self, OpenJob};
use crate::record::owners;

/// Parts that are moved at once at most; others take as many again. Far more than ever wait.
const PARTS_MAX: u32 = 100_000;

/// Moves them. Done again, it changes nothing.
pub(super) async fn arrange(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    is_fair: bool,
) -> Result<(), ReconcileError> {
    if is_fair {
        mark_owners(record, broker, queue).await?;
    }
    let mut from = None;
    for _ in 0..PARTS_MAX {
        from = broker.arrange(queue, from).await?;
        if from.is_none() {
            break;
        }
    }
    Ok(())
}

/// Redis does not know whose jobs are that it got before; the record does.
async fn mark_owners(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
) -> Result<(), ReconcileError> {
    let mut after = Some(Uuid::nil());
    while let Some(from) = after {
        let page = open::page(record, from).await?;
        // Less than a page: these were all. What comes now says itself whose it is.
        let is_full = page.len() as i64 == open::PASS_MAX;
        after = page.last().filter(|_| is_full).map(|job| job.id);
        let is_here = |job: &&OpenJob| job.job_queue == queue.as_str();
        let jobs: Vec<&OpenJob> = page.iter().filter(is_here).collect();
        if !jobs.is_empty() {
            let owners = owners::of(record, &jobs).await?;
            let owners = owners
                .into_iter()
                .map(|(id, whose)| (id, whose.to_string()));
            broker
                .mark_owners(queue, &owners.collect::<Vec<_>>())
                .await?;
        }
    }
    Ok(())
}
