//! Places for connections, and who loses one when all are taken.
//!
//! A connection that is not being answered, and over which nothing was sent for the longest time,
//! makes room for one that waits: it is idle, slow with its request, or does not read. So clients
//! that hang keep nobody out, however many they are; a request that was read is always answered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// So long a connection is left alone in any case: its request may be on its way.
const SPARED: Duration = Duration::from_millis(500);
/// Between two looks for a place.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// All places of a server.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    taken: Arc<Taken>,
    next: AtomicU64,
    cut: CancellationToken,
}

type Taken = Mutex<HashMap<u64, Arc<Seen>>>;

/// What is seen of a connection.
#[derive(Debug)]
struct Seen {
    began: Instant,
    /// Requests that are being answered.
    answering: AtomicUsize,
    /// Milliseconds from the beginning until something was sent last.
    sent_ms: AtomicU64,
    cut: CancellationToken,
}

/// The place of a connection; free again when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Seat(Arc<Sitting>);

#[derive(Debug)]
struct Sitting {
    number: u64,
    seen: Arc<Seen>,
    taken: Arc<Taken>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// So many. All of them are needed when `cut` is cancelled.
    pub(super) fn new(max: usize, cut: CancellationToken) -> Self {
        Self {
            free: Arc::new(Semaphore::new(max)),
            taken: Arc::default(),
            next: AtomicU64::new(0),
            cut,
        }
    }

    /// A place, as soon as one is free or can be taken from somebody.
    pub(super) async fn seat(&self) -> Seat {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return self.sit(permit);
            }
            if let Some(longest) = self.longest_silent() {
                longest.cut.cancel();
                metrics::counter!("bullwark_http_connections_cut_total").increment(1);
            }
            let freed = Arc::clone(&self.free).acquire_owned();
            if let Ok(Ok(permit)) = tokio::time::timeout(LOOK_EVERY, freed).await {
                return self.sit(permit);
            }
        }
    }

    fn sit(&self, permit: OwnedSemaphorePermit) -> Seat {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let seen = Arc::new(Seen {
            began: Instant::now(),
            answering: AtomicUsize::new(0),
            sent_ms: AtomicU64::new(0),
            cut: self.cut.child_token(),
        });
        lock(&self.taken).insert(number, Arc::clone(&seen));
        Seat(Arc::new(Sitting {
            number,
            seen,
            taken: Arc::clone(&self.taken),
            _permit: permit,
        }))
    }

    fn longest_silent(&self) -> Option<Arc<Seen>> {
        let taken = lock(&self.taken);
        let quiet = taken.values().filter(|seen| {
            seen.answering.load(Ordering::Relaxed) == 0
                && !seen.cut.is_cancelled()
                && seen.sent_at().elapsed() > SPARED
        });
        quiet.min_by_key(|seen| seen.sent_at()).cloned()
    }
}

impl Seen {
    fn sent_at(&self) -> Instant {
        self.began + Duration::from_millis(self.sent_ms.load(Ordering::Relaxed))
    }
}

impl Seat {
    /// Something was sent to the client.
    pub(super) fn sent(&self) {
        let seen = &self.0.seen;
        let ms = u64::try_from(seen.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        seen.sent_ms.store(ms, Ordering::Relaxed);
    }

    /// A request is being answered while the result lives.
    pub(super) fn answering(&self) -> Answering {
        self.0.seen.answering.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    /// Is cancelled when the place is needed for somebody else, or all are.
    pub(super) fn cut(&self) -> &CancellationToken {
        &self.0.seen.cut
    }
}

/// See [`Seat::answering`].
#[derive(Debug)]
pub(super) struct Answering(Seat);

impl Drop for Answering {
    fn drop(&mut self) {
        // The answer is sent from now on: it is not silent yet.
        self.0.sent();
        self.0.0.seen.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Sitting {
    fn drop(&mut self) {
        lock(&self.taken).remove(&self.number);
    }
}

fn lock(taken: &Taken) -> MutexGuard<'_, HashMap<u64, Arc<Seen>>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_silent_connection_makes_room_and_one_that_is_answered_never() {
        let places = Places::new(3, CancellationToken::new());
        let answered = places.seat().await;
        let _answering = answered.answering();
        let silent = places.seat().await;
        let lately = places.seat().await;
        tokio::time::sleep(SPARED + Duration::from_millis(100)).await;
        lately.sent();

        let leaving = async {
            silent.cut().cancelled().await;
            drop(silent);
        };
        let (next, ()) = tokio::join!(places.seat(), leaving);
        assert!(!answered.cut().is_cancelled() && !lately.cut().is_cancelled());
        drop((answered, lately, next));
        assert_eq!(lock(&places.taken).len(), 1, "`_answering` keeps its own");
    }
}
