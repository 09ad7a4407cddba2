//! Whose open jobs are, for a queue that becomes fair.

use uuid::Uuid;

use super::open::OpenJob;
use super::{Record, RecordError};

/// The workspaces of these jobs, by their ids on the wire. Jobs of none are left out.
pub async fn of(record: &Record, jobs: &[&OpenJob]) -> Result<Vec<(String, Uuid)>, RecordError> {
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.id).collect();
    Ok(sqlx::query_as(
        "SELECT coalesce(redis_id, id::text), workspace_id FROM jobs
         WHERE id = ANY($1) AND workspace_id IS NOT NULL",
    )
    .bind(ids)
    .fetch_all(&record.pool)
    .await?)
}
