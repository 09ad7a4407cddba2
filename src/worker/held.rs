//! The jobs that this process holds: from the claim until Redis was told how they ended.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::wire::Wire;
use crate::job::{Progress, QueueName};
use crate::settle::Verdict;

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
    phase: AtomicU8,
    /// This attempt has committed another place to go on from than the one it began at.
    pub(super) has_gained: AtomicBool,
    /// Newest progress that the stores have not seen.
    pub(super) progress: Mutex<Option<Progress>>,
    /// Log lines of this attempt so far.
    pub(super) log_lines: AtomicU32,
    /// What it looked like when it was claimed; kept where somebody needs it later.
    pub(super) wire: Option<Arc<Wire>>,
    /// Somebody wants this run to end.
    pub(super) aborted: CancellationToken,
    abort_reason: OnceLock<String>,
    /// This worker has done with it.
    pub(super) gone: CancellationToken,
    verdict: OnceLock<Verdict>,
    /// The result that a transaction of the handler has committed: the job is over in the record.
    committed: OnceLock<String>,
    /// One write of the handler at a time; made by the first.
    turn: OnceLock<Arc<Semaphore>>,
}

/// How far a held job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The record is asked whether it may run. Nothing is written for it.
    Asked,
    Running,
    /// The handler is done; only the outcome is under way.
    Ended,
}

impl Held {
    pub(super) fn new(
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
            phase: AtomicU8::new(Phase::Running as u8),
            has_gained: false.into(),
            progress: None.into(),
            log_lines: 0.into(),
            wire: None,
            aborted: CancellationToken::new(),
            abort_reason: OnceLock::new(),
            gone: CancellationToken::new(),
            verdict: OnceLock::new(),
            committed: OnceLock::new(),
            turn: OnceLock::new(),
        }
    }

    pub(super) fn with_wire(self, wire: Option<Arc<Wire>>) -> Self {
        Self { wire, ..self }
    }

    /// Ends the run; the first reason counts.
    pub(super) fn abort(&self, reason: &str) {
        self.abort_reason.set(reason.to_owned()).ok();
        self.aborted.cancel();
    }

    pub(super) fn abort_reason(&self) -> &str {
        self.abort_reason.get().map_or("", String::as_str)
    }

    /// What became of its outcome, once `gone`; none: it had none that counted.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.verdict.get().copied()
    }

    pub(super) fn committed(&self) -> Option<&str> {
        self.committed.get().map(String::as_str)
    }

    pub(super) fn set_committed(&self, result: String) {
        self.committed.set(result).ok();
    }

    pub(super) fn turn(&self) -> Arc<Semaphore> {
        let first = || Arc::new(Semaphore::new(1));
        self.turn.get_or_init(first).clone()
    }

    pub(super) fn in_phase(self, phase: Phase) -> Self {
        self.enter(phase);
        self
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn runs(&self) -> bool {
        self.phase() == Phase::Running
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            asked if asked == Phase::Asked as u8 => Phase::Asked,
            runs if runs == Phase::Running as u8 => Phase::Running,
            _ => Phase::Ended,
        }
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

    /// Notes a claimed job. When this worker holds it already, whoever that is: its lease had
    /// ended, but the run goes on or its outcome is under way, so nothing may be started for it.
    pub(super) fn claim(&self, held: &Arc<Held>) -> Result<(), Arc<Held>> {
        match self.lock().entry(held.id) {
            Entry::Occupied(holder) => Err(holder.get().clone()),
            Entry::Vacant(place) => {
                place.insert(held.clone());
                Ok(())
            }
        }
    }

    /// Goes on with the numbered attempt of a job that was noted without its number.
    pub(super) fn number(&self, held: &Arc<Held>) {
        self.lock().insert(held.id, held.clone());
    }

    /// Forgets a job, if this attempt is still the one that is noted.
    pub(super) fn remove(&self, id: Uuid, token: &str) {
        self.let_go(id, token, None);
    }

    /// The same, when its outcome was dealt with.
    pub(super) fn settle(&self, id: Uuid, token: &str, verdict: Verdict) {
        self.let_go(id, token, Some(verdict));
    }

    fn let_go(&self, id: Uuid, token: &str, verdict: Option<Verdict>) {
        let mut map = self.lock();
        let Entry::Occupied(noted) = map.entry(id) else {
            return;
        };
        if noted.get().token != token {
            return;
        }
        let held = noted.remove();
        if let Some(verdict) = verdict {
            held.verdict.set(verdict).ok();
        }
        held.gone.cancel();
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

/// A panic outside the handler is a bug here. The job's lease must not be renewed for ever then.
pub(super) struct ForgetOnPanic {
    held_jobs: Arc<HeldJobs>,
    held: Arc<Held>,
}

impl ForgetOnPanic {
    pub(super) fn new(held_jobs: &Arc<HeldJobs>, held: &Arc<Held>) -> Self {
        Self {
            held_jobs: held_jobs.clone(),
            held: held.clone(),
        }
    }
}

impl Drop for ForgetOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.held_jobs.remove(self.held.id, &self.held.token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(token: &str) -> Arc<Held> {
        let id = Uuid::from_u128(7);
        let queue = QueueName::default();
        let now = DateTime::default();
        Arc::new(Held::new(id, "7", &queue, token, 1, now))
    }

    #[test]
    fn a_job_is_held_once() {
        let jobs = HeldJobs::default();
        let first = held("first");
        assert!(jobs.claim(&first).is_ok());
        assert!(jobs.claim(&held("second")).is_err());
        jobs.remove(Uuid::from_u128(7), "second");
        assert_eq!(jobs.len(), 1, "only who holds it forgets it");
        assert!(!first.gone.is_cancelled());
        jobs.settle(Uuid::from_u128(7), "first", Verdict::Accepted);
        assert_eq!(first.verdict(), Some(Verdict::Accepted));
        assert!(first.gone.is_cancelled());
        assert!(jobs.claim(&held("second")).is_ok());
    }

    #[tokio::test]
    async fn a_panic_of_the_task_that_has_a_job_ends_the_renewal_of_its_lease() {
        let jobs = Arc::new(HeldJobs::default());
        let job = held("a");
        assert!(jobs.claim(&job).is_ok());
        drop(ForgetOnPanic::new(&jobs, &job));
        assert_eq!(jobs.len(), 1, "only a panic gives it up");

        let guard = ForgetOnPanic::new(&jobs, &job);
        let tasks = crate::tasks::Tasks::new();
        tasks.spawn("asks", async move {
            let _guard = guard;
            tokio::task::yield_now().await;
            panic!("on purpose");
        });
        tasks.drained().await;
        assert_eq!(jobs.len(), 0);
        assert!(job.gone.is_cancelled());
    }

    #[test]
    fn only_a_running_job_is_written_of() {
        let job = held("a").as_ref().runs();
        assert!(job);
        for phase in [Phase::Asked, Phase::Ended] {
            let job = held("a");
            job.enter(phase);
            assert!(!job.runs(), "{phase:?}");
        }
    }
}
