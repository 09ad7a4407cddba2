//! Counting jobs, without looking at those that are over.

use uuid::Uuid;

use super::{RecordError, View};

/// Jobs that are counted at most; what is beyond is not looked at.
pub const OPEN_MAX: i64 = 200_000;

/// How many jobs of a queue are in one open status.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct OpenCount {
    pub job_queue: String,
    pub status: String,
    pub jobs: i64,
}

/// The open jobs of a workspace by queue and status. Reads its stragglers and its rows after the
/// seal, as all passes over open jobs do: neither finished rows nor those of others cost anything.
pub async fn count_open(
    view: &mut View,
    workspace_id: Uuid,
) -> Result<Vec<OpenCount>, RecordError> {
    let counts = sqlx::query_as(
        "WITH sealed AS (
           SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed'
         ), counted AS (
           (SELECT j.job_queue, j.status
            FROM bullwark.stragglers s JOIN jobs j ON j.id = s.job_id
            WHERE s.job_id <= (SELECT job_id FROM sealed)
              AND s.owner_id = $1 AND j.workspace_id = $1
              AND j.status IN ('pending', 'processing', 'failed')
            LIMIT $2)
           UNION ALL
           (SELECT j.job_queue, j.status
            FROM bullwark.stragglers s JOIN jobs j ON j.id = s.job_id
            WHERE s.job_id <= (SELECT job_id FROM sealed)
              AND s.owner_id IS NULL AND j.workspace_id = $1
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
    .fetch_all(view.connection())
    .await?;
    Ok(counts)
}

/// The dead letters of a workspace.
pub async fn count_dead(view: &mut View, workspace_id: Uuid) -> Result<i64, RecordError> {
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM (
           SELECT FROM bullwark.dead_letters WHERE workspace_id = $1 LIMIT $2) AS counted",
    )
    .bind(workspace_id)
    .bind(OPEN_MAX)
    .fetch_one(view.connection())
    .await?;
    Ok(count)
}

/// Jobs that are looked at for their age, from the oldest on.
const AGES_MAX: i64 = 20_000;

/// How long jobs could have started, and did not.
#[derive(Debug, Clone, PartialEq)]
pub struct Ages {
    /// Of the oldest job of each queue, in seconds.
    pub of_queues: Vec<(String, f64)>,
    /// All jobs that could start were looked at: queues that are not there have none.
    pub is_whole: bool,
}

/// The ages of jobs that could start, whosever they are. Those that were run again have no time
/// since when they could, and parents wait for their children: they are left out.
pub async fn oldest_ready(view: &mut View) -> Result<Ages, RecordError> {
    let rows: Vec<(String, f64, i64)> = sqlx::query_as(
        "WITH sealed AS (
           SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed'
         ), due AS (
           (SELECT j.job_queue, CASE j.status WHEN 'failed' THEN j.next_retry_at
                                ELSE coalesce(j.scheduled_for, j.created_at) END AS at
            FROM bullwark.stragglers s JOIN jobs j ON j.id = s.job_id
            WHERE s.job_id <= (SELECT job_id FROM sealed)
              AND ((j.status = 'failed' AND j.next_retry_at <= now())
                OR (j.status = 'pending' AND j.attempt = 0 AND j.wire #>> '{children,0}' IS NULL
                  AND coalesce(j.scheduled_for, j.created_at) <= now()))
            ORDER BY s.job_id LIMIT $1)
           UNION ALL
           (SELECT job_queue, CASE status WHEN 'failed' THEN next_retry_at
                              ELSE coalesce(scheduled_for, created_at) END
            FROM jobs
            WHERE id > (SELECT job_id FROM sealed)
              AND ((status = 'failed' AND next_retry_at <= now())
                OR (status = 'pending' AND attempt = 0 AND wire #>> '{children,0}' IS NULL
                  AND coalesce(scheduled_for, created_at) <= now()))
            ORDER BY id LIMIT $1)
         )
         SELECT job_queue::text, extract(epoch FROM now() - min(at))::float8, count(*)
         FROM due GROUP BY job_queue",
    )
    .bind(AGES_MAX)
    .fetch_all(view.connection())
    .await?;
    let looked_at: i64 = rows.iter().map(|(_, _, jobs)| jobs).sum();
    let of_queues = rows.into_iter().map(|(queue, seconds, _)| (queue, seconds));
    Ok(Ages {
        of_queues: of_queues.collect(),
        is_whole: looked_at < AGES_MAX,
    })
}

/// All dead letters, up to [`OPEN_MAX`].
pub async fn count_all_dead(view: &mut View) -> Result<i64, RecordError> {
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT FROM bullwark.dead_letters LIMIT $1) AS counted",
    )
    .bind(OPEN_MAX)
    .fetch_one(view.connection())
    .await?;
    Ok(count)
}
