//! What the checker remembers of each job: a fixed 24 bytes, by number, however many lines there
//! are. Iterations of the schedule, one a second, are in a map.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use uuid::Uuid;

use super::space::Space;

/// Jobs of one part of the load, at most: a number beyond is none of ours.
const JOBS_MAX: u64 = 1_000_000_000;

/// A client was told.
pub(super) const ACCEPTED: u8 = 1;
/// A run ended well.
pub(super) const WELL: u8 = 2;
/// The last run has ended.
pub(super) const OVER: u8 = 4;
/// The last run has ended by failing.
pub(super) const FAILED: u8 = 8;
/// The record has it.
pub(super) const RECORDED: u8 = 16;

/// What is known of one job.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// A hash of its id.
    pub(super) id: u64,
    /// Milliseconds since the first line with a time.
    pub(super) last_ms: u32,
    pub(super) last_pid: u32,
    pub(super) last_attempt: u16,
    pub(super) starts: u8,
    pub(super) effects: u8,
    pub(super) flags: u8,
}

/// All jobs.
#[derive(Debug, Default)]
pub(super) struct AllSeen {
    parts: [Vec<Seen>; Space::ALL.len()],
    ticks: BTreeMap<u64, Seen>,
}

impl AllSeen {
    /// None for a number that no job of a run can have.
    pub(super) fn at(&mut self, seq: u64) -> Option<&mut Seen> {
        let space = Space::of(seq)?;
        if space == Space::Ticks {
            return Some(self.ticks.entry(seq).or_default());
        }
        let nth = Space::nth(seq);
        if nth >= JOBS_MAX {
            return None;
        }
        let part = &mut self.parts[space as usize];
        if part.len() <= nth as usize {
            part.resize(nth as usize + 1, Seen::default());
        }
        part.get_mut(nth as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Seen)> {
        let parts = Space::ALL.iter().zip(&self.parts);
        let parts = parts.flat_map(|(space, part)| (space.from()..).zip(part));
        parts.chain(self.ticks.iter().map(|(seq, seen)| (*seq, seen)))
    }
}

/// Never 0, which stands for no id.
pub(super) fn hash(id: Uuid) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish().max(1)
}
