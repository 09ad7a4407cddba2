//! What a caller asks for, and the checked job that comes of it.
//!
//! A [`JobRequest`] is the body of `POST /api/jobs`, one line of `enqueue --ndjson` and the
//! library's input. [`JobTypes::check`](super::JobTypes::check) turns it into a [`NewJob`], which
//! can not be wrong: whoever holds one may write it to the record.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Backoff, Priority, QueueName};

/// The largest payload, in bytes of JSON text. Larger inputs belong into a file.
pub const PAYLOAD_MAX_BYTES: usize = 1024 * 1024;
/// The longest delay, in milliseconds: ten years.
pub const DELAY_MAX_MS: u64 = 10 * 366 * 24 * 3600 * 1000;
/// The most retries a job may ask for.
pub const MAX_ATTEMPTS_LIMIT: u32 = 1000;
/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_MAX: usize = 255;
/// The longest time a job may run, in seconds: one day.
pub const TIMEOUT_MAX_SECONDS: u32 = 24 * 3600;
/// Retries when nothing else is said; the specification's default.
pub const MAX_ATTEMPTS: u32 = 5;

/// An unchecked request for a job. Every field but the type has a default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = NewJob,
    examples(json!({ "jobType": "noop", "payload": { "to": "ada" }, "delayMs": 1000 }))))]
pub struct JobRequest {
    #[serde(alias = "job_type")]
    #[cfg_attr(
        feature = "server",
        schema(min_length = 1, max_length = 100, example = "noop")
    )]
    pub job_type: String,
    /// What the handler gets; the schema of the type says what it may be. At most 1 MiB of JSON.
    #[serde(default = "empty_object")]
    #[cfg_attr(feature = "server", schema(value_type = serde_json::Value))]
    pub payload: serde_json::Value,
    /// No `:`, no control characters, no blanks around it; at most 255 bytes. `default` if none.
    #[serde(default, alias = "job_queue", alias = "jobQueue")]
    #[cfg_attr(feature = "server", schema(min_length = 1, max_length = 255))]
    pub queue: Option<String>,
    /// The most urgent is 10; none is 0.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(minimum = 0, maximum = 10))]
    pub priority: Option<i64>,
    /// Not before this time.
    #[serde(default, alias = "scheduled_for")]
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Not before this many milliseconds from now; not together with `scheduledFor`.
    #[serde(default, alias = "delay_ms")]
    #[cfg_attr(feature = "server", schema(maximum = 316224000000.0))]
    pub delay_ms: Option<u64>,
    /// Attempts after which it is over; those of its type if none.
    #[serde(default, alias = "max_attempts")]
    #[cfg_attr(feature = "server", schema(maximum = 1000))]
    pub max_attempts: Option<u32>,
    /// The base of the growing delay between attempts; 60 if none.
    #[serde(default, alias = "retry_delay_seconds")]
    #[cfg_attr(feature = "server", schema(maximum = 2147483647))]
    pub retry_delay_seconds: Option<u32>,
    /// Replaces the growing delay.
    #[serde(default)]
    pub backoff: Option<Backoff>,
    /// How long an attempt may run.
    #[serde(default, alias = "timeout_seconds")]
    #[cfg_attr(feature = "server", schema(minimum = 1, maximum = 86400))]
    pub timeout_seconds: Option<u32>,
    /// The same key again, within a day, gives the same job back.
    #[serde(default, alias = "idempotency_key")]
    #[cfg_attr(feature = "server", schema(min_length = 1, max_length = 255))]
    pub idempotency_key: Option<String>,
    /// Who asks. Filled in from the caller's credentials, never read from outside.
    #[serde(skip)]
    pub workspace_id: Option<Uuid>,
    #[serde(skip)]
    pub created_by: Option<Uuid>,
}

fn empty_object() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

impl JobRequest {
    pub fn new(job_type: impl Into<String>, payload: serde_json::Value) -> Self {
        Self {
            job_type: job_type.into(),
            payload,
            ..Self::default()
        }
    }
}

/// When a job may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Now,
    /// So much later than the record's clock says at the commit.
    In(Duration),
    At(DateTime<Utc>),
}

/// A job that passed every check and has its id.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Time-ordered (`UUIDv7`); the custom id on the wire.
    pub id: Uuid,
    pub workspace_id: Option<Uuid>,
    pub job_type: String,
    pub queue: QueueName,
    /// JSON text.
    pub payload: String,
    pub priority: Priority,
    pub due: Due,
    pub max_attempts: u32,
    pub retry_delay_seconds: i32,
    pub backoff: Option<Backoff>,
    pub timeout_seconds: Option<u32>,
    pub idempotency_key: Option<String>,
    pub created_by: Option<Uuid>,
}
