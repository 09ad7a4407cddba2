//! What people do to jobs: cancel, run again, delete. Each change comes with a row in the audit and
//! one in the outbox, from which Redis is told.
//!
//! A job that is deleted counts as cancelled, whatever it was, and loses what it holds: payload,
//! result, errors, logs, steps. Its row stays for [`GRAVE_KEPT`], seen by nobody, so that whoever
//! still knows of the job, a late worker or a Redis that was put back to an older state, is told
//! that it is over.

use std::time::Duration;

use uuid::Uuid;

use super::access::By;
use super::{Record, RecordError};

/// The most jobs of one change.
pub const CONTROL_MAX: usize = 500;
/// How long the row of a deleted job stays: longer than anybody goes back with a backup of Redis.
pub const GRAVE_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// A job that is cancelled, or deleted, which counts as that.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct GoneJob {
    pub id: Uuid,
    pub job_queue: String,
    pub wire_id: String,
    /// It was cancelled less than the asked time ago.
    pub is_recent: bool,
}

/// Of these jobs, those that should not be in Redis, and whether they went within this time.
pub async fn gone_among(
    record: &Record,
    ids: &[Uuid],
    recent: Duration,
) -> Result<Vec<GoneJob>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT id, job_queue, coalesce(redis_id, id::text) AS wire_id,
           coalesce(completed_at > now() - $2 * interval '1 millisecond', false) AS is_recent
         FROM jobs WHERE id = ANY($1) AND status = 'cancelled'
           -- A client may have given its id to a newer job.
           AND (redis_id IS NULL OR EXISTS (
             SELECT FROM bullwark.foreign_jobs f WHERE f.job_id = jobs.id))",
    )
    .bind(ids)
    .bind(recent.as_millis() as f64)
    .fetch_all(&record.pool)
    .await?)
}

/// Cancels jobs that are not over. The running attempt, if any, has no say from here on.
pub async fn cancel_many(
    record: &Record,
    ids: &[Uuid],
    by: &By<'_>,
    reason: &str,
) -> Result<Vec<Uuid>, RecordError> {
    let statement = "WITH wanted AS (
       SELECT id, status FROM jobs
       WHERE id = ANY($1) AND ($2::uuid IS NULL OR workspace_id = $2)
         AND status IN ('pending', 'processing', 'failed')
       ORDER BY id FOR NO KEY UPDATE
     ), cancelled AS (
       UPDATE jobs j SET status = 'cancelled', error_message = $3, next_retry_at = NULL,
         completed_at = now()
       FROM wanted WHERE j.id = wanted.id
       RETURNING j.id, j.workspace_id, j.job_queue, j.job_type, wanted.status AS was, j.status
     ), counted AS (
       INSERT INTO bullwark.ended_attempts (workspace_id, job_queue, job_type, cancelled)
       SELECT workspace_id, job_queue, job_type, count(*) FROM cancelled
       WHERE workspace_id IS NOT NULL GROUP BY workspace_id, job_queue, job_type
     ), log AS (
       INSERT INTO job_logs (job_id, log_level, message)
       SELECT id, 'info', 'cancelled: ' || $3 FROM cancelled
     ), noted AS (
       INSERT INTO bullwark.outbox (job_id) SELECT id FROM cancelled
     )";
    change(record, ids, by, Some(reason), (statement, "cancelled")).await
}

/// Gives jobs that are over another run with fresh attempts.
///
/// They may be older than the seal, so they are noted as open as well. A first attempt may have run
/// before the record heard of it: its number is used up now, so that it has no say any more.
pub async fn retry_many(
    record: &Record,
    ids: &[Uuid],
    by: &By<'_>,
) -> Result<Vec<Uuid>, RecordError> {
    let statement = "WITH wanted AS (
       SELECT id, status FROM jobs
       WHERE id = ANY($1) AND ($2::uuid IS NULL OR workspace_id = $2)
         AND status IN ('completed', 'dead_letter', 'cancelled') AND deleted_at IS NULL
       ORDER BY id FOR NO KEY UPDATE
     ), retried AS (
       UPDATE jobs j SET status = 'pending', attempts = 0, attempt = greatest(j.attempt, 1),
         lease_losses = 0, result = NULL, error_message = NULL, completed_at = NULL,
         failed_at = NULL, next_retry_at = NULL, scheduled_for = NULL, progress = '{}'
       FROM wanted WHERE j.id = wanted.id
       RETURNING j.id, j.workspace_id, wanted.status AS was, j.status
     ), buried AS (
       DELETE FROM bullwark.dead_letters d USING retried WHERE d.job_id = retried.id
     ), open AS (
       INSERT INTO bullwark.stragglers SELECT id FROM retried ON CONFLICT DO NOTHING
     ), log AS (
       INSERT INTO job_logs (job_id, log_level, message)
       SELECT id, 'info', 'retried by hand' FROM retried
     ), noted AS (
       INSERT INTO bullwark.outbox (job_id) SELECT id FROM retried
     )";
    change(record, ids, by, None, (statement, "retried")).await
}

/// Deletes jobs that do not run; those that wait are over from here on. What a job did stays: rows
/// that an import made, and the links of a flow.
pub async fn delete_many(
    record: &Record,
    ids: &[Uuid],
    by: &By<'_>,
    reason: &str,
) -> Result<Vec<Uuid>, RecordError> {
    let statement = "WITH wanted AS (
       SELECT id, status FROM jobs
       WHERE id = ANY($1) AND ($2::uuid IS NULL OR workspace_id = $2)
         AND status <> 'processing' AND deleted_at IS NULL
       ORDER BY id FOR NO KEY UPDATE
     ), deleted AS (
       UPDATE jobs j SET deleted_at = now(), payload = '{}', progress = '{}', result = NULL,
         error_message = NULL, error_stack = NULL, checkpoint = NULL, next_retry_at = NULL,
         wire = (wire::jsonb - 'data')::json, completed_at = coalesce(completed_at, now()),
         status = 'cancelled' -- to its parent, and to a Redis that still knows it
       FROM wanted WHERE j.id = wanted.id
       RETURNING j.id, j.workspace_id, j.job_queue, j.job_type, wanted.status AS was,
         'deleted'::text AS status
     ), counted AS (
       INSERT INTO bullwark.ended_attempts (workspace_id, job_queue, job_type, cancelled)
       SELECT workspace_id, job_queue, job_type, count(*) FROM deleted
       WHERE was IN ('pending', 'failed') AND workspace_id IS NOT NULL
       GROUP BY workspace_id, job_queue, job_type
     ), grave AS (
       INSERT INTO bullwark.graves (job_id) SELECT id FROM deleted
     ), buried AS (
       DELETE FROM bullwark.dead_letters d USING deleted WHERE d.job_id = deleted.id
     ), logs AS (
       DELETE FROM job_logs l USING deleted WHERE l.job_id = deleted.id
     ), failures AS (
       DELETE FROM job_failures f USING deleted WHERE f.job_id = deleted.id
     ), steps AS (
       DELETE FROM job_steps s USING deleted WHERE s.job_id = deleted.id
     ), effects AS (
       DELETE FROM job_effects e USING deleted WHERE e.job_id = deleted.id
     ), noted AS (
       INSERT INTO bullwark.outbox (job_id) SELECT id FROM deleted
     )";
    change(record, ids, by, Some(reason), (statement, "deleted")).await
}

/// Runs a change of jobs with its audit: `changed` names the part of the statement that has
/// `id, workspace_id, was, status` of each job that was changed. $1 to $3 are its own.
async fn change(
    record: &Record,
    ids: &[Uuid],
    by: &By<'_>,
    reason: Option<&str>,
    (statement, changed): (&str, &str),
) -> Result<Vec<Uuid>, RecordError> {
    debug_assert!(ids.len() <= CONTROL_MAX);
    let (actor_kind, actor_id) = by.actor.parts();
    let action = match changed {
        "cancelled" => "job.cancel",
        "retried" => "job.retry",
        _ => "job.delete",
    };
    let audited = format!(
        "{statement}, audit AS (
           INSERT INTO bullwark.audit_log (workspace_id, actor_kind, actor_id, action,
             target_kind, target_id, reason, before, after, request_id)
           SELECT workspace_id, $4, $5, $6, 'job', id::text, $3, jsonb_build_object('status', was),
             jsonb_build_object('status', status), $7 FROM {changed}
         )
         SELECT id FROM {changed}"
    );
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(audited))
        .bind(ids)
        .bind(by.workspace_id)
        .bind(reason)
        .bind(actor_kind)
        .bind(actor_id)
        .bind(action)
        .bind(by.request_id)
        .fetch_all(&record.pool)
        .await?)
}

/// Removes rows of jobs that were deleted so long ago, as far as Redis was told; returns how many.
/// Ends with a page: call it again while it removes any.
pub async fn clear_graves(record: &Record, kept: Duration) -> Result<u64, RecordError> {
    let done = sqlx::query(
        "DELETE FROM jobs WHERE id IN (
           SELECT g.job_id FROM bullwark.graves g
           WHERE g.deleted_at < now() - make_interval(secs => $1)
             AND NOT EXISTS (SELECT FROM bullwark.outbox o WHERE o.job_id = g.job_id)
             -- The summary of an import goes with the row of its job.
             AND NOT EXISTS (SELECT FROM imports i WHERE i.id = g.job_id)
           ORDER BY g.deleted_at LIMIT $2)",
    )
    .bind(kept.as_secs_f64())
    .bind(CONTROL_MAX as i64)
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected())
}
