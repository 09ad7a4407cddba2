//! Reconcile: compares a new memory of Redis with the record, sweeps open jobs, adopts, mirrors.

use bullwark::job::Status;

use super::protocol::{Happened, Protocol};
use super::state::{ABSENT, Lock, Place, RESTING, Row, State, Who, Wire};

impl Protocol {
    /// Another memory of Redis answers: it is compared before anything is claimed from it.
    pub(crate) fn compare_begins(&self, s: &mut State) -> bool {
        if s.compared == s.redis.memory || s.repair != RESTING {
            return false;
        }
        s.repair.comparing = Some((s.redis.memory, 0));
        true
    }

    /// One job: ends what is over, adopts what only Redis knows, corrects what both know, and reads
    /// what Redis lacks.
    pub(crate) fn compare_job(&self, s: &mut State) -> bool {
        let is_writing = s.repair.lacking.is_some() || s.repair.unknown.is_some();
        let Some((memory, job)) = s.repair.comparing.filter(|_| !is_writing) else {
            return false;
        };
        if job == self.jobs.len() {
            s.compared = memory;
            s.repair.comparing = None;
            self.happened(Happened::Compared);
            return true;
        }
        s.repair.comparing = Some((memory, job + 1));
        let (row, wire) = (s.rows[job], s.redis.jobs[job]);
        match row.status {
            None if wire.place == Place::Absent => {}
            None => s.repair.unknown = Some((job, wire)),
            Some(_) if wire.place == Place::Absent => {
                if row.is_open() && row.is_old {
                    s.repair.lacking = Some((job, row));
                }
            }
            Some(status) if status.is_final() => {
                if wire.place.waits() {
                    s.redis.jobs[job].place = match status {
                        Status::Completed => Place::Completed,
                        _ => Place::Failed,
                    };
                    self.happened(Happened::EndedByCompare);
                }
            }
            Some(_) if wire.place.is_over() => self.copy_outcome(s, job),
            Some(_) => self.correct(&row, &mut s.redis.jobs[job]),
        }
        true
    }

    /// What the record knows better of an open job that Redis has.
    fn correct(&self, row: &Row, wire: &mut Wire) {
        // Its first start may be all that Redis has forgotten.
        let least = row
            .attempt
            .max(u8::from(!self.mutant.never_raised_above_zero));
        wire.starts = wire.starts.max(least);
        if row.status != Some(Status::Processing) {
            return;
        }
        wire.place = Place::Active;
        if wire.lock == Lock::None {
            wire.lock = lease_of(row);
        }
    }

    /// Whoever compares dies: the memory is not noted as compared.
    pub(crate) fn compare_dies(&self, s: &mut State) -> bool {
        if s.repair.comparing.is_none() || !self.fault(s, Happened::CompareDied) {
            return false;
        }
        s.repair = RESTING;
        true
    }

    /// An open job past the grace that Redis lacks is read; one that runs is left to its worker.
    pub(crate) fn sweep(&self, s: &mut State, job: usize) -> bool {
        let row = s.rows[job];
        let is_served = s.compared == s.redis.memory;
        let is_idle = s.repair == RESTING && is_served && !self.mutant.no_sweep;
        let is_lacking = row.is_open() && s.redis.jobs[job].place == Place::Absent;
        let is_due = row.is_old || self.mutant.no_grace;
        if !is_idle || !is_lacking || !is_due || row.status == Some(Status::Processing) {
            return false;
        }
        s.repair.lacking = Some((job, row));
        true
    }

    /// Added as it was read, with a start number above the newest one. A no-op if it is there.
    pub(crate) fn add_again(&self, s: &mut State) -> bool {
        let Some((job, row)) = s.repair.lacking.take() else {
            return false;
        };
        let is_served = s.repair.comparing.is_some() || s.compared == s.redis.memory;
        let wire = &mut s.redis.jobs[job];
        if !is_served || wire.place != Place::Absent {
            return true;
        }
        self.happened(Happened::Readded);
        let starts = match row.attempt {
            0 if self.mutant.never_raised_above_zero => 0,
            _ if self.mutant.never_raised => 0,
            attempt => attempt + 1,
        };
        *wire = Wire {
            starts,
            failures: row.failures,
            place: match row.status {
                Some(Status::Processing) => Place::Active,
                Some(Status::Failed) => Place::Delayed,
                _ => Place::Waiting,
            },
            lock: match row.status {
                Some(Status::Processing) => lease_of(&row),
                _ => Lock::None,
            },
            ..ABSENT
        };
        // Its worker may have died since the row was read.
        let is_alive = |lock| match lock {
            Lock::Rebuilt(worker) => s.rows[job].worker == Who::Worker(worker),
            _ => true,
        };
        if !is_alive(s.redis.jobs[job].lock) {
            s.redis.jobs[job].lock = Lock::Old;
        }
        true
    }

    /// A worker gave no sign of life for long.
    pub(crate) fn reset_silent(&self, s: &mut State, job: usize) -> bool {
        let row = s.rows[job];
        let is_silent = match row.worker {
            Who::Nobody => false,
            Who::Gone => true,
            Who::Worker(worker) => s.workers[worker].is_paused,
        };
        if row.status != Some(Status::Processing) || !is_silent {
            return false;
        }
        s.rows[job].status = Some(Status::Pending);
        true
    }

    /// A job in Redis that the record lacks is read.
    pub(crate) fn find_unknown(&self, s: &mut State, job: usize) -> bool {
        let wire = s.redis.jobs[job];
        let is_unknown = s.rows[job].status.is_none() && wire.place != Place::Absent;
        if s.repair != RESTING || !is_unknown {
            return false;
        }
        s.repair.unknown = Some((job, wire));
        true
    }

    pub(crate) fn adopt_found(&self, s: &mut State) -> bool {
        let Some((job, wire)) = s.repair.unknown.take() else {
            return false;
        };
        let status = match wire.place {
            Place::Completed => Status::Completed,
            Place::Failed => Status::DeadLetter,
            _ => Status::Pending,
        };
        self.adopt(s, job, status, wire.starts);
        true
    }

    /// Its id follows from the job: adopting it twice is harmless.
    pub(crate) fn adopt(&self, s: &mut State, job: usize, status: Status, attempt: u8) {
        let row = &mut s.rows[job];
        if row.status.is_some() {
            self.happened(Happened::AdoptedTwice);
            row.copies += u8::from(self.mutant.new_id_each_time);
            return;
        }
        row.status = Some(status);
        row.attempt = attempt;
        row.copies = 1;
        if status.is_final() {
            self.judge_end(s, job, status);
        }
    }

    /// A foreign worker ended it: the record follows.
    pub(crate) fn mirror(&self, s: &mut State, job: usize) -> bool {
        if !s.rows[job].is_open() || !s.redis.jobs[job].place.is_over() {
            return false;
        }
        self.copy_outcome(s, job);
        true
    }

    /// Numbered so that no older start has a say after it.
    fn copy_outcome(&self, s: &mut State, job: usize) {
        let wire = s.redis.jobs[job];
        let status = match wire.place {
            Place::Completed => Status::Completed,
            _ => Status::DeadLetter,
        };
        let row = &mut s.rows[job];
        row.status = Some(status);
        row.attempt = wire.starts.max(row.attempt + 1);
        row.worker = Who::Nobody;
        self.happened(Happened::Mirrored);
        self.judge_end(s, job, status);
    }
}

fn lease_of(row: &Row) -> Lock {
    match row.worker {
        Who::Worker(worker) => Lock::Rebuilt(worker),
        Who::Nobody | Who::Gone => Lock::Old,
    }
}
