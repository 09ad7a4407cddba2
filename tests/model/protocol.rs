//! The protocol as a Stateright model: a scene, its faults, and a mutant of it or none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bullwark::job::Status;
use stateright::{Model, Property};

use super::properties::properties;
use super::state::{Phase, State, WORKERS};

/// What somebody else does to the jobs of a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Own,
    /// Its handler writes in `ctx.transaction`.
    Transactional,
    Foreign,
}

/// Things that are done wrong, to see that it is noticed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mutant {
    pub(crate) ack_before_commit: bool,
    pub(crate) late_add_again: bool,
    pub(crate) redis_told_first: bool,
    pub(crate) no_fence: bool,
    pub(crate) over_is_open: bool,
    pub(crate) effect_outside: bool,
    pub(crate) no_epoch_check: bool,
    pub(crate) epoch_in_key_alone: bool,
    pub(crate) new_id_each_time: bool,
    pub(crate) rescued_not_asked: bool,
    pub(crate) no_rescue: bool,
    pub(crate) no_sweep: bool,
    pub(crate) no_grace: bool,
    pub(crate) never_raised: bool,
    /// The start after the newest one, of a job put into Redis anew, counts as a client's retry.
    pub(crate) reopens: bool,
    /// An add whose reply was lost is made again.
    pub(crate) repeats_adds: bool,
    /// And in whatever memory answers.
    pub(crate) add_to_any_memory: bool,
    /// Jobs of which the record knows no start go back as never started.
    pub(crate) never_raised_above_zero: bool,
}

/// What must happen somewhere, or the model says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Happened {
    EnqueuerDied,
    LostReply,
    WorkerDied,
    Paused,
    ForeignDied,
    CompareDied,
    Flushed,
    FailedOver,
    Snapshot,
    RolledBack,
    Rescued,
    AskedAndOver,
    Fenced,
    SettledTwice,
    TakenOver,
    Compared,
    EndedByCompare,
    Readded,
    AdoptedTwice,
    Mirrored,
}

#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    pub(crate) jobs: Vec<Kind>,
    pub(crate) faults: u8,
    pub(crate) may_fail: bool,
    pub(crate) has_foreign_worker: bool,
    /// Redis lets go of jobs that are over.
    pub(crate) trims: bool,
    pub(crate) mutant: Mutant,
    pub(crate) seen: Arc<AtomicU32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Commit(usize),
    Ack(usize),
    Add(usize),
    AddUnheard(usize),
    EnqueuerDies(usize),
    GraceEnds(usize),
    Claim(usize, usize),
    Start(usize),
    AdoptClaimed(usize),
    MarkRunning(usize),
    Succeed(usize),
    Err(usize),
    Settle(usize),
    SettleUnheard(usize),
    Tell(usize),
    TellUnheard(usize),
    Extend(usize),
    WorkerDies(usize),
    Pause(usize),
    Resume(usize),
    Promote(usize),
    Lapse(usize),
    Rescue(usize),
    Trim(usize),
    Flush,
    FailOver,
    Snapshot,
    RollBack,
    ForeignAdd(usize),
    ForeignClaim(usize),
    ForeignFinish,
    ForeignDies,
    CompareBegins,
    CompareJob,
    CompareDies,
    Sweep(usize),
    AddAgain,
    ResetSilent(usize),
    FindUnknown(usize),
    AdoptFound,
    Mirror(usize),
}

impl Protocol {
    pub(crate) fn is_own(&self, job: usize) -> bool {
        matches!(self.jobs.get(job), Some(Kind::Own | Kind::Transactional))
    }

    pub(crate) fn is_transactional(&self, job: usize) -> bool {
        self.jobs.get(job) == Some(&Kind::Transactional)
    }

    pub(crate) fn happened(&self, what: Happened) {
        self.seen.fetch_or(1 << what as u32, Ordering::Relaxed);
    }

    pub(crate) fn has_seen(&self, what: Happened) -> bool {
        self.seen.load(Ordering::Relaxed) & (1 << what as u32) != 0
    }

    /// Takes a fault out of the budget; false: there is none left.
    pub(crate) fn fault(&self, s: &mut State, what: Happened) -> bool {
        let is_left = s.faults > 0;
        if is_left {
            s.faults -= 1;
            self.happened(what);
        }
        is_left
    }

    /// Remembers the first end of a job, and that there was another one.
    pub(crate) fn judge_end(&self, s: &mut State, job: usize, status: Status) {
        if !status.is_final() {
            return;
        }
        s.judged.ended_twice |= s.judged.ended[job].is_some();
        s.judged.ended[job].get_or_insert(status);
    }

    /// Steps that may be possible. Those of the protocol itself happen sooner or later; on faults
    /// nobody may rely.
    pub(crate) fn steps(&self, s: &State, with_faults: bool, steps: &mut Vec<Step>) {
        use Step as T;
        steps.extend([T::CompareBegins, T::CompareJob, T::AddAgain, T::AdoptFound]);
        for job in 0..self.jobs.len() {
            steps.extend([T::Commit(job), T::Ack(job), T::Add(job), T::GraceEnds(job)]);
            steps.extend([T::Promote(job), T::Lapse(job), T::Rescue(job), T::Trim(job)]);
            steps.extend([T::Sweep(job), T::ResetSilent(job), T::FindUnknown(job)]);
            steps.extend([T::ForeignAdd(job), T::ForeignClaim(job), T::Mirror(job)]);
        }
        steps.extend(s.foreign.map(|_| T::ForeignFinish));
        for (w, worker) in s.workers.iter().enumerate() {
            match worker.phase {
                _ if worker.is_paused => steps.push(T::Resume(w)),
                Phase::Idle => steps.extend((0..self.jobs.len()).map(|job| T::Claim(w, job))),
                Phase::Claimed { .. } => steps.extend([T::Start(w), T::Extend(w)]),
                Phase::Unknown { .. } => steps.extend([T::AdoptClaimed(w), T::Extend(w)]),
                Phase::Running { .. } => {
                    steps.extend([T::MarkRunning(w), T::Succeed(w), T::Err(w), T::Extend(w)]);
                }
                Phase::Ran { .. } => steps.extend([T::Settle(w), T::Extend(w)]),
                Phase::Tell { .. } => steps.extend([T::Tell(w), T::Extend(w)]),
            }
        }
        if !with_faults {
            return;
        }
        steps.push(T::RollBack);
        if s.faults == 0 {
            return;
        }
        steps.extend([
            T::Flush,
            T::FailOver,
            T::Snapshot,
            T::ForeignDies,
            T::CompareDies,
        ]);
        for job in 0..self.jobs.len() {
            steps.extend([T::AddUnheard(job), T::EnqueuerDies(job)]);
        }
        for w in 0..WORKERS {
            steps.extend([
                T::SettleUnheard(w),
                T::TellUnheard(w),
                T::WorkerDies(w),
                T::Pause(w),
            ]);
        }
    }

    /// The state after the step; none if it can't be taken.
    pub(crate) fn take(&self, before: &State, step: Step) -> Option<State> {
        use Step as T;
        let mut after = *before;
        let s = &mut after;
        let is_taken = match step {
            T::Commit(job) => self.commit(s, job),
            T::Ack(job) => self.ack(s, job),
            T::Add(job) => self.add(s, job, true),
            T::AddUnheard(job) => self.add(s, job, false),
            T::EnqueuerDies(job) => self.enqueuer_dies(s, job),
            T::GraceEnds(job) => self.age(s, job),
            T::Claim(worker, job) => self.claim(s, worker, job),
            T::Start(worker) => self.start(s, worker),
            T::AdoptClaimed(worker) => self.adopt_claimed(s, worker),
            T::MarkRunning(worker) => self.mark_running(s, worker),
            T::Succeed(worker) => self.handler_ends(s, worker, true),
            T::Err(worker) => self.handler_ends(s, worker, false),
            T::Settle(worker) => self.settle(s, worker, true),
            T::SettleUnheard(worker) => self.settle(s, worker, false),
            T::Tell(worker) => self.tell(s, worker, true),
            T::TellUnheard(worker) => self.tell(s, worker, false),
            T::Extend(worker) => self.extend(s, worker),
            T::WorkerDies(worker) => self.worker_dies(s, worker),
            T::Pause(worker) => self.pause(s, worker),
            T::Resume(worker) => self.resume(s, worker),
            T::Promote(job) => self.promote(s, job),
            T::Lapse(job) => self.lapse(s, job),
            T::Rescue(job) => self.rescue(s, job),
            T::Trim(job) => self.trim(s, job),
            T::Flush => self.flush(s),
            T::FailOver => self.fail_over(s),
            T::Snapshot => self.snapshot(s),
            T::RollBack => self.roll_back(s),
            T::ForeignAdd(job) => self.foreign_add(s, job),
            T::ForeignClaim(job) => self.foreign_claim(s, job),
            T::ForeignFinish => self.foreign_finish(s),
            T::ForeignDies => self.foreign_dies(s),
            T::CompareBegins => self.compare_begins(s),
            T::CompareJob => self.compare_job(s),
            T::CompareDies => self.compare_dies(s),
            T::Sweep(job) => self.sweep(s, job),
            T::AddAgain => self.add_again(s),
            T::ResetSilent(job) => self.reset_silent(s, job),
            T::FindUnknown(job) => self.find_unknown(s, job),
            T::AdoptFound => self.adopt_found(s),
            T::Mirror(job) => self.mirror(s, job),
        };
        is_taken.then_some(after)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(self.faults)]
    }

    fn actions(&self, s: &State, steps: &mut Vec<Step>) {
        self.steps(s, true, steps);
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        self.take(before, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties()
    }
}
