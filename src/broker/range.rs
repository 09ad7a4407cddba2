//! Jobs of a state in an order, and how many there are of each kind.

use super::job_data::signed;
use super::{Broker, BrokerError, BrokerState, Counts, LIST_MAX};
use crate::job::QueueName;

/// Oldest first, or newest first; where jobs have a score, lowest or highest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Ascending,
    Descending,
}

impl Counts {
    /// How many are in this state; orphans are not counted.
    pub fn of(&self, state: BrokerState) -> u64 {
        match state {
            BrokerState::Wait => self.wait,
            BrokerState::Paused => self.paused,
            BrokerState::Prioritized => self.prioritized,
            BrokerState::Delayed => self.delayed,
            BrokerState::Active => self.active,
            BrokerState::WaitingChildren => self.waiting_children,
            BrokerState::Completed => self.completed,
            BrokerState::Failed => self.failed,
            BrokerState::Orphan => 0,
        }
    }
}

impl Broker {
    /// Ids of a state, at most [`LIST_MAX`] of them. Orphans are in no list.
    ///
    /// Unlike [`Broker::list`], it turns lists around where needed: they have the newest first.
    pub async fn range(
        &self,
        queue: &QueueName,
        state: BrokerState,
        offset: usize,
        limit: usize,
        order: Order,
    ) -> Result<Vec<String>, BrokerError> {
        let keys = self.keys(queue);
        let (is_list, key) = match state {
            BrokerState::Wait => (true, keys.wait()),
            BrokerState::Paused => (true, keys.paused()),
            BrokerState::Active => (true, keys.active()),
            BrokerState::Prioritized => (false, keys.prioritized()),
            BrokerState::Delayed => (false, keys.delayed()),
            BrokerState::WaitingChildren => (false, keys.waiting_children()),
            BrokerState::Completed => (false, keys.completed()),
            BrokerState::Failed => (false, keys.failed()),
            BrokerState::Orphan => return Ok(Vec::new()),
        };
        let limit = limit.clamp(1, LIST_MAX);
        let (first, last) = (signed(offset), signed(offset.saturating_add(limit - 1)));
        let is_turned = is_list && order == Order::Ascending;
        let (command, first, last) = match (is_list, order) {
            (true, Order::Descending) => ("LRANGE", first, last),
            (true, Order::Ascending) => ("LRANGE", -last - 1, -first - 1),
            (false, Order::Ascending) => ("ZRANGE", first, last),
            (false, Order::Descending) => ("ZREVRANGE", first, last),
        };
        let mut cmd = redis::cmd(command);
        cmd.arg(key).arg(first).arg(last);
        let mut ids: Vec<String> = self.connections.command("range", &cmd).await?;
        if is_turned {
            ids.reverse();
        }
        Ok(ids)
    }

    /// How many jobs wait at each of these priorities on the wire; 0 counts those without one.
    pub async fn counts_per_priority(
        &self,
        queue: &QueueName,
        priorities: &[u32],
    ) -> Result<Vec<u64>, BrokerError> {
        /// 2^32, a priority's step in scores.
        const STEP: u64 = 1 << 32;
        let keys = self.keys(queue);
        let mut counts = Vec::with_capacity(priorities.len());
        for part in priorities.chunks(LIST_MAX) {
            let mut pipeline = redis::pipe();
            pipeline.atomic();
            pipeline.cmd("LLEN").arg(keys.wait());
            pipeline.cmd("LLEN").arg(keys.paused());
            for priority in part {
                let first = u64::from(*priority) * STEP;
                let last = first + (STEP - 1);
                pipeline
                    .cmd("ZCOUNT")
                    .arg(keys.prioritized())
                    .arg(first)
                    .arg(last);
            }
            let found: Vec<u64> = self
                .connections
                .pipeline("counts_per_priority", &pipeline)
                .await?;
            let [wait, paused, of_priorities @ ..] = &found[..] else {
                return Err(BrokerError::corrupt("counts_per_priority", "no answer"));
            };
            let pairs = part.iter().zip(of_priorities);
            counts.extend(pairs.map(|(priority, count)| match priority {
                0 => wait + paused,
                _ => *count,
            }));
        }
        Ok(counts)
    }
}
