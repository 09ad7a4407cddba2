//! Jobs come in: `add`.

use super::batch::{batches, mark};
use super::connection::ScriptCall;
use super::epoch::EPOCH;
use super::error::Refusal;
use super::keys::check_job_id;
use super::script::ScriptId;
use super::{Broker, BrokerError, PRIORITY_MAX, Repeat};
use crate::job::QueueName;

/// What `add.lua` and `add_linked.lua` answer when they did nothing.
pub(super) const OTHER_MEMORY: i64 = -1;
pub(super) const TOO_LATE: i64 = -2;

/// A job as it goes on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewJob {
    pub id: String,
    pub name: String,
    /// JSON text, never looked into.
    pub data: String,
    /// JSON text, with `BullMQ`'s names.
    pub opts: String,
    pub timestamp_ms: i64,
    /// When it may start, by the server's clock; none or past: now.
    pub due_ms: Option<i64>,
    /// On the wire: 0 none, 1 most urgent, up to [`PRIORITY_MAX`].
    pub priority: u32,
    /// Next in line among the jobs without priority.
    pub lifo: bool,
    /// How often it was started before. Only jobs of the record say so, from 0 on: see
    /// [`ClaimedJob::is_counted`](super::ClaimedJob::is_counted).
    pub attempts_started: Option<u32>,
    /// How many attempts it spent before; written when above 0.
    pub attempts_made: u32,
    /// Whose turn it takes in a fair queue: the workspace.
    pub owner: Option<String>,
}

/// What became of a job that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    Created,
    /// Its id exists already; that job was left as it is.
    Duplicate,
}

impl NewJob {
    pub(super) fn check(&self) -> Result<(), BrokerError> {
        if self.priority > PRIORITY_MAX {
            return Err(BrokerError::Refused(Refusal::Priority(self.priority)));
        }
        check_job_id(&self.id)
    }

    pub(super) fn bytes(&self) -> usize {
        self.id.len() + self.name.len() + self.data.len() + self.opts.len()
    }

    /// The eleven arguments that `add` and `requeue` take per job.
    pub(super) fn write(&self, call: &mut ScriptCall) {
        let positive = |number: u32| (number > 0).then(|| i64::from(number));
        call.arg(&self.id)
            .arg(&self.name)
            .arg(&self.data)
            .arg(&self.opts)
            .arg(self.timestamp_ms)
            .number_or_empty(self.due_ms)
            .arg(self.priority)
            .flag(self.lifo)
            .number_or_empty(self.attempts_started.map(i64::from))
            .number_or_empty(positive(self.attempts_made))
            .arg(self.owner.as_deref().unwrap_or_default());
    }
}

impl Broker {
    /// Puts new jobs into a queue, in this order; answers in the same order.
    ///
    /// Atomic per batch of [`BATCH_MAX`](super::BATCH_MAX). Run again after a failure, it adds
    /// what is missing; jobs that the lost call added are then reported as duplicates.
    ///
    /// Into another memory of Redis than the one that is served nothing is put: what that lacks
    /// comes before, in its order.
    pub async fn add(&self, queue: &QueueName, jobs: &[NewJob]) -> Result<Vec<Added>, BrokerError> {
        self.put(queue, jobs, None, Repeat::Safe).await
    }

    /// The same for jobs of the record, but not later than this by the server's clock, however long
    /// the call is under way: by then somebody else may have added the jobs, and they may have run
    /// and gone. For the same reason a call whose reply was lost is not sent again: whoever calls
    /// again asks the record first.
    pub async fn add_until(
        &self,
        queue: &QueueName,
        jobs: &[NewJob],
        not_after_ms: Option<i64>,
    ) -> Result<Vec<Added>, BrokerError> {
        self.put(queue, jobs, not_after_ms, Repeat::OnlyIfNotRun)
            .await
    }

    async fn put(
        &self,
        queue: &QueueName,
        jobs: &[NewJob],
        not_after_ms: Option<i64>,
        repeat: Repeat,
    ) -> Result<Vec<Added>, BrokerError> {
        let keys = self.keys(queue);
        jobs.iter().try_for_each(NewJob::check)?;
        self.note_v5_peers(queue).await?;
        let served = self.served();
        let mut answers = Vec::with_capacity(jobs.len());
        for batch in batches(jobs, NewJob::bytes) {
            let mut call = ScriptCall::new(
                ScriptId::Add,
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
                    &self.own_key(EPOCH),
                ],
            );
            call.arg(keys.job_prefix())
                .number_or_empty(self.test_now_ms)
                .arg(served.as_deref().unwrap_or_default())
                .number_or_empty(not_after_ms);
            batch.iter().for_each(|job| job.write(&mut call));
            answers.extend(self.run_marking("add", &call, batch.len(), repeat).await?);
        }
        Ok(answers)
    }

    /// Lets the numbers that `BullMQ` gives to jobs go on after this one. Never lowers them; two
    /// calls at once may raise them further than needed.
    pub async fn count_from(&self, queue: &QueueName, number: u64) -> Result<(), BrokerError> {
        const DOING: &str = "count_from";
        let key = self.keys(queue).id();
        let count: Option<u64> = self
            .connections
            .command(DOING, redis::cmd("GET").arg(&key))
            .await?;
        let missing = number.saturating_sub(count.unwrap_or_default());
        if missing > 0 {
            let mut cmd = redis::cmd("INCRBY");
            cmd.arg(&key).arg(missing);
            let _: u64 = self.connections.command(DOING, &cmd).await?;
        }
        Ok(())
    }

    /// Runs a script that answers the positions of jobs that it left as they are.
    async fn run_marking(
        &self,
        doing: &'static str,
        call: &ScriptCall,
        jobs: usize,
        repeat: Repeat,
    ) -> Result<Vec<Added>, BrokerError> {
        let untouched: Vec<i64> = self.connections.run(call, repeat).await?;
        match untouched[..] {
            [OTHER_MEMORY] => return Err(BrokerError::OtherMemory { doing }),
            [TOO_LATE] => return Err(BrokerError::TooLate { doing }),
            _ => {}
        }
        let untouched = untouched
            .into_iter()
            .map(|at| usize::try_from(at).unwrap_or(0));
        let mut answers = vec![Added::Created; jobs];
        mark(&mut answers, untouched, &Added::Duplicate)
            .ok_or_else(|| BrokerError::corrupt(doing, "a position outside the batch"))?;
        Ok(answers)
    }
}
