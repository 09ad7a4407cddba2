//! What a handler is given: its job, and the only ways to write on behalf of the attempt.
//!
//! | way | what is committed together |
//! |---|---|
//! | [`JobContext::transaction`] | the handler's writes and the end of the job |
//! | [`JobContext::step_in_tx`] | the handler's writes and the result of a step |
//! | [`JobContext::step`] | the result of a step; its effect was before |
//! | [`JobContext::once`] | the intent of a call before it, its result after it |
//! | [`JobContext::begin_checkpoint`] | the handler's writes and the place to go on from |
//! | [`JobContext::enqueue_in`] | jobs that this one makes, with any of the transactions above |
//!
//! Each begins with the fence: an attempt that is not the newest any more writes nothing. What is
//! paid for and must not be lost with the attempt runs in [`JobContext::outlive`].

mod checkpoint;
mod enqueue;
mod once;
mod outlive;
mod step;
mod transaction;
mod write;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Shared;
use super::held::Held;
use super::log_writer::Line;
use crate::broker::{ClaimedJob, QuotaTicket};
use crate::job::{JobError, Progress, QueueName};
use crate::quota::{Ask, Permit, QuotaKey, Quotas, Urgency, Wait};
use crate::record::Record;
use crate::record::logs::{LogLevel, NewLog};

pub use checkpoint::{Ahead, Checkpoint};
pub use once::{CallError, IfUnknown};
pub use step::{NAME_MAX_BYTES, STEP_RESULT_MAX_BYTES};

/// Lines that one attempt may log; later ones are dropped, the last says so.
pub const LOG_LINES_MAX: u32 = 10_000;

/// The longest message of a line or of a progress, in bytes; longer ones are cut.
const MESSAGE_MAX_BYTES: usize = 8 * 1024;
/// The largest metadata of a line, in bytes of JSON; larger ones are replaced by a note.
const METADATA_MAX_BYTES: usize = 8 * 1024;

/// A handler's view of its job. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JobContext {
    pub(super) inner: Arc<Inner>,
    /// Of calls to services outside.
    pub(super) urgency: Urgency,
}

pub(super) struct Inner {
    pub(super) record: Record,
    pub(super) held: Arc<Held>,
    pub(super) worker_id: Arc<str>,
    pub(super) prefix: Arc<str>,
    pub(super) workspace_id: Option<Uuid>,
    pub(super) checkpoint: Option<serde_json::Value>,
    pub(super) logs: mpsc::Sender<Line>,
    /// Failures that the record has counted before this attempt.
    pub(super) attempts: u32,
    /// The worker; none: nobody renews the lease, and Redis is not asked.
    pub(super) shared: Option<Arc<Shared>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("held", &self.held)
            .field("worker_id", &self.worker_id)
            .finish_non_exhaustive()
    }
}

impl JobContext {
    pub fn job_id(&self) -> Uuid {
        self.inner.held.id
    }

    /// The number of this start of the job; later starts have higher numbers.
    pub fn attempt(&self) -> i32 {
        self.inner.held.attempt
    }

    /// Failures that were counted before this attempt.
    pub fn failures(&self) -> u32 {
        self.inner.attempts
    }

    /// Whose job it is. A handler touches rows of this workspace only.
    pub fn workspace_id(&self) -> Option<Uuid> {
        self.inner.workspace_id
    }

    /// The job as it was claimed in Redis. Kept for jobs that `BullMQ` clients added, and by
    /// workers that keep `BullMQ`'s manners.
    pub fn wire(&self) -> Option<&ClaimedJob> {
        self.inner.held.wire.as_ref().map(|wire| &wire.job)
    }

    /// The queue that the job was claimed from.
    pub fn queue(&self) -> &QueueName {
        &self.inner.held.queue
    }

    /// Start of the keys of its queue.
    pub fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// Proof of the lease in Redis.
    pub fn token(&self) -> &str {
        &self.inner.held.token
    }

    /// The worker that runs this attempt.
    pub fn worker_id(&self) -> &str {
        &self.inner.worker_id
    }

    pub fn record(&self) -> &Record {
        &self.inner.record
    }

    /// Quotas of services outside; none: no worker runs this attempt.
    pub fn quotas(&self) -> Option<&Quotas> {
        self.inner.shared.as_ref().map(|shared| &shared.quotas)
    }

    /// The right to make one call to a service outside. While there is none, the job comes back
    /// when there is: it spends no attempt and holds no slot.
    pub async fn permit(&self, ask: Ask<'_>) -> Result<Permit, JobError> {
        Ok(self.try_permit(ask).await??)
    }

    /// The same for a handler that may wait for it in place.
    pub async fn try_permit(&self, ask: Ask<'_>) -> Result<Result<Permit, Wait>, JobError> {
        let Some(quotas) = self.quotas() else {
            return Err(JobError::permanent(
                "no worker runs this attempt: no quotas",
            ));
        };
        let ask = ask.usual_urgency(self.urgency);
        let ask = ask.job(&self.inner.held.wire_id, self.queue());
        Ok(quotas.take(&ask).await?)
    }

    /// The same job, whose calls to services outside are those of a batch, whatever its priority
    /// is: a part of much, which is to leave the reserve to others.
    pub fn as_batch(mut self) -> Self {
        self.urgency = Urgency::Batch;
        self
    }

    /// Says that this job, if it waited for the quota of this key, needs it no more: its answer was
    /// found elsewhere, say. Another job that waits comes in its place.
    pub async fn pass_turn(&self, key: &QuotaKey) {
        let waited = self.attempt() > 1;
        if let Some(quotas) = self.quotas().filter(|_| waited) {
            let (queue, job_id) = (self.queue(), self.inner.held.wire_id.as_str());
            quotas.pass_turn(key, QuotaTicket { queue, job_id }).await;
        }
    }

    /// Is cancelled when the handler should stop: at a timeout, a shutdown that can wait no longer,
    /// or when the job was cancelled or went elsewhere. A handler that does not stop by itself is
    /// dropped a few seconds later.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.inner.held.cancelled
    }

    /// What the last checkpoint of an earlier attempt saved.
    pub fn checkpoint(&self) -> Option<&serde_json::Value> {
        self.inner.checkpoint.as_ref()
    }

    /// Notes how far the job is. Cheap: the stores see the newest value, at most 4 times a second.
    pub fn progress(&self, mut progress: Progress) {
        progress.message = storable(&progress.message);
        *self.inner.held.progress() = Some(progress);
    }

    /// Writes a line to the job's log, soon. Lines of an attempt that was replaced meanwhile are
    /// dropped.
    pub fn log(&self, level: LogLevel, message: &str, metadata: Option<serde_json::Value>) {
        let held = &self.inner.held;
        let message = match held.log_lines.fetch_add(1, Ordering::Relaxed) {
            0..LOG_LINES_MAX => storable(message),
            LOG_LINES_MAX => format!("more than {LOG_LINES_MAX} lines; the rest is dropped"),
            _ => return,
        };
        let (job_id, attempt) = (held.id, held.attempt);
        let line = NewLog {
            job_id,
            attempt,
            level,
            message,
            metadata: metadata.map(storable_json),
        };
        let line = Line {
            log: line,
            queue: held.queue.clone(),
            wire_id: held.wire_id.clone(),
        };
        if self.inner.logs.try_send(line).is_err() {
            metrics::counter!("bullwark_log_lines_dropped_total").increment(1);
        }
    }
}

/// A text that the record can hold: not too long, and without the one character that PostgreSQL
/// refuses.
fn storable(text: &str) -> String {
    let end = text.floor_char_boundary(MESSAGE_MAX_BYTES);
    text[..end].replace('\0', "\u{fffd}")
}

fn storable_json(value: serde_json::Value) -> serde_json::Value {
    let text = value.to_string();
    if text.len() > METADATA_MAX_BYTES {
        let note = format!("left out: {} bytes of metadata", text.len());
        return serde_json::json!({ "note": note });
    }
    // The only escape that jsonb refuses; a text that spells it out is replaced, too.
    match text.contains("\\u0000") {
        true => serde_json::Value::from(text.replace("\\u0000", "\u{fffd}")),
        false => value,
    }
}
