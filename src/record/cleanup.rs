//! What `cleanup_data` removes, a bounded page at a time, each in a transaction of its caller.
//!
//! Jobs are walked in the order of their ids, which is that of time, by `jobs_workspace`: a page
//! looks at [`WINDOW`] of them, whatever they are. What somebody else holds just now stays for the
//! next run: a page never waits for a job, so it is in nobody's way and in no deadlock.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use super::control::{CONTROL_MAX, DELETE};
use super::family;
use super::open::first_id_at;
use super::{Record, RecordError, Tx};
use crate::job::Status;
use crate::job::retention::Retention;

/// Jobs that a page looks at; fewer where each may have many lines.
pub const WINDOW: i64 = 2_000;
const LOGS_WINDOW: i64 = 1_000;
/// Log lines, deliveries or files that a page removes.
const ROWS_MAX: i64 = 5_000;
/// Jobs that Redis has not been told of; as long as there are as many, no more are deleted.
const UNTOLD_MAX: i64 = 2_000;

/// What is removed, and whose.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub workspace_id: Uuid,
    /// Ages are counted back from here, by the record's clock.
    pub at: DateTime<Utc>,
    pub retention: Retention,
    /// Counts, and removes nothing.
    pub is_dry: bool,
}

impl Wanted {
    fn before(&self, days: Option<i32>) -> Option<DateTime<Utc>> {
        days.map(|days| self.at - TimeDelta::days(days.into()))
    }
}

/// What a page of jobs came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jobs {
    pub completed: u64,
    pub cancelled: u64,
    pub dead: u64,
    /// Old enough, but their parent is not over: it needs what they came to.
    pub needed: u64,
    /// Where to go on; none: at the end.
    pub next: Option<Uuid>,
}

/// What a page of anything else came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    pub count: u64,
    /// Of files.
    pub bytes: u64,
    pub next: Option<Uuid>,
}

#[derive(sqlx::FromRow)]
struct Old {
    id: Uuid,
    status: String,
    parent: Option<String>,
    parent_key: Option<String>,
}

/// The moment of the record.
pub async fn moment(tx: &mut Tx) -> Result<DateTime<Utc>, RecordError> {
    Ok(sqlx::query_scalar("SELECT now()")
        .fetch_one(tx.connection())
        .await?)
}

/// Whether so many jobs wait for Redis to be told of them that others would wait behind more.
pub async fn is_behind(record: &Record) -> Result<bool, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) >= $1 FROM (SELECT FROM bullwark.outbox LIMIT $1) untold",
    )
    .bind(UNTOLD_MAX)
    .fetch_one(&record.pool)
    .await?)
}

/// $1 to $3: before when a job must have ended that is completed, cancelled, dead.
const IS_OLD: &str = "j.deleted_at IS NULL AND coalesce(j.completed_at, j.failed_at) <
  CASE j.status WHEN 'completed' THEN $1::timestamptz WHEN 'cancelled' THEN $2::timestamptz
                WHEN 'dead_letter' THEN $3::timestamptz END";

/// Deletes the next jobs after this one that are over for so long, with all that they hold. The
/// outbox has them: Redis is told by the relay.
pub async fn jobs(tx: &mut Tx, wanted: &Wanted, after: Uuid) -> Result<Jobs, RecordError> {
    let kept = &wanted.retention;
    let ages = [kept.completed_jobs, kept.cancelled_jobs, kept.dead_letters];
    let before = ages.map(|days| wanted.before(days));
    // A job is made before it ends.
    let Some(latest) = before.iter().flatten().max() else {
        return Ok(Jobs::default());
    };
    let (last, size) = end_of_page(tx, wanted, (after, *latest), WINDOW).await?;
    let Some(last) = last else {
        return Ok(Jobs::default());
    };
    let old: Vec<Old> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT j.id, j.status, j.wire ->> 'parent' AS parent, j.wire ->> 'parentKey' AS parent_key
         FROM jobs j WHERE j.workspace_id = $4 AND j.id > $5 AND j.id <= $6 AND {IS_OLD}
         ORDER BY j.id LIMIT $7"
    )))
    .bind(before[0])
    .bind(before[1])
    .bind(before[2])
    .bind(wanted.workspace_id)
    .bind(after)
    .bind(last)
    .bind(CONTROL_MAX as i64)
    .fetch_all(tx.connection())
    .await?;
    let is_full = old.len() == CONTROL_MAX;
    let next = match old.last() {
        Some(old) if is_full => Some(old.id),
        _ => (size == WINDOW).then_some(last),
    };
    let needed = needed(tx, &old).await?;
    let mut page = Jobs {
        needed: needed.len() as u64,
        next,
        ..Jobs::default()
    };
    let free = old.into_iter().filter(|old| !needed.contains(&old.id));
    let mut gone: Vec<(Uuid, String)> = free.map(|old| (old.id, old.status)).collect();
    if !wanted.is_dry {
        let ids: Vec<Uuid> = gone.iter().map(|(id, _)| *id).collect();
        gone = delete(tx, wanted.workspace_id, &ids, before).await?;
    }
    for (_, was) in &gone {
        match was.as_str() {
            "completed" => page.completed += 1,
            "cancelled" => page.cancelled += 1,
            _ => page.dead += 1,
        }
    }
    Ok(page)
}

/// The last job of the next page, and how many it has.
async fn end_of_page(
    tx: &mut Tx,
    wanted: &Wanted,
    (after, latest): (Uuid, DateTime<Utc>),
    window: i64,
) -> Result<(Option<Uuid>, i64), RecordError> {
    Ok(sqlx::query_as(
        "SELECT (array_agg(id ORDER BY id DESC))[1], count(*) FROM (
           SELECT id FROM jobs WHERE workspace_id = $1 AND id > $2 AND id < $3
           ORDER BY id LIMIT $4) page",
    )
    .bind(wanted.workspace_id)
    .bind(after)
    .bind(first_id_at(latest))
    .bind(window)
    .fetch_one(tx.connection())
    .await?)
}

/// Of these jobs, those whose parents are not over.
async fn needed(tx: &mut Tx, old: &[Old]) -> Result<HashSet<Uuid>, RecordError> {
    let named = |old: &Old| Some((old.id, parent_name(old)?));
    let parents: Vec<(Uuid, (String, String))> = old.iter().filter_map(named).collect();
    if parents.is_empty() {
        return Ok(HashSet::new());
    }
    let mut names: Vec<(String, String)> = parents.iter().map(|(_, name)| name.clone()).collect();
    names.sort();
    names.dedup();
    let statuses = family::statuses_as_seen(tx.connection(), &names).await?;
    let is_open = |name| statuses.get(name).is_some_and(|s: &Status| !s.is_final());
    let needed = parents.iter().filter(|(_, name)| is_open(name));
    Ok(needed.map(|(id, _)| *id).collect())
}

/// The queue and the id of a parent, as its `parent` field has them; else as its key ends.
fn parent_name(old: &Old) -> Option<(String, String)> {
    let named = old.parent.as_deref().and_then(|parent| {
        let parent: serde_json::Value = serde_json::from_str(parent).ok()?;
        let (_, queue) = parent.get("queueKey")?.as_str()?.rsplit_once(':')?;
        Some((queue.to_owned(), parent.get("id")?.as_str()?.to_owned()))
    });
    named.or_else(|| {
        let (rest, id) = old.parent_key.as_deref()?.rsplit_once(':')?;
        let (_, queue) = rest.rsplit_once(':')?;
        Some((queue.to_owned(), id.to_owned()))
    })
}

/// Deletes those of them that are still as they were found, and that nobody holds.
async fn delete(
    tx: &mut Tx,
    workspace_id: Uuid,
    ids: &[Uuid],
    before: [Option<DateTime<Utc>>; 3],
) -> Result<Vec<(Uuid, String)>, RecordError> {
    let free: Vec<Uuid> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "SELECT j.id FROM jobs j WHERE j.id = ANY($4) AND {IS_OLD}
         ORDER BY j.id FOR NO KEY UPDATE SKIP LOCKED"
    )))
    .bind(before[0])
    .bind(before[1])
    .bind(before[2])
    .bind(ids)
    .fetch_all(tx.connection())
    .await?;
    if free.is_empty() {
        return Ok(Vec::new());
    }
    let statement = format!("{DELETE} SELECT id, was::text FROM changed");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(&free)
        .bind(workspace_id)
        .fetch_all(tx.connection())
        .await?)
}

/// Removes old log lines of the next jobs after this one that are over.
pub async fn logs(tx: &mut Tx, wanted: &Wanted, after: Uuid) -> Result<Rows, RecordError> {
    let Some(before) = wanted.before(wanted.retention.job_logs) else {
        return Ok(Rows::default());
    };
    let (last, size) = end_of_page(tx, wanted, (after, before), LOGS_WINDOW).await?;
    let Some(last) = last else {
        return Ok(Rows::default());
    };
    let jobs: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM jobs WHERE workspace_id = $1 AND id > $2 AND id <= $3
           AND status IN ('completed', 'cancelled', 'dead_letter')",
    )
    .bind(wanted.workspace_id)
    .bind(after)
    .bind(last)
    .fetch_all(tx.connection())
    .await?;
    let next = (size == LOGS_WINDOW).then_some(last);
    if wanted.is_dry {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM job_logs WHERE job_id = ANY($1) AND created_at < $2",
        )
        .bind(&jobs)
        .bind(before)
        .fetch_one(tx.connection())
        .await?;
        return Ok(Rows {
            count: count as u64,
            next,
            ..Rows::default()
        });
    }
    let gone = sqlx::query(
        "DELETE FROM job_logs WHERE id IN (
           SELECT id FROM job_logs WHERE job_id = ANY($1) AND created_at < $2
           LIMIT $3 FOR UPDATE SKIP LOCKED)",
    )
    .bind(&jobs)
    .bind(before)
    .bind(ROWS_MAX)
    .execute(tx.connection())
    .await?;
    let count = gone.rows_affected();
    Ok(Rows {
        count,
        // There are more of the same jobs.
        next: if count == ROWS_MAX as u64 {
            Some(after)
        } else {
            next
        },
        ..Rows::default()
    })
}

/// Says of whole files of exports that they have expired; each server takes its own away then.
pub async fn exports(tx: &mut Tx, wanted: &Wanted, after: Uuid) -> Result<Rows, RecordError> {
    let Some(before) = wanted.before(wanted.retention.exports) else {
        return Ok(Rows::default());
    };
    let page = "SELECT id, bytes FROM exports
      WHERE workspace_id = $1 AND id > $2 AND status = 'completed' AND expires_at > $3
        AND finished_at < $4
      ORDER BY id LIMIT $5";
    let statement = match wanted.is_dry {
        true => page.to_owned(),
        false => format!(
            "UPDATE exports e SET status = 'expired', expires_at = now()
             FROM ({page} FOR UPDATE SKIP LOCKED) page
             WHERE e.id = page.id RETURNING e.id, e.bytes"
        ),
    };
    let mut page: Vec<(Uuid, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(wanted.workspace_id)
        .bind(after)
        .bind(wanted.at)
        .bind(before)
        .bind(ROWS_MAX)
        .fetch_all(tx.connection())
        .await?;
    page.sort();
    let is_full = page.len() as i64 == ROWS_MAX;
    Ok(Rows {
        count: page.len() as u64,
        bytes: page.iter().map(|(_, bytes)| *bytes as u64).sum(),
        next: page.last().filter(|_| is_full).map(|(id, _)| *id),
    })
}

/// Forgets deliveries of the workspace's webhooks that have ended; the jobs stay.
pub async fn deliveries(tx: &mut Tx, wanted: &Wanted, after: Uuid) -> Result<Rows, RecordError> {
    let Some(before) = wanted.before(wanted.retention.webhook_deliveries) else {
        return Ok(Rows::default());
    };
    // By `webhook_deliveries_webhook`, webhook by webhook.
    let page: Vec<Uuid> = sqlx::query_scalar(
        "SELECT d.job_id FROM webhooks w CROSS JOIN LATERAL (
           SELECT d.job_id FROM bullwark.webhook_deliveries d
           WHERE d.webhook_id = w.id AND d.job_id > $2 AND d.job_id < $3 AND NOT d.is_open
             AND (d.last_at IS NULL OR d.last_at < $4)
             -- One that was run again by hand is vouched for to its end.
             AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = d.job_id
               AND j.status IN ('pending', 'processing', 'failed'))
           ORDER BY d.job_id LIMIT $5) d
         WHERE w.workspace_id = $1 ORDER BY d.job_id LIMIT $5",
    )
    .bind(wanted.workspace_id)
    .bind(after)
    .bind(first_id_at(before))
    .bind(before)
    .bind(ROWS_MAX)
    .fetch_all(tx.connection())
    .await?;
    let is_full = page.len() as i64 == ROWS_MAX;
    let mut count = page.len() as u64;
    if !wanted.is_dry {
        let gone = "DELETE FROM bullwark.webhook_deliveries WHERE job_id IN (
           SELECT job_id FROM bullwark.webhook_deliveries WHERE job_id = ANY($1) AND NOT is_open
           FOR UPDATE SKIP LOCKED)";
        let gone = sqlx::query(gone).bind(&page);
        count = gone.execute(tx.connection()).await?.rows_affected();
    }
    Ok(Rows {
        count,
        next: page.last().copied().filter(|_| is_full),
        ..Rows::default()
    })
}

/// Notes in the audit what a page removed: the job did it.
pub async fn note(
    tx: &mut Tx,
    wanted: &Wanted,
    job_id: Uuid,
    removed: &[(&str, u64)],
) -> Result<(), RecordError> {
    let after: serde_json::Map<_, _> = removed
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| ((*name).to_owned(), json!(count)))
        .collect();
    if after.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO bullwark.audit_log (workspace_id, actor_kind, actor_id, action, target_kind,
           target_id, before, after)
         VALUES ($1, 'job', $2, 'retention.apply', 'workspace', $1::uuid::text, $3, $4)",
    )
    .bind(wanted.workspace_id)
    .bind(job_id)
    .bind(json!(wanted.retention))
    .bind(serde_json::Value::Object(after))
    .execute(tx.connection())
    .await?;
    Ok(())
}
