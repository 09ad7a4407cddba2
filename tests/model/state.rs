//! What there is: the record, Redis, those who change them, and what is remembered to judge them.
//!
//! Names are canonical, so that equal situations are equal states: a token of a claim that nobody
//! holds any more is [`Lock::Old`], a process that died is [`Who::Gone`].

use bullwark::job::Status;

/// The most jobs of a scene.
pub(crate) const JOBS_MAX: usize = 2;
pub(crate) const WORKERS: usize = 2;

/// Who started an attempt, by the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Nobody,
    Worker(usize),
    /// A process that died.
    Gone,
}

/// `jobs` in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    /// None: there is no such row.
    pub(crate) status: Option<Status>,
    /// The number of the newest start.
    pub(crate) attempt: u8,
    pub(crate) failures: u8,
    pub(crate) worker: Who,
    /// Past the grace: the original add comes too late, the reconciler may add it.
    pub(crate) is_old: bool,
    /// What its handlers wrote in `ctx.transaction`.
    pub(crate) effects: u8,
    /// Rows of this one job: more than one only if adopting made another.
    pub(crate) copies: u8,
}

impl Row {
    pub(crate) fn is_final(&self) -> bool {
        self.status.is_some_and(Status::is_final)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.status.is_some_and(|status| !status.is_final())
    }
}

/// Where Redis has a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Absent,
    Waiting,
    Delayed,
    Active,
    Completed,
    Failed,
}

impl Place {
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    pub(crate) fn waits(self) -> bool {
        matches!(self, Self::Waiting | Self::Delayed)
    }
}

/// `:lock`, while its lease lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lock {
    None,
    /// The claim that this worker holds now.
    Claim(usize),
    /// Of a rebuild, for this worker to take over.
    Rebuilt(usize),
    Foreign,
    /// Of a claim that nobody holds any more.
    Old,
}

/// A job in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Wire {
    pub(crate) place: Place,
    /// `ats`: how often it was started.
    pub(crate) starts: u8,
    /// `atm`: how often it failed.
    pub(crate) failures: u8,
    /// `stc` above 0: it was rescued.
    pub(crate) was_rescued: bool,
    /// `processedOn`: not put back since its newest start.
    pub(crate) is_started: bool,
    pub(crate) lock: Lock,
    /// A foreign worker ended it.
    pub(crate) by_foreign: bool,
}

pub(crate) const ABSENT: Wire = Wire {
    place: Place::Absent,
    starts: 0,
    failures: 0,
    was_rescued: false,
    is_started: false,
    lock: Lock::None,
    by_foreign: false,
};

/// Redis, with the name of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Redis {
    pub(crate) memory: u8,
    pub(crate) jobs: [Wire; JOBS_MAX],
}

/// Whoever adds a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Enqueuer {
    New,
    Committed,
    /// Its add goes out next.
    Acked,
    /// The reply to its add to this memory is lost: it adds again.
    Unheard {
        memory: u8,
    },
    Done,
}

/// What a worker is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Idle,
    Claimed {
        job: usize,
        number: u8,
        /// Goes straight to its handler.
        is_first: bool,
        /// The record said that it is over when it was claimed.
        was_over: bool,
        /// Redis shows no start since somebody put it there.
        was_put: bool,
    },
    /// The record does not know it.
    Unknown {
        job: usize,
        number: u8,
        was_over: bool,
    },
    Running {
        job: usize,
        attempt: u8,
        failures: u8,
    },
    /// The handler is done.
    Ran {
        job: usize,
        attempt: u8,
        failures: u8,
        outcome: Status,
        /// A commit was not answered.
        is_unsure: bool,
    },
    /// The record has it; Redis is told next.
    Tell {
        job: usize,
        outcome: Status,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Worker {
    pub(crate) phase: Phase,
    /// It stands still, past its lease.
    pub(crate) is_paused: bool,
}

impl Worker {
    pub(crate) fn job(&self) -> Option<usize> {
        match self.phase {
            Phase::Idle => None,
            Phase::Claimed { job, .. }
            | Phase::Unknown { job, .. }
            | Phase::Running { job, .. }
            | Phase::Ran { job, .. }
            | Phase::Tell { job, .. } => Some(job),
        }
    }
}

/// Whoever repairs: one look, then one write. In between anything may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Repair {
    /// The memory that is being compared with the record, and the next job.
    pub(crate) comparing: Option<(u8, usize)>,
    /// An open job that Redis lacks, with its row as it was read.
    pub(crate) lacking: Option<(usize, Row)>,
    /// A job that the record lacks, as Redis showed it.
    pub(crate) unknown: Option<(usize, Wire)>,
}

pub(crate) const RESTING: Repair = Repair {
    comparing: None,
    lacking: None,
    unknown: None,
};

/// What is remembered only to judge: nobody acts on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Judged {
    /// The first final status of each job.
    pub(crate) ended: [Option<Status>; JOBS_MAX],
    pub(crate) acked: [bool; JOBS_MAX],
    /// A job that was over was given another outcome.
    pub(crate) ended_twice: bool,
    /// A write of an attempt that has no say was accepted.
    pub(crate) fenced_wrote: bool,
    /// A claim of a job that was over led to its handler.
    pub(crate) over_ran: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) rows: [Row; JOBS_MAX],
    /// The memory of Redis that agrees with the record.
    pub(crate) compared: u8,
    pub(crate) redis: Redis,
    /// What Redis may be put back to.
    pub(crate) snapshot: Option<[Wire; JOBS_MAX]>,
    pub(crate) enqueuers: [Enqueuer; JOBS_MAX],
    pub(crate) workers: [Worker; WORKERS],
    /// The job that the foreign worker runs.
    pub(crate) foreign: Option<usize>,
    pub(crate) repair: Repair,
    /// Faults that may still happen.
    pub(crate) faults: u8,
    pub(crate) judged: Judged,
}

impl State {
    pub(crate) fn first(faults: u8) -> Self {
        let row = Row {
            status: None,
            attempt: 0,
            failures: 0,
            worker: Who::Nobody,
            is_old: false,
            effects: 0,
            copies: 0,
        };
        let worker = Worker {
            phase: Phase::Idle,
            is_paused: false,
        };
        Self {
            rows: [row; JOBS_MAX],
            compared: 0,
            redis: Redis {
                memory: 0,
                jobs: [ABSENT; JOBS_MAX],
            },
            snapshot: None,
            enqueuers: [Enqueuer::New; JOBS_MAX],
            workers: [worker; WORKERS],
            foreign: None,
            repair: RESTING,
            faults,
            judged: Judged::default(),
        }
    }

    /// The tokens of a claim that ended, wherever they still lie.
    pub(crate) fn forget_claim(&mut self, worker: usize) {
        self.rename_locks(|lock| lock == Lock::Claim(worker));
    }

    pub(crate) fn rename_locks(&mut self, is_old: impl Fn(Lock) -> bool) {
        let kept = self.snapshot.iter_mut().flatten();
        for wire in self.redis.jobs.iter_mut().chain(kept) {
            if is_old(wire.lock) {
                wire.lock = Lock::Old;
            }
        }
        if let Some((_, wire)) = &mut self.repair.unknown
            && is_old(wire.lock)
        {
            wire.lock = Lock::Old;
        }
    }
}
