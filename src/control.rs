//! Control: the door for what people do to jobs: cancel, and retry by hand.
//!
//! Decided in the record, in one transaction with an outbox row; Redis is told right after, or by
//! the relay when that fails. So a process that dies in between leaves nothing undone.

use uuid::Uuid;

use crate::broker::Broker;
use crate::reconcile;
use crate::record::jobs::{self, CONTROL_MAX};
use crate::record::{Record, RecordError};

/// Cancels jobs that are not over; returns the ids that were cancelled.
///
/// A handler that runs is told to stop when its lease is looked at next, and can write nothing from
/// here on. Doing it again changes nothing.
pub async fn cancel(
    record: &Record,
    broker: &Broker,
    ids: &[Uuid],
    workspace_id: Option<Uuid>,
    reason: &str,
) -> Result<Vec<Uuid>, RecordError> {
    let mut cancelled = Vec::new();
    for ids in ids.chunks(CONTROL_MAX) {
        cancelled.extend(jobs::cancel_many(record, ids, workspace_id, reason).await?);
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
    workspace_id: Option<Uuid>,
) -> Result<Vec<Uuid>, RecordError> {
    let mut retried = Vec::new();
    for ids in ids.chunks(CONTROL_MAX) {
        retried.extend(jobs::retry_many(record, ids, workspace_id).await?);
    }
    tell(record, broker, &retried).await;
    Ok(retried)
}

async fn tell(record: &Record, broker: &Broker, ids: &[Uuid]) {
    if let Err(error) = reconcile::relay(record, broker, ids).await {
        tracing::warn!(%error, jobs = ids.len(), "redis not told; the relay will");
    }
}
