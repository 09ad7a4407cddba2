//! Deduplication ids: who owns one, and giving it free.

use super::connection::ScriptCall;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;

impl Broker {
    /// The job that owns a deduplication id.
    pub async fn deduplication_owner(
        &self,
        queue: &QueueName,
        deduplication_id: &str,
    ) -> Result<Option<String>, BrokerError> {
        let key = self.keys(queue).dedup(deduplication_id);
        let mut cmd = redis::cmd("GET");
        self.connections
            .command("deduplication_owner", cmd.arg(key))
            .await
    }

    /// Gives a deduplication id free, so that the next job with it is added; false: it was free, or
    /// another than `owner` owns it. Without `owner`: whoever does.
    pub async fn remove_deduplication(
        &self,
        queue: &QueueName,
        deduplication_id: &str,
        owner: Option<&str>,
    ) -> Result<bool, BrokerError> {
        let key = self.keys(queue).dedup(deduplication_id);
        let mut call = ScriptCall::new(ScriptId::RemoveDeduplication, [&key]);
        call.arg(owner.unwrap_or_default());
        let repeat = match owner {
            Some(_) => Repeat::Safe,
            None => Repeat::OnlyIfNotRun,
        };
        self.connections.run(&call, repeat).await
    }
}
