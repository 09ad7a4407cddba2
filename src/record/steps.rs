//! `job_steps`: the results of named steps, which later attempts are given instead of running them.
//!
//! Whatever takes a transaction takes one that holds the job: behind the fence, or behind
//! [`super::start::hold`].

use uuid::Uuid;

use super::{Record, RecordError, Tx};

/// Steps that one job may have.
pub const STEPS_MAX: i64 = 1_000;

/// What became of a step that was to be kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Kept {
    Now,
    /// It stands there already; its result.
    Before(serde_json::Value),
    /// The job has [`STEPS_MAX`] others.
    Full,
}

/// The result of a step, if it is done.
pub async fn find(
    tx: &mut Tx,
    job_id: Uuid,
    name: &str,
) -> Result<Option<serde_json::Value>, RecordError> {
    Ok(
        sqlx::query_scalar("SELECT result FROM job_steps WHERE job_id = $1 AND name = $2")
            .bind(job_id)
            .bind(name)
            .fetch_optional(tx.connection())
            .await?,
    )
}

/// The same before the step, outside of any transaction. None: this attempt has no say any more.
pub async fn look_up(
    record: &Record,
    job_id: Uuid,
    attempt: i32,
    worker_id: &str,
    name: &str,
) -> Result<Option<Option<serde_json::Value>>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT (SELECT result FROM job_steps WHERE job_id = $1 AND name = $4)
         FROM jobs j
         WHERE j.id = $1 AND j.status IN ('pending', 'processing', 'failed')
           AND (j.attempt < $2 OR (j.attempt = $2 AND j.status = 'processing'
             AND j.worker_id = $3))",
    )
    .bind(job_id)
    .bind(attempt)
    .bind(worker_id)
    .bind(name)
    .fetch_optional(&record.pool)
    .await?)
}

/// Keeps the result of a step. Safe to repeat: the first result stays. A job that gets on is no
/// crash loop: its lost leases are forgotten.
pub async fn keep(
    tx: &mut Tx,
    job_id: Uuid,
    attempt: i32,
    name: &str,
    result: &serde_json::Value,
) -> Result<Kept, RecordError> {
    let (before, is_kept): (Option<serde_json::Value>, bool) = sqlx::query_as(
        "WITH forgiven AS (
           UPDATE jobs SET lease_losses = 0 WHERE id = $1 AND lease_losses > 0
         ), kept AS (
           INSERT INTO job_steps (job_id, name, result, attempt)
           SELECT $1, $2, $3, $4
           WHERE (SELECT count(*) FROM job_steps WHERE job_id = $1) < $5
           ON CONFLICT (job_id, name) DO NOTHING
           RETURNING 1
         )
         SELECT (SELECT result FROM job_steps WHERE job_id = $1 AND name = $2),
           EXISTS (SELECT FROM kept)",
    )
    .bind(job_id)
    .bind(name)
    .bind(result)
    .bind(attempt)
    .bind(STEPS_MAX)
    .fetch_one(tx.connection())
    .await?;
    Ok(match (before, is_kept) {
        (Some(result), _) => Kept::Before(result),
        (None, true) => Kept::Now,
        (None, false) => Kept::Full,
    })
}
