//! The rate limiter of a queue: one key that all its workers look at.

use std::time::Duration;

use super::claim::millis;
use super::{Broker, BrokerError};
use crate::job::QueueName;

/// `BullMQ`'s mark for "closed by hand": more than any limit allows.
const CLOSED: u64 = 9_007_199_254_740_991;

/// The window of a rate limit that is open now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateWindow {
    /// Starts in it; none: it was closed by hand, and nothing starts until it ends.
    pub started: Option<u64>,
    /// How long it stays open.
    pub left: Duration,
}

impl Broker {
    /// The open window of a queue, whether the queue has a limit now or not; none: no window is
    /// open.
    pub async fn rate_window(&self, queue: &QueueName) -> Result<Option<RateWindow>, BrokerError> {
        let limiter = self.keys(queue).limiter();
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("GET").arg(&limiter).cmd("PTTL").arg(&limiter);
        let (started, ttl_ms): (Option<u64>, i64) =
            self.connections.pipeline("rate_window", &pipeline).await?;
        let left = u64::try_from(ttl_ms).ok().filter(|ms| *ms > 0);
        Ok(started.zip(left).map(|(started, left)| RateWindow {
            started: (started < CLOSED).then_some(started),
            left: Duration::from_millis(left),
        }))
    }

    /// Starts nothing of this queue for so long, as `BullMQ`'s `queue.rateLimit`. Bullwark's
    /// workers see it; those of `BullMQ` if the queue or they have a rate limit at all. The last
    /// call counts.
    pub async fn rate_limit(&self, queue: &QueueName, pause: Duration) -> Result<(), BrokerError> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(self.keys(queue).limiter())
            .arg(CLOSED)
            .arg("PX")
            .arg(millis(pause));
        self.connections.command("rate_limit", &cmd).await
    }
}
