//! Turns of jobs that wait for quota: one that its job does not need goes to another.

use std::fmt;

use super::connection::ScriptCall;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;

/// Jobs that are tried until one of them comes.
const TRIES: usize = 3;

/// Who waits for its turn.
#[derive(Debug, Clone, Copy)]
pub struct QuotaTicket<'a> {
    pub queue: &'a QueueName,
    /// On the wire.
    pub job_id: &'a str,
}

impl fmt::Display for QuotaTicket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.job_id, self.queue)
    }
}

impl Broker {
    /// A job that was told to come back needs no quota any more: the last of those who wait comes
    /// in its place, of those who can come. Without a turn, and when it is done again, nothing
    /// happens.
    ///
    /// Who was told only now may not be delayed yet; then the one before it comes. The other keeps
    /// its moment, without a turn that is kept for it. A caller that dies in the middle costs one
    /// call of the quota, and the same.
    pub async fn pass_quota_turn(
        &self,
        key: &str,
        ticket: QuotaTicket<'_>,
    ) -> Result<(), BrokerError> {
        let [_, _, lines, tickets, costs] = self.quota_keys(key);
        let mut turn = ticket.to_string();
        for _ in 0..TRIES {
            let mut call = ScriptCall::new(ScriptId::PassTurn, [&*lines, &*tickets, &*costs]);
            call.arg(turn)
                .arg(self.prefix())
                .number_or_empty(self.test_now_ms);
            let other: Option<String> = self.connections.run(&call, Repeat::Safe).await?;
            let Some(other) = other else {
                return Ok(());
            };
            if self.come_now(&other).await? {
                return Ok(());
            }
            turn = other;
        }
        Ok(())
    }

    /// False: the job of that ticket is not delayed.
    async fn come_now(&self, ticket: &str) -> Result<bool, BrokerError> {
        let named = ticket.rsplit_once(' ');
        let named = named.and_then(|(id, queue)| Some((id, queue.parse::<QueueName>().ok()?)));
        let Some((id, queue)) = named else {
            return Ok(false); // of a version that named no queue
        };
        Ok(self
            .promote(&queue, &[id.to_owned()])
            .await?
            .contains(&true))
    }
}
