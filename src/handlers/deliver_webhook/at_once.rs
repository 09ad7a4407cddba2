//! How many deliveries of one webhook are under way in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// Counts by webhook, each up to a maximum. As large as what is under way.
#[derive(Debug, Clone)]
pub(super) struct AtOnce {
    max: usize,
    counts: Arc<Mutex<HashMap<Uuid, usize>>>,
}

/// Is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    of: AtOnce,
    webhook_id: Uuid,
}

impl AtOnce {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            counts: Arc::default(),
        }
    }

    /// None: all of this webhook's are taken.
    pub(super) fn enter(&self, webhook_id: Uuid) -> Option<Turn> {
        let mut counts = self.counts();
        let count = counts.entry(webhook_id).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Turn {
            of: self.clone(),
            webhook_id,
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Uuid, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.of.counts();
        if let Some(count) = counts.get_mut(&self.webhook_id) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.webhook_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_webhook_keeps_no_other_out_and_leaves_nothing_behind() {
        let at_once = AtOnce::new(2);
        let (slow, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let turns = [at_once.enter(slow), at_once.enter(slow)];
        assert!(turns.iter().all(Option::is_some));
        assert!(at_once.enter(slow).is_none());
        assert!(at_once.enter(other).is_some());
        drop(turns);
        assert!(at_once.enter(slow).is_some());
        assert!(at_once.counts().is_empty());
    }
}
