//! Reading jobs. What a person deleted is not there.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{Record, RecordError, Tx};
use crate::job::Status;

/// The most rows of one page.
pub const PAGE_MAX: i64 = 500;

/// One row of `jobs`, with the record's column names.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct JobRow {
    pub id: Uuid,
    pub workspace_id: Option<Uuid>,
    pub job_type: String,
    pub job_queue: String,
    pub payload: serde_json::Value,
    pub status: String,
    pub priority: i32,
    pub attempts: i32,
    pub max_attempts: i32,
    pub progress: Option<serde_json::Value>,
    pub result: Option<serde_json::Value>,
    pub error_message: Option<String>,
    pub error_stack: Option<String>,
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

/// One row of `jobs` as lists show it.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct JobHead {
    pub id: Uuid,
    pub workspace_id: Option<Uuid>,
    pub job_type: String,
    pub job_queue: String,
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

/// What to list: newest first, by keyset. `None` matches everything.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    pub workspace_id: Option<Uuid>,
    pub status: Option<Status>,
    pub job_type: Option<String>,
    pub queue: Option<String>,
    /// Only jobs older than this one: the last id of the page before.
    pub before: Option<Uuid>,
    pub limit: i64,
}

const COLUMNS: &str = "SELECT id, workspace_id, job_type, job_queue, payload, status, priority,
  attempts, max_attempts, progress, result, error_message, error_stack, created_at, scheduled_for,
  started_at, completed_at, failed_at, next_retry_at, retry_delay_seconds, worker_id,
  worker_heartbeat_at, created_by FROM jobs";

const HEAD_COLUMNS: &str =
    "SELECT id, workspace_id, job_type, job_queue, status, priority, attempts,
  max_attempts, progress, error_message, created_at, scheduled_for, started_at, completed_at,
  failed_at, next_retry_at, retry_delay_seconds, worker_id, worker_heartbeat_at, created_by
  FROM jobs";

/// One job, of this workspace when one is given.
pub async fn get(
    record: &Record,
    id: Uuid,
    workspace_id: Option<Uuid>,
) -> Result<Option<JobRow>, RecordError> {
    let mut query = sqlx::QueryBuilder::new(COLUMNS);
    query
        .push(" WHERE deleted_at IS NULL AND id = ")
        .push_bind(id);
    if let Some(workspace_id) = workspace_id {
        query.push(" AND workspace_id = ").push_bind(workspace_id);
    }
    Ok(query.build_query_as().fetch_optional(&record.pool).await?)
}

/// A page of jobs, newest first.
pub async fn list_page(record: &Record, filter: &JobFilter) -> Result<Vec<JobRow>, RecordError> {
    list_page_at(record, filter, 0).await
}

/// A page of jobs after the first `offset` ones, which are counted through: keep it small.
pub async fn list_page_at(
    record: &Record,
    filter: &JobFilter,
    offset: i64,
) -> Result<Vec<JobRow>, RecordError> {
    let mut query = page(COLUMNS, filter, offset);
    let mut tx = begin_list(record).await?;
    let rows = query.build_query_as().fetch_all(tx.connection()).await?;
    tx.commit().await?;
    Ok(rows)
}

/// The same page without payloads, results and stacks, which may be large.
pub async fn list_heads(
    record: &Record,
    filter: &JobFilter,
    offset: i64,
) -> Result<Vec<JobHead>, RecordError> {
    let mut query = page(HEAD_COLUMNS, filter, offset);
    let mut tx = begin_list(record).await?;
    let rows = query.build_query_as().fetch_all(tx.connection()).await?;
    tx.commit().await?;
    Ok(rows)
}

/// The jobs of a workspace that failed last, those that are to be tried again and those that are
/// dead, newest failure first.
pub async fn recent_failures(
    record: &Record,
    workspace_id: Uuid,
    limit: i64,
) -> Result<Vec<JobHead>, RecordError> {
    let failing = JobFilter {
        workspace_id: Some(workspace_id),
        status: Some(Status::Failed),
        limit,
        ..JobFilter::default()
    };
    let mut rows = list_heads(record, &failing, 0).await?;
    let mut query = sqlx::QueryBuilder::new(HEAD_COLUMNS);
    query
        .push(" WHERE id IN (SELECT job_id FROM bullwark.dead_letters WHERE workspace_id = ")
        .push_bind(workspace_id)
        .push(" ORDER BY died_at DESC LIMIT ")
        .push_bind(limit)
        .push(")");
    let mut tx = begin_list(record).await?;
    let dead: Vec<JobHead> = query.build_query_as().fetch_all(tx.connection()).await?;
    tx.commit().await?;
    rows.extend(dead);
    rows.sort_by_key(|row| std::cmp::Reverse(row.failed_at));
    rows.truncate(usize::try_from(limit).unwrap_or_default());
    Ok(rows)
}

/// A rare filter over many rows may take long, and goes on when its reader has left: it must not
/// keep a connection for ever.
pub(super) async fn begin_list(record: &Record) -> Result<Tx, RecordError> {
    let mut tx = record.begin().await?;
    sqlx::query("SET LOCAL statement_timeout = '10s'")
        .execute(tx.connection())
        .await?;
    Ok(tx)
}

/// The query of a page. Open jobs are few among millions of finished ones: they are looked for
/// where they can be, after the seal and among the stragglers, each side newest first and only as
/// many as the page can need. So neither a long history nor a long backlog makes the page slow.
fn page(columns: &str, filter: &JobFilter, offset: i64) -> sqlx::QueryBuilder<sqlx::Postgres> {
    let limit = filter.limit.clamp(1, PAGE_MAX);
    let is_open = filter.status.is_some_and(|status| !status.is_final());
    let mut query;
    if is_open {
        const SEALED: &str = "(SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed')";
        query = sqlx::QueryBuilder::new("SELECT * FROM ((");
        query.push(columns).push(" WHERE id > ").push(SEALED);
        push_filter(&mut query, filter);
        query
            .push(" ORDER BY id DESC LIMIT ")
            .push_bind(limit + offset);
        query.push(") UNION ALL (").push(columns);
        query.push(" JOIN bullwark.stragglers s ON s.job_id = id WHERE s.job_id <= ");
        query.push(SEALED);
        if let Some(before) = filter.before {
            query.push(" AND s.job_id < ").push_bind(before);
        }
        push_filter(&mut query, filter);
        query
            .push(" ORDER BY s.job_id DESC LIMIT ")
            .push_bind(limit + offset);
        query.push(")) open");
    } else {
        query = sqlx::QueryBuilder::new(columns);
        query.push(" WHERE true");
        push_filter(&mut query, filter);
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
    if offset > 0 {
        query.push(" OFFSET ").push_bind(offset);
    }
    query
}

fn push_filter(query: &mut sqlx::QueryBuilder<sqlx::Postgres>, filter: &JobFilter) {
    query.push(" AND deleted_at IS NULL");
    if let Some(workspace_id) = filter.workspace_id {
        query.push(" AND workspace_id = ").push_bind(workspace_id);
    }
    if let Some(before) = filter.before {
        query.push(" AND id < ").push_bind(before);
    }
    match filter.status {
        // The few dead ones are found in their own table, not among millions of finished jobs.
        Some(Status::DeadLetter) => {
            query.push(" AND status = 'dead_letter' AND id IN ");
            query.push("(SELECT job_id FROM bullwark.dead_letters)");
        }
        Some(status) => {
            query.push(" AND status = ").push_bind(status.as_str());
        }
        None => {}
    }
    if let Some(job_type) = filter.job_type.clone() {
        query.push(" AND job_type = ").push_bind(job_type);
    }
    if let Some(queue) = filter.queue.clone() {
        query.push(" AND job_queue = ").push_bind(queue);
    }
}

/// The status of each of these jobs that exists.
pub async fn statuses(record: &Record, ids: &[Uuid]) -> Result<HashMap<Uuid, Status>, RecordError> {
    let rows: Vec<(Uuid, String)> =
        sqlx::query_as("SELECT id, status FROM jobs WHERE id = ANY($1)")
            .bind(ids)
            .fetch_all(&record.pool)
            .await?;
    let parse = |(id, status): (Uuid, String)| match status.parse() {
        Ok(status) => Ok((id, status)),
        Err(error) => Err(RecordError::Corrupt(format!("job {id}: {error}"))),
    };
    rows.into_iter().map(parse).collect()
}

/// The retry history of a job, oldest first.
pub async fn failures(record: &Record, id: Uuid) -> Result<Vec<FailureRow>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT attempt, outcome, error_message, error_stack, worker_id, started_at, ended_at,
           next_retry_at
         FROM job_failures WHERE job_id = $1 ORDER BY attempt LIMIT 1000",
    )
    .bind(id)
    .fetch_all(&record.pool)
    .await?)
}

/// One attempt that did not complete.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct FailureRow {
    pub attempt: i32,
    pub outcome: String,
    pub error_message: Option<String>,
    pub error_stack: Option<String>,
    pub worker_id: Option<String>,
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: DateTime<Utc>,
    pub next_retry_at: Option<DateTime<Utc>>,
}
