//! The numbers of jobs: each part of the load has its own, so that a number tells what its job is.

use super::plan::{ORDER_QUEUE, QUEUE};

/// Bits of the numbers of one part.
const BITS: u32 = 40;

/// The parts of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    /// What the rate, the duration and the volume of a run are about.
    Main,
    /// The look at the order, see `order`.
    Order,
    /// Parents with children; a parent's number is a multiple of [`FAMILY`].
    Flows,
    /// A queue that lets few jobs run at once.
    Gated,
    /// A queue that lets few jobs start per second.
    Metered,
    /// Jobs of another workspace, in the queue of the others.
    Neighbour,
    /// Iterations of a schedule; the number is that of the second.
    Ticks,
}

/// A parent and its children.
pub(super) const FAMILY: u64 = 4;

impl Space {
    pub(super) const ALL: [Self; 7] = [
        Self::Main,
        Self::Order,
        Self::Flows,
        Self::Gated,
        Self::Metered,
        Self::Neighbour,
        Self::Ticks,
    ];

    /// Its first number.
    pub(super) const fn from(self) -> u64 {
        (self as u64) << BITS
    }

    /// The part to which a number belongs; none for one that no job has.
    pub(super) fn of(seq: u64) -> Option<Self> {
        Self::ALL.get((seq >> BITS) as usize).copied()
    }

    /// Which of its part a job is.
    pub(super) const fn nth(seq: u64) -> u64 {
        seq & ((1 << BITS) - 1)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Order => "order",
            Self::Flows => "flows",
            Self::Gated => "gated",
            Self::Metered => "metered",
            Self::Neighbour => "neighbour",
            Self::Ticks => "ticks",
        }
    }

    pub(super) fn queue(self) -> &'static str {
        match self {
            Self::Main | Self::Flows | Self::Neighbour => QUEUE,
            Self::Order => ORDER_QUEUE,
            Self::Gated => "soak-gated",
            Self::Metered => "soak-metered",
            Self::Ticks => "soak-ticks",
        }
    }
}

/// The queues of the load. Workers look at the small ones first.
pub(super) fn queues() -> [&'static str; 4] {
    [Space::Ticks, Space::Gated, Space::Metered, Space::Main].map(Space::queue)
}

/// Whether this is a parent, which may begin when its children, the next numbers, are done.
pub(super) fn is_parent(seq: u64) -> bool {
    Space::of(seq) == Some(Space::Flows) && Space::nth(seq).is_multiple_of(FAMILY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_tells_its_part() {
        for space in Space::ALL {
            assert_eq!(Space::of(space.from() + 5), Some(space));
            assert_eq!(Space::nth(space.from() + 5), 5);
        }
        assert_eq!(Space::of(7 << BITS), None);
        assert!(is_parent(Space::Flows.from() + 8) && !is_parent(Space::Flows.from() + 9));
        assert!(!is_parent(8));
    }
}
