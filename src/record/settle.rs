//! Committing how attempts ended: the one statement that decides what becomes of a job.
//!
//! Guarded by the attempt number: of all who may believe to hold a job, the newest start wins, and
//! each start is settled once. Redis is told only of what this accepted.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Record, RecordError, Tx};
use crate::job::{Outcome, Status};

/// The most outcomes of one statement.
pub const SETTLE_MAX: usize = 500;

const COMPLETE_MANY: &str = concat!(
    include_str!("sql/complete_many.sql"),
    include_str!("sql/webhooks_hear.sql"),
    "SELECT id FROM settled"
);
const SETTLE_MIXED: &str = concat!(
    include_str!("sql/settle_mixed.sql"),
    include_str!("sql/webhooks_hear.sql"),
    "SELECT id FROM settled"
);
const COMPLETE_IN: &str = concat!(
    include_str!("sql/complete_in.sql"),
    include_str!("sql/webhooks_hear.sql"),
    "SELECT count(*) FROM settled"
);

/// One attempt that ended.
#[derive(Debug, Clone, PartialEq)]
pub struct SettledAttempt {
    pub id: Uuid,
    pub attempt: i32,
    pub worker_id: String,
    /// By the clock of the store that handed the job out.
    pub started_at: DateTime<Utc>,
    pub outcome: Outcome,
}

/// Commits a batch of outcomes and returns the ids whose outcome was accepted. An id that is
/// missing in the answer was settled before, cancelled, or belongs to a newer attempt.
///
/// Safe to repeat: what was accepted the first time is refused the second time, so a caller that
/// does not know whether its commit went through asks [`settled_as`] instead of guessing.
pub async fn settle_many(
    record: &Record,
    batch: &[SettledAttempt],
) -> Result<HashSet<Uuid>, RecordError> {
    debug_assert!(batch.len() <= SETTLE_MAX);
    // In the order of ids, as every statement on several jobs: no two batches can deadlock.
    let mut batch: Vec<&SettledAttempt> = batch.iter().collect();
    batch.sort_by_key(|settled| settled.id);
    let all_completed = batch
        .iter()
        .all(|s| s.outcome.status() == Status::Completed);
    let accepted = match all_completed {
        true => complete_many(record, &batch).await,
        false => settle_mixed(record, &batch).await,
    };
    Ok(record.fullness.learn(accepted)?.into_iter().collect())
}

/// The lean statement for the usual batch: everything completed.
async fn complete_many(
    record: &Record,
    batch: &[&SettledAttempt],
) -> Result<Vec<Uuid>, RecordError> {
    Ok(sqlx::query_scalar(COMPLETE_MANY)
        .bind(batch.iter().map(|s| s.id).collect::<Vec<_>>())
        .bind(batch.iter().map(|s| s.attempt).collect::<Vec<_>>())
        .bind(
            batch
                .iter()
                .map(|s| s.outcome.attempts as i32)
                .collect::<Vec<_>>(),
        )
        .bind(
            batch
                .iter()
                .map(|s| s.outcome.result.as_deref())
                .collect::<Vec<_>>(),
        )
        .bind(batch.iter().map(|s| s.started_at).collect::<Vec<_>>())
        .bind(
            batch
                .iter()
                .map(|s| s.worker_id.as_str())
                .collect::<Vec<_>>(),
        )
        .fetch_all(&record.writers)
        .await?)
}

/// Any mix of outcomes: also writes the retry history and the dead letter queue.
async fn settle_mixed(
    record: &Record,
    batch: &[&SettledAttempt],
) -> Result<Vec<Uuid>, RecordError> {
    Ok(sqlx::query_scalar(SETTLE_MIXED)
        .bind(batch.iter().map(|s| s.id).collect::<Vec<_>>())
        .bind(batch.iter().map(|s| s.attempt).collect::<Vec<_>>())
        .bind(
            batch
                .iter()
                .map(|s| s.outcome.attempts as i32)
                .collect::<Vec<_>>(),
        )
        .bind(
            batch
                .iter()
                .map(|s| s.outcome.status().as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            batch
                .iter()
                .map(|s| s.outcome.result.as_deref())
                .collect::<Vec<_>>(),
        )
        .bind(
            batch
                .iter()
                .map(|s| s.outcome.error.as_deref())
                .collect::<Vec<_>>(),
        )
        .bind(
            batch
                .iter()
                .map(|s| s.outcome.delay.as_millis() as i64)
                .collect::<Vec<_>>(),
        )
        .bind(batch.iter().map(|s| s.started_at).collect::<Vec<_>>())
        .bind(
            batch
                .iter()
                .map(|s| s.worker_id.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            batch
                .iter()
                .map(|s| s.outcome.stack.as_deref())
                .collect::<Vec<_>>(),
        )
        .fetch_all(&record.writers)
        .await?)
}

/// Completes an attempt inside a handler's own transaction, behind the fence: its effects and its
/// outcome are committed together or not at all. False: this attempt has no say.
pub async fn complete_in(tx: &mut Tx, settled: &SettledAttempt) -> Result<bool, RecordError> {
    let done: i64 = sqlx::query_scalar(COMPLETE_IN)
        .bind(settled.id)
        .bind(settled.attempt)
        .bind(settled.outcome.attempts as i32)
        .bind(settled.outcome.result.as_deref())
        .bind(settled.started_at)
        .bind(&settled.worker_id)
        .fetch_one(tx.connection())
        .await?;
    Ok(done == 1)
}

/// Whether this attempt has completed the job. In a transaction that holds the job, for the caller
/// whose commit was not answered.
pub async fn is_completed_by(
    tx: &mut Tx,
    id: Uuid,
    attempt: i32,
    worker_id: &str,
) -> Result<bool, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM jobs WHERE id = $1 AND attempt = $2 AND worker_id = $3
           AND status = 'completed')",
    )
    .bind(id)
    .bind(attempt)
    .bind(worker_id)
    .fetch_one(tx.connection())
    .await?)
}

/// Of the given attempts, those that the record has settled, with the status it gave them. For the
/// caller whose commit was not answered: an attempt that is not in the answer was not settled.
pub async fn settled_as(
    record: &Record,
    batch: &[SettledAttempt],
) -> Result<HashSet<Uuid>, RecordError> {
    let accepted: Vec<Uuid> = sqlx::query_scalar(
        "SELECT j.id FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[])
           AS u (id, attempt, status, worker_id)
         JOIN jobs j ON j.id = u.id
         WHERE j.attempt = u.attempt AND j.status = u.status AND j.worker_id = u.worker_id
           AND j.status <> 'processing'",
    )
    .bind(batch.iter().map(|s| s.id).collect::<Vec<_>>())
    .bind(batch.iter().map(|s| s.attempt).collect::<Vec<_>>())
    .bind(
        batch
            .iter()
            .map(|s| s.outcome.status().as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        batch
            .iter()
            .map(|s| s.worker_id.as_str())
            .collect::<Vec<_>>(),
    )
    .fetch_all(&record.writers)
    .await?;
    Ok(accepted.into_iter().collect())
}
