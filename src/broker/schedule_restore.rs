//! Schedules as they lie in Redis, and giving them back to one that forgot them.

use std::collections::BTreeMap;

use super::batch::batches;
use super::connection::ScriptCall;
use super::inspect::LIST_MAX;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;
use crate::job::schedule::StoredSchedule;

const DOING: &str = "stored_schedules";

impl Broker {
    /// A page of the schedules of a queue as they are stored, by their due times; with at most
    /// [`LIST_MAX`]. Schedules that go on in the meantime may be missed or come twice.
    pub async fn stored_schedules(
        &self,
        queue: &QueueName,
        first: usize,
    ) -> Result<Vec<StoredSchedule>, BrokerError> {
        let keys = self.keys(queue);
        let mut range = redis::cmd("ZRANGE");
        range.arg(keys.repeat()).arg(first);
        range.arg(first + LIST_MAX - 1).arg("WITHSCORES");
        let found: Vec<(String, f64)> = self.connections.command(DOING, &range).await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for (id, _) in &found {
            pipeline.hgetall(keys.schedule(id));
        }
        let hashes: Vec<BTreeMap<String, String>> =
            self.connections.pipeline(DOING, &pipeline).await?;
        let stored = |((id, due_ms), fields): ((String, f64), _)| StoredSchedule {
            id,
            due_ms: Some(due_ms as i64),
            fields,
        };
        Ok(found.into_iter().zip(hashes).map(stored).collect())
    }

    /// One schedule as it is stored; none: there is none with this id.
    pub async fn stored_schedule(
        &self,
        queue: &QueueName,
        id: &str,
    ) -> Result<Option<StoredSchedule>, BrokerError> {
        let keys = self.keys(queue);
        let mut pipeline = redis::pipe();
        pipeline
            .zscore(keys.repeat(), id)
            .hgetall(keys.schedule(id));
        let (due_ms, fields): (Option<f64>, BTreeMap<String, String>) =
            self.connections.pipeline(DOING, &pipeline).await?;
        Ok(due_ms.map(|due_ms| StoredSchedule {
            id: id.to_owned(),
            due_ms: Some(due_ms as i64),
            fields,
        }))
    }

    /// Whether the queue has schedules with these ids.
    pub async fn has_schedules(
        &self,
        queue: &QueueName,
        ids: &[String],
    ) -> Result<Vec<bool>, BrokerError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut cmd = redis::cmd("ZMSCORE");
        cmd.arg(self.keys(queue).repeat()).arg(ids);
        let scores: Vec<Option<f64>> = self.connections.command(DOING, &cmd).await?;
        Ok(scores.iter().map(Option::is_some).collect())
    }

    /// Gives schedules back that Redis lacks, or knows as due earlier; those without a due time are
    /// passed over. Their iterations come back as jobs, or by [`Broker::repair_schedules`].
    pub async fn restore_schedules(
        &self,
        queue: &QueueName,
        schedules: &[StoredSchedule],
    ) -> Result<u64, BrokerError> {
        let key = self.keys(queue).repeat();
        let mut restored = 0;
        let bytes = |schedule: &StoredSchedule| schedule.fields.values().map(String::len).sum();
        for batch in batches(schedules, bytes) {
            let mut call = ScriptCall::new(ScriptId::ScheduleRestore, [&key]);
            for schedule in batch {
                let Some(due_ms) = schedule.due_ms else {
                    continue;
                };
                let fields: Vec<&str> = schedule
                    .fields
                    .iter()
                    .flat_map(|(name, value)| [name.as_str(), value.as_str()])
                    .collect();
                let fields = rmp_serde::to_vec(&fields)
                    .map_err(|error| BrokerError::corrupt(DOING, error.to_string()))?;
                call.arg(&schedule.id).arg(due_ms).arg(fields);
            }
            restored += self.connections.run::<u64>(&call, Repeat::Safe).await?;
        }
        Ok(restored)
    }
}
