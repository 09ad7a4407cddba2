//! How many deliveries are under way in this process: of one webhook, and of one workspace.
//!
//! Whoever finds all turns taken is told when to come back, which is later the more are waiting
//! already, and the slower the receiver is: deliveries to one that hangs, or of a long backlog, are
//! not claimed again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// Of one webhook; of one whose receiver failed the last time it is one.
const WEBHOOK_MAX: usize = 6;
/// Of all webhooks of one workspace.
pub(super) const WORKSPACE_MAX: usize = 8;
/// Webhooks that are remembered while nothing of theirs is under way.
const LANES_MAX: usize = 1000;
/// What a call is taken to last before the first one has ended, and the bounds of what counts.
const USUAL: Duration = Duration::from_millis(500);
const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(20);
/// The shortest and the longest time for which one is put off.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(300);

/// A webhook in its workspace: whoever names another workspace's holds it up nowhere.
pub(super) type Key = (Uuid, Uuid);

/// A cheap handle. As large as what is under way, and [`LANES_MAX`] more.
#[derive(Debug, Clone, Default)]
pub(super) struct AtOnce(Arc<Mutex<Lanes>>);

#[derive(Debug, Default)]
struct Lanes {
    webhooks: HashMap<Key, Lane>,
    workspaces: HashMap<Uuid, usize>,
}

#[derive(Debug)]
struct Lane {
    running: usize,
    is_failing: bool,
    took: Duration,
    /// When the last one that was put off is to come back.
    last: Instant,
}

impl Lane {
    fn max(&self) -> usize {
        if self.is_failing { 1 } else { WEBHOOK_MAX }
    }

    /// When one more comes back: behind the others, at the pace of the receiver.
    fn put_off(&mut self, now: Instant, random: f64) -> Duration {
        let step = self.took.clamp(SHORTEST, LONGEST) / self.max() as u32;
        let wait = self.last.max(now) + step - now;
        if wait >= WAIT_MAX {
            // Not all together.
            self.last = now + WAIT_MAX;
            return WAIT_MAX.mul_f64(0.5 + random / 2.0);
        }
        self.last = now + wait;
        wait.max(WAIT_MIN).mul_f64(1.0 + random / 4.0).min(WAIT_MAX)
    }
}

/// Is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    of: AtOnce,
    key: Key,
    since: Instant,
}

impl Turn {
    /// Tells how the call went, which says how many may follow and how soon.
    pub(super) fn called(&self, is_ok: bool) {
        self.called_for(self.since.elapsed(), is_ok);
    }

    fn called_for(&self, took: Duration, is_ok: bool) {
        let mut lanes = self.of.lanes();
        if let Some(lane) = lanes.webhooks.get_mut(&self.key) {
            if lane.is_failing && is_ok {
                // Those who come now need not wait as long as when it failed.
                lane.last = Instant::now();
            }
            lane.is_failing = !is_ok;
            lane.took = (lane.took + took) / 2;
        }
    }
}

impl AtOnce {
    /// A turn, or how long to wait. `random` is in `0.0..1.0`.
    pub(super) fn enter(&self, key: Key, random: f64) -> Result<Turn, Duration> {
        self.enter_at(key, random, Instant::now())
    }

    fn enter_at(&self, key: Key, random: f64, now: Instant) -> Result<Turn, Duration> {
        let mut lanes = self.lanes();
        let in_workspace = lanes.workspaces.get(&key.0).copied().unwrap_or(0);
        if lanes.webhooks.len() >= LANES_MAX && !lanes.webhooks.contains_key(&key) {
            lanes.webhooks.retain(|_, lane| lane.running > 0);
        }
        let lane = lanes.webhooks.entry(key).or_insert_with(|| Lane {
            running: 0,
            is_failing: false,
            took: USUAL,
            last: now,
        });
        if lane.running >= lane.max() || in_workspace >= WORKSPACE_MAX {
            return Err(lane.put_off(now, random));
        }
        lane.running += 1;
        lanes.workspaces.insert(key.0, in_workspace + 1);
        Ok(Turn {
            of: self.clone(),
            key,
            since: now,
        })
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lanes = self.of.lanes();
        if let Some(lane) = lanes.webhooks.get_mut(&self.key) {
            lane.running -= 1;
        }
        if let Some(count) = lanes.workspaces.get_mut(&self.key.0) {
            *count -= 1;
            if *count == 0 {
                lanes.workspaces.remove(&self.key.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(workspace: u128, webhook: u128) -> Key {
        (Uuid::from_u128(workspace), Uuid::from_u128(webhook))
    }

    /// As many turns as there are.
    fn all_of(at_once: &AtOnce, key: Key) -> Vec<Turn> {
        std::iter::from_fn(|| at_once.enter(key, 0.0).ok()).collect()
    }

    #[test]
    fn neither_a_webhook_nor_a_workspace_keeps_others_out() {
        let at_once = AtOnce::default();
        let slow = all_of(&at_once, key(1, 1));
        assert_eq!(slow.len(), WEBHOOK_MAX);
        let beside = all_of(&at_once, key(1, 2));
        assert_eq!(slow.len() + beside.len(), WORKSPACE_MAX);
        assert!(at_once.enter(key(1, 3), 0.0).is_err());
        // Of another workspace, which names the same webhook.
        assert_eq!(all_of(&at_once, key(2, 1)).len(), WEBHOOK_MAX);
        drop((slow, beside));
        assert_eq!(all_of(&at_once, key(1, 3)).len(), WEBHOOK_MAX);
        assert!(at_once.lanes().workspaces.is_empty());
    }

    #[test]
    fn a_receiver_that_failed_gets_one_at_a_time_until_it_answers() {
        let at_once = AtOnce::default();
        let turn = at_once.enter(key(1, 1), 0.0).unwrap();
        turn.called(false);
        assert!(at_once.enter(key(1, 1), 0.0).is_err());
        drop(turn);
        let turn = at_once.enter(key(1, 1), 0.0).unwrap();
        assert!(at_once.enter(key(1, 1), 0.0).is_err());
        turn.called(true);
        assert_eq!(all_of(&at_once, key(1, 1)).len(), WEBHOOK_MAX - 1);
    }

    #[test]
    fn whoever_waits_waits_for_those_before_and_a_slow_receiver_longer() {
        let at_once = AtOnce::default();
        let busy = all_of(&at_once, key(1, 1));
        let now = Instant::now();
        let put_off = |at, random| at_once.enter_at(key(1, 1), random, at).unwrap_err();
        assert_eq!(put_off(now, 0.0), WAIT_MIN);
        let waits: Vec<Duration> = (0..100).map(|_| put_off(now, 0.0)).collect();
        assert!(waits.is_sorted());
        // Half a second each, six at a time.
        let last = waits[99].as_secs_f64();
        assert!((8.3..8.5).contains(&last), "{last}");
        let later = now + Duration::from_secs(30);
        busy[0].called_for(Duration::from_secs(30), false);
        let waits: Vec<Duration> = (0..20).map(|_| put_off(later, 0.0)).collect();
        assert_eq!(waits[0], Duration::from_millis(15_250));
        assert_eq!(waits[19], WAIT_MAX / 2, "bounded, and spread");
        assert!(put_off(later, 0.999) > WAIT_MAX.mul_f64(0.99));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let at_once = AtOnce::default();
        let kept = at_once.enter(key(1, 0), 0.0).unwrap();
        for webhook in 1..=2 * LANES_MAX as u128 {
            drop(at_once.enter(key(2, webhook), 0.0));
        }
        assert!(at_once.lanes().webhooks.len() <= LANES_MAX);
        assert!(at_once.lanes().webhooks.contains_key(&kept.key));
    }
}
