//! How urgent a job is: 0 to 10, higher first.

use serde::{Deserialize, Serialize};

/// The specification's scale: 0 (default) to 10 (most urgent).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "i64", into = "i64")]
pub struct Priority(u8);

/// A number outside the scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("priority is {0}, it must be between 0 and {max}", max = Priority::MAX)]
pub struct PriorityOutOfRange(pub i64);

impl Priority {
    pub const MAX: u8 = 10;
    /// From here on somebody waits for what the job does.
    pub const INTERACTIVE: u8 = 8;

    /// The number that `BullMQ` sorts by: 1 is most urgent, so the scale is turned round.
    ///
    /// It is never 0: on the wire 0 means "no priority", and such jobs go before all others.
    pub fn to_wire(self) -> u32 {
        u32::from(Self::MAX - self.0) + 1
    }

    /// The nearest priority of the scale for a number of the wire. `BullMQ`'s 0 goes first there,
    /// so it is the most urgent here; everything less urgent than 11 is 0.
    pub fn from_wire(wire: u32) -> Self {
        match wire {
            0 => Self(Self::MAX),
            1..=11 => Self(Self::MAX + 1 - wire as u8),
            _ => Self(0),
        }
    }

    /// Whether a number of the wire says that somebody waits. No priority at all, `BullMQ`'s 0,
    /// does not, though such jobs go first.
    pub fn is_interactive(wire: u32) -> bool {
        wire != 0 && Self::from_wire(wire).0 >= Self::INTERACTIVE
    }

    pub fn get(self) -> i32 {
        i32::from(self.0)
    }
}

impl TryFrom<i64> for Priority {
    type Error = PriorityOutOfRange;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        match u8::try_from(number) {
            Ok(small) if small <= Self::MAX => Ok(Self(small)),
            _ => Err(PriorityOutOfRange(number)),
        }
    }
}

impl From<Priority> for i64 {
    fn from(priority: Priority) -> Self {
        Self::from(priority.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_turns_the_scale_round() {
        let wire = |n: i64| Priority::try_from(n).unwrap().to_wire();
        assert_eq!((wire(0), wire(1), wire(10)), (11, 10, 1));
        for n in 0..=10 {
            let priority = Priority::try_from(n).unwrap();
            assert_eq!(Priority::from_wire(priority.to_wire()), priority);
        }
        assert_eq!(Priority::from_wire(0).get(), 10);
        assert_eq!(Priority::from_wire(2_097_151).get(), 0);
    }

    #[test]
    fn a_number_outside_the_scale_is_refused() {
        for n in [-1, 11, 256, i64::MIN] {
            assert_eq!(Priority::try_from(n), Err(PriorityOutOfRange(n)));
        }
    }

    #[test]
    fn somebody_waits_for_jobs_of_the_highest_priorities_only() {
        for n in 0..=10 {
            let priority = Priority::try_from(n).unwrap();
            assert_eq!(Priority::is_interactive(priority.to_wire()), n >= 8, "{n}");
        }
        assert!(!Priority::is_interactive(0), "none was given");
        assert!(!Priority::is_interactive(100));
    }
}
