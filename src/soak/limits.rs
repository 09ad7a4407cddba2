//! I8: what a queue lets run at once, and what it lets start in a time, by the ledger.
//!
//! Between its first line and its last a run is active in Redis, so lines in the order of the
//! ledger never show more jobs at once than the limit, unless one of them has lost its lease: a run
//! that a fault may have met since it began is not counted. The limit of starts is one of fixed
//! windows, each from its first start: any shorter time may see the end of one and the beginning
//! of the next.

use std::collections::{BTreeMap, VecDeque};

use super::excuses::Excuses;
use super::sides::{AT_ONCE, STARTS, WINDOW_MS};
use super::violations::{Law, Violations};

/// A time that meets two windows at most, even if some starts come late by half of one.
const SHORT_MS: i64 = WINDOW_MS as i64 / 2;
const SHORT_MAX: u64 = 2 * STARTS;
/// A time of ten windows meets eleven, twelve with the ones that come late.
const LONG_MS: i64 = 10 * WINDOW_MS as i64;
const LONG_MAX: u64 = 12 * STARTS;

/// Both limits, and the most that was seen of each without an excuse.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// The process and the beginning of runs that go on, by job.
    running: BTreeMap<u64, (u32, i64)>,
    starts: VecDeque<i64>,
    pub(super) most_at_once: u64,
    pub(super) most_starts: u64,
}

impl Limits {
    /// A run of the gated queue began.
    pub(super) fn began(
        &mut self,
        (seq, pid, at_ms): (u64, u32, i64),
        excuses: &Excuses,
        violations: &mut Violations,
    ) {
        self.running.insert(seq, (pid, at_ms));
        let held = self.running.values();
        let held = held.filter(|(pid, from_ms)| !excuses.may_let_go(*pid, *from_ms, at_ms));
        let at_once = held.count() as u64;
        self.most_at_once = self.most_at_once.max(at_once);
        if at_once > AT_ONCE {
            let text = format!("job {seq} began at {at_ms}, the {at_once}th at once of {AT_ONCE}");
            violations.add(Law::Limits, text);
        }
    }

    /// The end of an earlier run of the job says nothing about the one that goes on.
    pub(super) fn ended(&mut self, seq: u64, pid: u32) {
        if self.running.get(&seq).is_some_and(|run| run.0 == pid) {
            self.running.remove(&seq);
        }
    }

    /// A run of the metered queue began.
    pub(super) fn metered(&mut self, at_ms: i64, excuses: &Excuses, violations: &mut Violations) {
        self.starts.push_back(at_ms);
        while self
            .starts
            .front()
            .is_some_and(|first| *first <= at_ms - LONG_MS)
        {
            self.starts.pop_front();
        }
        for (time_ms, most) in [(SHORT_MS, SHORT_MAX), (LONG_MS, LONG_MAX)] {
            let from_ms = at_ms - time_ms;
            let starts = self.starts.iter();
            let starts = starts.filter(|start| (from_ms + 1..=at_ms).contains(*start));
            let starts = starts.count() as u64;
            if excuses.may_reset_limits(from_ms, at_ms) {
                continue;
            }
            if time_ms == SHORT_MS {
                self.most_starts = self.most_starts.max(starts);
            }
            if starts > most {
                let text = format!("{starts} jobs began from {from_ms} to {at_ms}, at most {most}");
                violations.add(Law::Limits, text);
            }
        }
    }
}
