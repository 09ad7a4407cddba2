//! How much of a workspace is told one by one, and what is told of the rest.

use std::time::{Duration, Instant};

use super::kinds::Changed;
use super::life::Happened;

/// Events that are told one by one within a window.
const EVENTS_MAX: usize = 40;
const WINDOW: Duration = Duration::from_millis(250);
/// Between two sums of the rest.
const SUMS_EVERY: Duration = Duration::from_millis(500);

/// What happens in one workspace.
#[derive(Debug, Default)]
pub(super) struct Flood {
    window: Option<Instant>,
    passed: usize,
    rest: Option<Changed>,
    told: Option<Instant>,
}

impl Flood {
    /// What may be told of a job; if it is too much now, nothing, and it is added to the sum. All
    /// of a job or nothing: half of it would tell something else.
    pub(super) fn pass(&mut self, happened: Vec<Happened>) -> Vec<Happened> {
        if self.window.is_none_or(|began| began.elapsed() >= WINDOW) {
            (self.window, self.passed) = (Some(Instant::now()), 0);
        }
        if happened.is_empty() || self.passed + happened.len() <= EVENTS_MAX {
            self.passed += happened.len();
            return happened;
        }
        let rest = self.rest();
        rest.jobs += 1;
        for kind in happened {
            *rest.happened.entry(kind.as_str()).or_default() += 1;
        }
        Vec::new()
    }

    /// Something happened of which nobody knows what it is.
    pub(super) fn miss(&mut self) {
        self.rest().is_complete = false;
    }

    fn rest(&mut self) -> &mut Changed {
        self.rest.get_or_insert_with(|| Changed {
            is_complete: true,
            ..Changed::default()
        })
    }

    /// The sum, if there is one and the last one was told long enough ago.
    pub(super) fn take_due(&mut self) -> Option<Changed> {
        let is_early = self.told.is_some_and(|at| at.elapsed() < SUMS_EVERY);
        let due = if is_early { None } else { self.rest.take() };
        if due.is_some() {
            self.told = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_summed_up() {
        let mut flood = Flood::default();
        let lives = || vec![Happened::Started, Happened::Completed];
        let told = (0..EVENTS_MAX)
            .map(|_| flood.pass(lives()).len())
            .sum::<usize>();
        assert_eq!(told, EVENTS_MAX);
        let changed = flood.take_due().unwrap();
        assert!(changed.is_complete);
        assert_eq!(changed.jobs as usize, EVENTS_MAX / 2);
        assert_eq!(changed.happened["completed"] as usize, EVENTS_MAX / 2);
        assert!(flood.take_due().is_none());

        flood.miss();
        assert!(flood.take_due().is_none(), "not so soon");
        flood.told = None;
        assert!(!flood.take_due().unwrap().is_complete);
    }
}
