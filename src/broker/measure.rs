//! Figures and snapshots of a private server, for measurements and faults.

use redis::InfoDict;

use super::{Broker, BrokerError};
use crate::job::QueueName;

impl Broker {
    /// Bytes that Redis has taken for its data.
    pub async fn used_memory(&self) -> Result<u64, BrokerError> {
        let info: InfoDict = self
            .connections
            .command("used_memory", redis::cmd("INFO").arg("memory"))
            .await?;
        Ok(info.get("used_memory").unwrap_or(0))
    }

    /// Entries of a queue's event stream.
    pub async fn events_length(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        let key = self.keys(queue).events();
        self.connections
            .command("events_length", redis::cmd("XLEN").arg(key))
            .await
    }

    /// Writes a snapshot to the server's directory; nobody is served meanwhile.
    #[doc(hidden)]
    pub async fn save_memory(&self) -> Result<(), BrokerError> {
        self.connections
            .command("save_memory", &redis::cmd("SAVE"))
            .await
    }
}
