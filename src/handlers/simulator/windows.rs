//! The limits that providers keep to, as they count them.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::super::providers::DataSource;

/// Calls of a provider that count. What was refused does not.
#[derive(Debug)]
pub(super) struct Window {
    max: usize,
    per: Duration,
    /// Opens with a call and ends all at once; else each call leaves it when it is that old.
    is_fixed: bool,
    calls: VecDeque<Instant>,
}

/// What is left of the narrowest window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub(super) max: usize,
    pub(super) left: usize,
    pub(super) resets_in: Duration,
}

impl Window {
    fn fixed(max: usize, per: Duration) -> Self {
        Self {
            is_fixed: true,
            ..Self::sliding(max, per)
        }
    }

    pub(super) fn sliding(max: usize, per: Duration) -> Self {
        Self {
            max,
            per,
            is_fixed: false,
            calls: VecDeque::new(),
        }
    }

    fn forget(&mut self, now: Instant) {
        let is_over = |at: &Instant| now.duration_since(*at) >= self.per;
        match self.is_fixed {
            true if self.calls.front().is_some_and(is_over) => self.calls.clear(),
            true => {}
            false => {
                let over = self.calls.iter().take_while(|at| is_over(at)).count();
                self.calls.drain(..over);
            }
        }
    }

    fn left(&self, now: Instant) -> Left {
        let oldest = self.calls.front();
        let resets_in = oldest.map_or(self.per, |oldest| {
            self.per.saturating_sub(now.duration_since(*oldest))
        });
        Left {
            max: self.max,
            left: self.max.saturating_sub(self.calls.len()),
            resets_in,
        }
    }
}

/// What each provider publishes.
pub(super) fn published(source: DataSource) -> Vec<Window> {
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
    match source {
        DataSource::Clearbit => vec![Window::fixed(600, hour / 60)],
        DataSource::Apollo => vec![Window::fixed(1000, hour / 60)],
        DataSource::Zoominfo => vec![
            Window::sliding(5, second),
            Window::sliding(10_800, hour),
            Window::sliding(129_600, hour * 24),
        ],
    }
}

/// Counts a call in all of them; none: it does not fit into one.
pub(super) fn take(windows: &mut [Window], now: Instant) -> Option<Left> {
    for window in windows.iter_mut() {
        window.forget(now);
    }
    if windows.iter().any(|window| window.left(now).left == 0) {
        return None;
    }
    for window in windows.iter_mut() {
        window.calls.push_back(now);
    }
    Some(told(windows, now))
}

/// What is said of them: of the narrowest. One that is full is waited for.
pub(super) fn told(windows: &[Window], now: Instant) -> Left {
    let all = windows.iter().map(|window| window.left(now));
    let narrowest = all.min_by_key(|left| (left.left, std::cmp::Reverse(left.resets_in)));
    narrowest.unwrap_or(Left {
        max: usize::MAX,
        left: usize::MAX,
        resets_in: Duration::ZERO,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_window_ends_at_once_and_a_sliding_one_call_by_call() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let per = Duration::from_secs(10);
        let (mut fixed, mut sliding) = ([Window::fixed(2, per)], [Window::sliding(2, per)]);
        for windows in [&mut fixed, &mut sliding] {
            assert_eq!(take(windows, at(0)).unwrap().left, 1);
            assert_eq!(take(windows, at(9)).unwrap().left, 0);
            assert!(take(windows, at(9)).is_none());
            assert_eq!(told(windows, at(9)).resets_in, Duration::from_secs(1));
        }
        assert_eq!(take(&mut fixed, at(10)).unwrap().left, 1);
        assert_eq!(take(&mut sliding, at(10)).unwrap().left, 0);
        assert!(take(&mut sliding, at(18)).is_none());
        assert!(take(&mut sliding, at(19)).is_some());
    }

    #[test]
    fn a_call_that_fits_into_one_window_only_costs_nothing_in_any() {
        let now = Instant::now();
        let per = Duration::from_secs(10);
        let mut both = [Window::sliding(1, per), Window::sliding(5, per * 6)];
        assert!(take(&mut both, now).is_some());
        assert!(take(&mut both, now).is_none());
        assert_eq!(both[1].left(now).left, 4);
    }
}
