//! What the record learns of a running attempt: that it began, that it lives, how far it is.
//!
//! A first start is written behind (see the worker's `journal`): a short job then costs one INSERT
//! and one UPDATE. Every later start is written *before* the handler runs ([`restart_many`]), which
//! is also the check that the job is not over yet (law 5). So at most the first start of a job can
//! be missing here.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Record, RecordError, Tx};
use crate::job::{Backoff, Progress, Status};

/// The most jobs of one statement.
pub const START_MAX: usize = 500;
/// How often, and after which pause, a row is asked for again that somebody has locked: whoever
/// mirrors or settles holds it for the time of one commit.
const LOCKED_TRIES_MAX: u32 = 20;
const LOCKED_PAUSE: Duration = Duration::from_millis(10);
/// A row that is due, or nearly, and was not taken is locked.
const NEARLY_DUE_MS: i64 = 1000;

/// An attempt that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningAttempt {
    pub id: Uuid,
    pub attempt: i32,
    pub started_at: DateTime<Utc>,
}

/// Marks attempts as running, or as alive when they were marked before. Skips what is over, and
/// what a handler's own transaction has locked: that transaction marks it too.
pub async fn mark_running(
    record: &Record,
    worker_id: &str,
    running: &[RunningAttempt],
) -> Result<(), RecordError> {
    debug_assert!(running.len() <= START_MAX);
    sqlx::query(
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
         WHERE j.id = s.id",
    )
    .bind(running.iter().map(|r| r.id).collect::<Vec<_>>())
    .bind(running.iter().map(|r| r.attempt).collect::<Vec<_>>())
    .bind(running.iter().map(|r| r.started_at).collect::<Vec<_>>())
    .bind(worker_id)
    .execute(&record.writers)
    .await?;
    Ok(())
}

/// What the record says about a job that a worker is about to start again.
#[derive(Debug, Clone, PartialEq)]
pub enum Restart {
    /// Run it; the start is recorded.
    Run(Box<Restarted>),
    /// It is over: tell Redis so.
    Over {
        status: Status,
        result: Option<String>,
        error: Option<String>,
    },
    /// It may not start yet: put it back with this delay.
    Later { delay_ms: i64 },
    /// The record does not know it: a foreign client added it.
    Unknown,
}

/// A recorded restart.
#[derive(Debug, Clone, PartialEq)]
pub struct Restarted {
    /// The number of this start; the fence of everything it writes.
    pub attempt: i32,
    /// Failures counted so far.
    pub attempts: u32,
    pub max_attempts: u32,
    pub retry_delay_seconds: i32,
    pub backoff: Option<Backoff>,
    /// Starts since the last outcome or step whose worker vanished, the one before this included.
    pub lease_losses: u32,
    pub checkpoint: Option<serde_json::Value>,
}

#[derive(sqlx::FromRow)]
struct RestartRow {
    id: Uuid,
    attempt: i32,
    attempts: i32,
    max_attempts: i32,
    retry_delay_seconds: i32,
    backoff: Option<sqlx::types::Json<Backoff>>,
    lease_losses: i32,
    checkpoint: Option<serde_json::Value>,
}

#[derive(sqlx::FromRow)]
struct RefusedRow {
    id: Uuid,
    status: String,
    result: Option<String>,
    error_message: Option<String>,
    delay_ms: Option<i64>,
}

/// A start that Redis made, as the record is asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub id: Uuid,
    /// The number of the start, by Redis.
    pub number: i32,
    /// The failures that Redis counts.
    pub made: i32,
}

impl Asked {
    /// A start of which no failure is known.
    pub fn new(id: Uuid, number: i32) -> Self {
        Self {
            id,
            number,
            made: 0,
        }
    }
}

/// Asks the record about jobs that were started before, and records the start of those that may
/// run. One answer per id, in order.
///
/// A job that is not due by the record is put off, unless Redis was told of its last failure and
/// has handed it out all the same: then a person or a client promoted it. Of a foreign job only
/// Redis knows when it is due.
///
/// The new attempt number is above every number that was ever used: Redis may have lost count, the
/// record has missed at most one. A start that no outcome followed is written to the retry history
/// as a lost lease. A worker that asks twice about one start, because an answer was lost, gets a
/// new number, which fences the first; that is no lost lease. A job that somebody has locked is asked
/// about again a few times, because putting it back costs its place; then it is answered with
/// [`Restart::Later`], so that it does not hold up the others for long.
pub async fn restart_many(
    record: &Record,
    worker_id: &str,
    starts: &[Asked],
) -> Result<Vec<Restart>, RecordError> {
    let mut answers = restart_once(record, worker_id, starts).await?;
    for _ in 0..LOCKED_TRIES_MAX {
        let is_locked = |nth: &usize| {
            matches!(answers[*nth], Restart::Later { delay_ms } if delay_ms < NEARLY_DUE_MS)
        };
        let locked: Vec<usize> = (0..answers.len()).filter(is_locked).collect();
        if locked.is_empty() {
            break;
        }
        tokio::time::sleep(LOCKED_PAUSE).await;
        let again: Vec<Asked> = locked.iter().map(|nth| starts[*nth]).collect();
        let again = restart_once(record, worker_id, &again).await?;
        for (nth, answer) in locked.into_iter().zip(again) {
            answers[nth] = answer;
        }
    }
    Ok(answers)
}

/// One try of [`restart_many`].
async fn restart_once(
    record: &Record,
    worker_id: &str,
    starts: &[Asked],
) -> Result<Vec<Restart>, RecordError> {
    debug_assert!(starts.len() <= START_MAX);
    let ids: Vec<Uuid> = starts.iter().map(|start| start.id).collect();
    let numbers: Vec<i32> = starts.iter().map(|start| start.number).collect();
    let made: Vec<i32> = starts.iter().map(|start| start.made).collect();
    let rows: Vec<RestartRow> = sqlx::query_as(
        "WITH before AS (
           SELECT j.id, j.attempt, j.status, j.worker_id, j.started_at,
             greatest(j.attempt + 1, u.number) AS next_attempt,
             -- Only a first start is written behind, and none of a foreign job. Of every other
             -- number that the record has not seen, nothing was run: the job was put back, or
             -- added again.
             CASE j.status
               WHEN 'processing' THEN j.worker_id IS DISTINCT FROM $3 OR j.attempt < u.number
               ELSE j.attempt = 0 AND u.number > 1 AND j.redis_id IS NULL
             END AS lost
           FROM unnest($1::uuid[], $2::int[], $4::int[]) AS u (id, number, made)
           JOIN jobs j ON j.id = u.id
           WHERE j.status IN ('pending', 'processing', 'failed')
             -- Due, or nearly: the clocks of the two stores may differ a little.
             AND (coalesce(CASE j.status WHEN 'failed' THEN j.next_retry_at
                                         WHEN 'pending' THEN j.scheduled_for END, now())
                  <= now() + interval '1 second'
               OR (j.status = 'failed' AND u.made >= j.attempts)
               OR j.wire IS NOT NULL OR j.redis_id IS NOT NULL)
           ORDER BY j.id
           FOR NO KEY UPDATE OF j SKIP LOCKED
         ), lost AS (
           INSERT INTO job_failures (job_id, attempt, outcome, error_message, worker_id,
             started_at)
           SELECT id, greatest(attempt, 1), 'lease_lost', 'the worker vanished while the job ran',
             worker_id, started_at
           FROM before WHERE lost
           ON CONFLICT (job_id, attempt) DO NOTHING
         )
         UPDATE jobs j
         SET status = 'processing', attempt = b.next_attempt, started_at = now(),
           worker_id = $3, worker_heartbeat_at = now(),
           lease_losses = j.lease_losses + b.lost::int
         FROM before b
         WHERE j.id = b.id
         RETURNING j.id, j.attempt, j.attempts, j.max_attempts, j.retry_delay_seconds,
           j.backoff, j.lease_losses, j.checkpoint",
    )
    .bind(&ids)
    .bind(&numbers)
    .bind(worker_id)
    .bind(&made)
    .fetch_all(&record.writers)
    .await?;

    let started: HashMap<Uuid, RestartRow> = rows.into_iter().map(|row| (row.id, row)).collect();
    let refused: Vec<RefusedRow> = if started.len() == starts.len() {
        Vec::new()
    } else {
        let missing: Vec<Uuid> = ids
            .iter()
            .filter(|id| !started.contains_key(*id))
            .copied()
            .collect();
        sqlx::query_as(
            "SELECT id, status, result::text, error_message,
               (extract(epoch FROM coalesce(CASE status WHEN 'failed' THEN next_retry_at
                  ELSE scheduled_for END, now()) - now()) * 1000)::bigint AS delay_ms
             FROM jobs WHERE id = ANY($1)",
        )
        .bind(&missing)
        .fetch_all(&record.writers)
        .await?
    };
    ids.iter()
        .map(|id| answer(*id, &started, &refused))
        .collect()
}

fn answer(
    id: Uuid,
    started: &HashMap<Uuid, RestartRow>,
    refused: &[RefusedRow],
) -> Result<Restart, RecordError> {
    if let Some(row) = started.get(&id) {
        return Ok(Restart::Run(Box::new(Restarted {
            attempt: row.attempt,
            attempts: row.attempts.unsigned_abs(),
            max_attempts: row.max_attempts.unsigned_abs(),
            retry_delay_seconds: row.retry_delay_seconds,
            backoff: row.backoff.as_ref().map(|json| json.0.clone()),
            lease_losses: row.lease_losses.unsigned_abs(),
            checkpoint: row.checkpoint.clone(),
        })));
    }
    let Some(row) = refused.iter().find(|row| row.id == id) else {
        return Ok(Restart::Unknown);
    };
    let status: Status = row
        .status
        .parse()
        .map_err(|error| RecordError::Corrupt(format!("job {id}: {error}")))?;
    if status.is_final() {
        let (result, error) = (row.result.clone(), row.error_message.clone());
        return Ok(Restart::Over {
            status,
            result,
            error,
        });
    }
    // Not over and not started: not due, or locked. At least a little later, so that nothing spins.
    Ok(Restart::Later {
        delay_ms: row.delay_ms.unwrap_or(0).max(100),
    })
}

/// Opens jobs that are over in the record and that a `BullMQ` client has put back by hand (`retry`
/// on a dashboard). `jobs` are (id, failures that Redis still counts). Open ones stay as they are.
pub async fn reopen_many(record: &Record, jobs: &[(Uuid, i32)]) -> Result<(), RecordError> {
    sqlx::query(
        "WITH wanted AS (
           SELECT j.id, least(greatest(u.made, 0), j.max_attempts) AS made
           FROM unnest($1::uuid[], $2::int[]) AS u (id, made)
           JOIN jobs j ON j.id = u.id
           WHERE j.status IN ('completed', 'dead_letter')
           ORDER BY j.id FOR NO KEY UPDATE OF j
         ), opened AS (
           UPDATE jobs j SET status = 'pending', attempts = w.made, lease_losses = 0,
             result = NULL, error_message = NULL, error_stack = NULL, completed_at = NULL,
             failed_at = NULL, next_retry_at = NULL, scheduled_for = NULL, progress = '{}'
           FROM wanted w WHERE j.id = w.id
           RETURNING j.id
         ), buried AS (
           DELETE FROM bullwark.dead_letters d USING opened o WHERE d.job_id = o.id
         ), straggling AS (
           INSERT INTO bullwark.stragglers SELECT id FROM opened ON CONFLICT DO NOTHING
         )
         INSERT INTO job_logs (job_id, log_level, message)
         SELECT id, 'info', 'retried by a BullMQ client' FROM opened",
    )
    .bind(jobs.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(jobs.iter().map(|(_, made)| *made).collect::<Vec<_>>())
    .execute(&record.writers)
    .await?;
    Ok(())
}

/// Of the given jobs, those that have lost at least `losses` workers since their last outcome or
/// step, the worker of a start that looks like running included. Read only.
pub async fn lost_often(
    record: &Record,
    ids: &[Uuid],
    losses: u32,
) -> Result<HashSet<Uuid>, RecordError> {
    let often: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM jobs
         WHERE id = ANY($1) AND lease_losses + (status = 'processing')::int >= $2",
    )
    .bind(ids)
    .bind(losses as i32)
    .fetch_all(&record.writers)
    .await?;
    Ok(often.into_iter().collect())
}

/// Does this attempt still have a say? Also marks it as running and alive.
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
           AND (attempt < $2 OR (attempt = $2 AND status = 'processing' AND worker_id = $3))",
    )
    .bind(id)
    .bind(attempt)
    .bind(worker_id)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Saves where a handler goes on after a crash, in the transaction that carries the work up to
/// there. A job that gets on is no crash loop: its lost leases are forgotten.
pub async fn save_checkpoint(
    tx: &mut Tx,
    id: Uuid,
    checkpoint: &serde_json::Value,
    progress: &Progress,
) -> Result<(), RecordError> {
    sqlx::query("UPDATE jobs SET checkpoint = $2, progress = $3, lease_losses = 0 WHERE id = $1")
        .bind(id)
        .bind(checkpoint)
        .bind(sqlx::types::Json(progress))
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// Saves the newest progress of several attempts. Skips what is over or locked, like
/// [`mark_running`].
pub async fn save_progress(
    record: &Record,
    worker_id: &str,
    updates: &[(Uuid, i32, Progress)],
) -> Result<(), RecordError> {
    let progress: Vec<serde_json::Value> = updates
        .iter()
        .filter_map(|(_, _, p)| serde_json::to_value(p).ok())
        .collect();
    sqlx::query(
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
         WHERE j.id = s.id",
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
    .execute(&record.writers)
    .await?;
    Ok(())
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
