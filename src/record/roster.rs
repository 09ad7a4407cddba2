//! Who works, by what workers say of themselves: for people, and to tell why a job waits.
//!
//! Nothing is decided by it: a worker that could not write its row works all the same.

use chrono::{DateTime, Utc};

use super::{Record, RecordError, View};

/// Workers that are told at most.
pub const WORKERS_MAX: i64 = 1_000;
/// How long one that has said nothing counts as working: several rounds of it.
const PRESENT: &str = "1 minute";
/// How long a row stays of one that was killed.
const KEPT: &str = "1 day";

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    pub worker_id: String,
    pub prefix: String,
    /// In the order in which it looks at them.
    pub queues: Vec<String>,
    /// None: whatever comes.
    pub job_types: Option<Vec<String>>,
    pub slots: i32,
    /// By hand, for now.
    pub is_paused: bool,
    pub version: String,
}

/// Says that a worker works. Doing it again says that it still does.
pub async fn announce(record: &Record, worker: &Announcement) -> Result<(), RecordError> {
    sqlx::query(
        "WITH gone AS (DELETE FROM bullwark.workers WHERE seen_at < now() - $7::interval)
         INSERT INTO bullwark.workers (worker_id, prefix, queues, job_types, slots, version,
           is_paused)
         VALUES ($1, $2, $3, $4, $5, $6, $8)
         ON CONFLICT (worker_id) DO UPDATE
         SET seen_at = now(), prefix = excluded.prefix, queues = excluded.queues,
           job_types = excluded.job_types, slots = excluded.slots,
           is_paused = excluded.is_paused, version = excluded.version",
    )
    .bind(&worker.worker_id)
    .bind(&worker.prefix)
    .bind(&worker.queues)
    .bind(&worker.job_types)
    .bind(worker.slots)
    .bind(&worker.version)
    .bind(KEPT)
    .bind(worker.is_paused)
    .execute(&record.pool)
    .await?;
    Ok(())
}

/// Says that a worker has ended.
pub async fn leave(record: &Record, worker_id: &str) -> Result<(), RecordError> {
    sqlx::query("DELETE FROM bullwark.workers WHERE worker_id = $1")
        .bind(worker_id)
        .execute(&record.pool)
        .await?;
    Ok(())
}

/// A worker that works.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Present {
    pub worker_id: String,
    pub queues: Vec<String>,
    pub job_types: Option<Vec<String>>,
    pub slots: i32,
    /// By hand, for now.
    pub is_paused: bool,
    pub version: String,
    pub started_at: DateTime<Utc>,
    pub seen_at: DateTime<Utc>,
}

/// The workers of a prefix that work, at most [`WORKERS_MAX`].
pub async fn present(view: &mut View, prefix: &str) -> Result<Vec<Present>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT worker_id, queues, job_types, slots, is_paused, version, started_at,
           seen_at
         FROM bullwark.workers WHERE prefix = $1 AND seen_at > now() - $2::interval
         ORDER BY worker_id LIMIT $3",
    )
    .bind(prefix)
    .bind(PRESENT)
    .bind(WORKERS_MAX)
    .fetch_all(view.connection())
    .await?)
}

/// How many workers there are for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Serving {
    /// That look at its queue.
    pub queue: i64,
    /// That look at its queue, run its type, and are not paused.
    pub job_type: i64,
    /// That look at its queue first, under whose name their connections stand.
    pub first: i64,
}

/// How many workers serve a queue and a type. Numbers only: whose they are is nobody's business.
pub async fn serving(
    record: &Record,
    prefix: &str,
    queue: &str,
    job_type: &str,
) -> Result<Serving, RecordError> {
    Ok(sqlx::query_as(
        "SELECT count(*) AS queue, count(*) FILTER (WHERE queues[1] = $2) AS first,
           count(*) FILTER (WHERE NOT is_paused
             AND (job_types IS NULL OR $3 = ANY(job_types))) AS job_type
         FROM bullwark.workers
         WHERE prefix = $1 AND $2 = ANY(queues) AND seen_at > now() - $4::interval",
    )
    .bind(prefix)
    .bind(queue)
    .bind(job_type)
    .bind(PRESENT)
    .fetch_one(&record.pool)
    .await?)
}
