//! What was taken of an allowance and not used yet, by the minute in which it was taken.
//!
//! It can be given back to that minute only: out of a newer one it would be free for longer than
//! what it was taken for, and an hour could have more than the limit.

use std::collections::VecDeque;

/// Minutes since 1970 with what was taken in each, oldest first. As many as there are minutes in
/// the time that it may lie unused, and one more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Taken(VecDeque<(i64, u64)>);

impl Taken {
    pub(super) fn of(minute: i64, jobs: u64) -> Self {
        Self(
            [(minute, jobs)]
                .into_iter()
                .filter(|(_, jobs)| *jobs > 0)
                .collect(),
        )
    }

    pub(super) fn jobs(&self) -> u64 {
        self.0.iter().map(|(_, jobs)| jobs).sum()
    }

    pub(super) fn add(&mut self, other: Self) {
        for (minute, jobs) in other.0 {
            let at = self.0.partition_point(|(known, _)| *known < minute);
            match self.0.get_mut(at) {
                Some((known, of_it)) if *known == minute => *of_it += jobs,
                _ => self.0.insert(at, (minute, jobs)),
            }
        }
    }

    /// Takes so much out of it, or all of it: the oldest first, which is worth least.
    pub(super) fn draw(&mut self, mut jobs: u64) -> Self {
        let mut drawn = Self::default();
        while jobs > 0
            && let Some((minute, left)) = self.0.front_mut()
        {
            let part = jobs.min(*left);
            drawn.0.push_back((*minute, part));
            jobs -= part;
            *left -= part;
            if *left == 0 {
                self.0.pop_front();
            }
        }
        drawn
    }
}

impl IntoIterator for Taken {
    type Item = (i64, u64);
    type IntoIter = std::collections::vec_deque::IntoIter<(i64, u64)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_used_first_and_each_part_keeps_its_minute() {
        let mut kept = Taken::of(7, 3);
        kept.add(Taken::of(9, 5));
        kept.add(Taken::of(8, 0));
        kept.add(Taken::of(7, 1));
        assert_eq!(kept.jobs(), 9);
        let mut drawn = kept.draw(6);
        assert_eq!(drawn, Taken([(7, 4), (9, 2)].into()));
        assert_eq!(kept, Taken([(9, 3)].into()));
        // Of those, four are used: the rest goes back where it came from.
        drawn.draw(3);
        kept.add(drawn);
        assert_eq!(kept, Taken([(7, 1), (9, 5)].into()));
        assert_eq!(kept.draw(100).jobs(), 6);
        assert_eq!(kept, Taken::default());
    }
}
