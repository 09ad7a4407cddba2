//! Jobs wait again as the record has them: `requeue`.

use super::batch::batches;
use super::connection::ScriptCall;
use super::script::ScriptId;
use super::{Broker, BrokerError, NewJob, Repeat};
use crate::job::QueueName;

const DOING: &str = "requeue";

/// What became of a job that was to wait again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeued {
    /// It was finished, lost or in no state, or delayed for too long, and waits now.
    Waits,
    /// It was live already, and was left as it is.
    IsLive,
    /// An earlier start of it is active, and was left as it is. When that is over in Redis, the job
    /// does not wait: ask once more.
    IsEnding,
}

impl Broker {
    /// Makes jobs wait again that are finished, lost, or in no state; as the record has them.
    /// Answers in the order of the jobs.
    ///
    /// A job that is live is left as it is, unless it is delayed for longer than it should be. It
    /// searches `wait` for each job, so it is for repairs;
    /// to fill an empty Redis again, use [`Broker::add`]. The second time, a job is live.
    pub async fn requeue(
        &self,
        queue: &QueueName,
        jobs: &[NewJob],
    ) -> Result<Vec<Requeued>, BrokerError> {
        let keys = self.keys(queue);
        jobs.iter().try_for_each(NewJob::check)?;
        self.note_v5_peers(queue).await?;
        let mut answers = Vec::with_capacity(jobs.len());
        for batch in batches(jobs, NewJob::bytes) {
            let mut call = ScriptCall::new(
                ScriptId::Requeue,
                [
                    &keys.id(),
                    &keys.wait(),
                    &keys.prioritized(),
                    &keys.delayed(),
                    &keys.pc(),
                    &keys.marker(),
                    &keys.active(),
                    &keys.meta(),
                    &keys.events(),
                    &keys.completed(),
                    &keys.failed(),
                    &keys.waiting_children(),
                    &keys.paused(),
                ],
            );
            call.arg(keys.job_prefix())
                .number_or_empty(self.test_now_ms);
            batch.iter().for_each(|job| job.write(&mut call));
            let untouched: Vec<i64> = self.connections.run(&call, Repeat::Safe).await?;
            answers.extend(answers_of(batch.len(), &untouched)?);
        }
        Ok(answers)
    }
}

fn answers_of(jobs: usize, untouched: &[i64]) -> Result<Vec<Requeued>, BrokerError> {
    let mut answers = vec![Requeued::Waits; jobs];
    for position in untouched {
        let at = usize::try_from(position.unsigned_abs()).unwrap_or(0);
        let answer = at.checked_sub(1).and_then(|at| answers.get_mut(at));
        *answer.ok_or_else(|| BrokerError::corrupt(DOING, "a position outside the batch"))? =
            match *position < 0 {
                true => Requeued::IsEnding,
                false => Requeued::IsLive,
            };
    }
    Ok(answers)
}
