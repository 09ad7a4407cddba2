//! Attempts of deliveries: what each has to send, and what it means for its webhook.
//!
//! Promises: an attempt that a later one has overtaken is not noted (law 3), and neither is one at
//! an address that the webhook has no more. What a webhook becomes is computed of its row as it is
//! when it is written, so of a success and a failure that come together, each counts.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::{Record, RecordError};
use crate::job::webhook;

/// A webhook that has failed for so long is taken out of service, if it goes on failing.
///
/// That is: [`FAILURES_MIN`] times, at least [`FAILURES_APART`] between two that count, and never
/// without one for [`FAILURES_WITHIN`]. So neither a short outage nor a rare event does it.
pub const FAILING_MAX: Duration = Duration::from_secs(5 * 24 * 3600);
const FAILURES_MIN: i32 = 5;
const FAILURES_APART: Duration = Duration::from_secs(3600);
const FAILURES_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// What an attempt needs to know. `webhook` is none when it was deleted.
#[derive(Debug, Clone)]
pub struct Errand {
    pub message_id: String,
    /// As the record has it: who writes to Redis does not write what is signed.
    pub message: Value,
    /// The record's clock, in seconds since 1970.
    pub now_s: i64,
    /// How long ago the delivery was made.
    pub age: Duration,
    pub webhook: Option<Receiver>,
}

/// Where it goes, and what signs it.
#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    pub sealed_secret: String,
    pub sealed_previous: Option<String>,
    pub is_active: bool,
}

impl std::fmt::Debug for Receiver {
    /// Not the address: its query may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

#[derive(sqlx::FromRow)]
struct ErrandRow {
    message_id: String,
    message: Option<Value>,
    now_s: i64,
    age_s: f64,
    url: Option<String>,
    secret: Option<String>,
    previous_secret: Option<String>,
    is_active: Option<bool>,
}

/// What this job has to deliver. None: it is no delivery of this webhook in this workspace.
pub async fn for_delivery(
    record: &Record,
    job_id: Uuid,
    webhook_id: Uuid,
    workspace_id: Uuid,
) -> Result<Option<Errand>, RecordError> {
    let row: Option<ErrandRow> = sqlx::query_as(
        "SELECT d.message_id, j.payload -> 'message' AS message,
           floor(extract(epoch FROM clock_timestamp()))::bigint AS now_s,
           extract(epoch FROM now() - j.created_at)::float8 AS age_s, w.url, w.secret,
           CASE WHEN w.previous_secret_until > now() THEN w.previous_secret END
             AS previous_secret, w.is_active
         FROM bullwark.webhook_deliveries d JOIN jobs j ON j.id = d.job_id
         LEFT JOIN webhooks w ON w.id = d.webhook_id AND w.workspace_id = d.workspace_id
         WHERE d.job_id = $1 AND d.webhook_id = $2 AND d.workspace_id = $3
           -- Nothing is left of a deleted one.
           AND j.deleted_at IS NULL AND j.payload -> 'message' IS NOT NULL",
    )
    .bind(job_id)
    .bind(webhook_id)
    .bind(workspace_id)
    .fetch_optional(&record.pool)
    .await?;
    Ok(row.map(|row| Errand {
        message_id: row.message_id,
        message: row.message.unwrap_or_default(),
        now_s: row.now_s,
        age: Duration::try_from_secs_f64(row.age_s).unwrap_or_default(),
        webhook: row
            .url
            .zip(row.secret)
            .map(|(url, sealed_secret)| Receiver {
                url,
                sealed_secret,
                sealed_previous: row.previous_secret,
                is_active: row.is_active.unwrap_or(false),
            }),
    }))
}

/// How an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    Delivered,
    Failed,
    /// The receiver wants no more of this.
    Gone,
}

/// An attempt that was made.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    pub job_id: Uuid,
    pub webhook_id: Uuid,
    /// The number of the job's start.
    pub number: i32,
    /// That was called.
    pub url: &'a str,
    pub went: Went,
    /// What was answered, and how soon.
    pub answer: Option<(u16, Duration)>,
}

/// Notes an attempt, for people and for the webhook.
///
/// It is taken out of service when its receiver wants no more, or has failed for [`FAILING_MAX`].
/// True: that was now. Doing it again changes nothing. That a test fails says nothing of the
/// webhook.
pub async fn note(record: &Record, attempt: &Attempt<'_>) -> Result<bool, RecordError> {
    let disabled: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "WITH noted AS (
           UPDATE bullwark.webhook_deliveries
           SET last_attempt = $3, last_status = $4, last_ms = $5, last_at = now(),
             is_open = is_open AND NOT ($6 OR $7)
           WHERE job_id = $1 AND last_attempt <= $3
           RETURNING event
         ), changed AS (
           UPDATE webhooks w SET
             failing_since = CASE WHEN $6 THEN NULL WHEN {NEW_STREAK} THEN now()
                                  ELSE coalesce(w.failing_since, now()) END,
             failures = CASE WHEN $6 THEN 0 WHEN {NEW_STREAK} THEN 1
                             WHEN {COUNTS} THEN w.failures + 1 ELSE w.failures END,
             failure_counted_at = CASE WHEN $6 THEN NULL WHEN {NEW_STREAK} OR {COUNTS} THEN now()
                                       ELSE w.failure_counted_at END,
             is_active = NOT {IS_OVER},
             disabled_reason = CASE
               WHEN NOT {IS_OVER} THEN w.disabled_reason
               WHEN $7 THEN 'the receiver answered 410 Gone'
               ELSE 'every delivery since ' || to_char(w.failing_since AT TIME ZONE 'UTC',
                 'YYYY-MM-DD HH24:MI') || ' UTC has failed' END,
             updated_at = CASE WHEN {IS_OVER} THEN now() ELSE w.updated_at END
           WHERE w.id = $2 AND w.is_active AND w.url = $8
             AND EXISTS (SELECT FROM noted WHERE $6 OR $7 OR event <> $13)
             -- Usually nothing: a row that works goes on working, and a failure counts once in a
             -- while.
             AND CASE WHEN $6 THEN w.failing_since IS NOT NULL
                      ELSE $7 OR w.failing_since IS NULL OR {NEW_STREAK} OR {COUNTS} END
           RETURNING w.is_active
         )
         SELECT count(*) FROM changed WHERE NOT is_active"
    )))
    .bind(attempt.job_id)
    .bind(attempt.webhook_id)
    .bind(attempt.number)
    .bind(attempt.answer.map(|(status, _)| i32::from(status)))
    .bind(attempt.answer.map(|(_, took)| took.as_millis() as i32))
    .bind(attempt.went == Went::Delivered)
    .bind(attempt.went == Went::Gone)
    .bind(attempt.url)
    .bind(FAILING_MAX.as_secs_f64())
    .bind(FAILURES_WITHIN.as_secs_f64())
    .bind(FAILURES_APART.as_secs_f64())
    .bind(FAILURES_MIN)
    .bind(webhook::TEST)
    .fetch_one(&record.pool)
    .await?;
    Ok(disabled > 0)
}

/// No failure has counted for [`FAILURES_WITHIN`].
const NEW_STREAK: &str = "(w.failure_counted_at IS NULL
  OR w.failure_counted_at < now() - make_interval(secs => $10))";
/// This one counts, beside the last that did.
const COUNTS: &str = "(w.failure_counted_at < now() - make_interval(secs => $11))";
/// Written of the row alone, so that it is computed of what a writer before has left.
const IS_OVER: &str = "coalesce(NOT $6 AND ($7
  OR (w.failing_since < now() - make_interval(secs => $9) AND w.failures + 1 >= $12
    AND w.failure_counted_at BETWEEN now() - make_interval(secs => $10)
      AND now() - make_interval(secs => $11))), false)";
