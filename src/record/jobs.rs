//! Reading one job, and its retry history. What a person deleted is not there.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{Record, RecordError, View};
use crate::job::Status;

/// One row of `jobs`, with the record's column names.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = Job))]
pub struct JobRow {
    pub id: Uuid,
    pub workspace_id: Option<Uuid>,
    pub job_type: String,
    pub job_queue: String,
    pub payload: serde_json::Value,
    #[cfg_attr(feature = "server", schema(value_type = crate::job::Status))]
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

pub(super) const COLUMNS: &str =
    "SELECT id, workspace_id, job_type, job_queue, payload, status, priority,
  attempts, max_attempts, progress, result, error_message, error_stack, created_at, scheduled_for,
  started_at, completed_at, failed_at, next_retry_at, retry_delay_seconds, worker_id,
  worker_heartbeat_at, created_by FROM jobs";

/// One job, of this workspace when one is given.
pub async fn get(
    view: &mut View,
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
    let query = query.build_query_as();
    Ok(query.fetch_optional(view.connection()).await?)
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
pub async fn failures(view: &mut View, id: Uuid) -> Result<Vec<FailureRow>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT attempt, outcome, error_message, error_stack, worker_id, started_at, ended_at,
           next_retry_at
         FROM job_failures WHERE job_id = $1 ORDER BY attempt LIMIT 1000",
    )
    .bind(id)
    .fetch_all(view.connection())
    .await?)
}

/// One attempt that did not complete.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = Failure))]
pub struct FailureRow {
    pub attempt: i32,
    /// What it was from then on: a status, or `lease_lost` when its worker vanished.
    pub outcome: String,
    pub error_message: Option<String>,
    pub error_stack: Option<String>,
    pub worker_id: Option<String>,
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: DateTime<Utc>,
    pub next_retry_at: Option<DateTime<Utc>>,
}
