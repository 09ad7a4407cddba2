//! A handler's context without a worker, for tests that run a handler by hand.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::context::{Inner, JobContext};
use super::held::Held;
use crate::clock;
use crate::job::QueueName;
use crate::quota::Urgency;
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
    /// What it writes is fenced and committed as ever; progress in between and log lines are
    /// dropped, and no lease is renewed.
    pub fn detached(job: Detached) -> Self {
        let (logs, _) = mpsc::channel(1);
        let (wire_id, queue) = (job.job_id.to_string(), QueueName::default());
        let token = &job.worker_id;
        let mut held = Held::new(
            job.job_id,
            &wire_id,
            &queue,
            token,
            job.attempt,
            clock::now(),
        );
        held.cancelled = job.cancelled;
        let inner = Inner {
            record: job.record,
            held: Arc::new(held),
            worker_id: job.worker_id.into(),
            prefix: "bull".into(),
            workspace_id: job.workspace_id,
            checkpoint: job.checkpoint,
            logs,
            attempts: 0,
            shared: None,
        };
        Self {
            inner: Arc::new(inner),
            urgency: Urgency::Batch,
        }
    }
}
