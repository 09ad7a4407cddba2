//! Deduplication ids are given free by hand: `remove_dedup` and `free_dedup`.

use super::connection::ScriptCall;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;

impl Broker {
    /// A deduplication id is free, whoever owns it; false: nobody did.
    pub async fn remove_dedup(
        &self,
        queue: &QueueName,
        dedup_id: &str,
    ) -> Result<bool, BrokerError> {
        let mut cmd = redis::cmd("DEL");
        cmd.arg(self.keys(queue).dedup(dedup_id));
        let deleted: u64 = self.connections.command("remove_dedup", &cmd).await?;
        Ok(deleted > 0)
    }

    /// A deduplication id is free if this job owns it; false: it does not.
    pub async fn free_dedup(
        &self,
        queue: &QueueName,
        dedup_id: &str,
        job_id: &str,
    ) -> Result<bool, BrokerError> {
        let key = self.keys(queue).dedup(dedup_id);
        let mut call = ScriptCall::new(ScriptId::FreeDedup, [&key]);
        call.arg(job_id);
        let freed: i64 = self.connections.run(&call, Repeat::Safe).await?;
        Ok(freed == 1)
    }
}
