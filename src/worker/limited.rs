//! Queues that this worker leaves alone for a while: a job of theirs met a rate limit.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::job::{QueueName, Telling};

/// How long a queue rests when nobody says for how long. The job spends no attempt: without a pause
/// it would run again and again, as fast as it can be claimed.
const REST: Duration = Duration::from_secs(1);

/// Until when, by queue; as large as the number of queues that the worker serves.
#[derive(Default)]
pub(super) struct Limited(Mutex<HashMap<QueueName, Instant>>);

impl Limited {
    /// The last call counts, as it does in Redis.
    fn close(&self, queue: &QueueName, until: Instant) {
        self.lock().insert(queue.clone(), until);
    }

    /// How long the queue still rests.
    pub(super) fn left(&self, queue: &QueueName) -> Option<Duration> {
        self.left_at(queue, Instant::now())
    }

    fn left_at(&self, queue: &QueueName, now: Instant) -> Option<Duration> {
        let mut until = self.lock();
        let left = until.get(queue)?.checked_duration_since(now);
        let left = left.filter(|left| !left.is_zero());
        if left.is_none() {
            until.remove(queue);
        }
        left
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<QueueName, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the queue for this worker, before the job that met its limit goes back: the next free
/// slot would take it. Returns what Redis is told, so that other workers rest, too.
pub(super) async fn respect_limit(
    shared: &Shared,
    queue: &QueueName,
    named: Option<Duration>,
) -> Telling {
    let (pause, telling) = match named {
        Some(pause) => (pause, Telling::Limit(Some(pause))),
        // Whether that window is full or not: the job says that it is.
        None => match shared.broker.rate_limit_ttl(queue, Some(0)).await {
            Ok(Some(left)) => (left, Telling::Limit(None)),
            Ok(None) => (REST, Telling::Limit(Some(REST))),
            Err(error) => {
                tracing::warn!(%error, "the rate limit is not known");
                (REST, Telling::Limit(None))
            }
        },
    };
    let longest = shared.manners.as_ref().and_then(|m| m.limit_wait_max);
    let wait = longest.map_or(pause, |longest| pause.min(longest));
    shared.limited.close(queue, Instant::now() + wait);
    telling
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_rests_for_its_time_and_no_other_one_does() {
        let limited = Limited::default();
        let (a, b): (QueueName, QueueName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (now, pause) = (Instant::now(), Duration::from_secs(2));
        limited.close(&a, now + Duration::from_secs(60));
        limited.close(&a, now + pause);
        assert_eq!(limited.left_at(&a, now), Some(pause));
        assert_eq!(limited.left_at(&b, now), None);
        assert_eq!(limited.left_at(&a, now + pause), None);
    }
}
