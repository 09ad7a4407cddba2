//! What a handler is given: its job, and the only ways to write on behalf of the attempt.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::held::Held;
use crate::broker::ClaimedJob;
use crate::job::{JobError, Progress, QueueName};
use crate::record::logs::{LogLevel, NewLog};
use crate::record::{Record, RecordError, Tx, start};

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
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) record: Record,
    pub(super) held: Arc<Held>,
    pub(super) worker_id: Arc<str>,
    pub(super) prefix: Arc<str>,
    pub(super) workspace_id: Option<Uuid>,
    pub(super) checkpoint: Option<serde_json::Value>,
    pub(super) logs: mpsc::Sender<NewLog>,
}

impl JobContext {
    pub fn job_id(&self) -> Uuid {
        self.inner.held.id
    }

    /// The number of this start of the job; later starts have higher numbers.
    pub fn attempt(&self) -> i32 {
        self.inner.held.attempt
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

    /// Is cancelled when the handler should stop: at a timeout, a shutdown that can wait no longer,
    /// or when the job was cancelled or went elsewhere. A handler that does not stop by itself is
    /// dropped a few seconds later.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.inner.held.cancelled
    }

    /// What the last committed step of an earlier attempt saved.
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
        if self.inner.logs.try_send(line).is_err() {
            metrics::counter!("bullwark_log_lines_dropped_total").increment(1);
        }
    }

    /// Begins a step: a transaction that commits work of the handler together with the place to go
    /// on from. Its first statement is the fence: if the job went elsewhere or is over, this fails
    /// with [`JobError::LeaseLost`] and nothing was written. Until the commit nobody else can
    /// restart, settle or cancel the job.
    pub async fn begin_step(&self) -> Result<Step, JobError> {
        let held = &self.inner.held;
        let mut tx = self.inner.record.begin().await.map_err(step_error)?;
        let is_held = start::fence(&mut tx, held.id, held.attempt, &self.inner.worker_id)
            .await
            .map_err(step_error)?;
        if !is_held {
            held.lost.cancel();
            return Err(JobError::LeaseLost);
        }
        held.is_marked.store(true, Ordering::Relaxed);
        Ok(Step {
            tx,
            context: self.clone(),
        })
    }
}

/// A step under way. Dropping it rolls back.
#[derive(Debug)]
pub struct Step {
    tx: Tx,
    context: JobContext,
}

impl Step {
    pub fn tx(&mut self) -> &mut Tx {
        &mut self.tx
    }

    /// Commits the step's work, the checkpoint and the progress: all or nothing. A job that was
    /// interrupted any time later goes on from this checkpoint.
    pub async fn commit(
        mut self,
        checkpoint: serde_json::Value,
        mut progress: Progress,
    ) -> Result<(), JobError> {
        progress.message = storable(&progress.message);
        let id = self.context.inner.held.id;
        start::save_checkpoint(&mut self.tx, id, &checkpoint, &progress)
            .await
            .map_err(step_error)?;
        self.tx.commit().await.map_err(step_error)?;
        self.context.progress(progress);
        Ok(())
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

/// An error of the record inside a handler: a later attempt may succeed, unless the values are
/// refused for good.
fn step_error(error: RecordError) -> JobError {
    match error {
        RecordError::Refused { .. } => JobError::Permanent(error.to_string()),
        RecordError::Unavailable(..)
        | RecordError::Address(_)
        | RecordError::Schema(_)
        | RecordError::Corrupt(_) => JobError::Retry(error.to_string()),
    }
}
