//! Turns of jobs that wait for quota: one that its job does not need goes to another.

use std::fmt;

use uuid::Uuid;

use super::connection::ScriptCall;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;

/// Who waits for its turn.
#[derive(Debug, Clone, Copy)]
pub struct QuotaTicket<'a> {
    pub queue: &'a QueueName,
    pub job_id: Uuid,
}

impl fmt::Display for QuotaTicket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.job_id, self.queue)
    }
}

impl Broker {
    /// A job that was told to come back needs no quota any more: the last of those who wait comes
    /// in its place. Without a turn, and when it is done again, nothing happens.
    ///
    /// A caller that dies in the middle costs one call of the quota, and the other job comes when
    /// it was told to.
    pub async fn pass_quota_turn(
        &self,
        key: &str,
        ticket: QuotaTicket<'_>,
    ) -> Result<(), BrokerError> {
        let [_, _, lines, tickets] = self.quota_keys(key);
        let mut call = ScriptCall::new(ScriptId::PassTurn, [&*lines, &*tickets]);
        call.arg(ticket.to_string())
            .number_or_empty(self.test_now_ms);
        let other: Option<String> = self.connections.run(&call, Repeat::Safe).await?;
        let Some((id, queue)) = other.as_deref().and_then(|other| other.split_once(' ')) else {
            return Ok(());
        };
        if let Ok(queue) = queue.parse::<QueueName>() {
            self.promote(&queue, &[id.to_owned()]).await?;
        }
        Ok(())
    }
}
