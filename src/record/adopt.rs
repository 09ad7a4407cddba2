//! Adopting jobs that a foreign `BullMQ` client put straight into Redis.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Record, RecordError};
use crate::job::{Priority, QueueName, Status};

/// The name space of ids that are made from a foreign job's key.
const FOREIGN: Uuid = Uuid::from_u128(0x6f2c_1a53_9b1d_5c8e_9a55_3a4c_77b0_e1d2);
/// The width of `jobs.job_type`.
const NAME_MAX: usize = 100;

/// The id that a job has in the record. Bullwark's own jobs have it on the wire as well; for a
/// foreign one it is made from what identifies it there, so that adopting it twice gives the same.
pub fn record_id(prefix: &str, queue: &QueueName, wire_id: &str, timestamp_ms: i64) -> Uuid {
    if let Ok(id) = wire_id.parse::<Uuid>()
        && id.get_version_num() == 7
    {
        return id;
    }
    Uuid::new_v5(
        &FOREIGN,
        format!("{prefix}:{queue}:{wire_id}:{timestamp_ms}").as_bytes(),
    )
}

/// A foreign job, as far as the record keeps it.
#[derive(Debug, Clone)]
pub struct ForeignJob {
    id: Uuid,
    wire_id: String,
    queue: QueueName,
    job_type: String,
    payload: String,
    priority: i32,
    attempts: i32,
    max_attempts: i32,
    attempt: i32,
    timestamp_ms: i64,
}

impl ForeignJob {
    /// `data` may be any text: what is no JSON that the record can hold is kept as a JSON string.
    pub fn new(id: Uuid, wire_id: String, queue: &QueueName, name: &str, data: &str) -> Self {
        let is_storable =
            serde_json::from_str::<serde_json::Value>(data).is_ok() && !data.contains("\\u0000");
        let payload = match is_storable {
            true => data.to_owned(),
            false => serde_json::Value::from(data.replace('\0', "\u{fffd}")).to_string(),
        };
        let name = name.replace('\0', "\u{fffd}");
        Self {
            id,
            wire_id,
            queue: queue.clone(),
            job_type: name.chars().take(NAME_MAX).collect(),
            payload,
            priority: 0,
            attempts: 0,
            max_attempts: 0,
            attempt: 0,
            timestamp_ms: 0,
        }
    }

    pub fn with_numbers(mut self, wire_priority: u32, max_attempts: u32) -> Self {
        self.priority = Priority::from_wire(wire_priority).get();
        self.max_attempts = i32::try_from(max_attempts).unwrap_or(i32::MAX);
        self
    }

    pub fn with_history(mut self, attempts_made: u32, timestamp_ms: i64) -> Self {
        let attempts = i32::try_from(attempts_made).unwrap_or(i32::MAX);
        self.attempts = attempts.min(self.max_attempts);
        // Each failure was a start, at the least.
        self.attempt = self.attempt.max(attempts);
        self.timestamp_ms = timestamp_ms;
        self
    }

    /// How often foreign workers have started it: what they made of that is their affair, so the
    /// record counts from there.
    pub fn with_starts(mut self, starts: i32) -> Self {
        self.attempt = starts.max(0);
        self
    }
}

/// Writes foreign jobs into the record. Those that are there already stay as they are.
pub async fn adopt_many(record: &Record, jobs: &[ForeignJob]) -> Result<(), RecordError> {
    sqlx::query(
        "WITH adopted AS (
           -- Its failures were starts, too: without them the next one would look like a lost lease.
           INSERT INTO jobs (id, redis_id, job_type, job_queue, payload, priority, attempts,
             max_attempts, attempt, created_at)
           SELECT u.id, u.redis_id, u.job_type, u.job_queue, u.payload::jsonb, u.priority,
             u.attempts, u.max_attempts, u.attempt, to_timestamp(u.timestamp_ms / 1000.0)
           FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[],
             $7::int[], $8::int[], $9::int[], $10::bigint[])
             AS u (id, redis_id, job_type, job_queue, payload, priority, attempts, max_attempts,
               attempt, timestamp_ms)
           ORDER BY u.id
           ON CONFLICT (id) DO NOTHING
           RETURNING id
         )
         -- Their ids are not in the order of time: the passes over new rows may miss them.
         INSERT INTO bullwark.stragglers SELECT id FROM adopted ON CONFLICT DO NOTHING",
    )
    .bind(jobs.iter().map(|j| j.id).collect::<Vec<_>>())
    .bind(
        jobs.iter()
            .map(|j| (j.wire_id != j.id.to_string()).then_some(j.wire_id.as_str()))
            .collect::<Vec<_>>(),
    )
    .bind(jobs.iter().map(|j| j.job_type.as_str()).collect::<Vec<_>>())
    .bind(jobs.iter().map(|j| j.queue.as_str()).collect::<Vec<_>>())
    .bind(jobs.iter().map(|j| j.payload.as_str()).collect::<Vec<_>>())
    .bind(jobs.iter().map(|j| j.priority).collect::<Vec<_>>())
    .bind(jobs.iter().map(|j| j.attempts).collect::<Vec<_>>())
    .bind(jobs.iter().map(|j| j.max_attempts).collect::<Vec<_>>())
    .bind(jobs.iter().map(|j| j.attempt).collect::<Vec<_>>())
    .bind(jobs.iter().map(|j| j.timestamp_ms).collect::<Vec<_>>())
    .execute(&record.writers)
    .await?;
    Ok(())
}

/// The status of adopted jobs, by their id on the wire. Looks at open jobs only, which are few; a
/// foreign job that is over is of no interest to who asks by this id.
pub async fn known_wire_ids(
    record: &Record,
    queue: &QueueName,
    wire_ids: &[String],
) -> Result<HashMap<String, Status>, RecordError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT j.redis_id, j.status FROM bullwark.stragglers s JOIN jobs j ON j.id = s.job_id
         WHERE j.job_queue = $1 AND j.redis_id = ANY($2)",
    )
    .bind(queue.as_str())
    .bind(wire_ids)
    .fetch_all(&record.pool)
    .await?;
    let parse = |(wire_id, status): (String, String)| match status.parse() {
        Ok(status) => Ok((wire_id, status)),
        Err(error) => Err(RecordError::Corrupt(format!("job {wire_id}: {error}"))),
    };
    rows.into_iter().map(parse).collect()
}
