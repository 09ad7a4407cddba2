//! Adopting jobs that a foreign `BullMQ` client put straight into Redis.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Record, RecordError};
use crate::job::{QueueName, Status};

pub use super::foreign_job::{ForeignJob, Standing, record_id};
use super::foreign_job::{storable_json, storable_text, worker_name};

/// Writes foreign jobs into the record. Those that are there already stay as they are. Nothing is
/// written to a server that may lack its tail: they may be Bullwark's own.
pub async fn adopt_many(record: &Record, jobs: &[ForeignJob]) -> Result<(), RecordError> {
    let mut connection = record.writers.acquire().await?;
    record.check_server()?;
    adopt_on(&mut connection, jobs).await.map(drop)
}

/// The same on a connection, which may be in a transaction. Returns how many were new.
pub(super) async fn adopt_on(
    connection: &mut PgConnection,
    jobs: &[ForeignJob],
) -> Result<u64, RecordError> {
    let mut rows = Rows::default();
    for job in jobs {
        rows.push(job);
    }
    let adopted: i64 = sqlx::query_scalar(concat!(
        "WITH input AS (
           SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[],
             $6::int[], $7::int[], $8::int[], $9::int[], $10::bigint[], $11::text[], $12::text[],
             $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::bigint[],
             $19::bigint[], $20::bigint[], $21::bool[], $22::uuid[])
             AS u (id, redis_id, job_type, job_queue, payload, priority, attempts, max_attempts,
               attempt, timestamp_ms, wire, epoch, status, result, error, stack, worker_id,
               started_ms, due_ms, ended_ms, is_trace, workspace_id)
         ), adopted AS (
           -- Its failures were starts, too: without them the next one would look like a lost lease.
           INSERT INTO jobs (id, workspace_id, redis_id, job_type, job_queue, payload, priority,
             attempts, max_attempts, attempt, created_at, wire, status, result, error_message,
             error_stack, worker_id, started_at, scheduled_for, next_retry_at, completed_at,
             failed_at)
           SELECT u.id,
             (SELECT w.id FROM workspaces w WHERE w.id = u.workspace_id), u.redis_id,
             u.job_type, u.job_queue, u.payload::jsonb, u.priority,
             u.attempts, u.max_attempts, u.attempt, bullwark.at_ms(u.timestamp_ms), u.wire::json,
             u.status, u.result::jsonb, u.error, u.stack, u.worker_id, bullwark.at_ms(u.started_ms),
             CASE u.status WHEN 'pending' THEN bullwark.at_ms(u.due_ms) END,
             CASE u.status WHEN 'failed' THEN bullwark.at_ms(u.due_ms) END,
             CASE u.status WHEN 'completed' THEN bullwark.at_ms(u.ended_ms) END,
             CASE u.status WHEN 'dead_letter' THEN bullwark.at_ms(u.ended_ms)
                           WHEN 'failed' THEN now() END
           FROM input u
           WHERE NOT u.is_trace OR NOT EXISTS (
             SELECT FROM bullwark.foreign_jobs f
             WHERE f.job_queue = u.job_queue AND f.redis_id = u.redis_id)
           ORDER BY u.id
           ON CONFLICT (id) DO NOTHING
           RETURNING id, workspace_id, redis_id, job_queue, job_type, status, error_message,
             attempt, attempts
         ), ended AS (
           SELECT id, workspace_id, job_type, attempt, attempts, status FROM adopted
           WHERE status NOT IN ('pending', 'processing')
         ), named AS (
           INSERT INTO bullwark.foreign_jobs (job_queue, redis_id, job_id, epoch)
           SELECT DISTINCT ON (a.job_queue, a.redis_id) a.job_queue, a.redis_id, a.id, u.epoch
           FROM adopted a JOIN input u ON u.id = a.id
           WHERE a.redis_id IS NOT NULL
           ORDER BY a.job_queue, a.redis_id, u.timestamp_ms DESC
           ON CONFLICT (job_queue, redis_id) DO UPDATE
             SET job_id = excluded.job_id, epoch = excluded.epoch
         ), family AS (
           INSERT INTO bullwark.foreign_children (parent_key, job_id)
           SELECT u.wire::json ->> 'parentKey', a.id FROM adopted a JOIN input u ON u.id = a.id
           WHERE octet_length(u.wire::json ->> 'parentKey') <= 2000
           ON CONFLICT DO NOTHING
         ), dead AS (
           INSERT INTO bullwark.dead_letters (job_id, workspace_id, job_type, job_queue,
             fingerprint)
           SELECT id, workspace_id, job_type, job_queue,
             bullwark.error_fingerprint(job_type, error_message)
           FROM adopted WHERE status = 'dead_letter'
           ON CONFLICT DO NOTHING
         ), open AS (
           -- Their ids are not in the order of time: the passes over new rows may miss them.
           INSERT INTO bullwark.stragglers (job_id, owner_id)
           SELECT id, coalesce(workspace_id, bullwark.nobody()) FROM adopted
           WHERE status IN ('pending', 'processing', 'failed')
           ON CONFLICT DO NOTHING
         )",
        include_str!("sql/webhooks_hear.sql"),
        "SELECT count(*) FROM adopted",
    ))
    .bind(rows.id)
    .bind(rows.redis_id)
    .bind(rows.job_type)
    .bind(rows.queue)
    .bind(rows.payload)
    .bind(rows.priority)
    .bind(rows.attempts)
    .bind(rows.max_attempts)
    .bind(rows.attempt)
    .bind(rows.timestamp_ms)
    .bind(rows.wire)
    .bind(rows.epoch)
    .bind(rows.status)
    .bind(rows.result)
    .bind(rows.error)
    .bind(rows.stack)
    .bind(rows.worker_id)
    .bind(rows.started_ms)
    .bind(rows.due_ms)
    .bind(rows.ended_ms)
    .bind(rows.is_trace)
    .bind(rows.workspace_id)
    .fetch_one(connection)
    .await?;
    Ok(adopted.unsigned_abs())
}

/// Jobs by column.
#[derive(Default)]
struct Rows<'a> {
    id: Vec<Uuid>,
    redis_id: Vec<Option<&'a str>>,
    job_type: Vec<&'a str>,
    queue: Vec<&'a str>,
    payload: Vec<&'a str>,
    priority: Vec<i32>,
    attempts: Vec<i32>,
    max_attempts: Vec<i32>,
    attempt: Vec<i32>,
    timestamp_ms: Vec<i64>,
    wire: Vec<Option<String>>,
    epoch: Vec<Option<&'a str>>,
    status: Vec<&'static str>,
    result: Vec<Option<String>>,
    error: Vec<Option<String>>,
    stack: Vec<Option<String>>,
    worker_id: Vec<Option<String>>,
    started_ms: Vec<Option<i64>>,
    due_ms: Vec<Option<i64>>,
    ended_ms: Vec<Option<i64>>,
    is_trace: Vec<bool>,
    workspace_id: Vec<Option<Uuid>>,
}

impl<'a> Rows<'a> {
    fn push(&mut self, job: &'a ForeignJob) {
        let is_foreign_id = job.wire_id != job.id.to_string();
        self.id.push(job.id);
        self.redis_id
            .push(is_foreign_id.then_some(job.wire_id.as_str()));
        self.job_type.push(&job.job_type);
        self.queue.push(job.queue.as_str());
        self.payload.push(&job.payload);
        self.priority.push(job.priority);
        self.attempts.push(job.attempts);
        self.max_attempts.push(job.max_attempts);
        self.attempt.push(job.attempt);
        self.timestamp_ms.push(job.timestamp_ms);
        let wire = job
            .wire
            .as_ref()
            .and_then(|wire| serde_json::to_string(wire).ok());
        self.wire.push(wire);
        self.epoch.push(job.epoch.as_deref());
        self.status.push(job.status().as_str());
        let mut row = (None, None, None, None, None, None, None);
        let (result, error, stack, worker, started_ms, due_ms, ended_ms) = &mut row;
        match &job.standing {
            Standing::Waiting => {}
            Standing::Scheduled { due_ms: at } => *due_ms = Some(*at),
            Standing::Failed {
                error: why,
                due_ms: at,
            } => {
                *error = Some(storable_text(why));
                *due_ms = Some(*at);
            }
            Standing::Running {
                worker: name,
                started_ms: at,
            } => {
                *worker = Some(worker_name(name));
                *started_ms = *at;
            }
            Standing::Completed {
                result: value,
                started_ms: start,
                ended_ms: end,
            } => {
                *result = Some(storable_json(value));
                (*started_ms, *ended_ms) = (*start, Some(*end));
            }
            Standing::Dead {
                error: why,
                stack: trace,
                started_ms: start,
                ended_ms: end,
            } => {
                *error = Some(storable_text(why));
                *stack = trace.as_deref().map(storable_text);
                (*started_ms, *ended_ms) = (*start, Some(*end));
            }
        }
        self.result.push(row.0);
        self.error.push(row.1);
        self.stack.push(row.2);
        self.worker_id.push(row.3);
        self.started_ms.push(row.4);
        self.due_ms.push(row.5);
        self.ended_ms.push(row.6);
        self.is_trace.push(job.is_trace);
        self.workspace_id.push(job.workspace_id);
    }
}

/// The status of adopted jobs, by their id on the wire.
pub async fn known_wire_ids(
    record: &Record,
    queue: &QueueName,
    wire_ids: &[String],
) -> Result<HashMap<String, Status>, RecordError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT f.redis_id, j.status FROM bullwark.foreign_jobs f JOIN jobs j ON j.id = f.job_id
         WHERE f.job_queue = $1 AND f.redis_id = ANY($2)",
    )
    .bind(queue.as_str())
    .bind(wire_ids)
    .fetch_all(&record.pool)
    .await?;
    let parse = |(wire_id, status): (String, String)| match status.parse() {
        Ok(status) => Ok((wire_id, status)),
        Err(error) => Err(RecordError::Corrupt(format!("job {wire_id}: {error}"))),
    };
    rows.into_iter().map(parse).collect()
}

/// Notes that adopted jobs were seen in this memory of Redis. Jobs of our own are passed over.
pub async fn seen_in(record: &Record, ids: &[Uuid], epoch: &str) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE bullwark.foreign_jobs SET epoch = $2
         WHERE job_id = ANY($1) AND epoch IS DISTINCT FROM $2",
    )
    .bind(ids)
    .bind(epoch)
    .execute(&record.pool)
    .await?;
    Ok(())
}

/// Of these jobs, the adopted ones that were last seen in this memory of Redis.
pub async fn last_seen_in(
    record: &Record,
    ids: &[Uuid],
    epoch: &str,
) -> Result<HashSet<Uuid>, RecordError> {
    let seen: Vec<Uuid> = sqlx::query_scalar(
        "SELECT job_id FROM bullwark.foreign_jobs WHERE job_id = ANY($1) AND epoch = $2",
    )
    .bind(ids)
    .bind(epoch)
    .fetch_all(&record.pool)
    .await?;
    Ok(seen.into_iter().collect())
}
