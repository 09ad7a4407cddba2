//! Schedules whose chain of jobs broke: `repair_schedules`.
//!
//! A chain breaks where a worker runs an iteration without making the next one, and where a job
//! is lost. It goes on with the first moment that has not passed; a tick that has passed counts as
//! run, so that none runs twice.

use super::schedule::Options;
use super::script::ScriptId;
use super::{Broker, BrokerError, BrokerState, Order, Repeat};
use crate::job::QueueName;
use crate::job::schedule::{InvalidSchedule, Iteration, Kept};

/// Schedules that one call of [`Broker::repair_schedules`] looks at.
pub const REPAIR_MAX: usize = 200;

/// What a call found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The iterations that schedules go on with.
    pub job_ids: Vec<String>,
    /// Where the next call begins; none: it looked at the last schedule.
    pub next: Option<usize>,
}

/// The job of a schedule's current iteration.
enum Current {
    /// Its chain goes on by itself.
    Alive,
    /// It ran, and no other was made. Its options.
    Finished(String),
    /// There is none.
    Lost,
    /// It is in no state.
    Orphan,
}

impl Broker {
    /// Lets broken schedules go on, from this position on, at most [`REPAIR_MAX`].
    ///
    /// Safe beside itself and beside workers. Schedules whose limit or end is reached stay as they
    /// are.
    pub async fn repair_schedules(
        &self,
        queue: &QueueName,
        first: usize,
    ) -> Result<Repaired, BrokerError> {
        let schedules = self
            .schedules(queue, Order::Ascending, first, REPAIR_MAX)
            .await?;
        let now_ms = self.now_ms().await?;
        let current = self.current_iterations(queue, &schedules, now_ms).await?;
        let mut repaired = Repaired {
            next: (schedules.len() == REPAIR_MAX).then_some(first + REPAIR_MAX),
            ..Repaired::default()
        };
        for (schedule, current) in schedules.iter().zip(&current) {
            if let Some(job_id) = self.repair(queue, schedule, current, now_ms).await? {
                repaired.job_ids.push(job_id);
            }
        }
        Ok(repaired)
    }

    async fn repair(
        &self,
        queue: &QueueName,
        schedule: &Kept,
        current: &Current,
        now_ms: i64,
    ) -> Result<Option<String>, BrokerError> {
        let is_again = matches!(current, Current::Lost) && schedule.due_ms > now_ms;
        let iteration = match continuation(schedule, current, is_again, now_ms) {
            Ok(Some(iteration)) => iteration,
            Ok(None) => return Ok(None),
            Err(error) => {
                // One that nobody can read must not keep the others from it.
                tracing::debug!(schedule = schedule.id, %error, "schedule can not go on");
                return Ok(None);
            }
        };
        let options = Options {
            name: &schedule.template.name,
            data: &schedule.template.data,
            tick_ms: Some(schedule.due_ms),
            is_again,
            is_orphan: matches!(current, Current::Orphan),
            ..Options::new(&schedule.id, &iteration)
        };
        let options = options.pack("schedule_repair")?;
        let call = self.schedule_call(ScriptId::ScheduleRepair, queue, &options);
        self.connections.run(&call, Repeat::Safe).await
    }

    async fn current_iterations(
        &self,
        queue: &QueueName,
        schedules: &[Kept],
        now_ms: i64,
    ) -> Result<Vec<Current>, BrokerError> {
        if schedules.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys(queue);
        let ids: Vec<String> = schedules
            .iter()
            .map(|schedule| format!("repeat:{}:{}", schedule.id, schedule.due_ms))
            .collect();
        let mut pipeline = redis::pipe();
        for id in &ids {
            let key = format!("{}{id}", keys.job_prefix());
            pipeline.hmget(key, &["opts", "finishedOn"]);
        }
        let jobs: Vec<(Option<String>, Option<String>)> = self
            .connections
            .pipeline("repair_schedules", &pipeline)
            .await?;
        // Only what should have run by now is searched for in all states.
        let overdue: Vec<String> = ids
            .iter()
            .zip(schedules.iter().zip(&jobs))
            .filter(|(_, (schedule, job))| {
                job.0.is_some() && job.1.is_none() && schedule.due_ms < now_ms
            })
            .map(|(id, _)| id.clone())
            .collect();
        let states = self.states(queue, &overdue).await?;
        let is_orphan = |id: &String| {
            let at = overdue.iter().position(|overdue| overdue == id);
            at.is_some_and(|at| states[at] == Some(BrokerState::Orphan))
        };
        let current = |(id, job): (&String, (Option<String>, Option<String>))| match job {
            (None, _) => Current::Lost,
            (Some(opts), Some(_)) => Current::Finished(opts),
            (Some(_), None) if is_orphan(id) => Current::Orphan,
            (Some(_), None) => Current::Alive,
        };
        Ok(ids.iter().zip(jobs).map(current).collect())
    }
}

/// What a schedule goes on with.
fn continuation(
    schedule: &Kept,
    current: &Current,
    is_again: bool,
    now_ms: i64,
) -> Result<Option<Iteration>, InvalidSchedule> {
    match current {
        // Repeatables of older clients are not kept well enough to go on from.
        _ if schedule.iterations.is_none() => Ok(None),
        Current::Alive => Ok(None),
        Current::Finished(opts) => Iteration::next(&schedule.id, opts, now_ms),
        Current::Lost if is_again => schedule.again(),
        Current::Lost | Current::Orphan => schedule.next(now_ms),
    }
}
