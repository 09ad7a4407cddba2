//! Flows: rows that are written together and know each other.
//!
//! A job of a flow has its links in `jobs.wire`. Children are named in their parent's row, so that
//! nothing must be searched for: only who has links pays for them.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::enqueue::{INSERT_MAX, Inserted, insert, insert_with_keys};
use super::{Record, RecordError, Tx};
use crate::job::flow::FlowWire;
use crate::job::{NewJob, QueueName, Status};

/// Inserts all jobs of a flow in one transaction, the root first; `links` makes their `wire` texts
/// when the time of the commit is known.
///
/// Nothing is written when the root's idempotency key was used before.
pub async fn insert_flow(
    record: &Record,
    jobs: &[NewJob],
    links: impl Fn(DateTime<Utc>) -> Vec<String>,
) -> Result<Option<Inserted>, RecordError> {
    let Some((root, others)) = jobs.split_first() else {
        return Ok(None);
    };
    let mut tx = Tx::begin(record.writers.clone()).await?;
    let inserted = insert_with_keys(&mut tx, std::slice::from_ref(root)).await?;
    let inserted = inserted.into_iter().next();
    let Some(Inserted::New { created_at }) = inserted else {
        tx.rollback().await?;
        return Ok(inserted);
    };
    for part in others.chunks(INSERT_MAX) {
        insert(tx.connection(), part.iter()).await?;
    }
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.id).collect();
    sqlx::query(
        "UPDATE jobs j SET wire = u.wire::json
         FROM unnest($1::uuid[], $2::text[]) AS u (id, wire) WHERE j.id = u.id",
    )
    .bind(&ids)
    .bind(links(created_at))
    .execute(tx.connection())
    .await?;
    tx.commit().await?;
    Ok(inserted)
}

/// Inserts a flow of which nobody knows whether [`insert_flow`] wrote it: with its root all of it
/// is there. The answer is the one that was lost.
///
/// The server may still be at work on the first try. Then the second waits for it, and finds that
/// the ids are taken.
pub async fn insert_flow_again(
    record: &Record,
    jobs: &[NewJob],
    links: impl Fn(DateTime<Utc>) -> Vec<String>,
) -> Result<Option<Inserted>, RecordError> {
    let written = written(record, jobs).await?;
    if written.is_some() {
        return Ok(written);
    }
    match insert_flow(record, jobs, links).await {
        Err(RecordError::Refused {
            constraint: Some(name),
            ..
        }) if name == "jobs_pkey" => self::written(record, jobs).await,
        inserted => inserted,
    }
}

async fn written(record: &Record, jobs: &[NewJob]) -> Result<Option<Inserted>, RecordError> {
    let created_at: Option<DateTime<Utc>> =
        sqlx::query_scalar("SELECT created_at FROM jobs WHERE id = $1")
            .bind(jobs.first().map(|root| root.id))
            .fetch_optional(&record.writers)
            .await?;
    Ok(created_at.map(|created_at| Inserted::New { created_at }))
}

/// The links of those of these jobs that belong to a flow.
pub async fn links(record: &Record, ids: &[Uuid]) -> Result<Vec<(Uuid, FlowWire)>, RecordError> {
    let rows: Vec<(Uuid, sqlx::types::Json<FlowWire>)> = sqlx::query_as(
        "SELECT id, wire FROM jobs WHERE id = ANY($1) AND (wire -> 'children') IS NOT NULL",
    )
    .bind(ids)
    .fetch_all(&record.pool)
    .await?;
    Ok(rows.into_iter().map(|(id, wire)| (id, wire.0)).collect())
}

/// A parent or a child of a job, as far as the other must know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Relative {
    pub id: Uuid,
    pub queue: QueueName,
    pub status: Status,
    /// JSON text.
    pub result: Option<String>,
    pub error: Option<String>,
    pub wire: FlowWire,
}

#[derive(sqlx::FromRow)]
struct RelativeRow {
    id: Uuid,
    job_queue: String,
    status: String,
    result: Option<String>,
    error_message: Option<String>,
    wire: sqlx::types::Json<FlowWire>,
}

/// Jobs of flows by their ids; those that are gone are left out.
pub async fn relatives(record: &Record, ids: &[Uuid]) -> Result<Vec<Relative>, RecordError> {
    let rows: Vec<RelativeRow> = sqlx::query_as(
        "SELECT id, job_queue, status, result::text, error_message, wire FROM jobs
         WHERE id = ANY($1) AND (wire -> 'children') IS NOT NULL",
    )
    .bind(ids)
    .fetch_all(&record.pool)
    .await?;
    rows.into_iter().map(RelativeRow::read).collect()
}

impl RelativeRow {
    fn read(self) -> Result<Relative, RecordError> {
        let corrupt = |what: String| RecordError::Corrupt(format!("job {}: {what}", self.id));
        let queue = self.job_queue.parse();
        Ok(Relative {
            queue: queue.map_err(|error| corrupt(format!("{error}")))?,
            status: self
                .status
                .parse()
                .map_err(|error| corrupt(format!("{error}")))?,
            id: self.id,
            result: self.result,
            error: self.error_message,
            wire: self.wire.0,
        })
    }
}
