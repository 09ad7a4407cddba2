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
//! While PostgreSQL is away outcomes are held here, at most [`OUTCOMES_MAX`] of them and
//! [`OUTCOME_KIB_MAX`] in all; then the handlers' slots stay taken and nothing new is claimed.
//! Redis being away loses nothing either: the record is ahead, and the rescue of the job ends in
//! the same place.

mod commit;
mod tell;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, Utc};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::broker::{Broker, Keep};
use crate::job::{ForeignOptions, KeepFinished, Outcome, QueueName};
use crate::record::Record;
use crate::tasks::Tasks;

pub use tell::tell;

/// Outcomes that wait for their commit.
pub const OUTCOMES_MAX: usize = 10_000;
/// What they may weigh together, in KiB of results and errors.
pub const OUTCOME_KIB_MAX: u32 = 64 * 1024;
/// Commits in flight at once.
const LANES: usize = 2;

/// Outcomes of this process that were handed over and are not dealt with.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// How many outcomes this process holds on their way to the stores: many while the record is away.
pub fn held_outcomes() -> usize {
    HELD.load(Ordering::Relaxed)
}

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
    /// How Redis is told, where that differs from Bullwark's own way.
    pub manner: Option<Box<Manner>>,
    /// What the record keeps of the result, when it can not hold the result itself: JSON text.
    pub kept_result: Option<String>,
}

/// How the end of a job is written to Redis: the wishes of the `BullMQ` client that added it.
#[derive(Debug, Clone)]
pub struct Manner {
    pub keep_completed: Keep,
    pub keep_failed: Keep,
    pub lifo: bool,
    /// Stack traces of earlier failures, as they are in the hash.
    pub stacktrace: Option<String>,
    pub stack_traces_max: usize,
}

impl Manner {
    /// What the job's options say, then the worker's own wishes, then `BullMQ`'s default: keep all.
    pub fn of(
        options: &ForeignOptions,
        keep_completed: Option<KeepFinished>,
        keep_failed: Option<KeepFinished>,
        stacktrace: Option<String>,
    ) -> Self {
        Self {
            keep_completed: keep(options.remove_on_complete.or(keep_completed)),
            keep_failed: keep(options.remove_on_fail.or(keep_failed)),
            lifo: options.lifo,
            stacktrace,
            stack_traces_max: options.stack_traces_max,
        }
    }
}

fn keep(wish: Option<KeepFinished>) -> Keep {
    let wish = wish.unwrap_or(KeepFinished::ALL);
    match wish.count {
        Some(0) => Keep::Remove,
        _ if wish == KeepFinished::ALL => Keep::All,
        count => Keep::Some {
            count,
            age_seconds: wish.age_seconds,
            limit: wish.limit,
        },
    }
}

/// What became of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the record, and Redis was told, if it could be reached.
    Accepted,
    /// The job was cancelled, restarted elsewhere or settled before: the record had decided.
    Refused,
    /// It was given up: the job looks running until its lease ends, and runs again.
    GivenUp,
}

/// Told when an outcome has been dealt with: the lease needs no renewal any more. The outcome is
/// the one that was stored, which may say that the handler's own could not be.
pub type Done = Arc<dyn Fn(&Ended, Verdict) + Send + Sync>;

/// Settle takes no outcomes any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("settle has ended")]
pub struct Closed;

/// An outcome on its way, with its share of the room.
struct Waiting {
    ended: Ended,
    room: OwnedSemaphorePermit,
    /// The record has it already.
    is_recorded: bool,
    held: Held,
}

/// Counts an outcome while it is held.
struct Held;

impl Held {
    fn count() -> Self {
        HELD.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The way out. Clones share the group commit.
#[derive(Clone)]
pub struct Settle {
    sender: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    closing: CancellationToken,
    abandoned: CancellationToken,
}

impl std::fmt::Debug for Settle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settle")
            .field(
                "waiting",
                &(self.sender.max_capacity() - self.sender.capacity()),
            )
            .finish_non_exhaustive()
    }
}

impl Settle {
    /// Starts the group commit for the attempts of one worker. It ends at [`Settle::close`], or
    /// when the last handle is dropped, after committing what was handed over.
    pub fn start(
        record: Record,
        broker: Broker,
        worker_id: &str,
        done: Done,
        tasks: &Tasks,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(OUTCOMES_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let (closing, abandoned) = (CancellationToken::new(), CancellationToken::new());
        for _ in 0..LANES {
            let lane = commit::Lane {
                record: record.clone(),
                broker: broker.clone(),
                worker_id: worker_id.to_owned(),
                receiver: receiver.clone(),
                done: done.clone(),
                closing: closing.clone(),
                abandoned: abandoned.clone(),
            };
            tasks.spawn("settle", lane.run());
        }
        Self {
            sender,
            room: Arc::new(Semaphore::new(OUTCOME_KIB_MAX as usize)),
            closing,
            abandoned,
        }
    }

    /// Hands an outcome over. Waits while there is no room: that is what stops a worker from
    /// claiming more than the record can take. Returns before the commit.
    ///
    /// After an error nobody will deal with this outcome: the job is left to its lease.
    pub async fn hand_over(&self, ended: Ended) -> Result<(), Closed> {
        self.send(ended, false).await
    }

    /// Hands over an outcome that the handler's own transaction has committed: only Redis is left
    /// to be told. After an error the job is left to its lease, and to the rescue, which finds in
    /// the record that it is over.
    pub async fn hand_over_recorded(&self, ended: Ended) -> Result<(), Closed> {
        self.send(ended, true).await
    }

    async fn send(&self, ended: Ended, is_recorded: bool) -> Result<(), Closed> {
        let kib = ended.kib();
        let room = match self.room.clone().try_acquire_many_owned(kib) {
            Ok(room) => room,
            Err(_) => tokio::select! {
                room = self.room.clone().acquire_many_owned(kib) => room.map_err(|_| Closed)?,
                () = self.abandoned.cancelled() => return Err(Closed),
            },
        };
        let waiting = Waiting {
            ended,
            room,
            is_recorded,
            held: Held::count(),
        };
        let waiting = match self.sender.try_send(waiting) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Closed),
            Err(mpsc::error::TrySendError::Full(waiting)) => waiting,
        };
        tokio::select! {
            sent = self.sender.send(waiting) => sent.map_err(|_| Closed),
            () = self.abandoned.cancelled() => Err(Closed),
        }
    }

    /// Takes nothing more; what was handed over is committed, then the group commit ends.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Gives up, from now on, what the record does not take at the first try.
    pub fn abandon(&self) {
        self.abandoned.cancel();
    }
}

impl Ended {
    /// Its weight: at least 1, so that small ones count, too.
    fn kib(&self) -> u32 {
        let texts = [&self.outcome.result, &self.outcome.error];
        let bytes: usize = texts.into_iter().flatten().map(String::len).sum();
        u32::try_from(bytes / 1024 + 1)
            .unwrap_or(u32::MAX)
            .min(OUTCOME_KIB_MAX)
    }
}
