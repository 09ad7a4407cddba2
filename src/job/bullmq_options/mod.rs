//! The options of a job as `BullMQ`'s producers write them (`JobsOptions`).
//!
//! [`JobsOptions`] says everything that Node's `Queue.add` and `FlowProducer` take, under Rust
//! names. Written, it is the `opts` text of the job's hash, with `BullMQ`'s short names, so that a
//! job of ours can not be told from one of Node's. Read, it forgives: a member that makes no sense
//! counts as absent, and members without a name here are kept in `more`. [`JobsOptions::check`]
//! refuses what `BullMQ` refuses.
//!
//! What a worker must honour of them, it reads with [`ForeignOptions`](super::ForeignOptions).

mod check;
mod read;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use check::InvalidOptions;
use read::{backoff, integer, lenient};

/// What a producer says about a job besides its name and data. Times are in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobsOptions {
    /// The id; none: the queue counts, or a flow makes one.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// When the job was made; none: the server's time at the add.
    #[serde(
        rename = "timestamp",
        deserialize_with = "integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub timestamp_ms: Option<i64>,
    /// Not before so long after `timestamp_ms`.
    #[serde(
        rename = "delay",
        deserialize_with = "integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub delay_ms: Option<i64>,
    /// 0 or none: before all others, in order; else 1 is most urgent.
    #[serde(deserialize_with = "integer", skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Runs at most, the first included; 0 is 1.
    #[serde(deserialize_with = "integer")]
    pub attempts: u32,
    #[serde(deserialize_with = "backoff", skip_serializing_if = "Option::is_none")]
    pub backoff: Option<BackoffOption>,
    /// Next in line among the jobs without priority.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_false")]
    pub lifo: bool,
    /// None: as the worker says.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub remove_on_complete: Option<RemoveRule>,
    /// None: as the worker says.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub remove_on_fail: Option<RemoveRule>,
    /// Newest log lines that are kept.
    #[serde(
        rename = "kl",
        deserialize_with = "integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub keep_logs: Option<u64>,
    /// Newest stack traces that are kept.
    #[serde(deserialize_with = "integer", skip_serializing_if = "Option::is_none")]
    pub stack_trace_limit: Option<u64>,
    /// The most bytes of data; more is refused at the add.
    #[serde(deserialize_with = "integer", skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<u64>,
    #[serde(
        rename = "de",
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    pub deduplication: Option<Deduplication>,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentOption>,
    /// When this child fails, its parent fails.
    #[serde(
        rename = "fpof",
        deserialize_with = "lenient",
        skip_serializing_if = "is_false"
    )]
    pub fail_parent_on_failure: bool,
    /// When this child fails, its parent runs at once.
    #[serde(
        rename = "cpof",
        deserialize_with = "lenient",
        skip_serializing_if = "is_false"
    )]
    pub continue_parent_on_failure: bool,
    /// When this child fails, its parent no longer waits for it and is told why.
    #[serde(
        rename = "idof",
        deserialize_with = "lenient",
        skip_serializing_if = "is_false"
    )]
    pub ignore_dependency_on_failure: bool,
    /// When this child fails, its parent no longer waits for it.
    #[serde(
        rename = "rdof",
        deserialize_with = "lenient",
        skip_serializing_if = "is_false"
    )]
    pub remove_dependency_on_failure: bool,
    /// The trace that this job belongs to, as its library wrote it.
    #[serde(
        rename = "tm",
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    pub telemetry_metadata: Option<String>,
    /// The worker begins a trace of its own.
    #[serde(
        rename = "omc",
        deserialize_with = "lenient",
        skip_serializing_if = "is_false"
    )]
    pub telemetry_omit_context: bool,
    /// Of an iteration of a schedule: the rule, as it was given.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Map<String, Value>>,
    /// Of an iteration of a schedule: the schedule's id. It goes into a field of its own.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub repeat_job_key: Option<String>,
    /// Of an iteration of a schedule: when it was due.
    #[serde(
        rename = "prevMillis",
        deserialize_with = "integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub prev_ms: Option<i64>,
    /// What has no name here.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// How long a failed job waits. `BullMQ`'s own kinds are `fixed` and `exponential`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BackoffOption {
    #[serde(rename = "type", default, deserialize_with = "lenient")]
    pub kind: String,
    #[serde(
        rename = "delay",
        default,
        deserialize_with = "integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub delay_ms: Option<i64>,
    /// Share of the delay that is random, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
}

/// What becomes of a finished job in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RemoveRule {
    /// `true`: it is removed at once; `false`: it stays.
    Always(bool),
    /// So many of the newest stay; -1: all.
    Count(i64),
    Keep {
        /// Seconds.
        #[serde(
            default,
            deserialize_with = "integer",
            skip_serializing_if = "Option::is_none"
        )]
        age: Option<i64>,
        #[serde(
            default,
            deserialize_with = "integer",
            skip_serializing_if = "Option::is_none"
        )]
        count: Option<i64>,
        /// Removals per finished job at most.
        #[serde(
            default,
            deserialize_with = "integer",
            skip_serializing_if = "Option::is_none"
        )]
        limit: Option<i64>,
    },
}

/// While another job owns the same id, this one is not added; the modes say what happens instead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Deduplication {
    #[serde(deserialize_with = "lenient")]
    pub id: String,
    /// The owner owns the id for so long; none: until it ends.
    #[serde(
        rename = "ttl",
        deserialize_with = "integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub ttl_ms: Option<i64>,
    /// Each try begins the time anew.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_false")]
    pub extend: bool,
    /// A delayed owner is removed and this job added.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_false")]
    pub replace: bool,
    /// A delayed owner is delayed as long as this job would be.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_false")]
    pub reschedule: bool,
    /// While the owner runs, the newest such job is remembered and added when the owner ends.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_false")]
    pub keep_last_if_active: bool,
}

/// A job that waits for this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentOption {
    pub id: String,
    /// `prefix:queue`.
    pub queue: String,
}

impl JobsOptions {
    /// The `opts` text of a new job. The schedule's id is left out: it has a field of its own.
    pub fn write(&self) -> String {
        let written = Self {
            repeat_job_key: None,
            ..self.clone()
        };
        serde_json::to_string(&written).unwrap_or_else(|_| "{}".to_owned())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}
