//! Quotas of services outside, as far as they must outlive Redis: limits, what was learned, and
//! units of long windows, set aside before Redis gives them away.
//!
//! A unit that is set aside counts as spent. If Redis forgets it, it stays unused: the loss is a
//! block per window, never a call above the limit.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::access::{self, Audit, By};
use super::{Record, RecordError, Tx, View};

/// After so many seconds all limiters know of limits that were set: their looks are good for five.
const KNOWN_AFTER_SECS: f64 = 6.0;

/// Rows of a page of quotas.
pub const PAGE_MAX: i64 = 200;

/// What is known of a key.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct KnownQuota {
    /// What an administrator set for it, or for its service in the workspace.
    pub own_limits: Option<Value>,
    /// What the service said, as it was reported.
    pub said: Value,
    pub closed_ms: Option<i64>,
    /// Since when no limiter can have given anything away.
    pub idle_ms: i64,
    /// This memory of Redis began with what is written here.
    pub is_intact: bool,
    /// SQL counts calls of the key, too.
    pub is_joined: bool,
}

/// Notes that a limiter uses the key for the next 90 seconds, and tells what is known of it. By
/// unique keys; writes no more than every 45 seconds.
pub async fn know(
    record: &Record,
    (key, workspace_id): (&str, Uuid),
    epoch: Option<&str>,
    (shortest_max, shortest): (u32, Duration),
    usual: &Value,
) -> Result<KnownQuota, RecordError> {
    Ok(sqlx::query_as(
        "SELECT * FROM bullwark.know_quota($1, $2, $3, $4, $5 * interval '1 millisecond', $6)",
    )
    .bind(key)
    .bind(workspace_id)
    .bind(epoch)
    .bind(i32::try_from(shortest_max).unwrap_or(i32::MAX))
    .bind(shortest.as_millis() as f64)
    .bind(usual)
    .fetch_one(&record.pool)
    .await?)
}

/// What is set aside of each long window of a key, as `period units …`.
pub async fn set_aside(
    record: &Record,
    key: &str,
) -> Result<BTreeMap<String, String>, RecordError> {
    let rows: Vec<(String, Vec<i64>, Vec<i64>)> = sqlx::query_as(
        "SELECT window_id, periods, units FROM bullwark.quota_periods WHERE key = $1",
    )
    .bind(key)
    .fetch_all(&record.pool)
    .await?;
    let text = |(id, periods, units): (String, Vec<i64>, Vec<i64>)| {
        let mut pairs: Vec<_> = periods.iter().zip(&units).collect();
        pairs.sort_unstable();
        // Only the sliding ones go on counting periods before the last.
        if !id.starts_with("sliding") {
            pairs.drain(..pairs.len().saturating_sub(1));
        }
        let words: Vec<_> = pairs.iter().map(|(p, n)| format!("{p} {n}")).collect();
        (id, words.join(" "))
    };
    Ok(rows.into_iter().map(text).collect())
}

/// Notes that a memory of Redis has begun with what is written here.
pub async fn note_begun(record: &Record, key: &str, epoch: &str) -> Result<(), RecordError> {
    sqlx::query("UPDATE rate_limits SET epoch = $2 WHERE key = $1 AND epoch IS DISTINCT FROM $2")
        .bind(key)
        .bind(epoch)
        .execute(&record.pool)
        .await?;
    Ok(())
}

/// A block of units of one period.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    pub window_id: &'a str,
    pub period: i64,
    /// Periods before do not count any more.
    pub from_period: i64,
    pub max: u64,
    pub wanted: u32,
    pub needed: u32,
}

/// Sets units aside; 0: there are not enough.
pub async fn take_block(record: &Record, key: &str, block: &Block<'_>) -> Result<u32, RecordError> {
    let granted: i64 =
        sqlx::query_scalar("SELECT bullwark.set_quota_aside($1, $2, $3, $4, $5, $6, $7)")
            .bind(key)
            .bind(block.window_id)
            .bind(block.period)
            .bind(block.from_period)
            .bind(i64::try_from(block.max).unwrap_or(i64::MAX))
            .bind(i64::from(block.wanted))
            .bind(i64::from(block.needed))
            .fetch_one(&record.pool)
            .await?;
    Ok(u32::try_from(granted).unwrap_or(0))
}

/// The same of the window that SQL counts in: units, and how long it goes on.
pub async fn take_requests(
    record: &Record,
    key: &str,
    (wanted, needed): (u32, u32),
) -> Result<(u32, Duration), RecordError> {
    let (granted, left_ms): (i32, i64) =
        sqlx::query_as("SELECT granted, left_ms FROM bullwark.set_requests_aside($1, $2, $3)")
            .bind(key)
            .bind(i32::try_from(wanted).unwrap_or(i32::MAX))
            .bind(i32::try_from(needed).unwrap_or(i32::MAX))
            .fetch_one(&record.pool)
            .await?;
    let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
    Ok((u32::try_from(granted).unwrap_or(0), left))
}

/// Keeps what a service said, if it said anything. A key that was closed for longer stays closed.
pub async fn keep_learned(
    record: &Record,
    key: &str,
    said: &BTreeMap<String, String>,
    closed_for: Option<Duration>,
) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE rate_limits SET last_request_at = now(),
           learned = CASE WHEN $2::jsonb = '{}' THEN learned ELSE $2::jsonb END,
           closed_until = greatest(closed_until, now() + $3 * interval '1 millisecond')
         WHERE key = $1",
    )
    .bind(key)
    .bind(sqlx::types::Json(said))
    .bind(closed_for.map(|time| time.as_millis() as f64))
    .execute(&record.pool)
    .await?;
    Ok(())
}

/// A quota as people see it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct QuotaRow {
    pub key: String,
    pub requests: i32,
    pub window_start: DateTime<Utc>,
    pub window_seconds: f64,
    pub max_requests: i32,
    pub last_request_at: Option<DateTime<Utc>>,
    /// Set by an administrator, for the key or for its service in the workspace.
    pub limits: Option<Value>,
    /// What the service is known for.
    pub usual: Option<Value>,
    pub learned: Value,
    pub closed_until: Option<DateTime<Utc>>,
    pub is_counted_in_sql: bool,
}

/// Quotas of a workspace by key, after this one.
pub async fn page(
    view: &mut View,
    workspace_id: Uuid,
    after: &str,
) -> Result<Vec<QuotaRow>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT key, requests, window_start,
           extract(epoch FROM window_duration)::float8 AS window_seconds, max_requests,
           last_request_at, coalesce(limits, (SELECT s.limits FROM rate_limits s
             WHERE s.workspace_id = $1
               AND s.key = split_part(r.key, ':', 1) || ':' || $1::text)) AS limits,
           usual, learned,
           CASE WHEN closed_until > now() THEN closed_until END AS closed_until,
           coalesce(sql_until > now(), false) AS is_counted_in_sql
         FROM rate_limits r WHERE workspace_id = $1 AND key > $2 ORDER BY key LIMIT $3",
    )
    .bind(workspace_id)
    .bind(after)
    .bind(PAGE_MAX)
    .fetch_all(view.connection())
    .await?)
}

/// Sets the limits of a service in a workspace, or takes them away; noted in the audit. Done again,
/// it changes nothing more. False: there was nothing to take away.
pub async fn set_limits(
    record: &Record,
    (workspace_id, key): (Uuid, &str),
    limits: Option<&Value>,
    (shortest_max, shortest): (u32, Duration),
    by: &By<'_>,
) -> Result<bool, RecordError> {
    let mut tx = record.begin().await?;
    if limits.is_some() {
        sqlx::query(
            "INSERT INTO rate_limits (key, workspace_id, max_requests, window_duration)
             VALUES ($1, $2, $3, $4 * interval '1 millisecond')
             ON CONFLICT ON CONSTRAINT rate_limits_key DO NOTHING",
        )
        .bind(key)
        .bind(workspace_id)
        .bind(i32::try_from(shortest_max).unwrap_or(i32::MAX))
        .bind(shortest.as_millis() as f64)
        .execute(tx.connection())
        .await?;
    }
    let before: Option<Option<Value>> = sqlx::query_scalar(
        "SELECT limits FROM rate_limits WHERE key = $1 AND workspace_id = $2 FOR NO KEY UPDATE",
    )
    .bind(key)
    .bind(workspace_id)
    .fetch_optional(tx.connection())
    .await?;
    let before = before.flatten();
    if before.is_none() && limits.is_none() {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE rate_limits SET limits = $2,
           max_requests = CASE WHEN $2 IS NULL OR $3 = 0 THEN max_requests ELSE $3 END,
           window_duration = CASE WHEN $2 IS NULL OR $3 = 0 THEN window_duration
             ELSE $4 * interval '1 millisecond' END,
           sql_by_user = sql_by_user AND ($2 IS NULL OR $3 = 0)
         WHERE key = $1",
    )
    .bind(key)
    .bind(limits)
    .bind(i32::try_from(shortest_max).unwrap_or(i32::MAX))
    .bind(shortest.as_millis() as f64)
    .execute(tx.connection())
    .await?;
    if before.as_ref() != limits {
        owe_turns(&mut tx, (workspace_id, key)).await?;
    }
    let audit = Audit {
        workspace_id: Some(workspace_id),
        actor: by.actor,
        action: "rate_limit.set",
        target: ("rate_limit", key.to_owned()),
        reason: None,
        before,
        after: limits.cloned(),
        request_id: by.request_id,
    };
    access::note(tx.connection(), &audit).await?;
    tx.commit().await?;
    Ok(true)
}

/// Those who wait for it, of the workspace or of its users, were told by other limits.
async fn owe_turns(tx: &mut Tx, (workspace_id, key): (Uuid, &str)) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE rate_limits SET turns_due = clock_timestamp() + make_interval(secs => $3)
         WHERE workspace_id = $1 AND (key = $2 OR starts_with(key, $2 || ':'))
           AND active_until IS NOT NULL",
    )
    .bind(workspace_id)
    .bind(key)
    .bind(KNOWN_AFTER_SECS)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// A key whose limits were changed, and limiters know it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct DueTurns {
    pub key: String,
    pub turns_due: DateTime<Utc>,
    pub limits: Option<Value>,
}

/// The longest due of them.
pub async fn due_turns(record: &Record) -> Result<Option<DueTurns>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT key, turns_due, coalesce(limits, (SELECT s.limits FROM rate_limits s
           WHERE s.key = split_part(r.key, ':', 1) || ':' || split_part(r.key, ':', 2)), usual)
           AS limits
         FROM rate_limits r WHERE turns_due <= now() ORDER BY turns_due LIMIT 1",
    )
    .fetch_optional(&record.pool)
    .await?)
}

/// They were told; not if the limits were changed again meanwhile.
pub async fn turns_told(record: &Record, due: &DueTurns) -> Result<(), RecordError> {
    sqlx::query("UPDATE rate_limits SET turns_due = NULL WHERE key = $1 AND turns_due = $2")
        .bind(&due.key)
        .bind(due.turns_due)
        .execute(&record.pool)
        .await?;
    Ok(())
}

/// Jobs that were put off come in so many ms, if that is sooner.
pub async fn bring_forward(
    record: &Record,
    (ids, in_ms): (&[Uuid], &[i64]),
) -> Result<(), RecordError> {
    sqlx::query(
        "WITH wanted AS (
           SELECT id FROM jobs WHERE id = ANY($1) AND status = 'pending' AND deleted_at IS NULL
           ORDER BY id FOR NO KEY UPDATE
         )
         UPDATE jobs j SET scheduled_for = now() + u.ms * interval '1 millisecond'
         FROM wanted JOIN unnest($1::uuid[], $2::bigint[]) AS u (id, ms) USING (id)
         WHERE j.id = wanted.id AND j.scheduled_for > now() + u.ms * interval '1 millisecond'",
    )
    .bind(ids)
    .bind(in_ms)
    .execute(&record.pool)
    .await?;
    Ok(())
}
