//! `bullwark.enrichment_lookups`: what providers have answered, and who is asking now.
//!
//! A row is claimed before the provider is called, for as long as a call may take; who comes
//! meanwhile waits for the answer. The answer is committed here before anybody uses it: a worker
//! that dies later finds it, and the credit is not spent again. One that dies between the answer
//! and this commit loses it: when its claim has run out, the question is asked once more.
//!
//! An answer that can not be read was paid for, too, and would hardly be another one if it was
//! bought again at once: that it came is kept for an hour, in which nobody asks. An answer from
//! before stays as it is.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::{Record, RecordError};

/// How often two askers may miss each other's row before one of them waits.
const TRIES: u32 = 3;
/// What one pass forgets.
const FORGET_MAX: i64 = 1000;
/// How long an answer stays after it has run out, in days.
const KEPT_DAYS: i32 = 30;
/// So long nobody asks again for what could not be read.
const UNREADABLE_KEPT: Duration = Duration::from_secs(3600);
/// Activities are kept for as long as the lineage: two years.
const ACTIVITIES_KEPT_DAYS: u64 = 730;

/// One question to one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub workspace_id: Uuid,
    pub provider: &'static str,
    pub kind: &'static str,
    /// Normalised.
    pub key: String,
}

/// An answer that was kept. No `answer`: the provider knows nothing.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct KeptAnswer {
    pub answer: Option<Value>,
    pub fetched_at: DateTime<Utc>,
}

/// What becomes of a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// It was answered before.
    Known(KeptAnswer),
    /// It is the caller's to ask. So often has the provider said that it is still looking.
    Yours { polls: i32 },
    /// Somebody asks now, for this long at most.
    Busy(Duration),
    /// The provider is still looking: nobody asks before this time is over.
    Looking(Duration),
    /// It was answered then, and nobody could read it. Nobody asks again for a while.
    Unreadable(DateTime<Utc>),
}

/// The answer, if it is fresh and not older than so many days.
pub async fn find(
    record: &Record,
    question: &Question,
    max_age_days: Option<i32>,
) -> Result<Option<KeptAnswer>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT answer, fetched_at FROM bullwark.enrichment_lookups
         WHERE workspace_id = $1 AND provider = $2 AND kind = $3 AND key = $4
           AND expires_at > now() AND fetched_at > now() - make_interval(days => $5)",
    )
    .bind(question.workspace_id)
    .bind(question.provider)
    .bind(question.kind)
    .bind(&question.key)
    .bind(max_age_days.unwrap_or(36_500))
    .fetch_optional(&record.pool)
    .await?)
}

/// The answer, or the right to ask for it under `call_id`, for `lease`.
pub async fn ask(
    record: &Record,
    question: &Question,
    max_age_days: Option<i32>,
    (call_id, lease): (Uuid, Duration),
) -> Result<Asked, RecordError> {
    for _ in 0..TRIES {
        if let Some(known) = find(record, question, max_age_days).await? {
            return Ok(Asked::Known(known));
        }
        let polls: Option<i32> = sqlx::query_scalar(
            "INSERT INTO bullwark.enrichment_lookups AS l
               (workspace_id, provider, kind, key, call_id, busy_until)
             VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))
             ON CONFLICT (workspace_id, provider, kind, key) DO UPDATE
               SET call_id = excluded.call_id, busy_until = excluded.busy_until
               WHERE coalesce(l.busy_until <= now(), true)
                 AND coalesce(l.expires_at <= now()
                   OR l.fetched_at <= now() - make_interval(days => $7), true)
             RETURNING l.polls",
        )
        .bind(question.workspace_id)
        .bind(question.provider)
        .bind(question.kind)
        .bind(&question.key)
        .bind(call_id)
        .bind(lease.as_secs_f64())
        .bind(max_age_days.unwrap_or(36_500))
        .fetch_optional(&record.pool)
        .await?;
        if let Some(polls) = polls {
            return Ok(Asked::Yours { polls });
        }
        // A worker that knows nothing of unreadable answers leaves the moment of one behind: it is
        // more than their time ago then.
        let left: Option<(f64, bool, Option<DateTime<Utc>>)> = sqlx::query_as(
            "SELECT extract(epoch FROM busy_until - now())::float8, call_id IS NOT NULL,
               CASE WHEN unreadable_at > now() - make_interval(secs => $5) THEN unreadable_at END
             FROM bullwark.enrichment_lookups
             WHERE workspace_id = $1 AND provider = $2 AND kind = $3 AND key = $4
               AND busy_until > now()",
        )
        .bind(question.workspace_id)
        .bind(question.provider)
        .bind(question.kind)
        .bind(&question.key)
        .bind(UNREADABLE_KEPT.as_secs_f64())
        .fetch_optional(&record.pool)
        .await?;
        // None: it was answered or given back since.
        if let Some((left, is_asked, unreadable_at)) = left {
            let left = Duration::from_secs_f64(left.max(0.0));
            return Ok(match (is_asked, unreadable_at) {
                (true, _) => Asked::Busy(left),
                (false, None) => Asked::Looking(left),
                (false, Some(at)) => Asked::Unreadable(at),
            });
        }
    }
    Ok(Asked::Busy(Duration::from_secs(1)))
}

/// Keeps an answer, also one that comes after the claim ran out: it was paid for.
pub async fn keep(
    record: &Record,
    question: &Question,
    call_id: Uuid,
    (answer, days): (Option<&Value>, i32),
) -> Result<KeptAnswer, RecordError> {
    Ok(sqlx::query_as(
        "INSERT INTO bullwark.enrichment_lookups AS l
           (workspace_id, provider, kind, key, answer, fetched_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, now(), now() + make_interval(days => $6))
         ON CONFLICT (workspace_id, provider, kind, key) DO UPDATE
           SET answer = excluded.answer, fetched_at = excluded.fetched_at,
             expires_at = excluded.expires_at, polls = 0, unreadable_at = NULL,
             call_id = CASE WHEN l.call_id = $7 THEN NULL ELSE l.call_id END,
             busy_until = CASE WHEN l.call_id = $7 THEN NULL ELSE l.busy_until END
         RETURNING answer, fetched_at",
    )
    .bind(question.workspace_id)
    .bind(question.provider)
    .bind(question.kind)
    .bind(&question.key)
    .bind(answer)
    .bind(days)
    .bind(call_id)
    .fetch_one(&record.pool)
    .await?)
}

/// Keeps that the answer could not be read: when that was. Also one that comes after the claim ran
/// out, unless somebody else has asked since.
pub async fn keep_unreadable(
    record: &Record,
    question: &Question,
    call_id: Uuid,
) -> Result<DateTime<Utc>, RecordError> {
    Ok(sqlx::query_scalar(
        "WITH kept AS (
           UPDATE bullwark.enrichment_lookups
           SET call_id = NULL, polls = 0, unreadable_at = now(),
             busy_until = now() + make_interval(secs => $6)
           WHERE workspace_id = $1 AND provider = $2 AND kind = $3 AND key = $4
             AND call_id = $5)
         SELECT now()",
    )
    .bind(question.workspace_id)
    .bind(question.provider)
    .bind(question.kind)
    .bind(&question.key)
    .bind(call_id)
    .bind(UNREADABLE_KEPT.as_secs_f64())
    .fetch_one(&record.pool)
    .await?)
}

/// Gives a claim back without an answer. With a time, nobody asks until then, because the provider
/// is still looking.
pub async fn give_back(
    record: &Record,
    question: &Question,
    call_id: Uuid,
    still_looking: Option<Duration>,
) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE bullwark.enrichment_lookups
         SET call_id = NULL, busy_until = now() + make_interval(secs => $6),
           polls = CASE WHEN $6 > 0 THEN polls + 1 ELSE 0 END
         WHERE workspace_id = $1 AND provider = $2 AND kind = $3 AND key = $4 AND call_id = $5",
    )
    .bind(question.workspace_id)
    .bind(question.provider)
    .bind(question.kind)
    .bind(&question.key)
    .bind(call_id)
    .bind(still_looking.unwrap_or_default().as_secs_f64())
    .execute(&record.pool)
    .await?;
    Ok(())
}

/// Forgets answers that have run out long ago, and old activities, a page of each. True: there may
/// be more.
pub async fn forget_old(record: &Record) -> Result<bool, RecordError> {
    let lookups = sqlx::query(
        "DELETE FROM bullwark.enrichment_lookups l USING (
           SELECT workspace_id, provider, kind, key FROM bullwark.enrichment_lookups
           WHERE coalesce(expires_at, busy_until) < now() - make_interval(days => $1)
             AND coalesce(busy_until < now(), true)
           LIMIT $2) old
         WHERE l.workspace_id = old.workspace_id AND l.provider = old.provider
           AND l.kind = old.kind AND l.key = old.key
           AND coalesce(l.busy_until < now(), true)
           AND coalesce(l.expires_at, l.busy_until) < now() - make_interval(days => $1)",
    )
    .bind(KEPT_DAYS)
    .bind(FORGET_MAX)
    .execute(&record.pool)
    .await?;
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT now()")
        .fetch_one(&record.pool)
        .await?;
    let oldest = super::open::first_id_at(now - chrono::Days::new(ACTIVITIES_KEPT_DAYS));
    // In the order of ids, which is that of time.
    let mut rows = lookups.rows_affected();
    for sql in [
        "DELETE FROM account_activities WHERE id IN (
           SELECT id FROM account_activities WHERE id < $1 ORDER BY id LIMIT $2)",
        "DELETE FROM contact_activities WHERE id IN (
           SELECT id FROM contact_activities WHERE id < $1 ORDER BY id LIMIT $2)",
    ] {
        let gone = sqlx::query(sql)
            .bind(oldest)
            .bind(FORGET_MAX)
            .execute(&record.pool)
            .await?;
        rows = rows.max(gone.rows_affected());
    }
    let items = super::enrichment_items::forget_old(record, FORGET_MAX).await?;
    Ok(items || rows == FORGET_MAX as u64)
}
