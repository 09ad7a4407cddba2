//! Delayed jobs are available at once: `promote`.

use super::batch::{batches, mark};
use super::connection::ScriptCall;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;

const DOING: &str = "promote";

impl Broker {
    /// Makes delayed jobs available before they are due; false: the job is not delayed.
    pub async fn promote(
        &self,
        queue: &QueueName,
        ids: &[String],
    ) -> Result<Vec<bool>, BrokerError> {
        let jobs: Vec<(&str, Option<u32>)> = ids.iter().map(|id| (id.as_str(), None)).collect();
        self.promote_jobs(queue, &jobs).await
    }

    /// The same for jobs that were started so often, and no more since: whoever knows that such a
    /// start is to be followed by one at once says nothing of the start after that. A parent that
    /// waits for its children does not wait for its time after them.
    pub async fn promote_if_started(
        &self,
        queue: &QueueName,
        jobs: &[(String, u32)],
    ) -> Result<Vec<bool>, BrokerError> {
        let jobs: Vec<(&str, Option<u32>)> = jobs
            .iter()
            .map(|(id, starts)| (id.as_str(), Some(*starts)))
            .collect();
        self.promote_jobs(queue, &jobs).await
    }

    async fn promote_jobs(
        &self,
        queue: &QueueName,
        jobs: &[(&str, Option<u32>)],
    ) -> Result<Vec<bool>, BrokerError> {
        let keys = self.keys(queue);
        let mut answers = Vec::with_capacity(jobs.len());
        for batch in batches(jobs, |(id, _)| id.len()) {
            let mut call = ScriptCall::new(
                ScriptId::Promote,
                [
                    &keys.delayed(),
                    &keys.wait(),
                    &keys.prioritized(),
                    &keys.pc(),
                    &keys.marker(),
                    &keys.active(),
                    &keys.meta(),
                    &keys.events(),
                    &keys.waiting_children(),
                ],
            );
            call.arg(keys.job_prefix());
            batch.iter().for_each(|(id, starts)| {
                call.arg(id).number_or_empty(starts.map(i64::from));
            });
            let untouched: Vec<usize> = self.connections.run(&call, Repeat::Safe).await?;
            let mut moved = vec![true; batch.len()];
            mark(&mut moved, untouched, &false)
                .ok_or_else(|| BrokerError::corrupt(DOING, "a position outside the batch"))?;
            answers.extend(moved);
        }
        Ok(answers)
    }
}
