//! Cancels what waits in a queue, a bounded batch at a time, oldest first.

use serde_json::json;
use uuid::Uuid;

use super::access::{self, Audit, By};
use super::control::{CONTROL_MAX, change_in};
use super::{Record, RecordError};
use crate::job::Change;

/// What is drained.
#[derive(Debug, Clone, Copy)]
pub struct Draining<'a> {
    pub workspace_id: Uuid,
    pub queue: &'a str,
    /// Also jobs that are not due yet, and parents that wait for their children.
    pub with_delayed: bool,
    pub reason: &'a str,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The last job that waited when it was looked for; none: none did. Those that began or ended
    /// in that moment are not among `ids`, which may be empty though others wait behind them.
    pub last: Option<Uuid>,
    pub ids: Vec<Uuid>,
}

/// Cancels the next jobs after this one that wait, at most [`CONTROL_MAX`]; returns their ids.
///
/// The audit gets a row for each of them and one for the queue. Whatever is running, as far as the
/// record has heard, stays.
///
/// Looks where open jobs are noted, the stragglers of the workspace and its rows after the seal:
/// neither finished rows nor those of others cost anything.
pub async fn drain_next(
    record: &Record,
    draining: &Draining<'_>,
    after: Uuid,
    by: &By<'_>,
) -> Result<Batch, RecordError> {
    let waits = "j.workspace_id = $2 AND j.job_queue = $3 AND j.status IN ('pending', 'failed')
      AND ($4 OR (CASE j.status WHEN 'failed' THEN j.next_retry_at
                                ELSE coalesce(j.scheduled_for, j.created_at) END <= now()
        AND j.wire #>> '{children,0}' IS NULL))";
    let wanted = format!(
        "WITH sealed AS (
           SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed'
         ), waiting AS (
           (SELECT j.id FROM bullwark.stragglers s JOIN jobs j ON j.id = s.job_id
            WHERE s.owner_id = $2
              AND s.job_id > $1 AND s.job_id <= (SELECT job_id FROM sealed) AND {waits}
            ORDER BY s.job_id LIMIT $5)
           UNION ALL
           (SELECT j.id FROM bullwark.stragglers s JOIN jobs j ON j.id = s.job_id
            WHERE s.owner_id IS NULL
              AND s.job_id > $1 AND s.job_id <= (SELECT job_id FROM sealed) AND {waits}
            ORDER BY s.job_id LIMIT $5)
           UNION ALL
           (SELECT j.id FROM jobs j
            WHERE j.id > greatest($1, (SELECT job_id FROM sealed)) AND {waits}
            ORDER BY j.id LIMIT $5)
           ORDER BY id LIMIT $5
         ), held AS (
           SELECT j.id FROM jobs j
           WHERE j.id IN (SELECT id FROM waiting) AND j.status IN ('pending', 'failed')
           ORDER BY j.id FOR NO KEY UPDATE
         )
         SELECT (SELECT id FROM waiting ORDER BY id DESC LIMIT 1),
           coalesce((SELECT array_agg(id) FROM held), '{{}}')"
    );
    let mut tx = record.begin().await?;
    // Held until the commit: what is cancelled then is what waits now.
    let (last, ids): (Option<Uuid>, Vec<Uuid>) = sqlx::query_as(sqlx::AssertSqlSafe(wanted))
        .bind(after)
        .bind(draining.workspace_id)
        .bind(draining.queue)
        .bind(draining.with_delayed)
        .bind(CONTROL_MAX as i64)
        .fetch_one(tx.connection())
        .await?;
    if ids.is_empty() {
        return Ok(Batch { last, ids });
    }
    let reason = Some(draining.reason);
    let mut ids = change_in(tx.connection(), Change::Cancel, &ids, by, reason).await?;
    let audit = Audit {
        workspace_id: Some(draining.workspace_id),
        actor: by.actor,
        action: "queue.drain",
        target: ("queue", draining.queue.to_owned()),
        reason,
        before: None,
        after: Some(json!({ "cancelled": ids.len(), "delayed": draining.with_delayed })),
        request_id: by.request_id,
    };
    access::note(tx.connection(), &audit).await?;
    tx.commit().await?;
    ids.sort();
    Ok(Batch { last, ids })
}
