//! Asking the record about jobs that were started before, and recording that they start again.
//!
//! The answer is also the check that the job is not over yet (law 5): nothing runs again before it.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::start::START_MAX;
use super::{Record, RecordError};
use crate::job::{Backoff, Status};

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
    /// Somebody has locked it just now: ask again.
    Locked,
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
    /// Starts since the last outcome or checkpoint whose worker vanished, the one before this
    /// included.
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
    is_promoted: bool,
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
/// new number, which fences the first; that is no lost lease. A job that somebody has locked just
/// now is answered with [`Restart::Locked`], so that it does not hold up the others.
pub async fn restart_many(
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
               OR (j.status = 'pending' AND j.redis_id IS NOT NULL))
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
            "SELECT j.id, j.status, j.result::text, j.error_message,
               (extract(epoch FROM coalesce(CASE j.status WHEN 'failed' THEN j.next_retry_at
                  ELSE j.scheduled_for END, now()) - now()) * 1000)::bigint AS delay_ms,
               -- As above: promoted by somebody, so it is locked and not put off.
               (j.status = 'failed' AND u.made >= j.attempts)
                 OR (j.status = 'pending' AND j.redis_id IS NOT NULL) AS is_promoted
             FROM unnest($1::uuid[], $2::int[]) AS u (id, made) JOIN jobs j ON j.id = u.id
             WHERE j.id = ANY($3)",
        )
        .bind(&ids)
        .bind(&made)
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
            // Earlier versions left a `null` behind some failures.
            checkpoint: row.checkpoint.clone().filter(|value| !value.is_null()),
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
    // Not over and not started: not due, or locked.
    match row.delay_ms {
        Some(delay_ms) if delay_ms > 0 && !row.is_promoted => Ok(Restart::Later { delay_ms }),
        _ => Ok(Restart::Locked),
    }
}

/// Opens jobs that are over in the record and that a `BullMQ` client has put back by hand (`retry`
/// on a dashboard). Open ones stay as they are. Returns how many were opened.
///
/// Only the start that follows the last one counts, unless it is certain by other means that a
/// client wants it (`is_certain`). A number that leaves one out is that of a job which Bullwark had
/// put back, a lower one is an older memory of Redis: those ended, and must not run again.
pub async fn reopen_many(
    record: &Record,
    starts: &[Asked],
    is_certain: bool,
) -> Result<u64, RecordError> {
    let done = sqlx::query(
        "WITH wanted AS (
           SELECT j.id, least(greatest(u.made, 0), j.max_attempts) AS made
           FROM unnest($1::uuid[], $2::int[], $3::int[]) AS u (id, made, number)
           JOIN jobs j ON j.id = u.id
           WHERE j.status IN ('completed', 'dead_letter') AND (u.number = j.attempt + 1 OR $4)
             AND j.deleted_at IS NULL
           ORDER BY j.id FOR NO KEY UPDATE OF j
         ), opened AS (
           UPDATE jobs j SET status = 'pending', attempts = w.made, lease_losses = 0,
             result = NULL, error_message = NULL, error_stack = NULL, completed_at = NULL,
             failed_at = NULL, next_retry_at = NULL, scheduled_for = NULL, progress = '{}'
           FROM wanted w WHERE j.id = w.id
           RETURNING j.id, j.workspace_id
         ), buried AS (
           DELETE FROM bullwark.dead_letters d USING opened o WHERE d.job_id = o.id
         ), straggling AS (
           INSERT INTO bullwark.stragglers (job_id, owner_id)
           SELECT id, coalesce(workspace_id, bullwark.nobody()) FROM opened ON CONFLICT DO NOTHING
         )
         INSERT INTO job_logs (job_id, log_level, message)
         SELECT id, 'info', 'retried by a BullMQ client' FROM opened",
    )
    .bind(starts.iter().map(|start| start.id).collect::<Vec<_>>())
    .bind(starts.iter().map(|start| start.made).collect::<Vec<_>>())
    .bind(starts.iter().map(|start| start.number).collect::<Vec<_>>())
    .bind(is_certain)
    .execute(&record.writers)
    .await?;
    Ok(done.rows_affected())
}

/// Of the given jobs, those that have lost at least `losses` workers since their last outcome or
/// checkpoint, the worker of a start that looks like running included. Read only.
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

/// Notes that Redis has counted a start of a job that is over, so that the numbers of both stay in
/// step: a later retry by a client is known by its number.
pub async fn count_start(record: &Record, id: Uuid, number: i32) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE jobs SET attempt = $2 WHERE id = $1 AND attempt < $2
           AND status IN ('completed', 'dead_letter', 'cancelled')",
    )
    .bind(id)
    .bind(number)
    .execute(&record.writers)
    .await?;
    Ok(())
}
