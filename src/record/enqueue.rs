//! Writing new jobs: the statement that an acknowledgement waits for.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::open::SEAL_LAG;
use super::{Record, RecordError, Tx};
use crate::job::{Due, NewJob};

/// The most jobs of one statement.
pub const INSERT_MAX: usize = 500;

/// A job whose id is older than this by the record's clock is noted as open at once. The other half
/// of the seal's lag is for the statement itself.
const LATE: Duration = Duration::from_secs(SEAL_LAG.as_secs() / 2);

/// The answer for one job of a batch, in the order of the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// The row is there; Redis does not know of it yet.
    New { created_at: DateTime<Utc> },
    /// The idempotency key was used before, for the same request: that job.
    Existing { id: Uuid },
    /// The idempotency key was used before, for another request. Nothing was written.
    KeyReused { id: Uuid },
}

/// The columns of a batch, as arrays for `unnest`.
#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    workspaces: Vec<Option<Uuid>>,
    types: Vec<String>,
    queues: Vec<String>,
    payloads: Vec<String>,
    priorities: Vec<i32>,
    delays_ms: Vec<Option<i64>>,
    times: Vec<Option<DateTime<Utc>>>,
    max_attempts: Vec<i32>,
    retry_delays: Vec<i32>,
    backoffs: Vec<Option<serde_json::Value>>,
    timeouts: Vec<Option<i32>>,
    creators: Vec<Option<Uuid>>,
}

impl Columns {
    fn of<'a>(jobs: impl Iterator<Item = &'a NewJob>) -> Self {
        let mut columns = Self::default();
        for job in jobs {
            let (delay, time) = match job.due {
                Due::Now => (None, None),
                Due::In(delay) => (Some(delay.as_millis() as i64), None),
                Due::At(time) => (None, Some(time)),
            };
            columns.ids.push(job.id);
            columns.workspaces.push(job.workspace_id);
            columns.types.push(job.job_type.clone());
            columns.queues.push(job.queue.as_str().to_owned());
            columns.payloads.push(job.payload.clone());
            columns.priorities.push(job.priority.get());
            columns.delays_ms.push(delay);
            columns.times.push(time);
            columns.max_attempts.push(job.max_attempts as i32);
            columns.retry_delays.push(job.retry_delay_seconds);
            columns.backoffs.push(
                job.backoff
                    .as_ref()
                    .and_then(|b| serde_json::to_value(b).ok()),
            );
            columns.timeouts.push(job.timeout_seconds.map(|s| s as i32));
            columns.creators.push(job.created_by);
        }
        columns
    }
}

/// Inserts a batch of jobs in one transaction and returns when it is on disk.
///
/// All or nothing: an error means that no row of the batch was written, or (when the answer to the
/// commit was lost) that all were. [`insert_again`] finds out.
pub async fn insert_many(record: &Record, jobs: &[NewJob]) -> Result<Vec<Inserted>, RecordError> {
    record.fullness.learn(insert_batch(record, jobs).await)
}

async fn insert_batch(record: &Record, jobs: &[NewJob]) -> Result<Vec<Inserted>, RecordError> {
    debug_assert!(jobs.len() <= INSERT_MAX);
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    if jobs.iter().all(|job| job.idempotency_key.is_none()) {
        // One statement is its own transaction: one round trip, one flush of the log.
        let created_at = insert(&record.writers, jobs.iter()).await?;
        return Ok(jobs.iter().map(|_| Inserted::New { created_at }).collect());
    }
    let mut tx = Tx::begin(record.writers.clone()).await?;
    let inserted = insert_with_keys(&mut tx, jobs, fingerprint).await?;
    tx.commit().await?;
    Ok(inserted)
}

/// Inserts a batch of which nobody knows whether [`insert_many`] wrote it: reads what is there and
/// writes what is not. The answer is the one that was lost.
///
/// The server may still be at work on the first try. Then the second waits for it, and finds that
/// the ids are taken.
pub async fn insert_again(record: &Record, jobs: &[NewJob]) -> Result<Vec<Inserted>, RecordError> {
    let (there, rest) = written(record, jobs).await?;
    match insert_many(record, &rest).await {
        Ok(inserted) => Ok(merge(jobs, &there, inserted)),
        Err(RecordError::Refused {
            constraint: Some(name),
            ..
        }) if name == "jobs_pkey" => {
            let (there, rest) = written(record, jobs).await?;
            Ok(merge(jobs, &there, insert_many(record, &rest).await?))
        }
        Err(error) => Err(error),
    }
}

type Written = HashMap<Uuid, DateTime<Utc>>;

/// The jobs that are there, with their times, and those that are not.
async fn written(record: &Record, jobs: &[NewJob]) -> Result<(Written, Vec<NewJob>), RecordError> {
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.id).collect();
    let there: Vec<(Uuid, DateTime<Utc>)> =
        sqlx::query_as("SELECT id, created_at FROM jobs WHERE id = ANY($1)")
            .bind(&ids)
            .fetch_all(&record.writers)
            .await?;
    let there: Written = there.into_iter().collect();
    let is_absent = |job: &&NewJob| !there.contains_key(&job.id);
    let rest = jobs.iter().filter(is_absent).cloned().collect();
    Ok((there, rest))
}

/// In the order of the batch.
fn merge(jobs: &[NewJob], there: &Written, inserted: Vec<Inserted>) -> Vec<Inserted> {
    let mut inserted = inserted.into_iter();
    let one = |job: &NewJob| match there.get(&job.id) {
        Some(&created_at) => Some(Inserted::New { created_at }),
        None => inserted.next(),
    };
    jobs.iter().filter_map(one).collect()
}

/// Inserts jobs inside the caller's transaction, with an outbox row each: after the commit the
/// relay delivers them. Refuses nothing that [`insert_many`] accepts.
///
/// All or nothing: when values are refused, or a key was used for another request, none of these
/// jobs is written and the transaction goes on as if this had not been called.
pub async fn insert_in(tx: &mut Tx, jobs: &[NewJob]) -> Result<Vec<Inserted>, RecordError> {
    sqlx::raw_sql("SAVEPOINT bullwark_enqueue")
        .execute(tx.connection())
        .await?;
    let inserted = insert_with_outbox(tx, jobs).await;
    let is_whole = inserted.as_ref().is_ok_and(|inserted| {
        inserted
            .iter()
            .all(|one| !matches!(one, Inserted::KeyReused { .. }))
    });
    if !is_whole {
        // Fails only with the connection; then the whole transaction is gone, as its commit says.
        sqlx::raw_sql("ROLLBACK TO SAVEPOINT bullwark_enqueue")
            .execute(tx.connection())
            .await
            .ok();
    }
    let inserted = inserted?;
    sqlx::raw_sql("RELEASE SAVEPOINT bullwark_enqueue")
        .execute(tx.connection())
        .await?;
    Ok(inserted)
}

async fn insert_with_outbox(tx: &mut Tx, jobs: &[NewJob]) -> Result<Vec<Inserted>, RecordError> {
    let inserted = insert_with_keys(tx, jobs, fingerprint).await?;
    let new: Vec<Uuid> = jobs
        .iter()
        .zip(&inserted)
        .filter(|(_, inserted)| matches!(inserted, Inserted::New { .. }))
        .map(|(job, _)| job.id)
        .collect();
    sqlx::query("INSERT INTO bullwark.outbox (job_id) SELECT unnest($1::uuid[])")
        .bind(&new)
        .execute(tx.connection())
        .await?;
    Ok(inserted)
}

/// `print`: what makes two requests with one key the same.
pub(super) async fn insert_with_keys(
    tx: &mut Tx,
    jobs: &[NewJob],
    print: impl Fn(&NewJob) -> Vec<u8>,
) -> Result<Vec<Inserted>, RecordError> {
    let taken = take_keys(tx, jobs, print).await?;
    let fresh = jobs
        .iter()
        .zip(&taken)
        .filter(|(_, taken)| taken.is_none())
        .map(|(job, _)| job);
    let created_at = insert(tx.connection(), fresh).await?;
    Ok(taken
        .into_iter()
        .map(|t| t.unwrap_or(Inserted::New { created_at }))
        .collect())
}

/// Takes the idempotency keys of the batch. `Some` for a job whose key was taken before, also by an
/// earlier job of the same batch. A key that another transaction is just taking makes this wait;
/// one whose job was deleted is free.
async fn take_keys(
    tx: &mut Tx,
    jobs: &[NewJob],
    print: impl Fn(&NewJob) -> Vec<u8>,
) -> Result<Vec<Option<Inserted>>, RecordError> {
    type Taken = (Uuid, Uuid, bool, bool);
    // Sorted, so that two batches with the same keys can not wait for each other.
    let mut keyed: Vec<&NewJob> = jobs
        .iter()
        .filter(|j| j.idempotency_key.is_some())
        .collect();
    keyed.sort_by_key(|job| (&job.idempotency_key, job.workspace_id));
    if keyed.is_empty() {
        return Ok(vec![None; jobs.len()]);
    }
    let workspaces: Vec<Uuid> = keyed
        .iter()
        .map(|job| job.workspace_id.unwrap_or(Uuid::nil()))
        .collect();
    let keys: Vec<&str> = keyed
        .iter()
        .filter_map(|job| job.idempotency_key.as_deref())
        .collect();
    let ids: Vec<Uuid> = keyed.iter().map(|job| job.id).collect();
    let prints: Vec<Vec<u8>> = keyed.iter().map(|job| print(job)).collect();
    sqlx::query(
        "INSERT INTO bullwark.idempotency_keys (workspace_id, key, job_id, fingerprint)
         SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bytea[])
         ON CONFLICT (workspace_id, key) DO NOTHING",
    )
    .bind(&workspaces)
    .bind(&keys)
    .bind(&ids)
    .bind(&prints)
    .execute(tx.connection())
    .await?;
    let owners: Vec<Taken> = sqlx::query_as(
        "SELECT wanted.id, k.job_id, k.fingerprint = wanted.fingerprint,
           k.job_id <> ALL($3) AND NOT EXISTS (
             SELECT FROM jobs j WHERE j.id = k.job_id AND j.deleted_at IS NULL)
         FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bytea[])
           AS wanted (workspace_id, key, id, fingerprint)
         JOIN bullwark.idempotency_keys k USING (workspace_id, key)
         WHERE k.job_id <> wanted.id",
    )
    .bind(&workspaces)
    .bind(&keys)
    .bind(&ids)
    .bind(&prints)
    .fetch_all(tx.connection())
    .await?;
    let deleted: Vec<Uuid> = owners
        .iter()
        .filter_map(|(_, owner, _, is_deleted)| is_deleted.then_some(*owner))
        .collect();
    if !deleted.is_empty() {
        sqlx::query(
            "DELETE FROM bullwark.idempotency_keys k
             USING unnest($1::uuid[], $2::text[]) AS wanted (workspace_id, key)
             WHERE k.workspace_id = wanted.workspace_id AND k.key = wanted.key
               AND k.job_id = ANY($3)",
        )
        .bind(&workspaces)
        .bind(&keys)
        .bind(&deleted)
        .execute(tx.connection())
        .await?;
        return Box::pin(take_keys(tx, jobs, print)).await;
    }
    let answer = |job: &NewJob| {
        let (_, owner, same, _) = owners.iter().find(|(id, ..)| *id == job.id)?;
        Some(match same {
            true => Inserted::Existing { id: *owner },
            false => Inserted::KeyReused { id: *owner },
        })
    };
    Ok(jobs.iter().map(answer).collect())
}

/// What makes two requests the same: type, queue, payload and priority.
pub(super) fn fingerprint(job: &NewJob) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in [job.job_type.as_str(), job.queue.as_str(), &job.payload] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(job.priority.get().to_le_bytes());
    hash.finalize().to_vec()
}

pub(super) async fn insert<'a, 'c>(
    executor: impl sqlx::PgExecutor<'c>,
    jobs: impl Iterator<Item = &'a NewJob>,
) -> Result<DateTime<Utc>, RecordError> {
    let columns = Columns::of(jobs);
    // `now()` is the time of the transaction: the same in every row and in the answer.
    let (created_at,): (DateTime<Utc>,) = sqlx::query_as(
        "WITH inserted AS (
           INSERT INTO jobs (id, workspace_id, job_type, job_queue, payload, priority,
             scheduled_for, max_attempts, retry_delay_seconds, backoff, timeout_seconds, created_by)
           SELECT u.id, u.workspace_id, u.job_type, u.job_queue, u.payload::jsonb, u.priority,
             coalesce(u.scheduled_for, now() + u.delay_ms * interval '1 millisecond'),
             u.max_attempts, u.retry_delay_seconds, u.backoff, u.timeout_seconds, u.created_by
           FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::int[],
             $7::bigint[], $8::timestamptz[], $9::int[], $10::int[], $11::jsonb[], $12::int[],
             $13::uuid[])
             AS u (id, workspace_id, job_type, job_queue, payload, priority, delay_ms,
               scheduled_for, max_attempts, retry_delay_seconds, backoff, timeout_seconds,
               created_by)
           RETURNING id, workspace_id
         ), late AS (
           -- The id was made long ago or by a slow clock: the seal may be past it already.
           INSERT INTO bullwark.stragglers (job_id, owner_id)
           SELECT id, coalesce(workspace_id, bullwark.nobody()) FROM inserted
           WHERE id < (SELECT (lpad(to_hex(floor(extract(epoch FROM now()) * 1000)::bigint - $14),
                                 12, '0') || repeat('0', 20))::uuid)
         )
         SELECT now()",
    )
    .bind(columns.ids)
    .bind(columns.workspaces)
    .bind(columns.types)
    .bind(columns.queues)
    .bind(columns.payloads)
    .bind(columns.priorities)
    .bind(columns.delays_ms)
    .bind(columns.times)
    .bind(columns.max_attempts)
    .bind(columns.retry_delays)
    .bind(columns.backoffs)
    .bind(columns.timeouts)
    .bind(columns.creators)
    .bind(LATE.as_millis() as i64)
    .fetch_one(executor)
    .await?;
    Ok(created_at)
}
