//! Schedules: `upsert_schedule`, `schedule_next`, `remove_schedule`, and looking at them.
//!
//! What the next job of a schedule is, `job::schedule` decides; when an interval is due, and that
//! no iteration is made twice, the scripts decide on the server's clock.

use redis::Value;
use serde::Serialize;

use super::connection::ScriptCall;
use super::error::Refusal;
use super::keys::Keys;
use super::script::ScriptId;
use super::{Broker, BrokerError, ClaimedJob, Repeat};
use crate::job::QueueName;
use crate::job::schedule::{Iteration, Repeatable, Schedule, Template, When, may_be_repeatable};

/// The current iteration of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upserted {
    pub job_id: String,
    /// How long until it is due.
    pub delay_ms: u64,
}

/// How the scripts are told what to make.
#[derive(Serialize, Default)]
pub(super) struct Options<'a> {
    pub(super) id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) producer_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) job_id: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) data: &'a str,
    pub(super) opts: &'a str,
    pub(super) priority: u32,
    pub(super) lifo: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dedup_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) every_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) due_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tick_ms: Option<i64>,
    pub(super) is_again: bool,
    pub(super) is_orphan: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) fields: Vec<String>,
}

impl<'a> Options<'a> {
    pub(super) fn new(id: &'a str, iteration: &'a Iteration) -> Self {
        let mut options = Self {
            id,
            opts: &iteration.opts,
            priority: iteration.priority,
            lifo: iteration.lifo,
            dedup_id: iteration.dedup_id.as_deref(),
            ..Self::default()
        };
        match iteration.when {
            When::At(due_ms) => options.due_ms = Some(due_ms),
            When::Every {
                every_ms,
                offset_ms,
            } => {
                options.every_ms = Some(every_ms);
                options.offset_ms = offset_ms;
            }
        }
        options
    }

    pub(super) fn pack(&self, doing: &'static str) -> Result<Vec<u8>, BrokerError> {
        rmp_serde::to_vec_named(self)
            .map_err(|error| BrokerError::corrupt(doing, error.to_string()))
    }
}

impl Broker {
    /// Makes a schedule, or changes the one with this id, and makes its current iteration; none:
    /// its limit, its end or its pattern allow no iteration, and nothing was changed.
    ///
    /// An interval that is not changed keeps its next due time. Repeated, it changes nothing but
    /// the time at which the iteration was made.
    pub async fn upsert_schedule(
        &self,
        queue: &QueueName,
        id: &str,
        schedule: &Schedule,
        template: &Template,
    ) -> Result<Option<Upserted>, BrokerError> {
        let doing = "schedule_upsert";
        let now_ms = self.now_ms().await?;
        let Some(iteration) = Iteration::first(id, schedule, template, now_ms)
            .map_err(|error| BrokerError::Refused(Refusal::Schedule(error)))?
        else {
            return Ok(None);
        };
        let options = Options {
            name: &template.name,
            data: &template.data,
            start_ms: schedule.start_ms,
            fields: flat(schedule.fields(template)),
            ..Options::new(id, &iteration)
        };
        let call = self.schedule_call(ScriptId::ScheduleUpsert, queue, &options.pack(doing)?);
        match self.connections.run::<Value>(&call, Repeat::Safe).await? {
            Value::Int(-10) => Err(BrokerError::Refused(Refusal::ScheduleCollision)),
            Value::Int(-11) => Err(BrokerError::Refused(Refusal::ScheduleBusy)),
            reply => {
                let (job_id, delay_ms) = redis::from_redis_value(reply)
                    .map_err(|error| BrokerError::corrupt(doing, error.to_string()))?;
                Ok(Some(Upserted { job_id, delay_ms }))
            }
        }
    }

    /// Makes the next iteration of the schedule that a claimed job belongs to; its job id. None:
    /// the job belongs to none, is not its current iteration, or was the last one.
    ///
    /// To be called for every claimed job with a `repeat_job_key`, before it runs: the chain ends
    /// where nobody does. Safe to repeat. An error says that the schedule could not be continued;
    /// one that is `Refused` will never be, so the job should run all the same.
    pub async fn schedule_next(
        &self,
        queue: &QueueName,
        job: &ClaimedJob,
    ) -> Result<Option<String>, BrokerError> {
        let Some(id) = job.repeat_job_key.as_deref() else {
            return Ok(None);
        };
        let now_ms = self.now_ms().await?;
        if may_be_repeatable(id) && !self.is_schedule(queue, id).await? {
            return self.repeatable_next(queue, id, job, now_ms).await;
        }
        let Some(iteration) = Iteration::next(id, &job.opts, now_ms)
            .map_err(|error| BrokerError::Refused(Refusal::Schedule(error)))?
        else {
            return Ok(None);
        };
        let options = Options {
            producer_id: Some(&job.id),
            name: &job.name,
            data: &job.data,
            ..Options::new(id, &iteration)
        };
        let options = options.pack("schedule_next")?;
        let call = self.schedule_call(ScriptId::ScheduleNext, queue, &options);
        self.connections.run(&call, Repeat::Safe).await
    }

    async fn repeatable_next(
        &self,
        queue: &QueueName,
        key: &str,
        job: &ClaimedJob,
        now_ms: i64,
    ) -> Result<Option<String>, BrokerError> {
        let Some(next) = Repeatable::next(key, &job.name, &job.data, &job.opts, now_ms)
            .map_err(|error| BrokerError::Refused(Refusal::Schedule(error)))?
        else {
            return Ok(None);
        };
        let options = Options {
            job_id: Some(&next.job_id),
            name: &job.name,
            data: &job.data,
            tick_ms: Some(next.tick_ms),
            ..Options::new(key, &next.iteration)
        };
        let options = options.pack("schedule_legacy")?;
        let call = self.schedule_call(ScriptId::ScheduleLegacy, queue, &options);
        self.connections.run(&call, Repeat::Safe).await
    }

    /// Ends a schedule; false: there was none. An iteration that is not due yet goes with it, one
    /// that waits or runs stays.
    pub async fn remove_schedule(&self, queue: &QueueName, id: &str) -> Result<bool, BrokerError> {
        let keys = self.keys(queue);
        let mut call = ScriptCall::new(
            ScriptId::ScheduleRemove,
            [&keys.repeat(), &keys.delayed(), &keys.events()],
        );
        call.arg(keys.job_prefix()).arg(id);
        let removed: i64 = self.connections.run(&call, Repeat::Safe).await?;
        Ok(removed == 1)
    }

    /// Whether it is kept with a count of its iterations, as all schedules are.
    async fn is_schedule(&self, queue: &QueueName, id: &str) -> Result<bool, BrokerError> {
        let key = self.keys(queue).schedule(id);
        self.connections
            .command("schedule_next", redis::cmd("HEXISTS").arg(key).arg("ic"))
            .await
    }

    /// The server's clock, or a test's.
    pub(super) async fn now_ms(&self) -> Result<i64, BrokerError> {
        match self.test_now_ms {
            Some(now_ms) => Ok(now_ms),
            None => self.server_time_ms().await,
        }
    }

    /// A call of one of the scripts that make iterations.
    pub(super) fn schedule_call(
        &self,
        id: ScriptId,
        queue: &QueueName,
        options: &[u8],
    ) -> ScriptCall {
        let keys: Keys = self.keys(queue);
        let mut call = ScriptCall::new(
            id,
            [
                &keys.repeat(),
                &keys.delayed(),
                &keys.wait(),
                &keys.prioritized(),
                &keys.pc(),
                &keys.marker(),
                &keys.active(),
                &keys.meta(),
                &keys.events(),
                &keys.id(),
            ],
        );
        call.arg(keys.job_prefix())
            .arg(options)
            .number_or_empty(self.test_now_ms);
        call
    }
}

fn flat(fields: Vec<(String, String)>) -> Vec<String> {
    fields
        .into_iter()
        .flat_map(|(name, value)| [name, value])
        .collect()
}
