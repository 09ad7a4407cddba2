//! Turns of jobs that wait for quota: one that its job does not need goes to another, and all of
//! them come sooner when there is more quota than they were told.

use std::fmt;

use super::connection::ScriptCall;
use super::quota::pack;
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

/// Somebody who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaTurn {
    /// As Redis has it.
    pub ticket: String,
    pub at_ms: i64,
    pub cost: u32,
}

impl QuotaTurn {
    /// The job, by its id on the wire, and its queue.
    pub fn job(&self) -> Option<(&str, QueueName)> {
        job_of(&self.ticket)
    }
}

fn job_of(ticket: &str) -> Option<(&str, QueueName)> {
    let (id, queue) = ticket.rsplit_once(' ')?;
    Some((id, queue.parse().ok()?))
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
        let Some((id, queue)) = job_of(ticket) else {
            return Ok(false); // of a version that named no queue
        };
        Ok(self
            .promote(&queue, &[id.to_owned()])
            .await?
            .contains(&true))
    }

    /// The moment of Redis, and all who wait for the quota of a key, the soonest first.
    pub async fn quota_turns(&self, key: &str) -> Result<(i64, Vec<QuotaTurn>), BrokerError> {
        type Reply = (i64, Vec<String>, Vec<i64>, Vec<u32>);
        let [_, _, _, tickets, costs] = self.quota_keys(key);
        let mut call = ScriptCall::new(ScriptId::ReadTurns, [&*tickets, &*costs]);
        call.number_or_empty(self.test_now_ms);
        let (now_ms, tickets, moments, costs): Reply =
            self.connections.run(&call, Repeat::Safe).await?;
        let turns = tickets.into_iter().zip(moments).zip(costs);
        let turns = turns.map(|((ticket, at_ms), cost)| QuotaTurn {
            ticket,
            at_ms,
            cost,
        });
        Ok((now_ms, turns.collect()))
    }

    /// Their jobs were put off to these moments: their turns are then, and whoever comes anew
    /// stands behind the last moment.
    pub async fn move_quota_turns(
        &self,
        key: &str,
        moves: &[(&QuotaTurn, i64)],
        last_ms: i64,
    ) -> Result<(), BrokerError> {
        let moves = moves
            .iter()
            .map(|(turn, to_ms)| (&turn.ticket, turn.at_ms, to_ms));
        let moves = pack(&moves.collect::<Vec<_>>())?;
        let [_, _, lines, tickets, _] = self.quota_keys(key);
        let mut call = ScriptCall::new(ScriptId::MoveTurns, [&*lines, &*tickets]);
        call.arg(moves)
            .arg(last_ms)
            .number_or_empty(self.test_now_ms);
        let _: i64 = self.connections.run(&call, Repeat::Safe).await?;
        Ok(())
    }
}
