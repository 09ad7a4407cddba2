//! The jobs that this process holds: from the claim until Redis was told how they ended.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::job::{Progress, QueueName};

/// One held job.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: Uuid,
    /// The id on the wire.
    pub(super) wire_id: String,
    pub(super) queue: QueueName,
    /// The lease in Redis.
    pub(super) token: String,
    /// The fence in the record.
    pub(super) attempt: i32,
    pub(super) started_at: DateTime<Utc>,
    /// Tells the handler to stop.
    pub(super) cancelled: CancellationToken,
    /// The job belongs to somebody else now, or is over.
    pub(super) lost: CancellationToken,
    /// The record knows that it runs.
    pub(super) is_marked: AtomicBool,
    /// The handler is done; only the outcome is under way.
    pub(super) has_ended: AtomicBool,
    /// Newest progress that the stores have not seen.
    pub(super) progress: Mutex<Option<Progress>>,
    /// Log lines of this attempt so far.
    pub(super) log_lines: AtomicU32,
}

impl Held {
    pub(super) fn runs(&self) -> bool {
        !self.has_ended.load(Ordering::Relaxed)
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Option<Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All held jobs of a worker.
#[derive(Debug, Default)]
pub(super) struct HeldJobs(Mutex<HashMap<Uuid, Arc<Held>>>);

impl HeldJobs {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Held>>> {
        // A panic while the lock was held left a whole map: every use is a single call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes jobs; an earlier entry of the same job is replaced and told that it is lost: Redis
    /// handed the job out again.
    pub(super) fn insert(&self, jobs: impl IntoIterator<Item = Arc<Held>>) {
        let mut map = self.lock();
        for held in jobs {
            if let Some(before) = map.insert(held.id, held)
                && before.runs()
            {
                before.lost.cancel();
            }
        }
    }

    /// Forgets a job, if this attempt is still the one that is noted.
    pub(super) fn remove(&self, id: Uuid, token: &str) {
        let mut map = self.lock();
        if map.get(&id).is_some_and(|held| held.token == token) {
            map.remove(&id);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Held>> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn get(&self, id: Uuid) -> Option<Arc<Held>> {
        self.lock().get(&id).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}
