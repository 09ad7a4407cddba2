//! Counting jobs, without looking at those that are over.

use uuid::Uuid;

use super::jobs::begin_list;
use super::{Record, RecordError};

/// Jobs that are counted at most; what is beyond is not looked at.
pub const OPEN_MAX: i64 = 200_000;

/// How many jobs of a queue are in one open status.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct OpenCount {
    pub job_queue: String,
    pub status: String,
    pub jobs: i64,
}

/// The open jobs of a workspace by queue and status. Reads the stragglers and the rows after the
/// seal, as all passes over open jobs do, so finished rows cost nothing.
pub async fn count_open(
    record: &Record,
    workspace_id: Uuid,
) -> Result<Vec<OpenCount>, RecordError> {
    let mut tx = begin_list(record).await?;
    let counts = sqlx::query_as(
        "WITH sealed AS (
           SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed'
         ), counted AS (
           (SELECT j.job_queue, j.status
            FROM bullwark.stragglers s JOIN jobs j ON j.id = s.job_id
            WHERE s.job_id <= (SELECT job_id FROM sealed) AND j.workspace_id = $1
              AND j.status IN ('pending', 'processing', 'failed')
            LIMIT $2)
           UNION ALL
           (SELECT job_queue, status FROM jobs
            WHERE workspace_id = $1 AND id > (SELECT job_id FROM sealed)
              AND status IN ('pending', 'processing', 'failed')
            LIMIT $2)
           LIMIT $2
         )
         SELECT job_queue, status, count(*) AS jobs FROM counted
         GROUP BY job_queue, status ORDER BY job_queue, status",
    )
    .bind(workspace_id)
    .bind(OPEN_MAX)
    .fetch_all(tx.connection())
    .await?;
    tx.commit().await?;
    Ok(counts)
}

/// The dead letters of a workspace.
pub async fn count_dead(record: &Record, workspace_id: Uuid) -> Result<i64, RecordError> {
    let mut tx = begin_list(record).await?;
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM (
           SELECT FROM bullwark.dead_letters WHERE workspace_id = $1 LIMIT $2) AS counted",
    )
    .bind(workspace_id)
    .bind(OPEN_MAX)
    .fetch_one(tx.connection())
    .await?;
    tx.commit().await?;
    Ok(count)
}
