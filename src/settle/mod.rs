//! Settle: the door through which outcomes go out.
//!
//! An outcome is committed to the record, guarded by the attempt number, and only then is Redis
//! told (law 2). Commits are grouped as on the way in. The slot of the job is free as soon as its
//! outcome is handed over here.
//!
//! Where the process may die, and what the next reader finds:
//!
//! * before the commit: a job that looks running; its lease ends, it runs again;
//! * after the commit, before Redis: the record says how it ended, Redis says active. The lease
//!   ends, and who claims it asks the record first, which says how to finish it in Redis.
//!
//! While PostgreSQL is away outcomes are held here, up to [`OUTCOMES_MAX`]; then the handlers'
//! slots stay taken and nothing new is claimed. Redis being away loses nothing either: the record
//! is ahead, and the rescue of the job ends in the same place.

mod commit;
mod tell;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::{Mutex, mpsc};
use uuid::Uuid;

use crate::broker::Broker;
use crate::job::{Outcome, QueueName};
use crate::record::Record;
use crate::tasks::Tasks;

pub use tell::tell;

/// Outcomes that wait for their commit.
pub const OUTCOMES_MAX: usize = 10_000;
/// Commits in flight at once.
const LANES: usize = 2;

/// The end of an attempt, with all that both stores need to know.
#[derive(Debug, Clone)]
pub struct Ended {
    pub id: Uuid,
    /// The id on the wire.
    pub wire_id: String,
    pub queue: QueueName,
    /// The lease in Redis.
    pub token: String,
    pub attempt: i32,
    /// Retries allowed; `BullMQ` counts one more.
    pub max_attempts: u32,
    pub started_at: DateTime<Utc>,
    pub outcome: Outcome,
}

/// Told when an outcome has been dealt with: the lease needs no renewal any more.
pub type Done = Arc<dyn Fn(&Ended) + Send + Sync>;

/// The way out. Clones share the group commit.
#[derive(Debug, Clone)]
pub struct Settle {
    sender: mpsc::Sender<Ended>,
}

impl Settle {
    /// Starts the group commit for the attempts of one worker. It ends when the last handle is
    /// dropped, after committing what was handed over.
    pub fn start(
        record: Record,
        broker: Broker,
        worker_id: &str,
        done: Done,
        tasks: &Tasks,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(OUTCOMES_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..LANES {
            let lane = commit::Lane {
                record: record.clone(),
                broker: broker.clone(),
                worker_id: worker_id.to_owned(),
                receiver: receiver.clone(),
                done: done.clone(),
            };
            tasks.spawn("settle", lane.run());
        }
        Self { sender }
    }

    /// Hands an outcome over. Waits while [`OUTCOMES_MAX`] others wait: that is what stops a worker
    /// from claiming more than the record can take. Returns before the commit.
    pub async fn hand_over(&self, ended: Ended) {
        // The lanes live as long as a handle does, so this can only fail after a panic of theirs;
        // then the lease ends and the job runs again.
        if self.sender.send(ended).await.is_err() {
            tracing::error!("an outcome could not be handed over: settle has ended");
        }
    }
}
