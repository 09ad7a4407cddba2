//! Steering a worker while it runs: pause, resume, resize, cancel one job, close.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::held::{HeldJobs, Phase};

/// Between two looks at what still runs.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The most slots that a worker can have.
pub const SLOTS_MAX: usize = 100_000;

/// What a wish to end one run met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// The run was told to end.
    Told,
    /// This worker does not hold such a job.
    NotHeld,
    /// It is held, but the record has not said yet that it may run.
    NotBegun,
    /// Its run has ended; only its outcome is under way.
    Over,
    /// Jobs of several queues bear this id.
    Ambiguous,
}

/// A handle on one worker. Clones steer the same one. Before the worker runs, it can be paused
/// and resized.
#[derive(Debug, Clone)]
pub struct Steering {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Counts pauses and their ends, and so is odd while paused. Its number is the pause's name:
    /// whoever waits in one that has ended can tell it from the next.
    turns: watch::Sender<u64>,
    /// Held during a claim, so that a pause can tell when none is under way any more.
    claiming: tokio::sync::Mutex<()>,
    slots: Arc<Semaphore>,
    /// As many as `slots` should have when nothing runs.
    size: Mutex<usize>,
    /// How many more it has.
    surplus: AtomicUsize,
    /// It has claimed at least once.
    has_begun: AtomicBool,
    held: Arc<HeldJobs>,
    close: CancellationToken,
    abandon: CancellationToken,
    closed: CancellationToken,
}

fn is_pause(turn: u64) -> bool {
    turn % 2 == 1
}

impl Default for Steering {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                turns: watch::Sender::new(0),
                claiming: tokio::sync::Mutex::default(),
                slots: Arc::new(Semaphore::new(0)),
                size: Mutex::new(0),
                surplus: AtomicUsize::new(0),
                has_begun: AtomicBool::new(false),
                held: Arc::default(),
                close: CancellationToken::new(),
                abandon: CancellationToken::new(),
                closed: CancellationToken::new(),
            }),
        }
    }
}

impl Steering {
    /// Claims nothing more. Returns when no claim is under way, or, with `wait`, when no job runs;
    /// false: somebody has resumed the worker in the meantime.
    pub async fn pause(&self, wait: bool) -> bool {
        self.begin_pause();
        self.until_still(wait).await
    }

    /// No new claim begins; true: the worker was not paused before.
    pub fn begin_pause(&self) -> bool {
        self.turn(true)
    }

    /// In a pause, waits as [`Steering::pause`] does; false: that pause has ended.
    pub async fn until_still(&self, wait: bool) -> bool {
        let pause = *self.inner.turns.borrow();
        let goes_on = || is_pause(pause) && *self.inner.turns.borrow() == pause;
        drop(self.inner.claiming.lock().await);
        // Every job gives its slot back last. Looks, rather than standing in line for all slots: a
        // line would hold up a resumed worker.
        while wait && goes_on() && self.has_busy_slots() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        goes_on()
    }

    /// Whether this changed anything.
    fn turn(&self, to_pause: bool) -> bool {
        self.inner.turns.send_if_modified(|turn| {
            let changes = is_pause(*turn) != to_pause;
            *turn += u64::from(changes);
            changes
        })
    }

    fn has_busy_slots(&self) -> bool {
        let all = *self.lock_size() + self.inner.surplus.load(Ordering::Relaxed);
        self.inner.slots.available_permits() < all
    }

    /// Claims again; false: it had not begun yet, or was not paused.
    pub fn resume(&self) -> bool {
        let was_paused = self.turn(false);
        was_paused && self.inner.has_begun.load(Ordering::Relaxed)
    }

    /// Jobs that this worker holds now.
    pub fn running(&self) -> usize {
        self.inner.held.len()
    }

    /// Jobs at once.
    pub fn size(&self) -> usize {
        *self.lock_size()
    }

    pub fn is_paused(&self) -> bool {
        is_pause(*self.inner.turns.borrow())
    }

    /// Changes the number of jobs at once. Running jobs are not touched: fewer slots take effect as
    /// jobs end.
    pub fn set_slots(&self, slots: usize) {
        self.resize(&mut self.lock_size(), slots);
    }

    /// What the worker begins with, unless somebody has resized it before.
    pub(super) fn set_first_slots(&self, slots: usize) {
        let mut size = self.lock_size();
        if *size == 0 {
            self.resize(&mut size, slots);
        }
    }

    fn resize(&self, size: &mut usize, slots: usize) {
        let slots = slots.clamp(1, SLOTS_MAX);
        if slots > *size {
            self.inner.slots.add_permits(slots - *size);
        } else if slots < *size {
            // Those in use are taken away when they come back.
            self.inner
                .surplus
                .fetch_add(*size - slots, Ordering::Relaxed);
        }
        *size = slots;
    }

    /// Takes away free slots that are too many; true: this one must go, too. Called by the claim
    /// loop alone, whenever a slot came free.
    pub(super) fn is_surplus(&self) -> bool {
        let surplus = self.inner.surplus.load(Ordering::Relaxed);
        if surplus == 0 {
            return false;
        }
        let gone = self.inner.slots.forget_permits(surplus);
        self.inner.surplus.fetch_sub(gone, Ordering::Relaxed);
        if gone == surplus {
            return false;
        }
        self.inner.surplus.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Ends the run of a job, by its id on the wire; its attempt fails with this reason. Ids are
    /// unique in a queue only: without a queue, an id that is held twice names no job. Nothing is
    /// touched unless the answer is [`Cancelled::Told`].
    pub fn cancel(&self, wire_id: &str, queue: Option<&str>, reason: Option<&str>) -> Cancelled {
        let mut jobs = self.inner.held.all();
        jobs.retain(|job| {
            job.wire_id == wire_id && queue.is_none_or(|queue| job.queue.as_str() == queue)
        });
        let [job] = jobs.as_slice() else {
            return match jobs.is_empty() {
                true => Cancelled::NotHeld,
                false => Cancelled::Ambiguous,
            };
        };
        match job.phase() {
            Phase::Asked => Cancelled::NotBegun,
            Phase::Ended => Cancelled::Over,
            Phase::Running => {
                job.abort(reason.unwrap_or("the job was cancelled"));
                Cancelled::Told
            }
        }
    }

    /// Ends the worker as a signal would; returns when it has ended.
    pub async fn close(&self) {
        self.inner.close.cancel();
        self.inner.closed.cancelled().await;
    }

    /// Ends the worker at once: what it holds is left to its leases.
    pub fn abandon(&self) {
        self.inner.abandon.cancel();
    }

    /// Is cancelled when somebody wants the worker to end.
    pub fn closing(&self) -> &CancellationToken {
        &self.inner.close
    }

    /// Is cancelled when somebody wants the worker gone at once.
    pub fn abandoned(&self) -> &CancellationToken {
        &self.inner.abandon
    }

    /// For whoever runs the worker: it has ended.
    pub fn set_closed(&self) {
        self.inner.closed.cancel();
    }

    pub(super) fn slots(&self) -> &Arc<Semaphore> {
        &self.inner.slots
    }

    pub(super) fn held(&self) -> &Arc<HeldJobs> {
        &self.inner.held
    }

    /// Given unless paused; whoever pauses waits until it is dropped.
    pub(super) async fn may_claim(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let claiming = self.inner.claiming.lock().await;
        if self.is_paused() {
            return None;
        }
        self.inner.has_begun.store(true, Ordering::Relaxed);
        Some(claiming)
    }

    /// Returns when the worker is paused, or not.
    pub(super) async fn until_paused(&self, is_paused: bool) {
        let mut turns = self.inner.turns.subscribe();
        // The sender lives as long as this handle.
        turns.wait_for(|now| is_pause(*now) == is_paused).await.ok();
    }

    fn lock_size(&self) -> std::sync::MutexGuard<'_, usize> {
        self.inner
            .size
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
