//! One bad entry must not hold up the others: a batch that is refused is halved down to it.
//!
//! A statement or a script fails as a whole, and does not say which of its many rows or keys is to
//! blame. So the two halves are tried, and theirs, until the bad one stands alone; that one is
//! passed over, told of once, and counted. Nothing is lost by that: its row stays as it is, and the
//! passes that go round and round come to it again.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::ReconcileError;

/// Bad jobs that are remembered as told of; then the memory begins anew.
const TOLD_MAX: usize = 10_000;

static TOLD: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

/// The parts of a batch that are still to be tried, in order.
#[derive(Debug)]
pub(super) struct Halves<'a, T> {
    /// The next one is the last.
    parts: Vec<&'a [T]>,
}

impl<'a, T> Halves<'a, T> {
    pub(super) fn of(all: &'a [T]) -> Self {
        Self { parts: vec![all] }
    }

    pub(super) fn next(&mut self) -> Option<&'a [T]> {
        self.parts.pop()
    }

    /// What was done of a part. None when it was refused: then its halves are tried next, or, if it
    /// is a single entry, `pass_over` hears of it. An error that says nothing about the entries,
    /// as when a store is away, is returned: then the rest is not tried.
    pub(super) fn judge<R>(
        &mut self,
        part: &'a [T],
        done: Result<R, ReconcileError>,
        pass_over: impl FnOnce(&'a T, &ReconcileError),
    ) -> Result<Option<R>, ReconcileError> {
        let error = match done {
            Ok(done) => return Ok(Some(done)),
            Err(error) if error.is_about_entries() => error,
            Err(error) => return Err(error),
        };
        match part {
            [] => return Err(error),
            [entry] => pass_over(entry, &error),
            _ => {
                let (first, second) = part.split_at(part.len() / 2);
                self.parts.push(second);
                self.parts.push(first);
            }
        }
        Ok(None)
    }
}

/// Counts a job that was passed over, and tells of it once per process.
pub(super) fn passed_over(queue: &str, job: &str, error: &dyn std::fmt::Display) {
    metrics::counter!("bullwark_jobs_unrecordable_total").increment(1);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() >= TOLD_MAX {
        told.clear();
    }
    if told.insert((queue.to_owned(), job.to_owned())) {
        tracing::error!(queue, job.id = job, %error, "a job is passed over: a store refuses it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::BrokerError;

    fn refused() -> ReconcileError {
        BrokerError::Corrupt {
            doing: "test",
            reason: "no".into(),
        }
        .into()
    }

    /// Returns what was done, and what was passed over.
    fn tried(all: &[u32], is_bad: fn(u32) -> bool) -> (Vec<u32>, Vec<u32>) {
        let (mut done, mut bad) = (Vec::new(), Vec::new());
        let mut halves = Halves::of(all);
        while let Some(part) = halves.next() {
            let result = match part.iter().any(|n| is_bad(*n)) {
                true => Err(refused()),
                false => Ok(part.to_vec()),
            };
            let result = halves.judge(part, result, |n, _| bad.push(*n)).unwrap();
            done.extend(result.into_iter().flatten());
        }
        (done, bad)
    }

    #[test]
    fn all_but_the_bad_ones_are_done_in_order() {
        let all: Vec<u32> = (0..100).collect();
        let (done, bad) = tried(&all, |n| n == 0 || n == 37 || n == 99);
        assert_eq!(bad, [0, 37, 99]);
        let good: Vec<u32> = all.into_iter().filter(|n| !bad.contains(n)).collect();
        assert_eq!(done, good);
        assert_eq!(tried(&[1], |_| true), (vec![], vec![1]));
        assert_eq!(tried(&[], |_| true), (vec![], vec![]));
    }

    #[test]
    fn a_store_that_is_away_ends_it() {
        let mut halves = Halves::of(&[1, 2]);
        let part = halves.next().unwrap();
        let away = BrokerError::Unavailable {
            doing: "test",
            trouble: crate::broker::Trouble::Away,
            reason: "away".into(),
        };
        let judged = halves.judge(part, Err::<(), _>(away.into()), |_, _| {
            unreachable!("no entry is to blame")
        });
        assert!(judged.unwrap_err().is_unavailable());
        assert!(halves.next().is_none());
    }
}
