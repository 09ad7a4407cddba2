//! Reading for live updates: how jobs stand now, and which ones are news.
//!
//! Live updates say only what these statements read (`http/events`): whatever told the reader
//! where to look, it is the row that speaks. Nothing here writes, and nothing costs more with a
//! longer history.
//!
//! What a listener gets at its beginning is read in a view, as for any page. What comes after that
//! is read once for the listeners of all workspaces, with the server's own eyes: each row says its
//! workspace, and is shown nowhere else.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::open::first_id_at;
use super::stragglers::Part;
use super::{Record, RecordError, View};

/// The most jobs of one statement.
pub const LOOK_MAX: usize = 1000;
/// New jobs, and actions of people, of one workspace that are read at once.
pub const NEWS_MAX: i64 = 200;
/// Lines of one job that are read at once.
pub const LINES_MAX: i64 = 100;
/// Among so many of the newest jobs, and of the open ones, are those that changed last.
const CANDIDATES: i64 = 300;

/// How a job stands, without what may be large: payload, result and stack.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct JobState {
    pub id: Uuid,
    #[serde(skip)]
    pub workspace_id: Option<Uuid>,
    pub job_type: String,
    pub job_queue: String,
    pub status: String,
    pub priority: i32,
    /// The number of the newest start.
    pub attempt: i32,
    /// Failures counted so far.
    pub attempts: i32,
    pub max_attempts: i32,
    /// None as well if it is larger than live updates carry.
    pub progress: Option<serde_json::Value>,
    /// Its beginning.
    pub error_message: Option<String>,
    pub created_at: DateTime<Utc>,
    pub scheduled_for: Option<DateTime<Utc>>,
    pub started_at: Option<DateTime<Utc>>,
    pub completed_at: Option<DateTime<Utc>>,
    pub failed_at: Option<DateTime<Utc>>,
    pub next_retry_at: Option<DateTime<Utc>>,
    pub worker_id: Option<String>,
    #[serde(skip)]
    pub is_deleted: bool,
    /// When it was read, by the record's clock.
    #[serde(skip)]
    pub read_at: DateTime<Utc>,
}

const COLUMNS: &str = "SELECT id, workspace_id, job_type, job_queue, status, priority, attempt,
  attempts, max_attempts,
  CASE WHEN pg_column_size(progress) <= 4096 AND octet_length(progress::text) <= 4096
    THEN progress END AS progress,
  left(error_message, 1000) AS error_message, created_at, scheduled_for, started_at, completed_at,
  failed_at, next_retry_at, worker_id, deleted_at IS NOT NULL AS is_deleted,
  clock_timestamp() AS read_at FROM jobs";

/// How these jobs stand, whosever they are: each row says its workspace, and goes nowhere else.
/// Those that were deleted are there. By the primary key.
pub async fn look_up(record: &Record, ids: &[Uuid]) -> Result<Vec<JobState>, RecordError> {
    debug_assert!(ids.len() <= LOOK_MAX);
    let mut query = sqlx::QueryBuilder::new(COLUMNS);
    query.push(" WHERE id = ANY(").push_bind(ids).push(")");
    Ok(query.build_query_as().fetch_all(&record.pool).await?)
}

/// One job of a workspace; none if it was deleted.
pub async fn job_of(
    view: &mut View,
    workspace_id: Uuid,
    id: Uuid,
) -> Result<Option<JobState>, RecordError> {
    let mut query = sqlx::QueryBuilder::new(COLUMNS);
    query.push(" WHERE id = ").push_bind(id);
    query.push(" AND workspace_id = ").push_bind(workspace_id);
    query.push(" AND deleted_at IS NULL");
    let query = query.build_query_as();
    Ok(query.fetch_optional(view.connection()).await?)
}

/// Up to where the news of a workspace were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewsPlace {
    pub workspace_id: Uuid,
    /// The newest job.
    pub job: Uuid,
    /// The newest action of a person.
    pub action: Uuid,
}

/// Something new in a workspace.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct News {
    pub workspace_id: Uuid,
    pub job_id: Uuid,
    /// The place after it: of the job, or of the action.
    pub place: Uuid,
    /// What a person did; none for a new job.
    pub action: Option<String>,
}

/// The place of news that begins now, by the record's clock, less that much for what is being
/// committed, and for clocks that are late.
pub async fn news_from_now(
    record: &Record,
    workspace_id: Uuid,
    slack: std::time::Duration,
) -> Result<NewsPlace, RecordError> {
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT now()")
        .fetch_one(&record.pool)
        .await?;
    let first = first_id_at(now - slack);
    Ok(NewsPlace {
        workspace_id,
        job: first,
        action: first,
    })
}

/// New jobs, and jobs to which people did something, after these places; per workspace and kind at
/// most [`NEWS_MAX`], in the order of their places. By `jobs_workspace` and `audit_log_workspace`.
///
/// What is committed later than something with a larger id is passed over: this is a hint, and not
/// the only one.
pub async fn news(record: &Record, places: &[NewsPlace]) -> Result<Vec<News>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT w.workspace_id, n.job_id, n.place, n.action
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS w (workspace_id, job, action)
         CROSS JOIN LATERAL (
           (SELECT j.id AS job_id, j.id AS place, NULL::text AS action FROM jobs j
            WHERE j.workspace_id = w.workspace_id AND j.id > w.job ORDER BY j.id LIMIT $4)
           UNION ALL
           (SELECT a.target_id::uuid, a.id, a.action FROM bullwark.audit_log a
            WHERE a.workspace_id = w.workspace_id AND a.id > w.action
              AND a.target_kind = 'job'
            ORDER BY a.id LIMIT $4)
         ) AS n",
    )
    .bind(places.iter().map(|p| p.workspace_id).collect::<Vec<_>>())
    .bind(places.iter().map(|p| p.job).collect::<Vec<_>>())
    .bind(places.iter().map(|p| p.action).collect::<Vec<_>>())
    .bind(NEWS_MAX)
    .fetch_all(&record.pool)
    .await?)
}

/// The jobs of a workspace that changed last, the last one first, as far as they are among the
/// newest jobs, the newest open ones and the newest dead ones: no index says it of all.
pub async fn recent(
    view: &mut View,
    workspace_id: Uuid,
    limit: i64,
) -> Result<Vec<JobState>, RecordError> {
    let mut query = sqlx::QueryBuilder::new(COLUMNS);
    query.push(" WHERE id IN ((SELECT id FROM jobs WHERE workspace_id = ");
    query.push_bind(workspace_id);
    query.push(" ORDER BY id DESC LIMIT ").push_bind(CANDIDATES);
    for part in Part::with(Some(workspace_id)) {
        query.push(") UNION (SELECT job_id FROM bullwark.stragglers s WHERE true");
        part.push(&mut query);
        query
            .push(" ORDER BY job_id DESC LIMIT ")
            .push_bind(CANDIDATES);
    }
    query.push(") UNION (SELECT job_id FROM bullwark.dead_letters WHERE workspace_id = ");
    query.push_bind(workspace_id);
    query.push(" ORDER BY died_at DESC LIMIT ").push_bind(limit);
    query.push(")) AND deleted_at IS NULL AND workspace_id = ");
    query.push_bind(workspace_id);
    query.push(" ORDER BY greatest(created_at, started_at, completed_at, failed_at) DESC, id DESC");
    query.push(" LIMIT ").push_bind(limit);
    let query = query.build_query_as();
    Ok(query.fetch_all(view.connection()).await?)
}

/// A line of a job's log.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = LogLine))]
pub struct Line {
    #[serde(skip)]
    pub job_id: Uuid,
    pub id: Uuid,
    pub log_level: String,
    /// Its beginning.
    pub message: String,
    /// None as well if it is larger than live updates carry.
    pub metadata: Option<serde_json::Value>,
    pub created_at: DateTime<Utc>,
}

/// The oldest lines of each of these jobs from a moment on, at most [`LINES_MAX`] of each. By
/// `job_logs_job`.
pub async fn lines_from(
    record: &Record,
    jobs: &[(Uuid, DateTime<Utc>)],
) -> Result<Vec<Line>, RecordError> {
    let (ids, moments): (Vec<Uuid>, Vec<DateTime<Utc>>) = jobs.iter().copied().unzip();
    Ok(sqlx::query_as(
        "SELECT u.job_id, l.* FROM unnest($1::uuid[], $2::timestamptz[]) AS u (job_id, moment)
         CROSS JOIN LATERAL (
           SELECT id, log_level, left(message, 4000) AS message,
             CASE WHEN pg_column_size(metadata) <= 4096 AND octet_length(metadata::text) <= 4096
               THEN metadata END AS metadata, created_at
           FROM job_logs WHERE job_id = u.job_id AND created_at >= u.moment
           ORDER BY created_at, id LIMIT $3
         ) AS l",
    )
    .bind(ids)
    .bind(moments)
    .bind(LINES_MAX)
    .fetch_all(&record.pool)
    .await?)
}

/// The newest lines of a job, the oldest of them first.
pub async fn newest_lines(view: &mut View, job_id: Uuid) -> Result<Vec<Line>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT * FROM (
           SELECT job_id, id, log_level, left(message, 4000) AS message,
             CASE WHEN pg_column_size(metadata) <= 4096 AND octet_length(metadata::text) <= 4096
               THEN metadata END AS metadata, created_at
           FROM job_logs WHERE job_id = $1 AND created_at IS NOT NULL
           ORDER BY created_at DESC, id DESC LIMIT $2
         ) AS newest ORDER BY created_at, id",
    )
    .bind(job_id)
    .bind(LINES_MAX)
    .fetch_all(view.connection())
    .await?)
}
