//! What a run found wrong, by the invariant that it breaks.

use std::collections::BTreeMap;

use serde::Serialize;

/// Examples that are kept of each.
const EXAMPLES_MAX: usize = 20;

/// The invariants of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Law {
    /// I1: every acknowledged job ends, once, as it should.
    NoLoss,
    /// I2: nothing runs and nothing is in the record that nobody was told of.
    NoPhantom,
    /// I3: effects once.
    OnceEffects,
    /// I4: no write of an attempt that is not the newest.
    NoZombie,
    /// I5: a job runs again only for a reason.
    NoRepeat,
    /// I6: both stores agree.
    Agreement,
    /// I7: order and priority.
    Order,
    /// I7: a parent after its children.
    Flows,
    /// I7: iterations come as long as nothing breaks.
    Schedule,
    /// I8: no more at once, and no more in a time, than a queue allows.
    Limits,
    /// I9: histories are legal.
    History,
    /// I10: a workspace sees its own jobs only.
    Isolation,
    /// I11: nothing grows without bound.
    Bounded,
    /// The run itself: a process that ended by itself, an answer that no client can use.
    Processes,
}

/// How often a law was broken, with examples.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Broken {
    pub(super) count: u64,
    pub(super) examples: Vec<String>,
}

/// All that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Violations(pub(super) BTreeMap<Law, Broken>);

impl Violations {
    pub(super) fn add(&mut self, law: Law, example: impl Into<String>) {
        let broken = self.0.entry(law).or_default();
        broken.count += 1;
        if broken.examples.len() < EXAMPLES_MAX {
            broken.examples.push(example.into());
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self, law: Law) -> u64 {
        self.0.get(&law).map_or(0, |broken| broken.count)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
