//! Taking a cancel back: jobs that an action cancelled, and that nobody has touched since, are what
//! they were.
//!
//! What each job was is remembered with the cancel, for [`UNDO_WINDOW`] after its end. An undo is
//! an action like any other: carried out in batches, once per job.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::batch::{Held, Manner, Part, free};
use super::{ActionRow, end, in_tx, note};
use crate::record::access::By;
use crate::record::control;
use crate::record::{Record, RecordError, Tx};

/// For so long after its end a cancel can be taken back.
pub const UNDO_WINDOW: Duration = Duration::from_secs(5 * 60);
/// How long actions are kept after their end.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Rows that are removed at once.
const PRUNE_MAX: i64 = 5_000;

/// What became of a request to take an action back.
#[derive(Debug, Clone, PartialEq)]
pub enum Undo {
    /// There is no such action.
    Unknown,
    /// Only cancels are taken back.
    NotACancel,
    /// It is too late since then.
    Over(Option<DateTime<Utc>>),
    Made(Box<ActionRow>),
    /// It is taken back already, by that one.
    Known(Box<ActionRow>),
}

/// Makes the action that takes a cancel back. One that still runs is stopped first, in the same
/// transaction: no job is cancelled after it was taken back.
pub async fn undo(
    record: &Record,
    workspace_id: Uuid,
    id: Uuid,
    by: &By<'_>,
    reason: &str,
) -> Result<Undo, RecordError> {
    let mut tx = record.begin().await?;
    let action: Option<String> = sqlx::query_scalar(
        "SELECT action FROM bullwark.actions WHERE workspace_id = $1 AND id = $2 FOR UPDATE",
    )
    .bind(workspace_id)
    .bind(id)
    .fetch_optional(tx.connection())
    .await?;
    match action.as_deref() {
        None => return Ok(Undo::Unknown),
        Some("cancel") => {}
        Some(_) => return Ok(Undo::NotACancel),
    }
    // A statement of its own: another undo may have been made while this one waited for the row.
    let undone_by: Option<Uuid> =
        sqlx::query_scalar("SELECT id FROM bullwark.actions WHERE undoes = $1")
            .bind(id)
            .fetch_optional(tx.connection())
            .await?;
    if let Some(undone_by) = undone_by {
        let row = in_tx(&mut tx, workspace_id, undone_by).await?;
        return Ok(row.map_or(Undo::Unknown, |row| Undo::Known(Box::new(row))));
    }
    end(&mut tx, workspace_id, id).await?;
    let (actor_kind, actor_id) = by.actor.parts();
    let undo: Option<Uuid> = sqlx::query_scalar(
        "INSERT INTO bullwark.actions (workspace_id, action, filter, reason, expected, is_exact,
           undoes, actor_kind, actor_id, request_id)
         SELECT workspace_id, 'undo', '{}', $3, done, true, id, $4, $5, $6
         FROM bullwark.actions
         WHERE workspace_id = $1 AND id = $2 AND undoable_until >= clock_timestamp()
         ON CONFLICT (undoes) DO NOTHING RETURNING id",
    )
    .bind(workspace_id)
    .bind(id)
    .bind(reason)
    .bind(actor_kind)
    .bind(actor_id)
    .bind(by.request_id)
    .fetch_optional(tx.connection())
    .await?;
    let Some(undo) = undo else {
        let row = in_tx(&mut tx, workspace_id, id).await?;
        return Ok(Undo::Over(row.and_then(|row| row.undoable_until)));
    };
    let after = json!({ "action": "undo", "undone_by": undo });
    note(
        &mut tx,
        ("action.undo", id),
        (workspace_id, by),
        Some(reason),
        after,
    )
    .await?;
    let row = in_tx(&mut tx, workspace_id, undo).await?;
    tx.commit().await?;
    row.map(|row| Undo::Made(Box::new(row)))
        .ok_or_else(|| RecordError::Corrupt(format!("action {undo} is not there")))
}

/// What jobs are, in the transaction that cancels them, which holds them.
pub(super) async fn remember(tx: &mut Tx, action: Uuid, ids: &[Uuid]) -> Result<(), RecordError> {
    sqlx::query(
        "INSERT INTO bullwark.cancelled_jobs (action_id, job_id, was, next_retry_at, error_message)
         SELECT $1, id, status, next_retry_at, error_message FROM jobs WHERE id = ANY($2)",
    )
    .bind(action)
    .bind(ids)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The next jobs of the cancel, newest first.
pub(super) async fn part(
    tx: &mut Tx,
    held: &Held,
    cancel: Uuid,
    size: usize,
    manner: Manner,
) -> Result<Part, RecordError> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT job_id FROM bullwark.cancelled_jobs
         WHERE action_id = $1 AND ($2::uuid IS NULL OR job_id < $2)
         ORDER BY job_id DESC LIMIT $3",
    )
    .bind(cancel)
    .bind(held.cursor)
    .bind(size as i64)
    .fetch_all(tx.connection())
    .await?;
    let mut part = Part {
        matched: ids.len(),
        next: ids.last().copied().filter(|_| ids.len() == size),
        ..Part::default()
    };
    let (ids, failed) = free(tx, ids, manner).await?;
    part.failed = failed;
    let statement = control::audited(UNDO, "jsonb_build_object('status', was)");
    let (by, reason) = (held.by()?, Some(held.reason.as_str()));
    let query = sqlx::query_scalar(sqlx::AssertSqlSafe(statement));
    let query = control::bound(query, (&ids, "job.undo", &by, reason)).bind(cancel);
    part.changed = query.fetch_all(tx.connection()).await?;
    Ok(part)
}

/// A job that was running has lost that start, whose worker has been told to stop and can write
/// nothing any more: it waits for another one, and no attempt is spent, as when a worker vanished.
/// As for a retry, the number of a first start is used up, and the job may be older than the seal.
const UNDO: &str = "WITH wanted AS (
    SELECT j.id, c.was, c.next_retry_at, c.error_message
    FROM bullwark.cancelled_jobs c JOIN jobs j ON j.id = c.job_id
    WHERE c.action_id = $8 AND c.job_id = ANY($1) AND j.workspace_id = $2
      AND j.status = 'cancelled' AND j.completed_at = c.cancelled_at AND j.deleted_at IS NULL
    ORDER BY j.id FOR NO KEY UPDATE OF j
  ), changed AS (
    UPDATE jobs j SET status = CASE w.was WHEN 'failed' THEN 'failed' ELSE 'pending' END,
      attempt = greatest(j.attempt, 1), next_retry_at = w.next_retry_at,
      error_message = w.error_message, completed_at = NULL
    FROM wanted w WHERE j.id = w.id
    RETURNING j.id, j.workspace_id, 'cancelled'::text AS was, j.status
  ), open AS (
    INSERT INTO bullwark.stragglers (job_id, owner_id)
    SELECT id, coalesce(workspace_id, bullwark.nobody()) FROM changed ON CONFLICT DO NOTHING
  ), log AS (
    INSERT INTO job_logs (job_id, log_level, message)
    SELECT id, 'info', 'its cancel was undone: ' || $3 FROM changed
  ), noted AS (
    INSERT INTO bullwark.outbox (job_id) SELECT id FROM changed
  )";

/// Forgets what jobs were when it can not be asked for any more, and actions that ended long ago.
/// Returns whether there is more to do. Done again, it goes on.
pub async fn prune(record: &Record) -> Result<bool, RecordError> {
    // An undo that was asked for at the last moment still needs it.
    let over: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM bullwark.actions a
         WHERE remembers AND undoable_until < now() - interval '1 minute'
           AND NOT EXISTS (SELECT FROM bullwark.actions u
                           WHERE u.undoes = a.id AND u.state = 'running')
         ORDER BY undoable_until LIMIT 1",
    )
    .fetch_optional(&record.pool)
    .await?;
    if let Some(id) = over {
        let forgotten = sqlx::query(
            "DELETE FROM bullwark.cancelled_jobs WHERE action_id = $1 AND job_id IN (
               SELECT job_id FROM bullwark.cancelled_jobs WHERE action_id = $1 LIMIT $2)",
        )
        .bind(id)
        .bind(PRUNE_MAX)
        .execute(&record.pool)
        .await?;
        if forgotten.rows_affected() < PRUNE_MAX as u64 {
            sqlx::query("UPDATE bullwark.actions SET remembers = false WHERE id = $1")
                .bind(id)
                .execute(&record.pool)
                .await?;
        }
        return Ok(true);
    }
    let gone = sqlx::query(
        "DELETE FROM bullwark.actions WHERE id IN (
           SELECT id FROM bullwark.actions
           WHERE ended_at < now() - make_interval(secs => $1) AND NOT remembers
           ORDER BY ended_at LIMIT $2)",
    )
    .bind(KEPT.as_secs_f64())
    .bind(PRUNE_MAX)
    .execute(&record.pool)
    .await?;
    Ok(gone.rows_affected() == PRUNE_MAX as u64)
}
