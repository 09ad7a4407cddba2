//! Pages of jobs, newest first, by whatever filter. What a person deleted is not there.
//!
//! Neither a long history nor a long backlog makes a page slow: open jobs and dead letters are
//! found where they are noted, and what no index serves is looked for in a bounded number of jobs
//! at a time.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

pub use super::filter::{JobFilter, SEARCHED_MAX, Search};
use super::filter::{Query, SEALED, push_filter, push_search, push_window};
use super::jobs::{COLUMNS, JobRow};
use super::stragglers::Part;
use super::{RecordError, View};

/// The most rows of one page.
pub const PAGE_MAX: i64 = 500;

/// One row of `jobs` as lists show it.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct JobHead {
    pub id: Uuid,
    pub workspace_id: Option<Uuid>,
    pub job_type: String,
    pub job_queue: String,
    #[cfg_attr(feature = "server", schema(value_type = crate::job::Status))]
    pub status: String,
    pub priority: i32,
    pub attempts: i32,
    pub max_attempts: i32,
    pub progress: Option<serde_json::Value>,
    pub error_message: Option<String>,
    pub created_at: DateTime<Utc>,
    pub scheduled_for: Option<DateTime<Utc>>,
    pub started_at: Option<DateTime<Utc>>,
    pub completed_at: Option<DateTime<Utc>>,
    pub failed_at: Option<DateTime<Utc>>,
    pub next_retry_at: Option<DateTime<Utc>>,
    pub retry_delay_seconds: i32,
    pub worker_id: Option<String>,
    pub worker_heartbeat_at: Option<DateTime<Utc>>,
    pub created_by: Option<Uuid>,
}

const HEAD_COLUMNS: &str =
    "SELECT id, workspace_id, job_type, job_queue, status, priority, attempts,
  max_attempts, progress, error_message, created_at, scheduled_for, started_at, completed_at,
  failed_at, next_retry_at, retry_delay_seconds, worker_id, worker_heartbeat_at, created_by
  FROM jobs";

/// A page of jobs, newest first.
pub async fn list_page(view: &mut View, filter: &JobFilter) -> Result<Vec<JobRow>, RecordError> {
    list_page_at(view, filter, 0).await
}

/// A page of jobs after the first `offset` ones, which are counted through: keep it small.
pub async fn list_page_at(
    view: &mut View,
    filter: &JobFilter,
    offset: i64,
) -> Result<Vec<JobRow>, RecordError> {
    fetch(view, page(COLUMNS, filter, offset)).await
}

/// The same page without payloads, results and stacks, which may be large.
pub async fn list_heads(
    view: &mut View,
    filter: &JobFilter,
    offset: i64,
) -> Result<Vec<JobHead>, RecordError> {
    fetch(view, page(HEAD_COLUMNS, filter, offset)).await
}

async fn fetch<T>(view: &mut View, mut query: Query) -> Result<Vec<T>, RecordError>
where
    T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    let query = query.build_query_as();
    Ok(query.fetch_all(view.connection()).await?)
}

/// Where the search goes on of which a page was found too short: the oldest job that was looked at.
/// None: there are no more. A filter that indexes serve leaves out nothing.
pub async fn search_end(view: &mut View, filter: &JobFilter) -> Result<Option<Uuid>, RecordError> {
    if !filter.is_search() {
        return Ok(None);
    }
    let mut query = Query::new("SELECT min(id::text)::uuid, count(*) FROM (");
    push_window(&mut query, filter, SEARCHED_MAX);
    query.push(") searched");
    let query = query.build_query_as();
    let (upto, count): (Option<Uuid>, i64) = query.fetch_one(view.connection()).await?;
    Ok(upto.filter(|_| count >= SEARCHED_MAX))
}

/// The jobs of a workspace that failed last, those that are to be tried again and those that are
/// dead, newest failure first.
pub async fn recent_failures(
    view: &mut View,
    workspace_id: Uuid,
    limit: i64,
) -> Result<Vec<JobHead>, RecordError> {
    let mut query = Query::new(HEAD_COLUMNS);
    query.push(" WHERE id IN (");
    for part in Part::with(Some(workspace_id)) {
        query.push("SELECT s.job_id FROM bullwark.stragglers s WHERE s.job_id <= ");
        query.push(SEALED);
        part.push(&mut query);
        query.push(" UNION ALL ");
    }
    query.push("SELECT id FROM jobs WHERE status = 'failed' AND workspace_id = ");
    query
        .push_bind(workspace_id)
        .push(" AND id > ")
        .push(SEALED);
    query.push(") AND status = 'failed' AND deleted_at IS NULL AND workspace_id = ");
    query
        .push_bind(workspace_id)
        .push(" ORDER BY failed_at DESC LIMIT ")
        .push_bind(limit);
    let mut rows: Vec<JobHead> = fetch(view, query).await?;
    let mut query = Query::new(HEAD_COLUMNS);
    query
        .push(" WHERE id IN (SELECT job_id FROM bullwark.dead_letters WHERE workspace_id = ")
        .push_bind(workspace_id)
        .push(" ORDER BY died_at DESC LIMIT ")
        .push_bind(limit)
        .push(")");
    let dead: Vec<JobHead> = fetch(view, query).await?;
    rows.extend(dead);
    rows.sort_by_key(|row| std::cmp::Reverse(row.failed_at));
    rows.truncate(usize::try_from(limit).unwrap_or_default());
    Ok(rows)
}

/// The query of a page. Open jobs are few among millions of finished ones: they are looked for
/// where they can be, after the seal and among the stragglers, each side newest first and only as
/// many as the page can need. So neither a long history nor a long backlog makes the page slow.
fn page(columns: &str, filter: &JobFilter, offset: i64) -> Query {
    let limit = filter.limit.clamp(1, PAGE_MAX);
    let is_open = filter.status.is_some_and(|status| !status.is_final());
    let mut query;
    if filter.is_search() {
        query = Query::new(columns);
        // An array leaves one plan: by the primary key.
        query.push(" WHERE id = ANY(ARRAY(");
        push_window(&mut query, filter, SEARCHED_MAX);
        query.push("))");
        push_filter(&mut query, filter);
        push_search(&mut query, &filter.search);
    } else if is_open {
        query = Query::new("SELECT * FROM ((");
        query.push(columns).push(" WHERE id > ").push(SEALED);
        push_filter(&mut query, filter);
        query
            .push(" ORDER BY id DESC LIMIT ")
            .push_bind(limit + offset);
        for part in Part::with(filter.workspace_id) {
            query.push(") UNION ALL (").push(columns);
            query.push(" JOIN bullwark.stragglers s ON s.job_id = id WHERE s.job_id <= ");
            query.push(SEALED);
            part.push(&mut query);
            if let Some(before) = filter.before {
                query.push(" AND s.job_id < ").push_bind(before);
            }
            push_filter(&mut query, filter);
            query
                .push(" ORDER BY s.job_id DESC LIMIT ")
                .push_bind(limit + offset);
        }
        query.push(")) open");
    } else {
        query = Query::new(columns);
        query.push(" WHERE true");
        push_filter(&mut query, filter);
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
    if offset > 0 {
        query.push(" OFFSET ").push_bind(offset);
    }
    query
}
