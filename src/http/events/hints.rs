//! Jobs that are worth a look: merged by job, bounded, and looked at again while the record is not
//! as far as was said.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::life::Hint;

/// Jobs that wait for a look. What is said of others meanwhile is missed, which is told.
const HINTS_MAX: usize = 5000;
/// After how long a job is looked at again, at first. Doubled each time.
const AGAIN: Duration = Duration::from_millis(150);
const AGAIN_MAX: Duration = Duration::from_millis(1200);
/// Looks at one job: about six seconds. A first start is written within 0.2 s, what clients did
/// within one or two.
const LOOKS_MAX: u32 = 8;

#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) hint: Hint,
    /// How often the job was looked at because of it.
    pub(super) looks: u32,
    due: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Hints {
    waiting: HashMap<Uuid, Waiting>,
    has_missed: bool,
}

impl Hints {
    /// Something was said of a job.
    pub(super) fn add(&mut self, job: Uuid, hint: Hint) {
        self.add_due(job, hint, Instant::now(), 0);
    }

    /// Says it again at that time.
    pub(super) fn put_off(&mut self, job: Uuid, hint: Hint, due: Instant) {
        self.add_due(job, hint, due, 0);
    }

    fn add_due(&mut self, job: Uuid, hint: Hint, due: Instant, looks: u32) {
        if let Some(known) = self.waiting.get_mut(&job) {
            known.hint.merge(hint);
            known.due = known.due.min(due);
            known.looks = known.looks.min(looks);
        } else if self.waiting.len() < HINTS_MAX {
            self.waiting.insert(job, Waiting { hint, due, looks });
        } else {
            self.has_missed = true;
        }
    }

    /// The record was not as far as was said.
    pub(super) fn again(&mut self, job: Uuid, seen: Waiting) {
        let looks = seen.looks + 1;
        if looks < LOOKS_MAX {
            let wait = AGAIN.saturating_mul(1 << seen.looks).min(AGAIN_MAX);
            self.add_due(job, seen.hint, Instant::now() + wait, looks);
        }
    }

    /// Nobody looked, because the record did not answer.
    pub(super) fn put_back(&mut self, jobs: Vec<(Uuid, Waiting)>) {
        for (job, seen) in jobs {
            self.add_due(job, seen.hint, seen.due, seen.looks);
        }
    }

    /// Events were lost before anybody read them.
    pub(super) fn miss(&mut self) {
        self.has_missed = true;
    }

    /// Whether something was missed since the last call.
    pub(super) fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.has_missed)
    }

    /// Takes out at most so many that are due.
    pub(super) fn take_due(&mut self, max: usize) -> Vec<(Uuid, Waiting)> {
        let now = Instant::now();
        let due = self.waiting.extract_if(|_, waiting| waiting.due <= now);
        due.take(max).collect()
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.has_missed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_job_is_one_look_and_too_many_jobs_are_missed() {
        let mut hints = Hints::default();
        let job = Uuid::from_u128(1);
        let (added, ended) = (
            Hint {
                added: true,
                ..Hint::default()
            },
            Hint {
                ended: true,
                ..Hint::default()
            },
        );
        hints.add(job, added);
        hints.add(job, ended);
        let due = hints.take_due(10);
        assert_eq!(due.len(), 1);
        assert!(due[0].1.hint.added && due[0].1.hint.ended);
        hints.again(job, due[0].1);
        assert!(hints.take_due(10).is_empty(), "not at once");

        for n in 0..HINTS_MAX as u128 {
            hints.add(Uuid::from_u128(n + 1), added);
        }
        assert!(!hints.take_missed());
        hints.add(Uuid::nil(), added);
        assert!(hints.take_missed() && !hints.take_missed());
        assert_eq!(hints.take_due(100).len(), 100, "as many as are wanted");
    }

    #[test]
    fn a_job_that_the_record_never_confirms_is_given_up() {
        let mut hints = Hints::default();
        let mut seen = Waiting {
            hint: Hint::default(),
            due: Instant::now(),
            looks: 0,
        };
        for looks in 1..LOOKS_MAX {
            hints.again(Uuid::nil(), seen);
            seen = hints.waiting.remove(&Uuid::nil()).unwrap();
            assert_eq!(seen.looks, looks);
        }
        hints.again(Uuid::nil(), seen);
        assert!(hints.waiting.is_empty());
    }
}
