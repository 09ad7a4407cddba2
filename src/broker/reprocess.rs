//! Finished jobs run again, and delayed ones at once: `reprocess`, `reprocess_many` and
//! `promote_many`.
//!
//! What Redis has of a job is taken as it is. To make a job wait as the record has it, which a
//! finished job of our own needs, use [`Broker::requeue`].
//!
//! A call whose reply was lost is sent again, and answers then what a second call would. `BullMQ`
//! puts many jobs at once into `wait` whatever their priority; here each goes where it belongs.

use super::connection::ScriptCall;
use super::keys::{Keys, check_job_id};
use super::script::ScriptId;
use super::{Broker, BrokerError, Moved, Repeat};
use crate::job::QueueName;

/// Jobs per script call: a script stops the server for everyone while it runs.
const MOVE_MAX: u64 = 1000;

/// The two states that a finished job may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishedState {
    Completed,
    Failed,
}

impl FinishedState {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    fn set(self, keys: &Keys) -> String {
        match self {
            Self::Completed => keys.completed(),
            Self::Failed => keys.failed(),
        }
    }
}

/// How a finished job is made to run again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reprocess {
    /// `opts.lifo`: next in line, if it has no priority.
    pub lifo: bool,
    /// As if no attempt had been spent.
    pub resets_attempts_made: bool,
    /// As if it had never been started.
    pub resets_attempts_started: bool,
}

impl Broker {
    /// A finished job waits again, at its own priority; its outcome is forgotten. If its parent
    /// was told of the outcome, the job is pending again for that one, which is not taken back.
    ///
    /// Done twice, it is not in that state the second time.
    pub async fn reprocess(
        &self,
        queue: &QueueName,
        id: &str,
        state: FinishedState,
        how: Reprocess,
    ) -> Result<Moved, BrokerError> {
        check_job_id(id)?;
        let keys = self.keys(queue);
        let set = state.set(&keys);
        let mut call = moving(ScriptId::Reprocess, &keys, &set);
        call.arg(keys.job_prefix())
            .arg(id)
            .arg(state.name())
            .flag(how.lifo)
            .flag(how.resets_attempts_made)
            .flag(how.resets_attempts_started);
        let code = self.connections.run(&call, Repeat::Safe).await?;
        Moved::from_code("reprocess", code)
    }

    /// Finished jobs wait again, oldest first, each at its own priority; at most `max`, and only
    /// those that finished at or before `until_ms`. Answers how many.
    ///
    /// In bounded parts: after an error, some may have moved. Done again, it goes on.
    pub async fn reprocess_many(
        &self,
        queue: &QueueName,
        state: FinishedState,
        until_ms: Option<i64>,
        max: u64,
    ) -> Result<u64, BrokerError> {
        let set = state.set(&self.keys(queue));
        let score_max = until_ms.map_or_else(|| "+inf".to_owned(), |ms| ms.to_string());
        self.move_many(queue, &set, state.name(), &score_max, max)
            .await
    }

    /// Delayed jobs become available, those due first first; at most `max`. Answers how many.
    ///
    /// In bounded parts: after an error, some may have moved. Done again, it goes on.
    pub async fn promote_many(&self, queue: &QueueName, max: u64) -> Result<u64, BrokerError> {
        let set = self.keys(queue).delayed();
        self.move_many(queue, &set, "delayed", "+inf", max).await
    }

    async fn move_many(
        &self,
        queue: &QueueName,
        set: &str,
        state: &str,
        score_max: &str,
        max: u64,
    ) -> Result<u64, BrokerError> {
        let keys = self.keys(queue);
        let mut moved = 0;
        while moved < max {
            let part = (max - moved).min(MOVE_MAX);
            let mut call = moving(ScriptId::ReprocessMany, &keys, set);
            call.arg(keys.job_prefix())
                .arg(state)
                .arg(score_max)
                .arg(part);
            let count: u64 = self.connections.run(&call, Repeat::Safe).await?;
            moved += count;
            if count < part {
                break;
            }
        }
        Ok(moved)
    }
}

/// `reprocess` and `reprocess_many` take the same keys.
fn moving(id: ScriptId, keys: &Keys, set: &str) -> ScriptCall {
    ScriptCall::new(
        id,
        [
            set,
            &keys.wait(),
            &keys.prioritized(),
            &keys.pc(),
            &keys.marker(),
            &keys.active(),
            &keys.meta(),
            &keys.events(),
        ],
    )
}
