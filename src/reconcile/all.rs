//! A whole round of every repair at once, for a person who does not want to wait for it.

use serde::Serialize;
use uuid::Uuid;

use super::{ReconcileError, keep_queues, mirror, over, passes, readmit, relay};
use crate::broker::Broker;
use crate::record::{self, Record, owed_logs};

/// Between two tries when another process compares the stores.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// Redis had another memory, which was compared with the record as a whole; the other numbers
    /// are of what was left to do after that.
    pub compared: bool,
    /// Entries of the outbox that Redis was told.
    pub relayed: u64,
    /// Open jobs that Redis lacked, or of which it knew the outcome.
    pub added: u64,
    /// Jobs that only Redis knew, and what foreign workers made of jobs.
    pub copied: u64,
    /// Jobs that were over and waited in Redis all the same.
    pub ended: u64,
    /// Settings and schedules that differed.
    pub queues: u64,
}

/// Brings both stores together. Safe to repeat, and beside everything else.
pub async fn reconcile_all(record: &Record, broker: &Broker) -> Result<Reconciled, ReconcileError> {
    let compared = record::rebuild::compared(record, broker.prefix()).await?;
    let mut done = Reconciled {
        compared: compared != Some(broker.epoch().await?),
        ..Reconciled::default()
    };
    while !readmit(record, broker).await? {
        tokio::time::sleep(PAUSE).await;
    }
    loop {
        match relay::relay_outbox(record, broker).await? {
            0 => break,
            relayed => done.relayed += relayed as u64,
        }
    }
    let queues = broker.queues().await?;
    done.copied = mirror::scan_all(record, broker, &queues).await?;
    for queue in &queues {
        done.ended += over::end_all(record, broker, queue).await?;
    }
    while passes::deliver_recent(record, broker).await? {}
    let mut after = Uuid::nil();
    while let Some(next) = passes::sweep_page(record, broker, after, &mut done.added).await? {
        after = next;
    }
    done.queues = keep_queues(record, broker).await?;
    while owed_logs::write_next(record).await? {}
    Ok(done)
}
