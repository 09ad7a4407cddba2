//! Jobs are taken out: `cancel`.

use super::batch::batches;
use super::connection::ScriptCall;
use super::keys::check_job_id;
use super::script::ScriptId;
use super::{Broker, BrokerError, BrokerState, Repeat};
use crate::job::QueueName;

/// What became of a job that was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It was in this state and is gone.
    Removed(BrokerState),
    /// Redis knows no such job.
    Absent,
    /// It is the current iteration of a schedule, which would end with it. It stays.
    Scheduled,
}

impl Broker {
    /// Takes jobs out of whatever state they are in, and deletes them.
    ///
    /// An active job's lock goes, too: its owner's next `extend` says that the lease is lost.
    pub async fn cancel(
        &self,
        queue: &QueueName,
        ids: &[String],
    ) -> Result<Vec<Cancelled>, BrokerError> {
        ids.iter().try_for_each(|id| check_job_id(id))?;
        let keys = self.keys(queue);
        let mut answers = Vec::with_capacity(ids.len());
        for batch in batches(ids, String::len) {
            let mut call = ScriptCall::new(
                ScriptId::Cancel,
                [
                    &keys.wait(),
                    &keys.paused(),
                    &keys.active(),
                    &keys.prioritized(),
                    &keys.delayed(),
                    &keys.waiting_children(),
                    &keys.completed(),
                    &keys.failed(),
                    &keys.stalled(),
                    &keys.repeat(),
                    &keys.marker(),
                    &keys.meta(),
                    &keys.events(),
                ],
            );
            call.arg(keys.job_prefix());
            for id in batch {
                call.arg(id);
            }
            let states: Vec<String> = self.connections.run(&call, Repeat::Safe).await?;
            for state in states {
                answers.push(match state.as_str() {
                    "absent" => Cancelled::Absent,
                    "scheduled" => Cancelled::Scheduled,
                    "unknown" => Cancelled::Removed(BrokerState::Orphan),
                    other => Cancelled::Removed(BrokerState::parse("cancel", other)?),
                });
            }
        }
        Ok(answers)
    }
}
