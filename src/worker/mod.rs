//! The worker: claims jobs, runs their handlers in slots, and settles how they end.
//!
//! ```text
//! claim ──► first start ───────────────► execute ──► settle ──► Redis
//!      └──► started before ──► record ──┘   │
//!                                journal ◄──┘  starts, heartbeats, progress, logs
//! lease thread: renews every held job until Redis knows how it ended
//! ```
//!
//! It promises that a job which it claimed runs or goes back, that no handler runs without a lease
//! being renewed for it, and that after [`Worker::run`] returned nothing of it is left running.
//! When it is killed, its leases end, and the rescue of another process gives the jobs back.

pub mod claim;
mod context;
mod detached;
mod execute;
mod handler;
mod held;
mod journal;
mod lease;
mod order;
mod restart;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::broker::{Broker, BrokerOptions};
use crate::job::{QueueName, RetryRule};
use crate::record::Record;
use crate::record::logs::NewLog;
use crate::settle::{Done, Ended, Settle};
use crate::tasks::Tasks;
use held::{Held, HeldJobs};

pub use context::{JobContext, LOG_LINES_MAX, Step};
pub use detached::Detached;
pub use handler::{Handler, Handlers, RESULT_MAX_BYTES};
pub use order::{InvalidServedQueue, ServedQueue};
pub use restart::LEASE_LOSSES_MAX;

/// How a worker works.
#[derive(Clone)]
pub struct WorkerOptions {
    /// Unique among all processes that ever ran: host, process and a random part.
    pub worker_id: String,
    pub queues: Vec<ServedQueue>,
    /// Jobs at once.
    pub slots: usize,
    /// How long a job stays ours after the last renewal.
    pub lease: Duration,
    /// How long running jobs may take after the shutdown began; the specification's two minutes.
    pub shutdown_limit: Duration,
    /// Told of every attempt once both stores know how it ended.
    pub observer: Option<Done>,
}

impl std::fmt::Debug for WorkerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerOptions")
            .field("worker_id", &self.worker_id)
            .field("queues", &self.queues)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

impl WorkerOptions {
    pub fn new(worker_id: impl Into<String>) -> Self {
        Self {
            worker_id: worker_id.into(),
            queues: vec![ServedQueue {
                name: QueueName::default(),
                weight: None,
            }],
            slots: 50,
            lease: Duration::from_secs(10),
            shutdown_limit: Duration::from_secs(120),
            observer: None,
        }
    }
}

/// What the parts of a worker share.
pub(crate) struct Shared {
    record: Record,
    broker: Broker,
    worker_id: Arc<str>,
    handlers: Handlers,
    queues: Vec<ServedQueue>,
    lease: Duration,
    slots: Arc<Semaphore>,
    held: Arc<HeldJobs>,
    settle: Settle,
    logs: mpsc::Sender<NewLog>,
    /// Tasks of running jobs.
    jobs: Tasks,
    /// Handlers must stop now.
    interrupted: CancellationToken,
    claims: AtomicU64,
}

impl Shared {
    /// Numbers the claims of this worker, for lock tokens.
    fn next_claim(&self) -> u64 {
        self.claims.fetch_add(1, Ordering::Relaxed)
    }
}

/// A claimed job with all that its run needs.
struct TakenJob {
    held: Arc<Held>,
    job_type: String,
    payload: String,
    rule: RetryRule,
    workspace_id: Option<Uuid>,
    timeout: Option<Duration>,
    checkpoint: Option<serde_json::Value>,
}

impl Held {
    fn new(
        id: Uuid,
        wire_id: &str,
        queue: &QueueName,
        token: &str,
        attempt: i32,
        started_at: DateTime<Utc>,
    ) -> Self {
        Self {
            id,
            wire_id: wire_id.to_owned(),
            queue: queue.clone(),
            token: token.to_owned(),
            attempt,
            started_at,
            cancelled: CancellationToken::new(),
            lost: CancellationToken::new(),
            is_marked: false.into(),
            has_ended: false.into(),
            progress: None.into(),
            log_lines: 0.into(),
        }
    }
}

/// A worker, ready to run.
#[derive(Debug)]
pub struct Worker {
    pub record: Record,
    pub broker: Broker,
    /// For the connection of the lease thread.
    pub broker_options: BrokerOptions,
    pub handlers: Handlers,
    pub options: WorkerOptions,
}

impl Worker {
    /// Works until `stop` is cancelled, then shuts down: claims nothing more at once, lets running
    /// jobs finish up to the limit (or until `hurry` is cancelled), gives back the others without
    /// spending an attempt, and returns when every outcome is committed.
    pub async fn run(
        self,
        stop: CancellationToken,
        hurry: CancellationToken,
    ) -> std::io::Result<()> {
        let worker_id: Arc<str> = self.options.worker_id.as_str().into();
        let held = Arc::new(HeldJobs::default());
        let background = Tasks::new();
        let settling = Tasks::new();
        let ended = CancellationToken::new();

        let lost = lease::start_thread(
            self.broker_options,
            held.clone(),
            self.options.lease,
            ended.clone(),
        )?;
        background.spawn(
            "lost leases",
            lease::judge_lost(self.record.clone(), worker_id.clone(), held.clone(), lost),
        );
        let (logs, log_lines) = mpsc::channel(journal::LOGS_MAX);
        let journal = journal::Journal {
            record: self.record.clone(),
            broker: self.broker.clone(),
            worker_id: worker_id.clone(),
            held: held.clone(),
            logs: log_lines,
        };
        background.spawn("journal", journal.run(ended.clone()));

        let forget = held.clone();
        let observer = self.options.observer.clone();
        let done = move |ended: &Ended| {
            forget.remove(ended.id, &ended.token);
            if let Some(observer) = &observer {
                observer(ended);
            }
        };
        let settle = Settle::start(
            self.record.clone(),
            self.broker.clone(),
            &worker_id,
            Arc::new(done),
            &settling,
        );
        for queue in &self.options.queues {
            if let Err(error) = self.broker.ensure_queue(&queue.name).await {
                tracing::warn!(%error, queue = %queue.name, "queue not announced");
            }
        }
        let shared = Arc::new(Shared {
            record: self.record,
            broker: self.broker,
            worker_id,
            handlers: self.handlers,
            queues: self.options.queues,
            lease: self.options.lease,
            slots: Arc::new(Semaphore::new(self.options.slots)),
            held: held.clone(),
            settle,
            logs,
            jobs: Tasks::new(),
            interrupted: CancellationToken::new(),
            claims: AtomicU64::new(0),
        });

        claim::run(shared.clone(), stop).await;

        tracing::info!(running = held.len(), "shutdown: no new claims");
        let jobs = shared.jobs.clone();
        tokio::select! {
            () = jobs.drained() => {}
            () = tokio::time::sleep(self.options.shutdown_limit) => {}
            () = hurry.cancelled() => {}
        }
        shared.interrupted.cancel();
        jobs.drained().await;
        // The last handle of settle goes; its lanes commit what they hold and end.
        drop(shared);
        settling.drained().await;
        ended.cancel();
        background.drained().await;
        Ok(())
    }
}
