//! Enqueue: commit, acknowledge, add. It may die between any two.

use bullwark::job::Status;

use super::protocol::{Happened, Protocol};
use super::state::{ABSENT, Enqueuer, Place, State, Wire};

impl Protocol {
    /// The row is there from here on; who asked does not know it yet.
    pub(crate) fn commit(&self, s: &mut State, job: usize) -> bool {
        let first = match self.mutant.ack_before_commit {
            true => Enqueuer::Acked,
            false => Enqueuer::New,
        };
        if s.enqueuers[job] != first || !self.is_own(job) || s.rows[job].status.is_some() {
            return false;
        }
        s.rows[job].status = Some(Status::Pending);
        s.rows[job].copies = 1;
        if !self.mutant.ack_before_commit {
            s.enqueuers[job] = Enqueuer::Committed;
        }
        true
    }

    pub(crate) fn ack(&self, s: &mut State, job: usize) -> bool {
        let before = match self.mutant.ack_before_commit {
            true => Enqueuer::New,
            false => Enqueuer::Committed,
        };
        if s.enqueuers[job] != before || !self.is_own(job) {
            return false;
        }
        s.enqueuers[job] = Enqueuer::Acked;
        s.judged.acked[job] = true;
        true
    }

    /// The original add. Nothing is done if the job is there already, if the grace is over, or if
    /// the call was made for another memory of Redis. One whose reply was lost is not made again.
    pub(crate) fn add(&self, s: &mut State, job: usize, is_heard: bool) -> bool {
        let for_memory = match s.enqueuers[job] {
            Enqueuer::Acked => s.redis.memory,
            Enqueuer::Unheard { memory } => memory,
            Enqueuer::New | Enqueuer::Committed | Enqueuer::Done => return false,
        };
        if s.rows[job].status.is_none() {
            return false;
        }
        if !is_heard {
            if s.enqueuers[job] != Enqueuer::Acked || !self.fault(s, Happened::LostReply) {
                return false;
            }
            s.enqueuers[job] = match self.mutant.repeats_adds {
                true => Enqueuer::Unheard { memory: for_memory },
                false => Enqueuer::Done, // the reconciler asks the record first
            };
        } else {
            s.enqueuers[job] = Enqueuer::Done;
        }
        let late = self.mutant.late_add_again;
        let is_taken = s.redis.jobs[job].place == Place::Absent || late;
        let is_its_memory = for_memory == s.redis.memory || self.mutant.add_to_any_memory;
        let is_wanted = is_its_memory && (!s.rows[job].is_old || late);
        if is_taken && is_wanted {
            s.redis.jobs[job] = Wire {
                place: Place::Waiting,
                ..ABSENT
            };
        }
        true
    }

    /// It died, or Redis was away: the job is left to the reconciler.
    pub(crate) fn enqueuer_dies(&self, s: &mut State, job: usize) -> bool {
        let is_busy = !matches!(s.enqueuers[job], Enqueuer::New | Enqueuer::Done);
        if !is_busy || !self.fault(s, Happened::EnqueuerDied) {
            return false;
        }
        s.enqueuers[job] = Enqueuer::Done;
        true
    }

    /// The grace ends.
    pub(crate) fn age(&self, s: &mut State, job: usize) -> bool {
        if s.rows[job].status.is_none() || s.rows[job].is_old {
            return false;
        }
        s.rows[job].is_old = true;
        true
    }
}
