//! What a rebuild of Redis reads from the record, and how far it came; and what a record that lost
//! its tail gets back.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt};
use uuid::Uuid;

use super::{Record, RecordError, Tx};
use crate::job::{QueueName, Status};

/// An open job, as far as putting it back needs it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct OpenInOrder {
    pub id: Uuid,
    /// Its id on the wire.
    pub wire_id: String,
    pub job_queue: String,
    pub attempt: i32,
    pub worker_id: Option<String>,
    /// A Bullwark worker runs it, and said so.
    pub is_run_here: bool,
    /// A foreign worker ran it when Redis was looked at last.
    pub is_run_elsewhere: bool,
    /// A client brought it.
    pub is_foreign: bool,
}

/// A job that is over, and what Redis is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct OverJob {
    pub id: Uuid,
    pub wire_id: String,
    pub status: Status,
    pub attempt: i32,
    pub max_attempts: i32,
    pub created_ms: i64,
    /// JSON text.
    pub result: Option<String>,
    pub error: Option<String>,
}

#[derive(sqlx::FromRow)]
struct OverRow {
    id: Uuid,
    wire_id: String,
    status: String,
    attempt: i32,
    max_attempts: i32,
    created_at: DateTime<Utc>,
    result: Option<String>,
    error: Option<String>,
}

/// The memory of Redis that was last compared with the record.
pub async fn compared(record: &Record, prefix: &str) -> Result<Option<String>, RecordError> {
    Ok(
        sqlx::query_scalar("SELECT epoch FROM bullwark.epochs WHERE prefix = $1")
            .bind(prefix)
            .fetch_optional(&record.pool)
            .await?,
    )
}

/// Notes that this memory of Redis agrees with the record.
pub async fn set_compared(record: &Record, prefix: &str, epoch: &str) -> Result<(), RecordError> {
    sqlx::query(
        "INSERT INTO bullwark.epochs (prefix, epoch) VALUES ($1, $2)
         ON CONFLICT (prefix) DO UPDATE SET epoch = excluded.epoch, compared_at = now()",
    )
    .bind(prefix)
    .bind(epoch)
    .execute(&record.pool)
    .await?;
    Ok(())
}

/// The turn to rebuild; none: another process has it. It saves work and nothing else: two rebuilds
/// at once do the same. Ends with the transaction.
pub async fn take_turn(record: &Record, prefix: &str) -> Result<Option<Tx>, RecordError> {
    let mut tx = record.begin().await?;
    // Nothing is said on this connection until the rebuild is over.
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0")
        .execute(tx.connection())
        .await?;
    let is_ours: bool =
        sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(turn_of(prefix))
            .fetch_one(tx.connection())
            .await?;
    Ok(is_ours.then_some(tx))
}

/// What the lock of a turn is named by.
pub(super) fn turn_of(prefix: &str) -> String {
    format!("bullwark rebuild {prefix}")
}

/// All open jobs in the order in which they came, parents before their children.
///
/// Ids of foreign jobs say nothing about time, so this is sorted by the record: some hundred
/// milliseconds per 100,000 jobs, and no more memory here than a page.
pub fn open_in_order(
    record: &Record,
) -> impl Stream<Item = Result<OpenInOrder, RecordError>> + use<'_> {
    sqlx::query_as(
        "SELECT j.id, coalesce(j.redis_id, j.id::text) AS wire_id, j.job_queue, j.attempt,
           j.worker_id, j.redis_id IS NOT NULL AS is_foreign,
           j.status = 'processing' AND j.worker_heartbeat_at IS NOT NULL AS is_run_here,
           j.status = 'processing' AND j.worker_heartbeat_at IS NULL AS is_run_elsewhere
         FROM (
           SELECT job_id AS id FROM bullwark.stragglers
           UNION
           SELECT id FROM jobs
           WHERE id > (SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed')
             AND status IN ('pending', 'processing', 'failed')
         ) open JOIN jobs j ON j.id = open.id
         WHERE j.status IN ('pending', 'processing', 'failed')
         ORDER BY j.created_at, length(j.redis_id) NULLS FIRST, j.redis_id, j.id",
    )
    .fetch(&record.pool)
    .map(|row| row.map_err(RecordError::from))
}

/// Of jobs that Redis shows as live, those that are over: of ours by their id, of foreign ones by
/// the newest job of that name.
pub async fn over_among(
    record: &Record,
    queue: &QueueName,
    wire_ids: &[String],
) -> Result<Vec<OverJob>, RecordError> {
    let own: Vec<Uuid> = wire_ids.iter().filter_map(|id| id.parse().ok()).collect();
    let rows: Vec<OverRow> = sqlx::query_as(
        "SELECT j.id, coalesce(j.redis_id, j.id::text) AS wire_id, j.status, j.attempt,
           j.max_attempts, j.created_at, j.result::text, j.error_message AS error
         FROM (
           SELECT unnest($1::uuid[]) AS id
           UNION
           SELECT job_id FROM bullwark.foreign_jobs WHERE job_queue = $2 AND redis_id = ANY($3)
         ) known JOIN jobs j ON j.id = known.id
         WHERE j.status IN ('completed', 'dead_letter', 'cancelled')
           -- Of those with an entry there Redis has not been told the newest.
           AND NOT EXISTS (SELECT FROM bullwark.outbox o WHERE o.job_id = j.id)",
    )
    .bind(own)
    .bind(queue.as_str())
    .bind(wire_ids)
    .fetch_all(&record.pool)
    .await?;
    rows.into_iter().map(OverRow::into_job).collect()
}

impl OverRow {
    fn into_job(self) -> Result<OverJob, RecordError> {
        let corrupt = |error| RecordError::Corrupt(format!("job {}: {error}", self.id));
        Ok(OverJob {
            id: self.id,
            status: self.status.parse().map_err(corrupt)?,
            wire_id: self.wire_id,
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            created_ms: self.created_at.timestamp_millis(),
            result: self.result,
            error: self.error,
        })
    }
}

/// Of jobs that Redis shows, those that the record knows, by their id on the wire.
pub async fn known_on_wire(
    record: &Record,
    queue: &QueueName,
    wire_ids: &[String],
) -> Result<HashMap<String, (Uuid, Status)>, RecordError> {
    let own: Vec<Uuid> = wire_ids.iter().filter_map(|id| id.parse().ok()).collect();
    let rows: Vec<(String, Uuid, String)> = sqlx::query_as(
        "SELECT j.id::text, j.id, j.status FROM jobs j WHERE j.id = ANY($1)
         UNION ALL
         SELECT f.redis_id, j.id, j.status FROM bullwark.foreign_jobs f JOIN jobs j
           ON j.id = f.job_id
         WHERE f.job_queue = $2 AND f.redis_id = ANY($3)",
    )
    .bind(own)
    .bind(queue.as_str())
    .bind(wire_ids)
    .fetch_all(&record.pool)
    .await?;
    let parse = |(wire_id, id, status): (String, Uuid, String)| match status.parse() {
        Ok(status) => Ok((wire_id, (id, status))),
        Err(error) => Err(RecordError::Corrupt(format!("job {id}: {error}"))),
    };
    rows.into_iter().map(parse).collect()
}

/// Gives jobs that were written back to the workspaces that they say they are of, (job, workspace);
/// where the record knows that workspace.
pub async fn give_to_workspaces(record: &Record, jobs: &[(Uuid, Uuid)]) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE jobs j SET workspace_id = w.id
         FROM unnest($1::uuid[], $2::uuid[]) AS u (id, workspace_id)
         JOIN workspaces w ON w.id = u.workspace_id
         WHERE j.id = u.id AND j.workspace_id IS NULL",
    )
    .bind(jobs.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(
        jobs.iter()
            .map(|(_, workspace)| *workspace)
            .collect::<Vec<_>>(),
    )
    .execute(&record.pool)
    .await?;
    Ok(())
}
