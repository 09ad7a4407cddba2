//! What is over with webhooks: deliveries that have ended, old ones, and secrets that sign no more.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::open::first_id_at;
use super::{Record, RecordError};

/// Deliveries of one page.
const PAGE: i64 = 1000;
/// How long deliveries can be looked at and replayed.
pub const DELIVERIES_KEPT: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);

/// Notes which of the open deliveries after this one have ended, a page of them: those that were
/// cancelled or given up, which no attempt has noted. Returns where to go on; none: at the end.
pub async fn close_ended(
    record: &Record,
    after: (Uuid, Uuid),
) -> Result<Option<(Uuid, Uuid)>, RecordError> {
    let page: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "WITH page AS (
           SELECT webhook_id, job_id FROM bullwark.webhook_deliveries
           WHERE is_open AND (webhook_id, job_id) > ($1, $2)
           ORDER BY webhook_id, job_id LIMIT $3
         ), closed AS (
           UPDATE bullwark.webhook_deliveries d SET is_open = false
           FROM page JOIN jobs j ON j.id = page.job_id
           WHERE d.job_id = page.job_id
             AND (j.status IN ('completed', 'dead_letter', 'cancelled') OR j.deleted_at IS NOT NULL)
         )
         SELECT webhook_id, job_id FROM page ORDER BY webhook_id, job_id",
    )
    .bind(after.0)
    .bind(after.1)
    .bind(PAGE)
    .fetch_all(&record.pool)
    .await?;
    Ok(page.last().copied().filter(|_| page.len() as i64 == PAGE))
}

/// Forgets what was delivered more than [`DELIVERIES_KEPT`] ago, a page of it; the jobs stay. True:
/// there may be more. Secrets from before rotations go when they sign no more.
pub async fn prune(record: &Record) -> Result<bool, RecordError> {
    sqlx::query(
        "UPDATE webhooks SET previous_secret = NULL, previous_secret_until = NULL
         WHERE previous_secret_until < now()",
    )
    .execute(&record.pool)
    .await?;
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT now()")
        .fetch_one(&record.pool)
        .await?;
    // In the order of ids, which is that of time.
    let gone = sqlx::query(
        "DELETE FROM bullwark.webhook_deliveries WHERE job_id IN (
           SELECT d.job_id FROM bullwark.webhook_deliveries d
           WHERE d.job_id < $1 AND NOT d.is_open
             -- One that was run again by hand is vouched for to its end.
             AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = d.job_id
               AND j.status IN ('pending', 'processing', 'failed'))
           ORDER BY d.job_id LIMIT $2)",
    )
    .bind(first_id_at(now - DELIVERIES_KEPT))
    .bind(PAGE)
    .execute(&record.pool)
    .await?;
    Ok(gone.rows_affected() as i64 == PAGE)
}
