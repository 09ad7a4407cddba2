//! The outbox: jobs that a transaction changed in the record and that Redis has not been told of
//! yet: enqueued inside somebody's own, cancelled, or retried by hand.

use uuid::Uuid;

use super::{Record, RecordError};

/// The most rows taken at once.
pub const OUTBOX_MAX: i64 = 500;

/// The oldest entries, in order. Reads without locking: two relays may deliver the same job, which
/// is harmless, and a relay that dies holds nothing.
pub async fn take(record: &Record) -> Result<Vec<(i64, Uuid)>, RecordError> {
    Ok(
        sqlx::query_as("SELECT seq, job_id FROM bullwark.outbox ORDER BY seq LIMIT $1")
            .bind(OUTBOX_MAX)
            .fetch_all(&record.pool)
            .await?,
    )
}

/// The entries of these jobs.
pub async fn of_jobs(record: &Record, ids: &[Uuid]) -> Result<Vec<(i64, Uuid)>, RecordError> {
    Ok(
        sqlx::query_as("SELECT seq, job_id FROM bullwark.outbox WHERE job_id = ANY($1)")
            .bind(ids)
            .fetch_all(&record.pool)
            .await?,
    )
}

/// Removes delivered entries. A delivered job that is older than the seal is noted as open first:
/// its transaction may have taken longer than the seal lags behind.
pub async fn delivered(record: &Record, entries: &[(i64, Uuid)]) -> Result<(), RecordError> {
    sqlx::query(
        "WITH late AS (
           INSERT INTO bullwark.stragglers
           SELECT j.id FROM jobs j
           WHERE j.id = ANY($2) AND j.status IN ('pending', 'processing', 'failed')
             AND j.id <= (SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed')
           ON CONFLICT DO NOTHING
         )
         DELETE FROM bullwark.outbox WHERE seq = ANY($1)",
    )
    .bind(entries.iter().map(|(seq, _)| *seq).collect::<Vec<_>>())
    .bind(entries.iter().map(|(_, id)| *id).collect::<Vec<_>>())
    .execute(&record.pool)
    .await?;
    Ok(())
}

/// Puts entries behind all others. Whoever holds their old numbers removes nothing, and delivers
/// them again, which is harmless.
pub async fn put_last(record: &Record, seqs: &[i64]) -> Result<(), RecordError> {
    sqlx::query("UPDATE bullwark.outbox SET seq = DEFAULT WHERE seq = ANY($1)")
        .bind(seqs)
        .execute(&record.pool)
        .await?;
    Ok(())
}
