//! Log lines of many jobs that are written a little later.
//!
//! Whoever has something to say of a hundred thousand jobs at once, and has others waiting for it,
//! notes it in one row per page of jobs. That is as durable as the lines themselves, and upkeep
//! writes those from it. Until then the logs of these jobs lack the line, for seconds.

use uuid::Uuid;

use super::{Record, RecordError};

/// Notes a line for the log of each of these jobs, and returns the note. Done twice, each gets it
/// twice.
pub async fn owe(record: &Record, job_ids: &[Uuid], message: &str) -> Result<i64, RecordError> {
    let insert = "INSERT INTO bullwark.owed_logs (message, job_ids) VALUES ($1, $2) RETURNING id";
    Ok(sqlx::query_scalar(insert)
        .bind(message)
        .bind(job_ids)
        .fetch_one(&record.pool)
        .await?)
}

/// Takes a note back. One whose lines are written already stays as it is.
pub async fn forget(record: &Record, note: i64) -> Result<(), RecordError> {
    sqlx::query("DELETE FROM bullwark.owed_logs WHERE id = $1")
        .bind(note)
        .execute(&record.pool)
        .await?;
    Ok(())
}

/// Writes the lines of the oldest note that nobody else is at, once. False: there is none.
///
/// Jobs that were deleted meanwhile get none.
pub async fn write_next(record: &Record) -> Result<bool, RecordError> {
    let notes: i64 = sqlx::query_scalar(
        // The lines of a note are a microsecond apart, as those of `logs::insert_many`.
        "WITH note AS (
           DELETE FROM bullwark.owed_logs WHERE id = (
             SELECT id FROM bullwark.owed_logs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
           ) RETURNING message, job_ids, noted_at
         ), written AS (
           INSERT INTO job_logs (job_id, log_level, message, created_at)
           SELECT j.id, 'info', note.message, note.noted_at + u.n * interval '1 microsecond'
           FROM note CROSS JOIN unnest(note.job_ids) WITH ORDINALITY AS u (job_id, n)
             JOIN jobs j ON j.id = u.job_id AND j.deleted_at IS NULL
         )
         SELECT count(*) FROM note",
    )
    .fetch_one(&record.pool)
    .await?;
    Ok(notes > 0)
}
