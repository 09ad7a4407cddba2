//! Who runs jobs, as the record knows it: by what workers wrote when they started attempts, and by
//! their heartbeats.

use chrono::{DateTime, Utc};

use super::{RecordError, View};

/// Running jobs that are looked at, at most.
pub const RUNNING_MAX: i64 = 50_000;

/// A worker with running jobs in one queue.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct RunningIn {
    pub worker_id: String,
    pub job_queue: String,
    pub running: i64,
    /// None: a worker of a `BullMQ` client, which sends none.
    pub last_heartbeat_at: Option<DateTime<Utc>>,
    pub oldest_started_at: Option<DateTime<Utc>>,
}

/// Workers with running jobs, whosever these are. Looks where open jobs are noted.
pub async fn running(view: &mut View) -> Result<Vec<RunningIn>, RecordError> {
    Ok(sqlx::query_as(
        "WITH sealed AS (
           SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed'
         ), running AS (
           (SELECT j.worker_id, j.job_queue, j.worker_heartbeat_at, j.started_at
            FROM bullwark.stragglers s JOIN jobs j ON j.id = s.job_id
            WHERE s.job_id <= (SELECT job_id FROM sealed) AND j.status = 'processing' LIMIT $1)
           UNION ALL
           (SELECT worker_id, job_queue, worker_heartbeat_at, started_at FROM jobs
            WHERE id > (SELECT job_id FROM sealed) AND status = 'processing' LIMIT $1)
         )
         SELECT worker_id, job_queue::text, count(*) AS running,
           max(worker_heartbeat_at) AS last_heartbeat_at, min(started_at) AS oldest_started_at
         FROM running WHERE worker_id IS NOT NULL
         GROUP BY worker_id, job_queue ORDER BY worker_id, job_queue",
    )
    .bind(RUNNING_MAX)
    .fetch_all(view.connection())
    .await?)
}
