//! `crm_runs`: one job at a time syncs a connection.
//!
//! Two at once would do no harm that lasts (both write by ids), but each would push what the other
//! has just pulled, and count it twice. A schedule that is shorter than its run is all it takes.

use uuid::Uuid;

use super::super::{Record, RecordError};

/// How long a connection is held after the last page of a job that was not seen again: longer than
/// a page takes, and not long for who waits behind a worker that has died with its job.
const HELD_SECONDS: f64 = 900.0;

/// How a connection was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    Ours,
    /// Another job has it: which, unless it has just ended.
    Other(Option<Uuid>),
}

/// Takes the connection for a job, or keeps it for one that gets on.
pub async fn hold(
    record: &Record,
    (workspace_id, connection_id): (Uuid, Uuid),
    job_id: Uuid,
) -> Result<Hold, RecordError> {
    let held: Option<Uuid> = sqlx::query_scalar(
        "INSERT INTO bullwark.crm_runs AS r (connection_id, workspace_id, job_id, held_until)
         VALUES ($1, $2, $3, now() + make_interval(secs => $4))
         ON CONFLICT (connection_id) DO UPDATE
           SET job_id = excluded.job_id, held_until = excluded.held_until
           WHERE r.job_id = excluded.job_id OR r.held_until < now()
             OR NOT EXISTS (SELECT FROM jobs j WHERE j.id = r.job_id
               AND j.status IN ('pending', 'processing', 'failed'))
         RETURNING r.job_id",
    )
    .bind(connection_id)
    .bind(workspace_id)
    .bind(job_id)
    .bind(HELD_SECONDS)
    .fetch_optional(&record.pool)
    .await?;
    if held.is_some() {
        return Ok(Hold::Ours);
    }
    let other = "SELECT job_id FROM bullwark.crm_runs WHERE connection_id = $1";
    let other = sqlx::query_scalar(other).bind(connection_id);
    Ok(Hold::Other(other.fetch_optional(&record.pool).await?))
}

/// Gives the connection back, if it is this job's.
pub async fn release(
    record: &Record,
    connection_id: Uuid,
    job_id: Uuid,
) -> Result<(), RecordError> {
    sqlx::query("DELETE FROM bullwark.crm_runs WHERE connection_id = $1 AND job_id = $2")
        .bind(connection_id)
        .bind(job_id)
        .execute(&record.pool)
        .await?;
    Ok(())
}
