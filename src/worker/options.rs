//! How a worker works.

use std::sync::Arc;
use std::time::Duration;

use super::events::Events;
use super::order::ServedQueue;
use super::steering::Steering;
use crate::broker::RateLimit;
use crate::job::{KeepFinished, QueueName};
use crate::settle::Ended;

/// Told of an attempt. It must be quick; a panic of it is caught and logged.
pub type Observer = Arc<dyn Fn(&Ended) + Send + Sync>;

/// How long an idle worker waits for a wake-up before it looks by itself.
pub const IDLE: Duration = Duration::from_secs(5);

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
    /// How long to wait for a wake-up before looking by itself.
    pub idle: Duration,
    /// Told of every attempt whose outcome the record has accepted.
    pub observer: Option<Observer>,
    /// Pause, resize or cancel while it runs. A clone of the handle steers this worker.
    pub steering: Steering,
    /// Given: works as `BullMQ`'s own worker does towards Redis and its users.
    pub manners: Option<Manners>,
}

/// What `BullMQ`'s worker does and Bullwark's own does otherwise.
///
/// A lease that Redis has lost is lost whatever the record says, an outcome is recorded only after
/// Redis has confirmed the lease, and a slot is free only when Redis has been told how its job
/// ended.
#[derive(Clone, Default)]
pub struct Manners {
    /// Shown as the job's `processedBy`.
    pub name: Option<String>,
    /// Between two renewals; none: leases are not renewed.
    pub renew_every: Option<Duration>,
    pub limit: Option<RateLimit>,
    /// The longest sleep when a rate limit is met.
    pub limit_wait_max: Option<Duration>,
    /// Starts of a job after which it fails without being run.
    pub starts_max: Option<u32>,
    /// For jobs that do not say.
    pub keep_completed: Option<KeepFinished>,
    pub keep_failed: Option<KeepFinished>,
    /// The stalled check of this worker; none: it makes none.
    pub stalled: Option<StalledCheck>,
    /// What happens is told here.
    pub events: Events,
}

/// See `stalledInterval` and `maxStalledCount` of `BullMQ`'s worker.
#[derive(Debug, Clone, Copy)]
pub struct StalledCheck {
    pub every: Duration,
    /// How often a job may stall before it fails.
    pub stalls_max: u32,
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
            idle: IDLE,
            observer: None,
            steering: Steering::default(),
            manners: None,
        }
    }
}
