//! Looking at schedules: one, a page, how many.

use std::collections::HashMap;

use super::inspect::LIST_MAX;
use super::{Broker, BrokerError, Order};
use crate::job::QueueName;
use crate::job::schedule::Kept;

impl Broker {
    /// A schedule; none: there is none with this id.
    pub async fn schedule(&self, queue: &QueueName, id: &str) -> Result<Option<Kept>, BrokerError> {
        let keys = self.keys(queue);
        let mut pipeline = redis::pipe();
        pipeline
            .zscore(keys.repeat(), id)
            .hgetall(keys.schedule(id));
        let (due_ms, fields): (Option<f64>, HashMap<String, String>) =
            self.connections.pipeline("schedule", &pipeline).await?;
        Ok(due_ms.map(|due_ms| Kept::read(id, due_ms as i64, &fields)))
    }

    /// A page of the schedules of a queue, at most [`LIST_MAX`] from this position on.
    ///
    /// They are in the order of their next due times; `BullMQ` lists them descending. Schedules
    /// that go on in the meantime may be missed or come twice.
    pub async fn schedules(
        &self,
        queue: &QueueName,
        order: Order,
        first: usize,
        count: usize,
    ) -> Result<Vec<Kept>, BrokerError> {
        let doing = "schedules";
        let keys = self.keys(queue);
        let last = first.saturating_add(count.min(LIST_MAX));
        if last == first {
            return Ok(Vec::new());
        }
        let mut range = redis::cmd(match order {
            Order::Ascending => "ZRANGE",
            Order::Descending => "ZREVRANGE",
        });
        range.arg(keys.repeat()).arg(first).arg(last - 1);
        range.arg("WITHSCORES");
        let found: Vec<(String, f64)> = self.connections.command(doing, &range).await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for (id, _) in &found {
            pipeline.hgetall(keys.schedule(id));
        }
        let hashes: Vec<HashMap<String, String>> =
            self.connections.pipeline(doing, &pipeline).await?;
        let read =
            |((id, due_ms), fields): (&(String, f64), _)| Kept::read(id, *due_ms as i64, &fields);
        Ok(found.iter().zip(hashes).map(read).collect())
    }

    /// How many schedules a queue has.
    pub async fn count_schedules(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        let key = self.keys(queue).repeat();
        self.connections
            .command("count_schedules", redis::cmd("ZCARD").arg(key))
            .await
    }
}
