//! A handler's context without a worker, for tests that run a handler by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::context::{Inner, JobContext};
use super::held::Held;
use crate::clock;
use crate::job::QueueName;
use crate::record::Record;

/// What a worker would know of the job.
#[derive(Debug, Clone)]
pub struct Detached {
    pub record: Record,
    pub job_id: Uuid,
    pub attempt: i32,
    pub worker_id: String,
    pub workspace_id: Option<Uuid>,
    pub checkpoint: Option<serde_json::Value>,
    /// Tells the handler to stop.
    pub cancelled: CancellationToken,
}

impl JobContext {
    /// A context that no worker holds.
    ///
    /// Steps are fenced and committed as ever; progress between them and log lines are dropped, and
    /// no lease is renewed.
    pub fn detached(job: Detached) -> Self {
        let (logs, _) = mpsc::channel(1);
        let held = Held {
            id: job.job_id,
            wire_id: job.job_id.to_string(),
            queue: QueueName::default(),
            token: job.worker_id.clone(),
            attempt: job.attempt,
            started_at: clock::now(),
            cancelled: job.cancelled,
            lost: CancellationToken::new(),
            is_marked: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            progress: std::sync::Mutex::default(),
            log_lines: AtomicU32::new(0),
        };
        let inner = Inner {
            record: job.record,
            held: Arc::new(held),
            worker_id: job.worker_id.into(),
            workspace_id: job.workspace_id,
            checkpoint: job.checkpoint,
            logs,
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}
