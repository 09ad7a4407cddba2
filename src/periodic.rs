//! The one timer loop: runs a duty again and again, with jitter.
//!
//! Every duty may run in every process at once, so there is no leader. The jitter keeps processes
//! that started together from working at the same moments.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

use tokio::time::Instant;

use crate::tasks::{Counted, Names, Tasks, panic_text};

/// The share of the interval that is random.
const JITTER: f64 = 0.2;

/// What a duty wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There is more to do: at once.
    Again,
    /// After the interval.
    Rest,
}

/// How soon a duty that failed is tried again at the latest: whoever looks should not be told of an
/// outage that ended a minute ago.
const FAILED_WAIT_MAX: Duration = Duration::from_secs(5);

/// A duty that goes on failing is told of again after this time.
const TELL_EVERY: Duration = Duration::from_secs(5 * 60);

/// Runs `duty` every `interval` until the tasks stop.
///
/// An error or a panic is logged and the duty tried again after the interval, or after five seconds
/// if that is shorter; nothing a duty does is lost by trying later. While it goes on failing, that
/// is told now and then, it is named in [`Tasks::failing`], and the gauge `bullwark_duty_failing`
/// is 1.
pub fn every<F, E>(
    tasks: &Tasks,
    name: &'static str,
    interval: Duration,
    mut duty: impl FnMut() -> F + Send + 'static,
) where
    F: Future<Output = Result<Next, E>> + Send,
    E: std::fmt::Display,
{
    let stopping = tasks.stopping().clone();
    let names = tasks.failing().clone();
    tasks.spawn(name, async move {
        let mut failing = Failing::new(name, names);
        loop {
            // Stopped between two runs, never within one: a run is short and bounded.
            let next = match AssertUnwindSafe(duty()).catch_unwind().await {
                Err(panic) => {
                    failing.panicked(panic_text(panic.as_ref()));
                    Next::Rest
                }
                Ok(Ok(next)) => {
                    failing.works();
                    next
                }
                Ok(Err(error)) => {
                    failing.failed(&error);
                    Next::Rest
                }
            };
            if next == Next::Again && !stopping.is_cancelled() {
                continue;
            }
            let wait = failing
                .rest(interval)
                .mul_f64(1.0 + JITTER * (rand::random::<f64>() - 0.5));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopping.cancelled() => return,
            }
        }
    });
}

/// Whether a duty fails, since when, and when that was told last.
struct Failing {
    duty: &'static str,
    /// Both none while it works.
    since: Option<Instant>,
    told: Option<Instant>,
    /// Runs that failed since it worked.
    times: u64,
    names: Names,
    named: Option<Counted>,
}

impl Failing {
    fn new(duty: &'static str, names: Names) -> Self {
        metrics::gauge!("bullwark_duty_failing", "duty" => duty).set(0.0);
        Self {
            duty,
            since: None,
            told: None,
            times: 0,
            names,
            named: None,
        }
    }

    /// How long to wait, but for the jitter.
    fn rest(&self, interval: Duration) -> Duration {
        match self.since {
            Some(_) => interval.min(FAILED_WAIT_MAX),
            None => interval,
        }
    }

    fn works(&mut self) {
        (self.told, self.named) = (None, None);
        let (Some(since), times) = (self.since.take(), std::mem::take(&mut self.times)) else {
            return;
        };
        metrics::gauge!("bullwark_duty_failing", "duty" => self.duty).set(0.0);
        let seconds = since.elapsed().as_secs();
        tracing::info!(duty = self.duty, seconds, times, "duty works again");
    }

    fn failed(&mut self, error: &dyn std::fmt::Display) {
        if self.is_to_be_told(Instant::now()) {
            let (duty, times) = (self.duty, self.times);
            tracing::warn!(duty, times, %error, "duty failed; it will try again");
        }
    }

    /// A bug: told every time.
    fn panicked(&mut self, panic: &str) {
        self.is_to_be_told(Instant::now());
        tracing::error!(duty = self.duty, panic, "duty panicked; it will try again");
    }

    /// Notes a failed run.
    fn is_to_be_told(&mut self, now: Instant) -> bool {
        metrics::counter!("bullwark_duty_failures_total", "duty" => self.duty).increment(1);
        metrics::gauge!("bullwark_duty_failing", "duty" => self.duty).set(1.0);
        self.since.get_or_insert(now);
        self.named
            .get_or_insert_with(|| self.names.count(self.duty));
        self.times += 1;
        let is_due = self.told.is_none_or(|told| now - told >= TELL_EVERY);
        if is_due {
            self.told = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duty_that_failed_is_tried_again_soon() {
        let mut failing = Failing::new("test", Names::default());
        let (rare, often) = (Duration::from_secs(3600), Duration::from_millis(20));
        assert_eq!((failing.rest(rare), failing.rest(often)), (rare, often));
        assert!(failing.is_to_be_told(Instant::now()));
        let soon = FAILED_WAIT_MAX;
        assert_eq!((failing.rest(rare), failing.rest(often)), (soon, often));
        failing.works();
        assert_eq!(failing.rest(rare), rare);
    }

    #[test]
    fn a_duty_that_goes_on_failing_is_told_of_now_and_then() {
        let names = Names::default();
        let (mut failing, begin) = (Failing::new("test", names.clone()), Instant::now());
        assert_eq!(names.all(), []);
        assert!(failing.is_to_be_told(begin), "the first time");
        assert!(!failing.is_to_be_told(begin + TELL_EVERY / 2));
        assert!(failing.is_to_be_told(begin + TELL_EVERY), "and again");
        assert!(!failing.is_to_be_told(begin + TELL_EVERY));
        assert_eq!((failing.times, names.all()), (4, vec![("test", 1)]));
        failing.works();
        assert_eq!(names.all(), []);
        assert_eq!((failing.times, failing.since), (0, None));
        assert!(failing.is_to_be_told(begin), "after it worked, it is news");
    }
}
