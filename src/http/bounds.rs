//! The bounds that keep one kind of request, or one caller, from starving the others.
//!
//! Whoever finds no room waits a little and is told to come back: 503 where the server has too much
//! to do, 429 where the caller has. Nothing is queued without a bound.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::problem::{Code, Problem};
use crate::record::access::Actor;

/// Bytes of bodies that are held in memory at once, in KiB.
const BODIES_MAX_KIB: u32 = 256 * 1024;
/// Bytes of large answers that nobody has read yet, in KiB.
const ANSWERS_MAX_KIB: u32 = 128 * 1024;
/// Requests that read the record at once: fewer than it has connections, so that pages never keep
/// upkeep and handlers waiting.
const READS_MAX: usize = 6;
/// Uploads that arrive at once.
const UPLOADS_MAX: usize = 32;
/// Files that are looked at at once, each by a thread of its own.
const LOOKS_MAX: usize = 2;
/// How long a request waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(5);
/// When a caller with too many requests may come back, in seconds.
const CALLER_RETRY_SECONDS: u64 = 1;

/// Turns and room.
#[derive(Debug)]
pub(super) struct Bounds {
    bodies: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    looks: Arc<Semaphore>,
    callers: InFlight,
    turn_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self::with_patience(TURN_MAX)
    }
}

impl Bounds {
    pub(super) fn with_patience(turn_max: Duration) -> Self {
        let of = |permits| Arc::new(Semaphore::new(permits));
        Self {
            bodies: of(BODIES_MAX_KIB as usize),
            answers: of(ANSWERS_MAX_KIB as usize),
            reads: of(READS_MAX),
            uploads: of(UPLOADS_MAX),
            looks: of(LOOKS_MAX),
            callers: InFlight::default(),
            turn_max,
        }
    }

    /// Room for so many bytes of a body; held while the request lives.
    pub(super) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        self.turn(&self.bodies, kib(bytes as u64, BODIES_MAX_KIB))
            .await
    }

    /// Room for an answer of so many bytes; held until it is read.
    pub(super) async fn answer_room(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Problem> {
        self.turn(&self.answers, kib(bytes, ANSWERS_MAX_KIB)).await
    }

    /// A turn to read the record.
    pub(super) async fn read_turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.turn(&self.reads, 1).await
    }

    /// A turn to look at a file.
    pub(super) async fn look_turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.turn(&self.looks, 1).await
    }

    /// A turn to upload.
    pub(super) async fn upload_turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.turn(&self.uploads, 1).await
    }

    async fn turn(
        &self,
        gate: &Arc<Semaphore>,
        permits: u32,
    ) -> Result<OwnedSemaphorePermit, Problem> {
        // Mostly there is room: no clock for that.
        if let Ok(permit) = Arc::clone(gate).try_acquire_many_owned(permits) {
            return Ok(permit);
        }
        let acquired = Arc::clone(gate).acquire_many_owned(permits);
        match tokio::time::timeout(self.turn_max, acquired).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => {
                let detail = "the server has too many requests of this kind; try again shortly";
                Err(Problem::new(Code::Overloaded, detail))
            }
        }
    }

    /// Counts a request of a caller, which may have so many at once, while `place` lives.
    pub(super) fn enter(
        &self,
        place: &Place,
        caller: (Actor, Uuid),
        max: usize,
    ) -> Result<(), Problem> {
        let Some(entered) = self.callers.enter(caller, max) else {
            let detail = format!("you have {max} requests under way; wait until one is answered");
            let problem = Problem::new(Code::TooManyRequests, detail);
            return Err(problem.with_retry_after(CALLER_RETRY_SECONDS));
        };
        // A second caller of one request can not be; its count would end here.
        place.0.set(entered).ok();
        Ok(())
    }
}

/// No more than there are, or the request could never have it.
fn kib(bytes: u64, max: u32) -> u32 {
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    kib.clamp(1, max)
}

/// Where a request is counted, once it is known whose it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Place(Arc<OnceLock<Entered>>);

/// How many requests each caller has under way. As large as the number of connections at most.
#[derive(Debug, Clone, Default)]
struct InFlight(Arc<Mutex<HashMap<(Actor, Uuid), usize>>>);

#[derive(Debug)]
struct Entered {
    caller: (Actor, Uuid),
    all: InFlight,
}

impl InFlight {
    fn enter(&self, caller: (Actor, Uuid), max: usize) -> Option<Entered> {
        let mut all = self.lock();
        let count = all.entry(caller).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Entered {
            caller,
            all: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Actor, Uuid), usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.all.lock().entry(self.caller) {
            match entry.get() {
                0 | 1 => drop(entry.remove()),
                _ => *entry.get_mut() -= 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_requests_at_once_and_no_other_pays_for_it() {
        let all = InFlight::default();
        let [one, other] = [1, 2].map(|n| (Actor::ApiKey(Uuid::from_u128(n)), Uuid::nil()));
        let first = all.enter(one, 2).unwrap();
        let second = all.enter(one, 2).unwrap();
        assert!(all.enter(one, 2).is_none());
        let others = all.enter(other, 2).unwrap();
        drop(first);
        let third = all.enter(one, 2).unwrap();
        drop((second, third, others));
        assert!(
            all.lock().is_empty(),
            "nothing is kept of callers that left"
        );
    }

    #[tokio::test]
    async fn who_finds_no_room_is_told_so_in_time() {
        let bounds = Bounds::with_patience(Duration::from_millis(50));
        let whole = bounds.room(usize::MAX).await.unwrap();
        assert!(bounds.room(1).await.is_err());
        drop(whole);
        assert!(bounds.room(1).await.is_ok());
    }
}
