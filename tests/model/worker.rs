//! A worker: claim, ask the record unless it is the first start, run, settle, tell Redis.

use bullwark::job::{Event, Status};

use super::protocol::{Happened, Protocol};
use super::state::{Lock, Phase, Place, State, Who};

/// Failures after which a job fails for good.
const FAILURES_MAX: u8 = 1;

impl Protocol {
    /// From the memory that was compared with the record, and from no other.
    pub(crate) fn claim(&self, s: &mut State, worker: usize, job: usize) -> bool {
        let is_served = s.compared == s.redis.memory || self.mutant.no_epoch_check;
        let wire = &mut s.redis.jobs[job];
        let is_free = s.workers[worker].phase == Phase::Idle;
        if !is_free || wire.place != Place::Waiting || !is_served {
            return false;
        }
        let is_first = self.is_own(job)
            && wire.starts == 0
            && wire.failures == 0
            && (!wire.was_rescued || self.mutant.rescued_not_asked);
        wire.place = Place::Active;
        wire.lock = Lock::Claim(worker);
        let was_put = !std::mem::replace(&mut wire.is_started, true);
        wire.starts += 1;
        let number = wire.starts;
        let is_straight = is_first || (self.mutant.rescued_not_asked && wire.was_rescued);
        s.workers[worker].phase = Phase::Claimed {
            job,
            number,
            is_first: is_straight,
            was_over: s.rows[job].is_final(),
            was_put,
        };
        true
    }

    /// A first start goes straight to the handler, any other asks the record, which numbers it.
    pub(crate) fn start(&self, s: &mut State, worker: usize) -> bool {
        let Phase::Claimed {
            job,
            number,
            is_first,
            was_over,
            was_put,
        } = s.workers[worker].phase
        else {
            return false;
        };
        if s.workers[worker].is_paused {
            return false;
        }
        let row = &mut s.rows[job];
        if is_first {
            s.judged.over_ran |= was_over;
            s.workers[worker].phase = Phase::Running {
                job,
                attempt: number,
                failures: row.failures,
            };
            self.effect_outside(s, job);
            return true;
        }
        match row.status {
            None => {
                s.workers[worker].phase = Phase::Unknown {
                    job,
                    number,
                    was_over,
                };
            }
            Some(status) if status.is_final() => {
                let looks_retried = was_put && number > 1 && number == row.attempt + 1;
                if self.mutant.reopens && looks_retried {
                    row.status = Some(Status::Pending);
                    return true;
                }
                self.happened(Happened::AskedAndOver);
                s.workers[worker].phase = Phase::Tell {
                    job,
                    outcome: status,
                };
            }
            Some(_) => {
                row.status = Some(Status::Processing);
                row.attempt = number.max(row.attempt + 1);
                row.worker = Who::Worker(worker);
                s.workers[worker].phase = Phase::Running {
                    job,
                    attempt: row.attempt,
                    failures: row.failures,
                };
                self.effect_outside(s, job);
            }
        }
        true
    }

    /// The record did not know the job: it gets it, and is asked again.
    pub(crate) fn adopt_claimed(&self, s: &mut State, worker: usize) -> bool {
        let Phase::Unknown {
            job,
            number,
            was_over,
        } = s.workers[worker].phase
        else {
            return false;
        };
        if s.workers[worker].is_paused {
            return false;
        }
        self.adopt(s, job, Status::Pending, number - 1);
        s.workers[worker].phase = Phase::Claimed {
            job,
            number,
            is_first: false,
            was_over,
            was_put: false,
        };
        true
    }

    /// Written behind: the attempt runs, and lives.
    pub(crate) fn mark_running(&self, s: &mut State, worker: usize) -> bool {
        let Phase::Running { job, attempt, .. } = s.workers[worker].phase else {
            return false;
        };
        if s.workers[worker].is_paused || !self.has_say(s, worker, job, attempt) {
            return false;
        }
        let row = &mut s.rows[job];
        let before = *row;
        row.status = Some(Status::Processing);
        row.attempt = attempt;
        row.worker = Who::Worker(worker);
        before != *row
    }

    pub(crate) fn handler_ends(&self, s: &mut State, worker: usize, is_success: bool) -> bool {
        let Phase::Running {
            job,
            attempt,
            failures,
        } = s.workers[worker].phase
        else {
            return false;
        };
        if s.workers[worker].is_paused || (!is_success && !self.may_fail) {
            return false;
        }
        let event = match is_success {
            true => Event::Succeeded,
            false => Event::Errored {
                retries_left: failures < FAILURES_MAX,
            },
        };
        // The crate's own table of transitions.
        let Ok(outcome) = Status::Processing.next(event) else {
            return false;
        };
        s.workers[worker].phase = Phase::Ran {
            job,
            attempt,
            failures,
            outcome,
            is_unsure: false,
        };
        if self.mutant.redis_told_first {
            self.tell_redis(s, worker, job, outcome);
        }
        true
    }

    /// Commits the outcome, fenced; with it what the handler wrote in its transaction. Then Redis
    /// is told, or nobody if the attempt has no say.
    pub(crate) fn settle(&self, s: &mut State, worker: usize, is_answered: bool) -> bool {
        let Phase::Ran {
            job,
            attempt,
            failures,
            outcome,
            is_unsure,
        } = s.workers[worker].phase
        else {
            return false;
        };
        if s.workers[worker].is_paused || (!is_answered && is_unsure) {
            return false;
        }
        if !is_answered && !self.fault(s, Happened::LostReply) {
            return false;
        }
        let is_accepted = self.has_say(s, worker, job, attempt);
        if is_accepted {
            let row = &mut s.rows[job];
            row.status = Some(outcome);
            row.attempt = attempt;
            row.worker = Who::Worker(worker);
            row.failures = failures + u8::from(outcome != Status::Completed);
            let is_committed_with_it = self.is_transactional(job) && !self.mutant.effect_outside;
            if is_committed_with_it && outcome == Status::Completed {
                row.effects += 1;
            }
            self.judge_end(s, job, outcome);
        } else {
            self.happened(Happened::Fenced);
        }
        if !is_answered {
            s.workers[worker].phase = Phase::Ran {
                job,
                attempt,
                failures,
                outcome,
                is_unsure: true,
            };
            return true;
        }
        let row = &s.rows[job];
        let was_settled_by_it = is_unsure
            && row.attempt == attempt
            && row.status == Some(outcome)
            && row.worker == Who::Worker(worker);
        if was_settled_by_it && !is_accepted {
            self.happened(Happened::SettledTwice);
        }
        match is_accepted || was_settled_by_it {
            true => s.workers[worker].phase = Phase::Tell { job, outcome },
            false => self.let_go(s, worker),
        }
        true
    }

    /// Tells Redis what the record has decided. Safe to repeat.
    pub(crate) fn tell(&self, s: &mut State, worker: usize, is_heard: bool) -> bool {
        let Phase::Tell { job, outcome } = s.workers[worker].phase else {
            return false;
        };
        if s.workers[worker].is_paused {
            return false;
        }
        if !is_heard {
            let is_news = s.redis.jobs[job].place == Place::Active;
            if !is_news || !self.fault(s, Happened::LostReply) {
                return false;
            }
        }
        self.tell_redis(s, worker, job, outcome);
        if is_heard {
            self.let_go(s, worker);
        }
        true
    }

    fn tell_redis(&self, s: &mut State, worker: usize, job: usize, outcome: Status) {
        let wire = &mut s.redis.jobs[job];
        let may_end = wire.lock == Lock::Claim(worker)
            || wire.lock == Lock::Rebuilt(worker)
            || wire.lock == Lock::None;
        if wire.place != Place::Active || !may_end {
            return;
        }
        wire.lock = Lock::None;
        wire.place = match outcome {
            Status::Completed => Place::Completed,
            Status::DeadLetter => Place::Failed,
            _ => {
                wire.failures += 1;
                Place::Delayed
            }
        };
    }

    /// A lease of a rebuild becomes that of the worker which runs the job.
    pub(crate) fn extend(&self, s: &mut State, worker: usize) -> bool {
        let holder = s.workers[worker];
        let Some(job) = holder.job().filter(|_| !holder.is_paused) else {
            return false;
        };
        if s.redis.jobs[job].lock != Lock::Rebuilt(worker) {
            return false;
        }
        self.happened(Happened::TakenOver);
        s.redis.jobs[job].lock = Lock::Claim(worker);
        true
    }

    pub(crate) fn worker_dies(&self, s: &mut State, worker: usize) -> bool {
        let is_idle = s.workers[worker].phase == Phase::Idle;
        if is_idle || !self.fault(s, Happened::WorkerDied) {
            return false;
        }
        s.workers[worker].is_paused = false;
        self.let_go(s, worker);
        s.rename_locks(|lock| lock == Lock::Rebuilt(worker));
        for row in &mut s.rows {
            if row.worker == Who::Worker(worker) {
                row.worker = Who::Gone;
            }
        }
        true
    }

    /// It stands still, and so does its lease; later it goes on as if nothing were.
    pub(crate) fn pause(&self, s: &mut State, worker: usize) -> bool {
        let it = s.workers[worker];
        if it.is_paused || it.phase == Phase::Idle || !self.fault(s, Happened::Paused) {
            return false;
        }
        s.workers[worker].is_paused = true;
        true
    }

    pub(crate) fn resume(&self, s: &mut State, worker: usize) -> bool {
        std::mem::take(&mut s.workers[worker].is_paused)
    }

    /// Does this attempt still have a say? Judges the answer, too.
    fn has_say(&self, s: &mut State, worker: usize, job: usize, attempt: u8) -> bool {
        let row = s.rows[job];
        let is_newest = row.attempt < attempt
            || (row.attempt == attempt
                && row.status == Some(Status::Processing)
                && row.worker == Who::Worker(worker));
        let says = if self.mutant.no_fence {
            row.is_open()
        } else if self.mutant.over_is_open {
            is_newest || row.is_final()
        } else {
            row.is_open() && is_newest
        };
        s.judged.fenced_wrote |= says && !is_newest;
        says
    }

    fn effect_outside(&self, s: &mut State, job: usize) {
        if self.mutant.effect_outside && self.is_transactional(job) {
            s.rows[job].effects += 1;
        }
    }

    fn let_go(&self, s: &mut State, worker: usize) {
        s.workers[worker].phase = Phase::Idle;
        s.forget_claim(worker);
        for row in &mut s.rows {
            let is_settled = row.status != Some(Status::Processing);
            if row.worker == Who::Worker(worker) && is_settled {
                row.worker = Who::Nobody;
            }
        }
    }
}
