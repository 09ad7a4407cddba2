//! Looking through a bucket in passes: one looks at so much, and the next goes on behind it.
//!
//! Promises: whatever there is comes up in some pass, however much stands before it, and whatever
//! the storage refuses to remove. Refuses to remember it longer than the process lives: then a
//! round begins anew, which costs nothing but time.

use super::StorageError;

/// Objects that a pass looks at.
const LOOK_MAX: usize = 100_000;
/// Removals that may be refused in a pass; each of them is a request, and a line in the log.
const REFUSED_MAX: usize = 100;
/// An answer that does not come takes its time: as many refusals as that.
const AWAY_COUNTS: usize = 25;

/// Where the next pass goes on; new, at the beginning.
#[derive(Debug, Clone)]
pub struct Round {
    look_max: usize,
    /// The key of the last object that was looked at.
    pub(crate) object: Option<String>,
    pub(crate) sending: Option<Mark>,
}

/// The last sending that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) key: String,
    pub(crate) id: String,
}

/// A part of a list.
#[derive(Debug)]
pub(crate) struct Portion<T, M> {
    pub(crate) found: Vec<T>,
    /// Where the list goes on; none: this was its end.
    pub(crate) next: Option<M>,
}

impl Default for Round {
    fn default() -> Self {
        Self::looking_at(LOOK_MAX)
    }
}

impl Round {
    /// With passes of so many objects.
    pub fn looking_at(look_max: usize) -> Self {
        Self {
            look_max,
            object: None,
            sending: None,
        }
    }

    pub(crate) fn look_max(&self) -> usize {
        self.look_max
    }
}

/// What became of what a pass wanted to remove.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    pub removed: usize,
    /// The storage did not; it is tried again in the next round.
    pub refused: usize,
    /// Refusals, and what they cost.
    weight: usize,
}

impl Removed {
    pub(crate) fn note(&mut self, key: &str, done: Result<(), StorageError>) {
        let Err(error) = done else {
            self.removed += 1;
            return;
        };
        self.refused += 1;
        self.weight += match error {
            StorageError::Away(_) => AWAY_COUNTS,
            _ => 1,
        };
        tracing::warn!(key, %error, "not removed from the object storage");
    }

    /// Whether the pass should end here: the rest is looked at in the next one.
    pub(crate) fn is_enough(&self) -> bool {
        self.weight >= REFUSED_MAX
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.removed += other.removed;
        self.refused += other.refused;
    }
}
