//! The worker: claims jobs, runs their handlers in slots, and settles how they end.
//!
//! ```text
//! claim ──► first start ───────────────► execute ──► settle ──► Redis
//!      └──► started before ──► record ──┘   │
//!                    journal, log writer ◄──┘  starts, heartbeats, progress, lines
//! lease thread: renews every held job until Redis knows how it ended
//! ```
//!
//! It promises that a job which it claimed runs or goes back, that no handler runs without a lease
//! being renewed for it, and that after [`Worker::run`] returned nothing of it is left running.
//! When it is killed, its leases end, and the rescue of another process gives the jobs back.

mod announce;
mod ask;
mod begin;
pub mod claim;
mod confirm;
mod context;
mod detached;
mod events;
mod execute;
#[cfg(feature = "handlers")]
pub mod forward;
mod handler;
mod held;
mod journal;
mod lapsed;
mod latency;
mod lease;
mod limited;
mod log_writer;
mod options;
mod order;
mod restart;
mod roster;
mod share;
mod stalled;
mod steering;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::broker::{Broker, BrokerOptions};
use crate::enqueue::Enqueue;
use crate::job::RetryRule;
use crate::quota::Quotas;
use crate::record::Record;
use crate::record::roster::Announcement;
use crate::settle::{Ended, Settle, Verdict};
use crate::tasks::{Tasks, panic_text};
use held::{Held, HeldJobs};

pub use context::{
    Ahead, CallError, Checkpoint, IfUnknown, JobContext, LOG_LINES_MAX, NAME_MAX_BYTES,
    STEP_RESULT_MAX_BYTES,
};
pub use detached::Detached;
pub use events::{Events, WorkerEvent};
pub use handler::{Handler, Handlers, RESULT_MAX_BYTES};
pub use options::{IDLE, Manners, Observer, StalledCheck, WorkerOptions};
pub use order::{InvalidServedQueue, ServedQueue};
pub use restart::LEASE_LOSSES_MAX;
pub use steering::{Cancelled, SLOTS_MAX, Steering};
pub use wire::Wire;

/// How long handlers may take to end once the shutdown has interrupted them: told, then dropped,
/// and a little more. What runs on after that holds a thread and can not be stopped.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(8);
/// How long outcomes may wait for the record once the worker was told to hurry.
const HURRY_LIMIT: Duration = Duration::from_secs(3);
/// How long the ends that were settled last may take to be told of.
const TELL_LIMIT: Duration = Duration::from_secs(2);
/// How long the last words of the background tasks may take.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(15);
/// Between two looks at what is still held.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the parts of a worker share.
pub(crate) struct Shared {
    record: Record,
    broker: Broker,
    worker_id: Arc<str>,
    prefix: Arc<str>,
    handlers: Handlers,
    enqueue: Enqueue,
    queues: Vec<ServedQueue>,
    lease: Duration,
    idle: Duration,
    steering: Steering,
    manners: Option<Manners>,
    limited: limited::Limited,
    share: share::Share,
    held: Arc<HeldJobs>,
    settle: Settle,
    quotas: Quotas,
    logs: mpsc::Sender<log_writer::Line>,
    /// Tasks of running jobs.
    jobs: Tasks,
    /// Handlers must stop now.
    interrupted: CancellationToken,
    /// One at a time of the jobs that may have taken their workers down.
    suspect: Arc<Semaphore>,
    claims: AtomicU64,
}

impl Shared {
    /// Numbers the claims of this worker, for lock tokens.
    fn next_claim(&self) -> u64 {
        self.claims.fetch_add(1, Ordering::Relaxed)
    }

    /// Where the events of this worker go, if anybody listens.
    fn events(&self) -> Option<&Events> {
        let events = self.manners.as_ref().map(|manners| &manners.events);
        events.filter(|events| events.are_heard())
    }
}

/// What a claimed job occupies until its outcome is handed over.
struct Slot {
    /// Given back before the slot is: whoever gets that sees it.
    _delivery: Option<share::Taken>,
    _slot: OwnedSemaphorePermit,
    /// The turn of a suspect.
    _turn: Option<OwnedSemaphorePermit>,
}

impl Slot {
    fn new(slot: OwnedSemaphorePermit, delivery: Option<share::Taken>) -> Self {
        Self {
            _delivery: delivery,
            _slot: slot,
            _turn: None,
        }
    }
}

/// A claimed job with all that its run needs.
struct TakenJob {
    held: Arc<Held>,
    job_type: String,
    payload: String,
    rule: RetryRule,
    workspace_id: Option<Uuid>,
    /// On the wire.
    priority: u32,
    timeout: Option<Duration>,
    checkpoint: Option<serde_json::Value>,
    latency: latency::Latency,
}

/// A worker, ready to run.
#[derive(Debug)]
pub struct Worker {
    pub record: Record,
    pub broker: Broker,
    /// For the connection of the lease thread.
    pub broker_options: BrokerOptions,
    pub handlers: Handlers,
    /// For jobs that handlers make.
    pub enqueue: Enqueue,
    pub options: WorkerOptions,
}

impl Worker {
    /// Works until `stop` is cancelled, then shuts down: claims nothing more at once, lets running
    /// jobs finish up to the limit (or until `hurry` is cancelled), gives back the others without
    /// spending an attempt, and returns when every outcome is committed.
    ///
    /// While the record is away it waits for it, again up to the limit, or until `hurry`. Outcomes
    /// that nobody took by then are given up, and a handler that holds its thread is left behind:
    /// those jobs run again elsewhere when their leases end.
    pub async fn run(
        self,
        stop: CancellationToken,
        hurry: CancellationToken,
    ) -> std::io::Result<()> {
        let worker_id: Arc<str> = self.options.worker_id.as_str().into();
        let steering = self.options.steering;
        let manners = self.options.manners;
        let prefix = self.broker.prefix().to_owned();
        let held = steering.held().clone();
        let background = Tasks::new();
        let settling = Tasks::new();
        let ended = CancellationToken::new();

        if let Some(renewal) = lease::Renewal::of(self.options.lease, manners.as_ref()) {
            let lost =
                lease::start_thread(self.broker_options, held.clone(), renewal, ended.clone())?;
            let judge = lease::Judge {
                record: self.record.clone(),
                worker_id: worker_id.clone(),
                held: held.clone(),
                strict: manners.as_ref().map(|manners| manners.events.clone()),
            };
            background.spawn("lost leases", judge.run(lost));
        }
        let journal = journal::Journal {
            record: self.record.clone(),
            broker: self.broker.clone(),
            worker_id: worker_id.clone(),
            held: held.clone(),
        };
        background.spawn("journal", journal.run(ended.clone()));
        let queues = self.options.queues.iter();
        let roster = roster::Roster {
            record: self.record.clone(),
            steering: steering.clone(),
            announcement: Announcement {
                worker_id: self.options.worker_id.clone(),
                prefix: prefix.clone(),
                queues: queues.map(|queue| queue.name.to_string()).collect(),
                job_types: self.handlers.served_types(),
                slots: 0,
                is_paused: false,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
        };
        let (logs, lines) = mpsc::channel(log_writer::LINES_MAX);
        let writer = log_writer::LogWriter::new(self.record.clone(), self.broker.clone(), lines);
        background.spawn("job logs", writer.run(ended.clone()));

        let settle = Settle::start(
            self.record.clone(),
            self.broker.clone(),
            &worker_id,
            Arc::new(done(held.clone(), self.options.observer.clone())),
            &settling,
        );
        let (record, broker) = (self.record.clone(), self.broker.clone());
        let quotas = Quotas::start(record, broker, &background, ended.clone());
        for queue in &self.options.queues {
            if let Err(error) = self.broker.ensure_queue(&queue.name).await {
                tracing::warn!(%error, queue = %queue.name, "queue not announced");
            }
        }
        // Users of other workers' manners, and of other servers, have queues of this name for
        // themselves.
        let shares = manners.is_none() && !self.handlers.forwards();
        let share = match shares {
            true => share::Share::among(&self.options.queues),
            false => share::Share::default(),
        };
        let shared = Arc::new(Shared {
            record: self.record,
            broker: self.broker,
            worker_id,
            prefix: prefix.into(),
            handlers: self.handlers,
            enqueue: self.enqueue,
            queues: self.options.queues,
            lease: self.options.lease,
            idle: self.options.idle,
            steering,
            manners,
            limited: limited::Limited::default(),
            share,
            held,
            settle,
            quotas,
            logs,
            jobs: Tasks::new(),
            interrupted: CancellationToken::new(),
            suspect: Arc::new(Semaphore::new(1)),
            claims: AtomicU64::new(0),
        });

        shared.steering.set_first_slots(self.options.slots);
        let claiming = ended.child_token();
        background.spawn("roster", roster.run(claiming.clone()));
        let ready = || stalled::start(&shared, &background, &ended);
        claim::run(shared.clone(), stop, ready).await;
        claiming.cancel();
        if let Some(events) = shared.events() {
            events.tell(WorkerEvent::Closing);
        }
        shared.finish(self.options.shutdown_limit, &hurry).await;
        settling.drained().await;
        // Those whose outcomes were settled only now still tell their listeners.
        if tokio::time::timeout(TELL_LIMIT, shared.jobs.drained())
            .await
            .is_err()
        {
            tracing::warn!("some ends are not told of");
        }
        ended.cancel();
        let last_words = tokio::time::timeout(BACKGROUND_LIMIT, background.drained());
        if last_words.await.is_err() {
            tracing::warn!("some log lines are lost: the record is away");
        }
        Ok(())
    }
}

impl Shared {
    /// The shutdown, after the last claim: see [`Worker::run`].
    async fn finish(&self, limit: Duration, hurry: &CancellationToken) {
        tracing::info!(running = self.held.len(), "shutdown: no new claims");
        tokio::select! {
            () = self.jobs.drained() => {}
            () = tokio::time::sleep(limit) => {}
            () = hurry.cancelled() => {}
        }
        self.interrupted.cancel();
        if tokio::time::timeout(INTERRUPT_LIMIT, self.jobs.drained())
            .await
            .is_err()
        {
            self.leave_stuck();
        }
        let all_settled = async {
            while self.held.len() > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let too_long = async {
            tokio::select! {
                () = tokio::time::sleep(limit) => {}
                () = hurry.cancelled() => tokio::time::sleep(HURRY_LIMIT).await,
            }
        };
        tokio::select! {
            () = all_settled => {}
            () = too_long => self.settle.abandon(),
        }
        self.settle.close();
    }

    /// Forgets the jobs whose handlers neither ended nor could be dropped: their leases end, and
    /// what they still write finds no row.
    fn leave_stuck(&self) {
        for job in self.held.all().iter().filter(|job| job.runs()) {
            tracing::error!(job.id = %job.id, "its handler holds a thread; left to its lease");
            self.held.remove(job.id, &job.token);
        }
    }
}

/// Forgets a job whose outcome was dealt with, and tells the observer.
fn done(held: Arc<HeldJobs>, observer: Option<Observer>) -> impl Fn(&Ended, Verdict) {
    move |ended, verdict| {
        held.settle(ended.id, &ended.token, verdict);
        let Some(observer) = observer.as_ref().filter(|_| verdict == Verdict::Accepted) else {
            return;
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| observer(ended))) {
            let panic = panic_text(panic.as_ref());
            tracing::error!(job.id = %ended.id, panic, "the observer panicked");
        }
    }
}
