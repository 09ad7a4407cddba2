//! The relatives of jobs that `BullMQ` clients own.
//!
//! They are known by their keys in Redis, `prefix:queue:id`, which are compared whole here: an id
//! may hold a colon.

use std::collections::{HashMap, HashSet};

use sqlx::PgExecutor;
use uuid::Uuid;

use super::{Record, RecordError};
use crate::job::Status;

/// A child, as far as its parent must know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    pub parent_key: String,
    pub queue: String,
    pub wire_id: String,
    pub status: Status,
    /// JSON text.
    pub result: Option<String>,
    pub error: Option<String>,
    /// The `parent` field of its hash, JSON text.
    pub parent: String,
}

#[derive(sqlx::FromRow)]
struct ChildRow {
    parent_key: String,
    job_queue: String,
    wire_id: String,
    status: String,
    result: Option<String>,
    error_message: Option<String>,
    parent: String,
}

/// The adopted children of these parents, as many as their clients gave them. Of jobs that had the
/// same id one after the other, the newest.
pub async fn children(record: &Record, parent_keys: &[String]) -> Result<Vec<Child>, RecordError> {
    let rows: Vec<ChildRow> = sqlx::query_as(
        "SELECT DISTINCT ON (c.parent_key, j.job_queue, coalesce(j.redis_id, j.id::text))
           c.parent_key, j.job_queue, coalesce(j.redis_id, j.id::text) AS wire_id, j.status,
           j.result::text, j.error_message, coalesce(j.wire ->> 'parent', '{}') AS parent
         FROM bullwark.foreign_children c JOIN jobs j ON j.id = c.job_id
         WHERE c.parent_key = ANY($1)
         ORDER BY c.parent_key, j.job_queue, coalesce(j.redis_id, j.id::text), j.id DESC",
    )
    .bind(parent_keys)
    .fetch_all(&record.pool)
    .await?;
    rows.into_iter().map(ChildRow::read).collect()
}

/// Of these parents, those with adopted children.
pub async fn parents_among(
    record: &Record,
    parent_keys: &[String],
) -> Result<HashSet<String>, RecordError> {
    let keys: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT parent_key FROM bullwark.foreign_children WHERE parent_key = ANY($1)",
    )
    .bind(parent_keys)
    .fetch_all(&record.pool)
    .await?;
    Ok(keys.into_iter().collect())
}

/// Of these jobs, named by queue and id on the wire, those that are over: the newest of each name.
/// As children of this parent.
pub async fn ended(
    record: &Record,
    parent_key: &str,
    names: &[(String, String)],
) -> Result<Vec<Child>, RecordError> {
    let own: Vec<Option<Uuid>> = names.iter().map(|(_, id)| id.parse().ok()).collect();
    let rows: Vec<ChildRow> = sqlx::query_as(
        "SELECT $4 AS parent_key, u.queue AS job_queue, u.wire_id, j.status, j.result::text,
           j.error_message, coalesce(j.wire ->> 'parent', '{}') AS parent
         FROM unnest($1::text[], $2::text[], $3::uuid[]) AS u (queue, wire_id, own)
         LEFT JOIN bullwark.foreign_jobs f ON f.job_queue = u.queue AND f.redis_id = u.wire_id
         JOIN jobs j ON j.id = coalesce(f.job_id, u.own)
         WHERE j.status IN ('completed', 'dead_letter', 'cancelled')",
    )
    .bind(names.iter().map(|(queue, _)| queue).collect::<Vec<_>>())
    .bind(names.iter().map(|(_, id)| id).collect::<Vec<_>>())
    .bind(own)
    .bind(parent_key)
    .fetch_all(&record.pool)
    .await?;
    rows.into_iter().map(ChildRow::read).collect()
}

impl ChildRow {
    fn read(self) -> Result<Child, RecordError> {
        let status = self.status.parse();
        Ok(Child {
            status: status.map_err(|e| RecordError::Corrupt(format!("{}: {e}", self.wire_id)))?,
            parent_key: self.parent_key,
            queue: self.job_queue,
            wire_id: self.wire_id,
            result: self.result,
            error: self.error_message,
            parent: self.parent,
        })
    }
}

/// The status of the newest job of each queue and id on the wire; those that the record does not
/// know are left out.
pub async fn statuses(
    record: &Record,
    jobs: &[(String, String)],
) -> Result<HashMap<(String, String), Status>, RecordError> {
    statuses_as_seen(&record.pool, jobs).await
}

/// The same as a transaction sees it, over its own connection.
pub(super) async fn statuses_as_seen(
    executor: impl PgExecutor<'_>,
    jobs: &[(String, String)],
) -> Result<HashMap<(String, String), Status>, RecordError> {
    let own: Vec<Option<Uuid>> = jobs.iter().map(|(_, id)| id.parse().ok()).collect();
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT u.queue, u.wire_id, j.status
         FROM unnest($1::text[], $2::text[], $3::uuid[]) AS u (queue, wire_id, own)
         LEFT JOIN bullwark.foreign_jobs f ON f.job_queue = u.queue AND f.redis_id = u.wire_id
         JOIN jobs j ON j.id = coalesce(f.job_id, u.own)",
    )
    .bind(jobs.iter().map(|(queue, _)| queue).collect::<Vec<_>>())
    .bind(jobs.iter().map(|(_, id)| id).collect::<Vec<_>>())
    .bind(own)
    .fetch_all(executor)
    .await?;
    let read = |(queue, id, status): (String, String, String)| match status.parse() {
        Ok(status) => Ok(((queue, id), status)),
        Err(error) => Err(RecordError::Corrupt(format!("job {id}: {error}"))),
    };
    rows.into_iter().map(read).collect()
}
