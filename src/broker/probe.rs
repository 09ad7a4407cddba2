//! Whether Redis can be worked with right now.
//!
//! A `PING` is answered by a server that takes no writes: one whose memory is used up, a replica,
//! or one that can not save. So the probe writes, to a key of our own that soon goes by itself.

use std::time::Duration;

use super::claim::millis;
use super::epoch::EPOCH;
use super::{Broker, BrokerError};

const DOING: &str = "probe";
/// The key that is written; gone by itself after this time.
const PROBE: (&str, Duration) = ("probe", Duration::from_secs(10));

impl Broker {
    /// Writes something, as every job needs; [`BrokerError::trouble`] of an error says what is the
    /// matter. [`BrokerError::OtherMemory`] while this memory of Redis is not yet compared with the
    /// record, in a process that compares.
    pub async fn probe(&self) -> Result<(), BrokerError> {
        let mut look = redis::pipe();
        look.cmd("SET")
            .arg(self.own_key(PROBE.0))
            .arg(1)
            .arg("PX")
            .arg(millis(PROBE.1))
            .ignore();
        look.cmd("GET").arg(self.own_key(EPOCH));
        let (epoch,): (Option<String>,) = self.connections.pipeline(DOING, &look).await?;
        match self.served.awaits(epoch.as_deref()) {
            true => Err(BrokerError::OtherMemory { doing: DOING }),
            false => Ok(()),
        }
    }
}
