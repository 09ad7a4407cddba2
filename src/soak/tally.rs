//! The figures of a check.

use std::collections::BTreeMap;

/// What the ledger and the record say, in numbers.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(super) struct Tally {
    pub(super) lines: u64,
    /// Jobs of the main part of the load.
    pub(super) accepted: u64,
    /// Those of the other parts, and the iterations that ran.
    pub(super) sides: BTreeMap<&'static str, u64>,
    /// The most that was seen in the queues with limits, of jobs at once and of starts in half a
    /// window.
    pub(super) most_at_once: u64,
    pub(super) most_starts: u64,
    pub(super) starts: u64,
    /// Runs that a fault caused to be repeated, by the newest fault that explains each.
    pub(super) repeats: BTreeMap<String, u64>,
    /// Of these, runs that began while the earlier one may still have been running.
    pub(super) overlaps: u64,
    /// Starts with a number that was used before: Redis had forgotten it, or the process was
    /// frozen between its claim and the handler.
    pub(super) old_numbers: u64,
    /// Runs that were told that they have no say any more.
    pub(super) fenced: u64,
    /// Effects without a key, and how many of them were repeated.
    pub(super) letters: u64,
    pub(super) letters_repeated: u64,
    pub(super) completed: u64,
    pub(super) dead: u64,
    /// Jobs that were given up because their workers vanished again and again.
    pub(super) crash_loops: u64,
    /// Jobs without which something is wrong: told of, and not in the record or not over.
    pub(super) lost: u64,
    /// How often each fault was done.
    pub(super) faults: BTreeMap<String, u64>,
}
