//! Counting jobs, without looking at those that are over.

use uuid::Uuid;

use super::list::begin_list;
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

/// Open jobs that are looked at for their age, from the oldest on.
const AGES_MAX: i64 = 20_000;

/// For how many seconds the oldest job of each queue could have started, and did not: of the oldest
/// open jobs, whosever they are. A queue whose jobs are all behind so many others is left out.
pub async fn oldest_ready(record: &Record) -> Result<Vec<(String, f64)>, RecordError> {
    let mut tx = begin_list(record).await?;
    let ages = sqlx::query_as(
        "WITH sealed AS (
           SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed'
         ), open AS (
           (SELECT j.job_queue, j.status, j.created_at, j.scheduled_for, j.next_retry_at
            FROM bullwark.stragglers s JOIN jobs j ON j.id = s.job_id
            WHERE s.job_id <= (SELECT job_id FROM sealed)
              AND j.status IN ('pending', 'failed')
            ORDER BY s.job_id LIMIT $1)
           UNION ALL
           (SELECT job_queue, status, created_at, scheduled_for, next_retry_at FROM jobs
            WHERE id > (SELECT job_id FROM sealed) AND status IN ('pending', 'failed')
            ORDER BY id LIMIT $1)
         ), due AS (
           SELECT job_queue, CASE status WHEN 'failed' THEN next_retry_at
                             ELSE coalesce(scheduled_for, created_at) END AS at FROM open
         )
         SELECT job_queue::text, extract(epoch FROM now() - min(at))::float8
         FROM due WHERE at <= now() GROUP BY job_queue",
    )
    .bind(AGES_MAX)
    .fetch_all(tx.connection())
    .await?;
    tx.commit().await?;
    Ok(ages)
}

/// All dead letters.
pub async fn count_all_dead(record: &Record) -> Result<i64, RecordError> {
    let mut tx = begin_list(record).await?;
    let count = sqlx::query_scalar("SELECT count(*) FROM bullwark.dead_letters")
        .fetch_one(tx.connection())
        .await?;
    tx.commit().await?;
    Ok(count)
}
