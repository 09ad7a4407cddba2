//! What the record learns of a running attempt: that it began, that it lives, how far it is.
//!
//! A first start is written behind (see the worker's `journal`): a short job then costs one INSERT
//! and one UPDATE. Every later start is written *before* the handler runs (see `restart`), which is
//! also the check that the job is not over yet (law 5). So at most the first start of a job can be
//! missing here.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Record, RecordError, Tx};
use crate::job::Progress;

/// The most jobs of one statement.
pub const START_MAX: usize = 500;

/// An attempt that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningAttempt {
    pub id: Uuid,
    pub attempt: i32,
    pub started_at: DateTime<Utc>,
}

/// Marks attempts as running, or as alive when they were marked before; returns which.
///
/// Skips what is over, and what somebody has locked: a handler's own transaction marks it too, but
/// until that is committed nobody sees it.
pub async fn mark_running(
    record: &Record,
    worker_id: &str,
    running: &[RunningAttempt],
) -> Result<Vec<Uuid>, RecordError> {
    debug_assert!(running.len() <= START_MAX);
    Ok(sqlx::query_scalar(
        "UPDATE jobs j
         SET status = 'processing', attempt = s.attempt, started_at = s.started_at,
           worker_id = $4, worker_heartbeat_at = now()
         FROM (
           SELECT u.* FROM unnest($1::uuid[], $2::int[], $3::timestamptz[])
             AS u (id, attempt, started_at)
           JOIN jobs j ON j.id = u.id
           WHERE j.status IN ('pending', 'processing', 'failed')
             AND (j.attempt < u.attempt OR (j.attempt = u.attempt AND j.status = 'processing'
               AND j.worker_id = $4))
           ORDER BY j.id
           FOR NO KEY UPDATE OF j SKIP LOCKED
         ) s
         WHERE j.id = s.id
         RETURNING j.id",
    )
    .bind(running.iter().map(|r| r.id).collect::<Vec<_>>())
    .bind(running.iter().map(|r| r.attempt).collect::<Vec<_>>())
    .bind(running.iter().map(|r| r.started_at).collect::<Vec<_>>())
    .bind(worker_id)
    .fetch_all(&record.writers)
    .await?)
}

/// Does this attempt still have a say? Also marks it as running and alive, and tells the
/// transaction whose it is, for the lineage of what it changes (migrations 0029, 0060).
///
/// Used as the first statement of a handler's transaction, it locks the job until the commit:
/// nobody can settle, cancel or restart it meanwhile.
pub async fn fence(
    tx: &mut Tx,
    id: Uuid,
    attempt: i32,
    worker_id: &str,
) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "UPDATE jobs
         SET status = 'processing', attempt = $2, worker_id = $3, worker_heartbeat_at = now()
         WHERE id = $1 AND status IN ('pending', 'processing', 'failed')
           AND (attempt < $2 OR (attempt = $2 AND status = 'processing' AND worker_id = $3))
         RETURNING set_config('bullwark.job_id', id::text, true),
           set_config('bullwark.source', job_type, true),
           set_config('bullwark.actor', coalesce('user:' || created_by, ''), true)",
    )
    .bind(id)
    .bind(attempt)
    .bind(worker_id)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Tells a transaction that is not fenced yet whose it is, for the lineage of what it changes.
pub async fn speak_for(tx: &mut Tx, id: Uuid) -> Result<(), RecordError> {
    sqlx::query(
        "SELECT set_config('bullwark.job_id', g.id::text, true),
           set_config('bullwark.source', coalesce(j.job_type, ''), true),
           set_config('bullwark.actor', coalesce('user:' || j.created_by, ''), true)
         FROM (SELECT $1::uuid AS id) g LEFT JOIN jobs j ON j.id = g.id",
    )
    .bind(id)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Begins a transaction that waits until nobody writes to the job, and then keeps everybody from
/// it: what a transaction wrote whose `COMMIT` was not answered is there by then, or never comes.
pub async fn hold(record: &Record, id: Uuid) -> Result<Tx, RecordError> {
    let mut tx = record.begin().await?;
    // Its server may not have noticed yet that the connection is gone. Then ask again later.
    sqlx::raw_sql("SET LOCAL lock_timeout = '5s'")
        .execute(tx.connection())
        .await?;
    sqlx::query("SELECT 1 FROM jobs WHERE id = $1 FOR SHARE")
        .bind(id)
        .execute(tx.connection())
        .await?;
    Ok(tx)
}

/// Whether a checkpoint is ahead of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gain {
    /// The handler got on. A job that does so is no crash loop: its lost leases are forgotten.
    Ahead,
    /// It begins, or ends without having got on: the lost leases stay, so that a job that kills
    /// each of its workers before it gets on is stopped in the end.
    None,
}

/// Saves where a handler goes on after a crash, in the transaction that carries the work up to
/// there. A checkpoint that is equal to the one before is no gain either; none leaves the one that
/// is there.
///
/// Returns the number of the transaction, for `Tx::has_committed`.
pub async fn save_checkpoint(
    tx: &mut Tx,
    id: Uuid,
    checkpoint: Option<&serde_json::Value>,
    progress: &Progress,
    gain: Gain,
) -> Result<String, RecordError> {
    let number = sqlx::query_scalar(
        "UPDATE jobs SET checkpoint = coalesce($2, checkpoint), progress = $3,
           lease_losses = CASE
             WHEN $4 AND checkpoint IS DISTINCT FROM coalesce($2, checkpoint) THEN 0
             ELSE lease_losses END
         WHERE id = $1 RETURNING pg_current_xact_id()::text",
    )
    .bind(id)
    .bind(checkpoint)
    .bind(sqlx::types::Json(progress))
    .bind(gain == Gain::Ahead);
    Ok(number.fetch_one(tx.connection()).await?)
}

/// Saves the newest progress of several attempts; returns of which. Skips what is over or locked,
/// like [`mark_running`].
pub async fn save_progress(
    record: &Record,
    worker_id: &str,
    updates: &[(Uuid, i32, Progress)],
) -> Result<Vec<Uuid>, RecordError> {
    let progress: Vec<serde_json::Value> = updates
        .iter()
        .filter_map(|(_, _, p)| serde_json::to_value(p).ok())
        .collect();
    Ok(sqlx::query_scalar(
        "UPDATE jobs j SET progress = s.progress
         FROM (
           SELECT u.* FROM unnest($1::uuid[], $2::int[], $3::jsonb[])
             AS u (id, attempt, progress)
           JOIN jobs j ON j.id = u.id
           WHERE j.status IN ('pending', 'processing', 'failed')
             AND (j.attempt < u.attempt OR (j.attempt = u.attempt AND j.status = 'processing'
               AND j.worker_id = $4))
           ORDER BY j.id
           FOR NO KEY UPDATE OF j SKIP LOCKED
         ) s
         WHERE j.id = s.id
         RETURNING j.id",
    )
    .bind(updates.iter().map(|(id, _, _)| *id).collect::<Vec<_>>())
    .bind(
        updates
            .iter()
            .map(|(_, attempt, _)| *attempt)
            .collect::<Vec<_>>(),
    )
    .bind(progress)
    .bind(worker_id)
    .fetch_all(&record.writers)
    .await?)
}

/// Of the given attempts, those that still have a say. Read only; for a worker whose lease in Redis
/// is gone and that must know whether the job went elsewhere or Redis only forgot it.
pub async fn still_held(
    record: &Record,
    worker_id: &str,
    held: &[(Uuid, i32)],
) -> Result<Vec<Uuid>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT j.id FROM unnest($1::uuid[], $2::int[]) AS u (id, attempt)
         JOIN jobs j ON j.id = u.id
         WHERE j.status IN ('pending', 'processing', 'failed')
           AND (j.attempt < u.attempt OR (j.attempt = u.attempt AND j.status = 'processing'
             AND j.worker_id = $3))",
    )
    .bind(held.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(held.iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>())
    .bind(worker_id)
    .fetch_all(&record.writers)
    .await?)
}

/// Gives back a job whose run ended without an outcome because its lease in Redis is lost: it is
/// open, and not running. False: another start has it, or it is over.
pub async fn give_back(
    record: &Record,
    id: Uuid,
    attempt: i32,
    worker_id: &str,
) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "UPDATE jobs SET status = 'pending', scheduled_for = NULL
         WHERE id = $1 AND attempt = $2 AND worker_id = $3 AND status = 'processing'",
    )
    .bind(id)
    .bind(attempt)
    .bind(worker_id)
    .execute(&record.writers)
    .await?;
    Ok(done.rows_affected() == 1)
}
