//! What happens in Redis by itself, to it, and by the hands of a foreign worker.

use super::protocol::{Happened, Protocol};
use super::state::{ABSENT, Enqueuer, JOBS_MAX, Lock, Place, State, Wire};

impl Protocol {
    /// Its time has come: it waits for a claim.
    pub(crate) fn promote(&self, s: &mut State, job: usize) -> bool {
        if s.redis.jobs[job].place != Place::Delayed {
            return false;
        }
        s.redis.jobs[job].place = Place::Waiting;
        true
    }

    /// A lease that nobody extends ends.
    pub(crate) fn lapse(&self, s: &mut State, job: usize) -> bool {
        let wire = s.redis.jobs[job];
        let is_extended = match wire.lock {
            Lock::None | Lock::Foreign => true,
            Lock::Old => false,
            Lock::Claim(worker) | Lock::Rebuilt(worker) => {
                let holder = s.workers[worker];
                holder.job() == Some(job) && !holder.is_paused
            }
        };
        if wire.place != Place::Active || is_extended {
            return false;
        }
        s.redis.jobs[job].lock = Lock::None;
        true
    }

    /// The stalled check: what is active without a lease waits again.
    pub(crate) fn rescue(&self, s: &mut State, job: usize) -> bool {
        let wire = &mut s.redis.jobs[job];
        let is_stalled = wire.place == Place::Active && wire.lock == Lock::None;
        if !is_stalled || self.mutant.no_rescue {
            return false;
        }
        wire.place = Place::Waiting;
        wire.was_rescued = true;
        self.happened(Happened::Rescued);
        true
    }

    /// Redis keeps few of the jobs that are over.
    pub(crate) fn trim(&self, s: &mut State, job: usize) -> bool {
        if !self.trims || !s.redis.jobs[job].place.is_over() {
            return false;
        }
        s.redis.jobs[job] = ABSENT;
        true
    }

    /// All of it is lost.
    pub(crate) fn flush(&self, s: &mut State) -> bool {
        self.lose(s, Happened::Flushed, [ABSENT; JOBS_MAX])
    }

    /// A replica that lacks nothing is promoted: nobody can know that it lacks nothing.
    pub(crate) fn fail_over(&self, s: &mut State) -> bool {
        let kept = s.redis.jobs;
        self.lose(s, Happened::FailedOver, kept)
    }

    /// The state to which Redis will be put back; a lagging replica is one, too.
    pub(crate) fn snapshot(&self, s: &mut State) -> bool {
        if s.snapshot.is_some() || !self.fault(s, Happened::Snapshot) {
            return false;
        }
        s.snapshot = Some(s.redis.jobs);
        true
    }

    pub(crate) fn roll_back(&self, s: &mut State) -> bool {
        let Some(kept) = s.snapshot.take() else {
            return false;
        };
        self.happened(Happened::RolledBack);
        s.redis.jobs = kept;
        if !self.mutant.epoch_in_key_alone {
            s.redis.memory += 1;
        }
        true
    }

    fn lose(&self, s: &mut State, how: Happened, kept: [Wire; JOBS_MAX]) -> bool {
        if !self.fault(s, how) {
            return false;
        }
        s.redis.jobs = kept;
        s.redis.memory += 1;
        true
    }

    /// A client adds straight to Redis.
    pub(crate) fn foreign_add(&self, s: &mut State, job: usize) -> bool {
        if self.is_own(job) || s.enqueuers[job] != Enqueuer::New {
            return false;
        }
        s.enqueuers[job] = Enqueuer::Done;
        s.redis.jobs[job].place = Place::Waiting;
        true
    }

    /// It knows of no memories and of no record.
    pub(crate) fn foreign_claim(&self, s: &mut State, job: usize) -> bool {
        let wire = &mut s.redis.jobs[job];
        if !self.has_foreign_worker || s.foreign.is_some() || wire.place != Place::Waiting {
            return false;
        }
        wire.place = Place::Active;
        wire.starts += 1;
        wire.lock = Lock::Foreign;
        s.foreign = Some(job);
        true
    }

    pub(crate) fn foreign_finish(&self, s: &mut State) -> bool {
        let Some(job) = s.foreign.take() else {
            return false;
        };
        let wire = &mut s.redis.jobs[job];
        if wire.place == Place::Active && wire.lock == Lock::Foreign {
            wire.place = Place::Completed;
            wire.lock = Lock::None;
            wire.by_foreign = true;
        }
        s.rename_locks(|lock| lock == Lock::Foreign);
        true
    }

    pub(crate) fn foreign_dies(&self, s: &mut State) -> bool {
        if s.foreign.is_none() || !self.fault(s, Happened::ForeignDied) {
            return false;
        }
        s.foreign = None;
        s.rename_locks(|lock| lock == Lock::Foreign);
        true
    }
}
