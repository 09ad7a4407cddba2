//! Rows of logs that foreign code wrote into Redis, copied once each.

use uuid::Uuid;

use super::logs::LOG_BATCH_MAX;
use super::{RecordError, Tx};

/// How far a job's log was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Copied {
    /// Rows, those included that Redis has let go of.
    pub copied: i64,
    /// Hashes of the newest of them, oldest first.
    pub newest: Vec<i64>,
}

/// Locks a job's copy until the transaction ends: whoever reads the log in Redis after this sees no
/// older one than the last copier saw. None: the record does not know the job.
pub async fn lock(tx: &mut Tx, job_id: Uuid) -> Result<Option<Copied>, RecordError> {
    sqlx::query(
        "INSERT INTO bullwark.log_copies (job_id) SELECT id FROM jobs
         WHERE id = $1 AND deleted_at IS NULL
         ON CONFLICT DO NOTHING",
    )
    .bind(job_id)
    .execute(tx.connection())
    .await?;
    Ok(sqlx::query_as(
        "SELECT copied, newest FROM bullwark.log_copies WHERE job_id = $1 FOR UPDATE",
    )
    .bind(job_id)
    .fetch_optional(tx.connection())
    .await?)
}

/// Writes further rows of a job's log, in this order, and how far it was copied.
pub async fn write(
    tx: &mut Tx,
    job_id: Uuid,
    rows: &[String],
    now: &Copied,
) -> Result<(), RecordError> {
    // As many times as there are rows, a microsecond apart: they are read by time.
    for (part, rows) in rows.chunks(LOG_BATCH_MAX).enumerate() {
        sqlx::query(
            "INSERT INTO job_logs (job_id, log_level, message, created_at)
             SELECT $1, 'info', u.message, t.at + ($3 + u.n) * interval '1 microsecond'
             -- The time after the lock: whoever waited for it comes later.
             FROM (SELECT clock_timestamp() AS at) t,
               unnest($2::text[]) WITH ORDINALITY AS u (message, n)",
        )
        .bind(job_id)
        .bind(rows)
        .bind((part * LOG_BATCH_MAX) as i64)
        .execute(tx.connection())
        .await?;
    }
    sqlx::query("UPDATE bullwark.log_copies SET copied = $2, newest = $3 WHERE job_id = $1")
        .bind(job_id)
        .bind(now.copied)
        .bind(&now.newest)
        .execute(tx.connection())
        .await?;
    Ok(())
}
