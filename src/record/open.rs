//! The open jobs, found without an index on the status.
//!
//! Ids are time-ordered. Two watermarks move over them behind the newest jobs:
//!
//! * up to `delivered`, every job was seen in Redis (or was over) at least once;
//! * up to `sealed`, every job that was still open stands in `bullwark.stragglers`.
//!
//! So the open jobs are the rows after the seal and the stragglers, and finding them costs the same
//! with a thousand finished jobs as with ten million. A job is read once by each pass; nothing is
//! paid when it is written. Two processes may run the passes at once: a watermark only moves from
//! the value that the pass started at.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Record, RecordError};
use crate::job::flow::FlowWire;
use crate::job::{Backoff, Due, NewJob, Priority, QueueName, WireForm};

/// How old a job must be before it is sealed. An enqueue takes its id before it commits; one that
/// is so late that the seal may have passed it says so itself (see `enqueue::insert_many`).
pub const SEAL_LAG: Duration = Duration::from_secs(60);
/// The most rows that one step of a pass looks at.
pub const PASS_MAX: i64 = 5000;
/// The most jobs that are loaded whole at once.
pub const LOAD_MAX: usize = 500;

/// An open job, as far as deciding needs it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct OpenJob {
    pub id: Uuid,
    /// Its id on the wire.
    pub wire_id: String,
    pub job_queue: String,
    pub status: String,
    pub attempt: i32,
}

/// A step of a pass: rows up to `upto` were looked at, `open` are those that are not over.
#[derive(Debug)]
pub struct Step {
    pub from: Uuid,
    pub upto: Uuid,
    pub open: Vec<OpenJob>,
    /// False when the pass has reached its lag.
    pub more: bool,
}

/// The smallest id that a job made at this time can have.
pub(super) fn first_id_at(time: DateTime<Utc>) -> Uuid {
    let ms = time.timestamp_millis().max(0) as u128;
    Uuid::from_u128(ms << 80)
}

/// The next step of the pass `name`, over jobs that are older than `lag` by the record's clock.
pub async fn next_step(
    record: &Record,
    name: &str,
    lag: Duration,
) -> Result<Option<Step>, RecordError> {
    let (from, now): (Uuid, DateTime<Utc>) =
        sqlx::query_as("SELECT job_id, now() FROM bullwark.watermarks WHERE name = $1")
            .bind(name)
            .fetch_one(&record.pool)
            .await?;
    let bound = first_id_at(now - lag);
    if bound <= from {
        return Ok(None);
    }
    let last: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM jobs WHERE id > $1 AND id <= $2 ORDER BY id OFFSET $3 LIMIT 1",
    )
    .bind(from)
    .bind(bound)
    .bind(PASS_MAX - 1)
    .fetch_optional(&record.pool)
    .await?;
    let upto = last.unwrap_or(bound);
    let open = sqlx::query_as(
        "SELECT id, coalesce(redis_id, id::text) AS wire_id, job_queue, status, attempt FROM jobs
         WHERE id > $1 AND id <= $2 AND status IN ('pending', 'processing', 'failed')
         ORDER BY id",
    )
    .bind(from)
    .bind(upto)
    .fetch_all(&record.pool)
    .await?;
    Ok(Some(Step {
        from,
        upto,
        open,
        more: last.is_some(),
    }))
}

/// Moves a watermark to the end of a step. False when another process has moved it meanwhile.
pub async fn advance(record: &Record, name: &str, step: &Step) -> Result<bool, RecordError> {
    let done =
        sqlx::query("UPDATE bullwark.watermarks SET job_id = $3 WHERE name = $1 AND job_id = $2")
            .bind(name)
            .bind(step.from)
            .bind(step.upto)
            .execute(&record.pool)
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes one step of the seal: notes the open jobs of the step as stragglers and moves the
/// watermark, in one transaction.
pub async fn seal(record: &Record, step: &Step) -> Result<(), RecordError> {
    let ids: Vec<Uuid> = step.open.iter().map(|job| job.id).collect();
    sqlx::query(
        "WITH moved AS (
           UPDATE bullwark.watermarks SET job_id = $2
           WHERE name = 'sealed' AND job_id = $1 RETURNING job_id
         )
         INSERT INTO bullwark.stragglers (job_id, owner_id)
         SELECT id, coalesce(workspace_id, bullwark.nobody()) FROM jobs, moved WHERE id = ANY($3)
         ON CONFLICT DO NOTHING",
    )
    .bind(step.from)
    .bind(step.upto)
    .bind(ids)
    .execute(&record.pool)
    .await?;
    Ok(())
}

/// Forgets stragglers that are over. Looks at one page after `after`; returns where to go on, or
/// nothing at the end.
pub async fn prune_stragglers(record: &Record, after: Uuid) -> Result<Option<Uuid>, RecordError> {
    let page: Vec<Uuid> = sqlx::query_scalar(
        "SELECT job_id FROM bullwark.stragglers WHERE job_id > $1 ORDER BY job_id LIMIT $2",
    )
    .bind(after)
    .bind(PASS_MAX)
    .fetch_all(&record.pool)
    .await?;
    let Some(last) = page.last().copied() else {
        return Ok(None);
    };
    // The row is locked and its status read again: a retry by hand that just noted it stays.
    sqlx::query(
        "WITH over AS (
           SELECT id FROM jobs
           WHERE id = ANY($1) AND status IN ('completed', 'dead_letter', 'cancelled')
           ORDER BY id FOR SHARE SKIP LOCKED
         )
         DELETE FROM bullwark.stragglers s USING over WHERE s.job_id = over.id",
    )
    .bind(&page)
    .execute(&record.pool)
    .await?;
    Ok(Some(last))
}

/// A page of all open jobs, by id.
pub async fn page(record: &Record, after: Uuid) -> Result<Vec<OpenJob>, RecordError> {
    Ok(sqlx::query_as(
        "(SELECT j.id, coalesce(j.redis_id, j.id::text) AS wire_id, j.job_queue, j.status, j.attempt
          FROM bullwark.stragglers s JOIN jobs j ON j.id = s.job_id
          WHERE s.job_id > $1 AND j.status IN ('pending', 'processing', 'failed')
          ORDER BY s.job_id LIMIT $2)
         UNION
         (SELECT id, coalesce(redis_id, id::text) AS wire_id, job_queue, status, attempt FROM jobs
          WHERE id > greatest($1, (SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed'))
            AND status IN ('pending', 'processing', 'failed')
          ORDER BY id LIMIT $2)
         ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(PASS_MAX)
    .fetch_all(&record.pool)
    .await?)
}

/// Running jobs whose worker gave no sign for `silence`, after this one, by id.
pub async fn silent(
    record: &Record,
    silence: Duration,
    after: Uuid,
) -> Result<Vec<OpenJob>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT j.id, coalesce(j.redis_id, j.id::text) AS wire_id, j.job_queue, j.status, j.attempt
         FROM jobs j
         WHERE j.id IN (
             SELECT job_id FROM bullwark.stragglers
             UNION ALL
             SELECT id FROM jobs
             WHERE id > (SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed')
               AND status = 'processing')
           AND j.status = 'processing' AND j.id > $3
           AND j.worker_heartbeat_at < now() - make_interval(secs => $1)
         ORDER BY j.id LIMIT $2",
    )
    .bind(silence.as_secs_f64())
    .bind(LOAD_MAX as i64)
    .bind(after)
    .fetch_all(&record.pool)
    .await?)
}

/// Puts running jobs back to pending that are still as they were looked at: the specification's
/// rule, the backstop behind the leases. Returns how many. Done again, it changes nothing.
pub async fn reset_silent(
    record: &Record,
    silence: Duration,
    jobs: &[OpenJob],
) -> Result<u64, RecordError> {
    let done = sqlx::query(
        "WITH silent AS (
           SELECT j.id, j.attempt, j.worker_id, j.started_at
           FROM unnest($2::uuid[], $3::int[]) AS u (id, attempt) JOIN jobs j ON j.id = u.id
           WHERE j.status = 'processing' AND j.attempt = u.attempt
             AND j.worker_heartbeat_at < now() - make_interval(secs => $1)
           ORDER BY j.id
           FOR NO KEY UPDATE OF j SKIP LOCKED
         ), history AS (
           INSERT INTO job_failures (job_id, attempt, outcome, error_message, worker_id,
             started_at)
           SELECT id, attempt, 'lease_lost', 'no heartbeat of the worker', worker_id, started_at
           FROM silent ON CONFLICT DO NOTHING
         ), audit AS (
           INSERT INTO job_logs (job_id, log_level, message)
           SELECT id, 'warn', 'no heartbeat of worker ' || coalesce(worker_id, '?') ||
             ': back to pending' FROM silent
         )
         UPDATE jobs j SET status = 'pending', lease_losses = j.lease_losses + 1
         FROM silent WHERE j.id = silent.id",
    )
    .bind(silence.as_secs_f64())
    .bind(jobs.iter().map(|job| job.id).collect::<Vec<_>>())
    .bind(jobs.iter().map(|job| job.attempt).collect::<Vec<_>>())
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected())
}

/// Of these jobs, those that wait for a time that has come.
pub async fn due_among(record: &Record, ids: &[Uuid]) -> Result<HashSet<Uuid>, RecordError> {
    let due: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM jobs WHERE id = ANY($1)
           AND ((status = 'pending' AND scheduled_for <= now())
             OR (status = 'failed' AND next_retry_at <= now()))",
    )
    .bind(ids)
    .fetch_all(&record.pool)
    .await?;
    Ok(due.into_iter().collect())
}

/// An open job with everything that Redis needs to hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredJob {
    pub job: NewJob,
    /// Its id on the wire.
    pub wire_id: String,
    pub created_at: DateTime<Utc>,
    /// Since its commit, by the record's clock.
    pub age_ms: i64,
    /// When it may start next, if not at once.
    pub due_at: Option<DateTime<Utc>>,
    /// The record says that an attempt runs.
    pub is_running: bool,
    pub attempt: i32,
    pub attempts: i32,
    /// What it brought along, if a `BullMQ` client added it: it goes back as it was.
    pub wire: Option<WireForm>,
    /// Its links, if it is one of a flow that Bullwark accepted.
    pub flow: Option<FlowWire>,
}

#[derive(sqlx::FromRow)]
struct StoredRow {
    id: Uuid,
    wire_id: String,
    workspace_id: Option<Uuid>,
    job_type: String,
    job_queue: String,
    payload: String,
    priority: i32,
    max_attempts: i32,
    retry_delay_seconds: i32,
    backoff: Option<sqlx::types::Json<Backoff>>,
    timeout_seconds: Option<i32>,
    created_at: DateTime<Utc>,
    age_ms: i64,
    due_at: Option<DateTime<Utc>>,
    is_running: bool,
    attempt: i32,
    attempts: i32,
    wire: Option<sqlx::types::Json<WireForm>>,
    flow: Option<sqlx::types::Json<FlowWire>>,
}

/// Loads open jobs whole; those that are over by now are left out.
pub async fn load(record: &Record, ids: &[Uuid]) -> Result<Vec<StoredJob>, RecordError> {
    debug_assert!(ids.len() <= LOAD_MAX);
    let rows: Vec<StoredRow> = sqlx::query_as(
        "SELECT id, coalesce(redis_id, id::text) AS wire_id, workspace_id, job_type, job_queue,
           payload::text, priority, max_attempts, retry_delay_seconds, backoff, timeout_seconds,
           created_at, (extract(epoch FROM now() - created_at) * 1000)::bigint AS age_ms,
           CASE status WHEN 'failed' THEN next_retry_at ELSE scheduled_for END AS due_at,
           status = 'processing' AS is_running, attempt, attempts,
           -- A job of a flow of ours has its links there instead.
           CASE WHEN (wire -> 'children') IS NULL THEN wire END AS wire,
           CASE WHEN (wire -> 'children') IS NOT NULL THEN wire END AS flow
         FROM jobs WHERE id = ANY($1) AND status IN ('pending', 'processing', 'failed')
         ORDER BY id",
    )
    .bind(ids)
    .fetch_all(&record.pool)
    .await?;
    rows.into_iter().map(StoredRow::into_job).collect()
}

impl StoredRow {
    fn into_job(self) -> Result<StoredJob, RecordError> {
        let corrupt = |what: String| RecordError::Corrupt(format!("job {}: {what}", self.id));
        let queue: QueueName = self
            .job_queue
            .parse()
            .map_err(|e| corrupt(format!("{e}")))?;
        let priority =
            Priority::try_from(i64::from(self.priority)).map_err(|e| corrupt(format!("{e}")))?;
        Ok(StoredJob {
            job: NewJob {
                id: self.id,
                workspace_id: self.workspace_id,
                job_type: self.job_type,
                queue,
                payload: self.payload,
                priority,
                due: self.due_at.map_or(Due::Now, Due::At),
                max_attempts: self.max_attempts.unsigned_abs(),
                retry_delay_seconds: self.retry_delay_seconds,
                backoff: self.backoff.map(|json| json.0),
                timeout_seconds: self.timeout_seconds.map(i32::unsigned_abs),
                idempotency_key: None,
                created_by: None,
            },
            wire_id: self.wire_id,
            created_at: self.created_at,
            age_ms: self.age_ms,
            due_at: self.due_at,
            is_running: self.is_running,
            attempt: self.attempt,
            attempts: self.attempts,
            wire: self.wire.map(|json| json.0),
            flow: self.flow.map(|json| json.0),
        })
    }
}
