//! What people do to jobs: cancel, run again, delete, promote. Each change comes with a row in the
//! audit and one in the outbox, from which Redis is told.
//!
//! A job that is deleted counts as cancelled, whatever it was, and loses what it holds: payload,
//! result, errors, logs, steps. Its row stays for [`GRAVE_KEPT`], seen by nobody, so that whoever
//! still knows of the job, a late worker or a Redis that was put back to an older state, is told
//! that it is over.

use std::time::Duration;

use sqlx::PgExecutor;
use uuid::Uuid;

use super::access::By;
use super::{Record, RecordError, Tx};
use crate::job::Change;

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
    tx: &mut Tx,
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
    .fetch_all(tx.connection())
    .await?)
}

/// Cancels jobs that are not over. The running attempt, if any, has no say from here on.
pub async fn cancel_many(
    record: &Record,
    ids: &[Uuid],
    by: &By<'_>,
    reason: &str,
) -> Result<Vec<Uuid>, RecordError> {
    change_in(&record.pool, Change::Cancel, ids, by, Some(reason)).await
}

/// Gives jobs that are over another run with fresh attempts.
pub async fn retry_many(
    record: &Record,
    ids: &[Uuid],
    by: &By<'_>,
) -> Result<Vec<Uuid>, RecordError> {
    change_in(&record.pool, Change::Retry, ids, by, None).await
}

/// Deletes jobs that do not run; those that wait are over from here on. What a job did stays: rows
/// that an import made, and the links of a flow.
pub async fn delete_many(
    record: &Record,
    ids: &[Uuid],
    by: &By<'_>,
    reason: &str,
) -> Result<Vec<Uuid>, RecordError> {
    change_in(&record.pool, Change::Delete, ids, by, Some(reason)).await
}

/// Makes jobs due that wait for a time: delayed ones, and those between two attempts.
pub async fn promote_many(
    record: &Record,
    ids: &[Uuid],
    by: &By<'_>,
) -> Result<Vec<Uuid>, RecordError> {
    change_in(&record.pool, Change::Promote, ids, by, None).await
}

/// Makes a change where the caller wants it, a transaction or a statement of its own; returns the
/// ids of those that were changed.
pub(super) async fn change_in(
    executor: impl PgExecutor<'_>,
    change: Change,
    ids: &[Uuid],
    by: &By<'_>,
    reason: Option<&str>,
) -> Result<Vec<Uuid>, RecordError> {
    debug_assert!(ids.len() <= CONTROL_MAX);
    let statement = match change {
        Change::Cancel => &format!("{CANCEL}{HEAR}"),
        Change::Retry => RETRY,
        Change::Delete => &format!("{DELETE}{HEAR}"),
        Change::Promote => PROMOTE,
    };
    let before = match change {
        Change::Promote => "jsonb_build_object('status', was, 'due', due)",
        _ => "jsonb_build_object('status', was)",
    };
    let action = format!("job.{change}");
    let audited = audited(statement, before);
    let query = sqlx::query_scalar(sqlx::AssertSqlSafe(audited));
    Ok(bound(query, (ids, &action, by, reason))
        .fetch_all(executor)
        .await?)
}

/// A change with its audit. The statement's `changed` has `id, workspace_id, was, status` of each
/// job that was changed, and what `before` names; $1 to $3 are its own.
pub(super) fn audited(statement: &str, before: &str) -> String {
    format!(
        "{statement}, audit AS (
           INSERT INTO bullwark.audit_log (workspace_id, actor_kind, actor_id, action,
             target_kind, target_id, reason, before, after, request_id)
           SELECT workspace_id, $4, $5, $6, 'job', id::text, $3, {before},
             jsonb_build_object('status', status), $7 FROM changed
         )
         SELECT id FROM changed"
    )
}

type Ids<'q> = sqlx::query::QueryScalar<'q, sqlx::Postgres, Uuid, sqlx::postgres::PgArguments>;

/// The values of [`audited`]: jobs, the action's name, who, why.
pub(super) fn bound<'q>(
    query: Ids<'q>,
    (ids, action, by, reason): (&'q [Uuid], &'q str, &By<'q>, Option<&'q str>),
) -> Ids<'q> {
    let (actor_kind, actor_id) = by.actor.parts();
    query
        .bind(ids)
        .bind(by.workspace_id)
        .bind(reason)
        .bind(actor_kind)
        .bind(actor_id)
        .bind(action)
        .bind(by.request_id)
}

/// Behind a statement that names what it `ended`.
const HEAR: &str = include_str!("sql/webhooks_hear.sql");

const CANCEL: &str = "WITH wanted AS (
    SELECT id, status FROM jobs
    WHERE id = ANY($1) AND ($2::uuid IS NULL OR workspace_id = $2)
      AND status IN ('pending', 'processing', 'failed')
    ORDER BY id FOR NO KEY UPDATE
  ), changed AS (
    UPDATE jobs j SET status = 'cancelled', error_message = $3, next_retry_at = NULL,
      completed_at = now()
    FROM wanted WHERE j.id = wanted.id
    RETURNING j.id, j.workspace_id, j.job_queue, j.job_type, j.attempt, j.attempts,
      wanted.status AS was, j.status
  ), ended AS (
    SELECT id, workspace_id, job_type, attempt, attempts, status FROM changed
  ), counted AS (
    INSERT INTO bullwark.ended_attempts (workspace_id, job_queue, job_type, cancelled)
    SELECT workspace_id, job_queue, job_type, count(*) FROM changed
    WHERE workspace_id IS NOT NULL GROUP BY workspace_id, job_queue, job_type
  ), log AS (
    INSERT INTO job_logs (job_id, log_level, message)
    SELECT id, 'info', 'cancelled: ' || $3 FROM changed
  ), noted AS (
    INSERT INTO bullwark.outbox (job_id) SELECT id FROM changed
  )";

/// They may be older than the seal, so they are noted as open as well. A first attempt may have run
/// before the record heard of it: its number is used up now, so that it has no say any more.
///
/// An export whose file was whole begins anew, with the rows and columns that there are then: what
/// is left of the earlier run would give the old file once more. A cleanup that was done begins
/// anew as well: behind its last page there is nothing to do.
const RETRY: &str = "WITH wanted AS (
    SELECT id, status FROM jobs
    WHERE id = ANY($1) AND ($2::uuid IS NULL OR workspace_id = $2)
      AND status IN ('completed', 'dead_letter', 'cancelled') AND deleted_at IS NULL
    ORDER BY id FOR NO KEY UPDATE
  ), exported AS (
    DELETE FROM exports e USING wanted
    WHERE e.id = wanted.id AND e.status IN ('completed', 'expired') RETURNING e.id
  ), changed AS (
    UPDATE jobs j SET status = 'pending', attempts = 0, attempt = greatest(j.attempt, 1),
      checkpoint = CASE WHEN j.id IN (SELECT id FROM exported)
          OR wanted.status = 'completed' AND j.job_type = 'cleanup_data'
        THEN NULL ELSE j.checkpoint END,
      lease_losses = 0, result = NULL, error_message = NULL, completed_at = NULL,
      failed_at = NULL, next_retry_at = NULL, scheduled_for = NULL, progress = '{}'
    FROM wanted WHERE j.id = wanted.id
    RETURNING j.id, j.workspace_id, wanted.status AS was, j.status
  ), buried AS (
    DELETE FROM bullwark.dead_letters d USING changed WHERE d.job_id = changed.id
  ), open AS (
    INSERT INTO bullwark.stragglers (job_id, owner_id)
    SELECT id, coalesce(workspace_id, bullwark.nobody()) FROM changed ON CONFLICT DO NOTHING
  ), log AS (
    INSERT INTO job_logs (job_id, log_level, message)
    SELECT id, 'info', 'retried by hand' FROM changed
  ), noted AS (
    INSERT INTO bullwark.outbox (job_id) SELECT id FROM changed
  )";

pub(super) const DELETE: &str = "WITH wanted AS (
    SELECT id, status FROM jobs
    WHERE id = ANY($1) AND ($2::uuid IS NULL OR workspace_id = $2)
      AND status <> 'processing' AND deleted_at IS NULL
    ORDER BY id FOR NO KEY UPDATE
  ), changed AS (
    UPDATE jobs j SET deleted_at = now(), payload = '{}', progress = '{}', result = NULL,
      error_message = NULL, error_stack = NULL, checkpoint = NULL, next_retry_at = NULL,
      wire = (wire::jsonb - 'data')::json, completed_at = coalesce(completed_at, now()),
      status = 'cancelled' -- to its parent, and to a Redis that still knows it
    FROM wanted WHERE j.id = wanted.id
    RETURNING j.id, j.workspace_id, j.job_queue, j.job_type, j.attempt, j.attempts,
      wanted.status AS was, 'deleted'::text AS status
  ), ended AS (
    SELECT id, workspace_id, job_type, attempt, attempts, 'cancelled' AS status FROM changed
    WHERE was IN ('pending', 'failed')
  ), counted AS (
    INSERT INTO bullwark.ended_attempts (workspace_id, job_queue, job_type, cancelled)
    SELECT workspace_id, job_queue, job_type, count(*) FROM changed
    WHERE was IN ('pending', 'failed') AND workspace_id IS NOT NULL
    GROUP BY workspace_id, job_queue, job_type
  ), grave AS (
    INSERT INTO bullwark.graves (job_id) SELECT id FROM changed
  ), buried AS (
    DELETE FROM bullwark.dead_letters d USING changed WHERE d.job_id = changed.id
  ), remembered AS (
    DELETE FROM bullwark.cancelled_jobs c USING changed WHERE c.job_id = changed.id
  ), logs AS (
    DELETE FROM job_logs l USING changed WHERE l.job_id = changed.id
  ), failures AS (
    DELETE FROM job_failures f USING changed WHERE f.job_id = changed.id
  ), steps AS (
    DELETE FROM job_steps s USING changed WHERE s.job_id = changed.id
  ), effects AS (
    DELETE FROM job_effects e USING changed WHERE e.job_id = changed.id
  ), noted AS (
    INSERT INTO bullwark.outbox (job_id) SELECT id FROM changed
  )";

/// Their times become now, and nothing else: the same attempts are left, and the start that comes
/// is the one that would have come. One that was started meanwhile waits for no time.
const PROMOTE: &str = "WITH wanted AS (
    SELECT id, status, CASE status WHEN 'failed' THEN next_retry_at ELSE scheduled_for END AS due
    FROM jobs
    WHERE id = ANY($1) AND ($2::uuid IS NULL OR workspace_id = $2) AND deleted_at IS NULL
      AND ((status = 'pending' AND scheduled_for > now())
        OR (status = 'failed' AND next_retry_at > now()))
    ORDER BY id FOR NO KEY UPDATE
  ), changed AS (
    UPDATE jobs j SET
      scheduled_for = CASE j.status WHEN 'pending' THEN now() ELSE j.scheduled_for END,
      next_retry_at = CASE j.status WHEN 'failed' THEN now() END
    FROM wanted WHERE j.id = wanted.id
    RETURNING j.id, j.workspace_id, wanted.status AS was, wanted.due, j.status
  ), log AS (
    INSERT INTO job_logs (job_id, log_level, message)
    SELECT id, 'info', 'promoted by hand' FROM changed
  ), noted AS (
    INSERT INTO bullwark.outbox (job_id) SELECT id FROM changed
  )";

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
