//! The rate limiter of a queue: one key that all its workers look at.

use std::time::Duration;

use super::claim::millis;
use super::{Broker, BrokerError};
use crate::job::QueueName;

/// `BullMQ`'s mark for "closed by hand": more than any limit allows.
const CLOSED: u64 = 9_007_199_254_740_991;

impl Broker {
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
