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
    Ok(sqlx::query_scalar(
        "UPDATE jobs j
         SET status = 'completed', attempt = u.attempt, attempts = u.attempts,
           result = u.result::jsonb, error_message = NULL, started_at = u.started_at,
           completed_at = now(), next_retry_at = NULL, worker_id = u.worker_id
         FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::timestamptz[], $6::text[])
           AS u (id, attempt, attempts, result, started_at, worker_id)
         WHERE j.id = u.id AND j.status IN ('pending', 'processing', 'failed')
           AND (j.attempt < u.attempt OR (j.attempt = u.attempt AND j.status = 'processing'
             AND j.worker_id = u.worker_id))
         RETURNING j.id",
    )
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
    Ok(sqlx::query_scalar(
        "WITH settled AS (
           UPDATE jobs j
           SET status = u.status, attempt = u.attempt, attempts = u.attempts,
             result = u.result::jsonb,
             error_message = u.error, error_stack = u.stack, started_at = u.started_at,
             worker_id = u.worker_id, lease_losses = 0,
             completed_at = CASE u.status WHEN 'completed' THEN now() END,
             failed_at = CASE WHEN u.status IN ('failed', 'dead_letter') THEN now()
                              ELSE j.failed_at END,
             next_retry_at = CASE u.status WHEN 'failed'
                                  THEN now() + u.delay_ms * interval '1 millisecond' END,
             scheduled_for = CASE WHEN u.status = 'pending' AND u.delay_ms > 0
                                  THEN now() + u.delay_ms * interval '1 millisecond'
                                  ELSE j.scheduled_for END
           FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::text[], $6::text[],
             $7::bigint[], $8::timestamptz[], $9::text[], $10::text[])
             AS u (id, attempt, attempts, status, result, error, delay_ms, started_at, worker_id,
               stack)
           WHERE j.id = u.id AND j.status IN ('pending', 'processing', 'failed')
             AND (j.attempt < u.attempt OR (j.attempt = u.attempt AND j.status = 'processing'
             AND j.worker_id = u.worker_id))
           RETURNING j.id, j.workspace_id, j.job_type, j.job_queue, j.status, j.attempt,
             j.error_message, j.error_stack, j.worker_id, j.started_at, j.next_retry_at
         ), history AS (
           INSERT INTO job_failures (job_id, attempt, outcome, error_message, error_stack,
             worker_id, started_at, next_retry_at)
           SELECT id, attempt, status, error_message, error_stack, worker_id, started_at,
             next_retry_at
           FROM settled WHERE status IN ('failed', 'dead_letter')
           ON CONFLICT (job_id, attempt) DO NOTHING
         ), dead AS (
           INSERT INTO bullwark.dead_letters (job_id, workspace_id, job_type, job_queue)
           SELECT id, workspace_id, job_type, job_queue
           FROM settled WHERE status = 'dead_letter'
           ON CONFLICT (job_id) DO NOTHING
         )
         SELECT id FROM settled",
    )
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
    // The transaction may have begun long ago, and `now()` with it.
    let done = sqlx::query(
        "UPDATE jobs
         SET status = 'completed', attempts = $3, result = $4::jsonb, error_message = NULL,
           started_at = $5, completed_at = clock_timestamp(), next_retry_at = NULL
         WHERE id = $1 AND attempt = $2 AND status = 'processing' AND worker_id = $6",
    )
    .bind(settled.id)
    .bind(settled.attempt)
    .bind(settled.outcome.attempts as i32)
    .bind(settled.outcome.result.as_deref())
    .bind(settled.started_at)
    .bind(&settled.worker_id)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
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
