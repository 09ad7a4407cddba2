//! Telling Redis of committed jobs.
//!
//! Best effort by design: the record is already sure of the jobs. A delivery that fails, or comes
//! too late, is dropped here and made by `reconcile`, so that Redis being away never slows down or
//! fails an enqueue, and nothing piles up in memory.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::broker::{self, Broker, BrokerError};
use crate::fault::{self, Point};
use crate::job::{Due, NewJob, QueueName, wire};
use crate::record::open::StoredJob;
use crate::tasks::Tasks;

/// Batches between commit and Redis.
const DELIVERIES_MAX: usize = 64;
/// How long a lane waits for room before it leaves the batch to `reconcile`.
pub(super) const ROOM_TIMEOUT: Duration = Duration::from_millis(250);
/// A delivery older than this is dropped: `reconcile`, which looks at jobs older than two seconds,
/// may have added them, and they may have run and gone since. A late add would run them again.
pub(super) const FRESH: Duration = Duration::from_millis(1400);
/// How long such a delivery may be under way: a connection that hangs, a process that is stopped.
/// The server refuses it after that, by its own clock.
pub(super) const UNDER_WAY: Duration = Duration::from_millis(500);
/// After a failure nothing is sent for so long.
const PAUSE: Duration = Duration::from_secs(1);
/// Jobs of one call to Redis, before the next queue has its turn.
const MERGE_MAX: usize = 500;
/// Queues that are told at once.
const QUEUES_AT_ONCE: usize = 8;

/// Jobs of one commit.
pub(super) struct Delivery {
    /// Not later than the commit.
    begun: Instant,
    jobs: Vec<(QueueName, broker::NewJob)>,
}

impl Delivery {
    /// Of a commit that begins now.
    pub(super) fn begun(begun: Instant) -> Self {
        Self {
            begun,
            jobs: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, job: &NewJob, created_at: DateTime<Utc>) {
        let created_ms = created_at.timestamp_millis();
        let due_ms = due_ms(job, created_ms);
        self.jobs
            .push((job.queue.clone(), entry(job, created_ms, due_ms, 0, 0)));
    }
}

pub(super) fn due_ms(job: &NewJob, created_ms: i64) -> Option<i64> {
    match job.due {
        Due::Now => None,
        Due::In(delay) => Some(created_ms + delay.as_millis() as i64),
        Due::At(time) => Some(time.timestamp_millis()),
    }
}

/// The way to the delivery task.
#[derive(Clone)]
pub(super) struct Deliver(mpsc::Sender<Delivery>);

impl Deliver {
    /// Waits a little for room, then leaves the jobs to `reconcile`.
    pub(super) async fn hand_over(&self, delivery: Delivery) {
        if delivery.jobs.is_empty() {
            return;
        }
        let jobs = delivery.jobs.len() as u64;
        if self.0.send_timeout(delivery, ROOM_TIMEOUT).await.is_err() {
            metrics::counter!("bullwark_deliveries_left_total").increment(jobs);
        }
    }
}

/// Starts the delivery task; it ends when every lane has.
pub(super) fn start(broker: Broker, tasks: &Tasks) -> Deliver {
    let (sender, receiver) = mpsc::channel(DELIVERIES_MAX);
    tasks.spawn("deliver", run(broker, receiver));
    Deliver(sender)
}

async fn run(broker: Broker, mut receiver: mpsc::Receiver<Delivery>) {
    let mut pause_until: Option<Instant> = None;
    while let Some(first) = receiver.recv().await {
        let mut batch = first.jobs;
        let mut oldest = first.begun;
        while batch.len() < MERGE_MAX {
            let Ok(next) = receiver.try_recv() else { break };
            oldest = oldest.min(next.begun);
            batch.extend(next.jobs);
        }
        let jobs = batch.len() as u64;
        let is_paused = pause_until.is_some_and(|until| Instant::now() < until);
        if is_paused || oldest.elapsed() > FRESH {
            metrics::counter!("bullwark_deliveries_left_total").increment(jobs);
            continue;
        }
        fault::point(Point::BeforeAdd);
        match add_fresh(&broker, batch, oldest).await {
            Ok(()) => {
                fault::point(Point::AfterAdd);
                pause_until = None;
            }
            Err(error) => {
                metrics::counter!("bullwark_deliveries_left_total").increment(jobs);
                tracing::warn!(%error, jobs, "delivery failed; reconcile will deliver");
                if error.is_unavailable() {
                    pause_until = Some(Instant::now() + PAUSE);
                }
            }
        }
    }
}

/// Adds jobs whose commit was not before that moment, if Redis is reached soon enough.
async fn add_fresh(
    broker: &Broker,
    jobs: Vec<(QueueName, broker::NewJob)>,
    begun: Instant,
) -> Result<(), BrokerError> {
    add_all(broker, jobs, Some(not_after(broker, begun).await?)).await
}

/// The last moment, by the server's clock, for jobs whose commit was not before `begun`.
pub(super) async fn not_after(broker: &Broker, begun: Instant) -> Result<i64, BrokerError> {
    broker.server_ms_at(begun + FRESH + UNDER_WAY).await
}

/// Adds jobs of several queues, keeping the order within each queue. A queue at fault, such as one
/// whose keys hold something else, does not keep the jobs of others out.
async fn add_all(
    broker: &Broker,
    jobs: Vec<(QueueName, broker::NewJob)>,
    not_after_ms: Option<i64>,
) -> Result<(), BrokerError> {
    let mut queues: HashMap<QueueName, Vec<broker::NewJob>> = HashMap::new();
    for (queue, job) in jobs {
        queues.entry(queue).or_default().push(job);
    }
    let mut added = stream::iter(queues)
        .map(|(queue, jobs)| async move { broker.add_until(&queue, &jobs, not_after_ms).await })
        .buffer_unordered(QUEUES_AT_ONCE);
    let mut first_error = Ok(());
    while let Some(result) = added.next().await {
        first_error = first_error.and(result.map(drop));
    }
    first_error
}

/// Adds stored jobs that Redis lacks, each with the number of its newest start plus one: a start
/// that the record has not seen is then older than any that follows.
pub(crate) async fn deliver_stored(broker: &Broker, jobs: &[StoredJob]) -> Result<(), BrokerError> {
    let entries = jobs
        .iter()
        .map(|stored| (stored.job.queue.clone(), stored_entry(stored)));
    add_all(broker, entries.collect(), None).await
}

/// A stored job as it goes on the wire, with the history that the record has of it.
pub(crate) fn stored_entry(stored: &StoredJob) -> broker::NewJob {
    let attempts_started = match stored.attempt {
        0 => 0,
        attempt => attempt.unsigned_abs() + 1,
    };
    let entry = entry(
        &stored.job,
        stored.created_at.timestamp_millis(),
        stored.due_at.map(|due| due.timestamp_millis()),
        attempts_started,
        stored.attempts.unsigned_abs(),
    );
    // Another process may have added a job that seems never to have been started, and it may have
    // run and gone: without a count, the record is asked before it starts.
    let entry = broker::NewJob {
        attempts_started: Some(attempts_started).filter(|starts| *starts > 0),
        ..entry
    };
    let id = stored.wire_id.clone();
    let Some(wire) = &stored.wire else {
        return broker::NewJob { id, ..entry };
    };
    // A client's job goes back in the client's words: its options, its priority, its place.
    broker::NewJob {
        id,
        data: wire.data.clone().unwrap_or(entry.data),
        opts: wire.opts.clone(),
        priority: wire.priority,
        lifo: wire.is_lifo(),
        ..entry
    }
}

/// A job as it goes on the wire.
pub fn entry(
    job: &NewJob,
    created_ms: i64,
    due_ms: Option<i64>,
    attempts_started: u32,
    attempts_made: u32,
) -> broker::NewJob {
    broker::NewJob {
        id: job.id.to_string(),
        name: job.job_type.clone(),
        data: job.payload.clone(),
        opts: wire::options(job, created_ms, due_ms),
        timestamp_ms: created_ms,
        due_ms,
        priority: job.priority.to_wire(),
        lifo: false,
        attempts_started: Some(attempts_started),
        attempts_made,
        owner: job.workspace_id.map(|id| id.to_string()),
    }
}
