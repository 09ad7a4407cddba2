//! The outbox: jobs that a transaction changed in the record and that Redis has not been told of
//! yet: enqueued inside somebody's own, cancelled, or retried by hand.

use uuid::Uuid;

use super::{Record, RecordError, Tx};

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

/// Keeps the entries of these jobs there until the transaction ends.
///
/// For somebody who tells Redis of them just now: what another one tells meanwhile may be newer,
/// and come before it. Returns the jobs that have one; of the others Redis was told.
pub async fn keep(tx: &mut Tx, ids: &[Uuid]) -> Result<Vec<Uuid>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT job_id FROM bullwark.outbox WHERE job_id = ANY($1) ORDER BY seq FOR SHARE",
    )
    .bind(ids)
    .fetch_all(tx.connection())
    .await?)
}

/// Removes delivered entries, but for those that somebody keeps; returns how many.
///
/// A delivered job that is older than the seal is noted as open first: its transaction may have
/// taken longer than the seal lags behind.
pub async fn delivered(record: &Record, entries: &[(i64, Uuid)]) -> Result<u64, RecordError> {
    let removed = sqlx::query(
        "WITH late AS (
           INSERT INTO bullwark.stragglers (job_id, owner_id)
           SELECT j.id, coalesce(j.workspace_id, bullwark.nobody()) FROM jobs j
           WHERE j.id = ANY($2) AND j.status IN ('pending', 'processing', 'failed')
             AND j.id <= (SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed')
           ON CONFLICT DO NOTHING
         )
         DELETE FROM bullwark.outbox WHERE seq = ANY(ARRAY(
           SELECT seq FROM bullwark.outbox WHERE seq = ANY($1)
           ORDER BY seq FOR UPDATE SKIP LOCKED))",
    )
    .bind(entries.iter().map(|(seq, _)| *seq).collect::<Vec<_>>())
    .bind(entries.iter().map(|(_, id)| *id).collect::<Vec<_>>())
    .execute(&record.pool)
    .await?;
    Ok(removed.rows_affected())
}

/// Puts entries behind all others. Whoever holds their old numbers removes nothing, and delivers
/// them again, which is harmless.
pub async fn put_last(record: &Record, seqs: &[i64]) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE bullwark.outbox SET seq = DEFAULT WHERE seq = ANY(ARRAY(
           SELECT seq FROM bullwark.outbox WHERE seq = ANY($1)
           ORDER BY seq FOR UPDATE SKIP LOCKED))",
    )
    .bind(seqs)
    .execute(&record.pool)
    .await?;
    Ok(())
}
