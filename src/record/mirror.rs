//! What `BullMQ` clients did to jobs, written into the record, and how far their events were read.
//!
//! Whoever mirrors a job reads its row first, then looks at Redis, then writes with the row's
//! status and start number as a condition. So a row that anybody changed in between stays as it
//! is, and what Redis said about it is looked at again. Rows with an entry in the outbox are left
//! alone: there Redis has not been told the newest.

use sqlx::PgConnection;
use uuid::Uuid;

use super::adopt::{ForeignJob, adopt_on};
use super::foreign_job::{RENAMED, storable_json, storable_text, worker_name};
use super::{Record, RecordError, Tx};
use crate::job::{QueueName, Status};

/// The most jobs of one statement.
pub const MIRROR_MAX: usize = 1000;

const CHANGE_MANY: &str = concat!(
    include_str!("sql/mirror_change.sql"),
    include_str!("sql/webhooks_hear.sql"),
    "SELECT count(*) FROM changed"
);

/// A row, as far as deciding needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownJob {
    pub id: Uuid,
    pub wire_id: String,
    pub status: Status,
    /// The number of the newest start.
    pub attempt: i32,
    /// Failures counted so far.
    pub attempts: i32,
    pub max_attempts: i32,
    /// When it may start, if not at once.
    pub due_ms: Option<i64>,
    /// A foreign worker runs it: such ones send no heartbeat to the record.
    pub is_run_elsewhere: bool,
    /// It was cancelled because a client seemed to have taken it out of Redis. How it ended may
    /// come to light after that.
    pub is_taken_for_removed: bool,
    pub created_ms: i64,
    /// The memory of Redis in which an adopted job was last seen.
    pub epoch: Option<String>,
}

#[derive(sqlx::FromRow)]
struct KnownRow {
    id: Uuid,
    wire_id: String,
    status: String,
    attempt: i32,
    attempts: i32,
    max_attempts: i32,
    due_ms: Option<i64>,
    is_run_elsewhere: bool,
    is_taken_for_removed: bool,
    created_ms: i64,
    epoch: Option<String>,
}

/// Why such a job was cancelled: the text is what it is known by.
pub const REMOVED: &str = "removed by a BullMQ client";

const KNOWN_COLUMNS: &str = "SELECT j.id, coalesce(j.redis_id, j.id::text) AS wire_id, j.status,
  j.attempt, j.attempts, j.max_attempts,
  (extract(epoch FROM CASE j.status WHEN 'failed' THEN j.next_retry_at
     WHEN 'pending' THEN j.scheduled_for END) * 1000)::bigint AS due_ms,
  j.status = 'processing' AND j.worker_heartbeat_at IS NULL AS is_run_elsewhere,
  j.status = 'cancelled' AND j.error_message IS NOT DISTINCT FROM 'removed by a BullMQ client'
    AS is_taken_for_removed,
  (extract(epoch FROM j.created_at) * 1000)::bigint AS created_ms, f.epoch";

impl TryFrom<KnownRow> for KnownJob {
    type Error = RecordError;

    fn try_from(row: KnownRow) -> Result<Self, RecordError> {
        let corrupt = |error| RecordError::Corrupt(format!("job {}: {error}", row.id));
        Ok(Self {
            id: row.id,
            status: row.status.parse().map_err(corrupt)?,
            wire_id: row.wire_id,
            attempt: row.attempt,
            attempts: row.attempts,
            max_attempts: row.max_attempts,
            due_ms: row.due_ms,
            is_run_elsewhere: row.is_run_elsewhere,
            is_taken_for_removed: row.is_taken_for_removed,
            created_ms: row.created_ms,
            epoch: row.epoch,
        })
    }
}

/// The newest job of each of these foreign ids that the record knows.
pub async fn known_foreign(
    record: &Record,
    queue: &QueueName,
    wire_ids: &[String],
) -> Result<Vec<KnownJob>, RecordError> {
    let rows: Vec<KnownRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{KNOWN_COLUMNS} FROM bullwark.foreign_jobs f JOIN jobs j ON j.id = f.job_id
         WHERE f.job_queue = $1 AND f.redis_id = ANY($2)
           AND NOT EXISTS (SELECT FROM bullwark.outbox o WHERE o.job_id = j.id)"
    )))
    .bind(queue.as_str())
    .bind(wire_ids)
    .fetch_all(&record.pool)
    .await?;
    rows.into_iter().map(KnownJob::try_from).collect()
}

/// Why a job of ours is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// An attempt ended, or the job was removed: is it still open here?
    Ended,
    /// Somebody runs it: does it still wait here?
    Running,
    /// It was made available: is it due later here?
    Promoted,
    /// A person ran it again: whatever it is here.
    Retried,
    /// It told how far it is: does a foreign worker run it?
    Progressed,
}

impl Question {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Running => "running",
            Self::Promoted => "promoted",
            Self::Retried => "retried",
            Self::Progressed => "progressed",
        }
    }
}

/// Of jobs of ours, those whose row does not say yet what their events say. Usually none: our own
/// workers write here before they tell Redis.
pub async fn known_own(
    record: &Record,
    asked: &[(Uuid, Question)],
) -> Result<Vec<KnownJob>, RecordError> {
    let mut tx = begin(record).await?;
    let rows: Vec<KnownRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{KNOWN_COLUMNS} FROM unnest($1::uuid[], $2::text[]) AS u (id, question)
         JOIN jobs j ON j.id = u.id
         LEFT JOIN bullwark.foreign_jobs f ON f.job_id = j.id
         WHERE CASE u.question
             WHEN 'ended' THEN j.status IN ('pending', 'processing', 'failed')
             WHEN 'running' THEN j.status IN ('pending', 'failed')
             WHEN 'promoted' THEN CASE j.status WHEN 'failed' THEN j.next_retry_at
               WHEN 'pending' THEN j.scheduled_for END > now() + interval '2 seconds'
             WHEN 'progressed' THEN j.status = 'processing' AND j.worker_heartbeat_at IS NULL
             ELSE true END
           AND NOT EXISTS (SELECT FROM bullwark.outbox o WHERE o.job_id = j.id)"
    )))
    .bind(asked.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(
        asked
            .iter()
            .map(|(_, question)| question.as_str())
            .collect::<Vec<_>>(),
    )
    .fetch_all(tx.connection())
    .await?;
    tx.commit().await?;
    rows.into_iter().map(KnownJob::try_from).collect()
}

/// Any jobs, whatever they are called in Redis.
pub async fn known_by_id(record: &Record, ids: &[Uuid]) -> Result<Vec<KnownJob>, RecordError> {
    let rows: Vec<KnownRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{KNOWN_COLUMNS} FROM jobs j LEFT JOIN bullwark.foreign_jobs f ON f.job_id = j.id
         WHERE j.id = ANY($1)
           AND NOT EXISTS (SELECT FROM bullwark.outbox o WHERE o.job_id = j.id)"
    )))
    .bind(ids)
    .fetch_all(&record.pool)
    .await?;
    rows.into_iter().map(KnownJob::try_from).collect()
}

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub id: Uuid,
    /// The condition: status and number of the newest start.
    pub was: (Status, i32),
    pub to: Status,
    /// The number of the newest start from here on.
    pub attempt: i32,
    pub attempts: i32,
    /// JSON text, or any text.
    pub result: Option<String>,
    pub error: Option<String>,
    pub stack: Option<String>,
    pub worker: Option<String>,
    pub started_ms: Option<i64>,
    /// When it may start next, by the clock of Redis; none: at once.
    pub due_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    /// JSON text.
    pub progress: Option<String>,
    /// A line for `job_logs`.
    pub note: Option<String>,
}

/// Where a reader of events is: (prefix, queue, ms, seq of the entry).
pub type Position<'a> = (&'a str, &'a QueueName, u64, u64);

/// What a commit did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mirrored {
    /// Jobs that the record had not known.
    pub adopted: u64,
    /// Rows that were changed; fewer than asked for when somebody else changed them first.
    pub changed: u64,
}

/// Gives lost jobs another name on the wire, because their own belongs to a later job by now. They
/// go back into Redis under it like any that Redis lost.
pub async fn rename_many(record: &Record, lost: &[(Uuid, i32)]) -> Result<u64, RecordError> {
    let mut tx = record.begin().await?;
    record.check_server()?;
    let renamed: i64 = sqlx::query_scalar(
        "WITH renamed AS (
           UPDATE jobs j SET redis_id = $3 || j.id
           FROM unnest($1::uuid[], $2::int[]) AS u (id, attempt)
           WHERE j.id = u.id AND j.attempt = u.attempt
             AND j.status IN ('pending', 'processing', 'failed')
           RETURNING j.id, j.job_queue, j.redis_id
         ), forgotten AS (
           DELETE FROM bullwark.foreign_jobs f USING renamed r
           WHERE f.job_id = r.id AND f.redis_id <> r.redis_id
         ), named AS (
           INSERT INTO bullwark.foreign_jobs (job_queue, redis_id, job_id)
           SELECT job_queue, redis_id, id FROM renamed
           ON CONFLICT (job_queue, redis_id) DO NOTHING
         ), audit AS (
           INSERT INTO job_logs (job_id, log_level, message)
           SELECT id, 'warn', 'reconciled: Redis had forgotten it, and its id there was given ' ||
             'to another job; it is ' || redis_id || ' from here on' FROM renamed
         )
         SELECT count(*) FROM renamed",
    )
    .bind(lost.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(lost.iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>())
    .bind(RENAMED)
    .fetch_one(tx.connection())
    .await?;
    tx.commit().await?;
    Ok(renamed.unsigned_abs())
}

/// Writes what was seen and how far it was read, both or neither; nothing to a server that may lack
/// its tail. Safe to repeat: jobs are known by then, and rows do not fulfil their condition any
/// more.
pub async fn commit(
    record: &Record,
    adopted: &[ForeignJob],
    changes: &[Change],
    position: Option<Position<'_>>,
) -> Result<Mirrored, RecordError> {
    let mut tx = begin(record).await?;
    let mut mirrored = Mirrored::default();
    for jobs in adopted.chunks(MIRROR_MAX) {
        mirrored.adopted += adopt_on(tx.connection(), jobs).await?;
    }
    for changes in changes.chunks(MIRROR_MAX) {
        mirrored.changed += change_many(tx.connection(), changes).await?;
    }
    if let Some((prefix, queue, ms, seq)) = position {
        // A reader that was overtaken does not move the place back.
        sqlx::query(
            "INSERT INTO bullwark.mirror_positions AS p (prefix, job_queue, event_ms, event_seq)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (prefix, job_queue) DO UPDATE
               SET event_ms = excluded.event_ms, event_seq = excluded.event_seq
               WHERE (p.event_ms, p.event_seq) < (excluded.event_ms, excluded.event_seq)",
        )
        .bind(prefix)
        .bind(queue.as_str())
        .bind(i64::try_from(ms).unwrap_or(i64::MAX))
        .bind(i64::try_from(seq).unwrap_or(i64::MAX))
        .execute(tx.connection())
        .await?;
    }
    tx.commit().await?;
    Ok(mirrored)
}

/// Not on the writers' connections, which are counted for the group commits; but with their plans.
async fn begin(record: &Record) -> Result<Tx, RecordError> {
    let mut tx = record.begin().await?;
    record.check_server()?;
    let settings = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
        SET LOCAL enable_seqscan = off; SET LOCAL lock_timeout = '20s'";
    sqlx::raw_sql(settings).execute(tx.connection()).await?;
    Ok(tx)
}

async fn change_many(
    connection: &mut PgConnection,
    changes: &[Change],
) -> Result<u64, RecordError> {
    let text = |part: fn(&Change) -> &Option<String>| -> Vec<Option<String>> {
        changes
            .iter()
            .map(|c| part(c).as_deref().map(storable_text))
            .collect()
    };
    let json = |part: fn(&Change) -> &Option<String>| -> Vec<Option<String>> {
        changes
            .iter()
            .map(|c| part(c).as_deref().map(storable_json))
            .collect()
    };
    let changed: i64 = sqlx::query_scalar(CHANGE_MANY)
        .bind(changes.iter().map(|c| c.id).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.was.0.as_str()).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.was.1).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.to.as_str()).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.attempt).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.attempts).collect::<Vec<_>>())
        .bind(json(|c| &c.result))
        .bind(text(|c| &c.error))
        .bind(text(|c| &c.stack))
        .bind(
            changes
                .iter()
                .map(|c| c.worker.as_deref().map(worker_name))
                .collect::<Vec<_>>(),
        )
        .bind(changes.iter().map(|c| c.started_ms).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.due_ms).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.ended_ms).collect::<Vec<_>>())
        .bind(json(|c| &c.progress))
        .bind(text(|c| &c.note))
        .fetch_one(connection)
        .await?;
    Ok(changed.unsigned_abs())
}

/// How far the events of each queue were mirrored: (queue, ms, seq of the entry).
pub async fn positions(
    record: &Record,
    prefix: &str,
) -> Result<Vec<(QueueName, u64, u64)>, RecordError> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT job_queue, event_ms, event_seq FROM bullwark.mirror_positions WHERE prefix = $1",
    )
    .bind(prefix)
    .fetch_all(&record.pool)
    .await?;
    let parse = |(queue, ms, seq): (String, i64, i64)| {
        Some((queue.parse().ok()?, ms.unsigned_abs(), seq.unsigned_abs()))
    };
    Ok(rows.into_iter().filter_map(parse).collect())
}
