//! Attempts end: `finish`, `fail`, `retry` and `release`.
//!
//! The outcome is in the record before any of these is called. So a lock that ran out does not
//! stop them while the job is still active; the lock of another attempt does.
//!
//! A call whose reply was lost is sent again, so a job that the first call settled answers
//! `NotActive` (or `JobMissing`, if it was not kept). To a caller whose outcome is in the record
//! these say the same as `Done`.

use serde::Serialize;

use super::batch::batches;
use super::connection::ScriptCall;
use super::keys::Keys;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;

/// A job that succeeded.
#[derive(Debug, Clone)]
pub struct Finish {
    pub id: String,
    pub token: String,
    /// JSON text: readers of the event stream stop at anything else.
    pub returnvalue: String,
    pub keep: Keep,
}

/// A job that failed for good.
#[derive(Debug, Clone)]
pub struct Fail {
    pub id: String,
    pub token: String,
    /// Plain text.
    pub reason: String,
    /// JSON array of texts.
    pub stacktrace: String,
    /// `opts.attempts`: with as many made, `retries-exhausted` is announced, too.
    pub attempts: u32,
    pub keep: Keep,
}

/// A job that runs again.
#[derive(Debug, Clone)]
pub struct Retry {
    pub id: String,
    pub token: String,
    /// 0: at once.
    pub delay_ms: i64,
    /// Plain text; empty: the last one stays.
    pub reason: String,
    /// JSON array of texts; empty: the last one stays.
    pub stacktrace: String,
    /// False for a snooze, which spends no attempt.
    pub count_attempt: bool,
    /// `opts.lifo`: next in line, if it has no priority and no delay.
    pub lifo: bool,
}

/// A job that is given back unrun.
#[derive(Debug, Clone)]
pub struct Release {
    pub id: String,
    pub token: String,
}

/// How many finished jobs stay in Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    #[default]
    All,
    /// Not even this one.
    Remove,
    Some {
        /// The newest so many; 0 is [`Keep::Remove`].
        count: Option<u64>,
        /// Those younger than this.
        age_seconds: Option<u64>,
        /// Jobs that go for their age per call.
        limit: Option<u64>,
    },
}

/// What became of a job that was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    Done,
    /// Redis knows no such job.
    JobMissing,
    /// Nobody holds the lease.
    LockMissing,
    /// It is not active: settled before, cancelled or rescued. Nothing was changed.
    NotActive,
    /// Another attempt holds the lease. Nothing was changed.
    LockMismatch,
    /// It can't complete: children of it are not over.
    PendingChildren,
    /// It can't complete: children of it failed.
    FailedChildren,
}

impl Settled {
    pub(super) fn from_code(code: i64) -> Option<Self> {
        match code {
            -1 => Some(Self::JobMissing),
            -2 => Some(Self::LockMissing),
            -3 => Some(Self::NotActive),
            -4 => Some(Self::PendingChildren),
            -6 => Some(Self::LockMismatch),
            -9 => Some(Self::FailedChildren),
            _ => None,
        }
    }
}

/// `keepJobs` as the scripts read it.
#[derive(Serialize)]
struct PackedKeep {
    count: Option<u64>,
    age_s: Option<u64>,
    limit: Option<u64>,
}

#[derive(Serialize)]
struct EndOptions {
    keeps: Vec<PackedKeep>,
    metrics_points_max: Option<u32>,
}

/// The different `keep`s of a batch: nearly always one.
#[derive(Default)]
struct Keeps(Vec<Keep>);

impl Keeps {
    /// Position from 1, as Lua counts.
    fn position(&mut self, keep: Keep) -> usize {
        if let Some(at) = self.0.iter().position(|known| *known == keep) {
            return at + 1;
        }
        self.0.push(keep);
        self.0.len()
    }

    fn pack(&self, points_max: Option<u32>) -> Result<Vec<u8>, BrokerError> {
        let keeps = self.0.iter().map(|keep| match *keep {
            Keep::All => PackedKeep {
                count: None,
                age_s: None,
                limit: None,
            },
            Keep::Remove => PackedKeep {
                count: Some(0),
                age_s: None,
                limit: None,
            },
            Keep::Some {
                count,
                age_seconds,
                limit,
            } => PackedKeep {
                count,
                age_s: age_seconds,
                limit,
            },
        });
        let options = EndOptions {
            keeps: keeps.collect(),
            metrics_points_max: points_max,
        };
        rmp_serde::to_vec_named(&options)
            .map_err(|error| BrokerError::corrupt("pack options", error.to_string()))
    }
}

impl Broker {
    /// Jobs that succeeded leave `active`. Repeating it changes nothing.
    pub async fn finish(
        &self,
        queue: &QueueName,
        jobs: &[Finish],
    ) -> Result<Vec<Settled>, BrokerError> {
        let keys = self.keys(queue);
        let mut answers = Vec::with_capacity(jobs.len());
        for batch in batches(jobs, |job| job.returnvalue.len()) {
            let mut call = self.ending(ScriptId::Finish, &keys, "completed", &keys.completed());
            let mut keeps = Keeps::default();
            let positions: Vec<usize> = batch.iter().map(|job| keeps.position(job.keep)).collect();
            call.arg(keys.job_prefix())
                .arg(keeps.pack(self.options.metrics_points_max)?)
                .number_or_empty(self.test_now_ms);
            for (job, keep) in batch.iter().zip(positions) {
                call.arg(&job.id)
                    .arg(&job.token)
                    .arg(&job.returnvalue)
                    .arg(keep);
            }
            answers.extend(self.run_settling(&call, batch.len()).await?);
        }
        Ok(answers)
    }

    /// Jobs that failed for good leave `active`. Repeating it changes nothing.
    pub async fn fail(
        &self,
        queue: &QueueName,
        jobs: &[Fail],
    ) -> Result<Vec<Settled>, BrokerError> {
        let keys = self.keys(queue);
        let mut answers = Vec::with_capacity(jobs.len());
        for batch in batches(jobs, |job| job.reason.len() + job.stacktrace.len()) {
            let mut call = self.ending(ScriptId::Fail, &keys, "failed", &keys.failed());
            let mut keeps = Keeps::default();
            let positions: Vec<usize> = batch.iter().map(|job| keeps.position(job.keep)).collect();
            call.arg(keys.job_prefix())
                .arg(keeps.pack(self.options.metrics_points_max)?)
                .number_or_empty(self.test_now_ms);
            for (job, keep) in batch.iter().zip(positions) {
                call.arg(&job.id)
                    .arg(&job.token)
                    .arg(&job.reason)
                    .arg(&job.stacktrace)
                    .arg(job.attempts)
                    .arg(keep);
            }
            answers.extend(self.run_settling(&call, batch.len()).await?);
        }
        Ok(answers)
    }

    /// Jobs leave `active` to run again. Repeating it changes nothing.
    pub async fn retry(
        &self,
        queue: &QueueName,
        jobs: &[Retry],
    ) -> Result<Vec<Settled>, BrokerError> {
        let keys = self.keys(queue);
        let mut answers = Vec::with_capacity(jobs.len());
        for batch in batches(jobs, |job| job.reason.len() + job.stacktrace.len()) {
            let mut call = ScriptCall::new(
                ScriptId::Retry,
                [
                    &keys.active(),
                    &keys.stalled(),
                    &keys.wait(),
                    &keys.prioritized(),
                    &keys.delayed(),
                    &keys.pc(),
                    &keys.marker(),
                    &keys.meta(),
                    &keys.events(),
                ],
            );
            call.arg(keys.job_prefix())
                .number_or_empty(self.test_now_ms)
                .flag(false); // the record knows: the lock may be gone
            for job in batch {
                call.arg(&job.id)
                    .arg(&job.token)
                    .number_or_empty((job.delay_ms > 0).then_some(job.delay_ms))
                    .flag(job.count_attempt)
                    .flag(job.lifo)
                    .arg(&job.reason)
                    .arg(&job.stacktrace);
            }
            answers.extend(self.run_settling(&call, batch.len()).await?);
        }
        Ok(answers)
    }

    /// Jobs, in the order of their claim, go back to the front of the queue unrun.
    pub async fn release(
        &self,
        queue: &QueueName,
        jobs: &[Release],
    ) -> Result<Vec<Settled>, BrokerError> {
        let keys = self.keys(queue);
        let mut answers = Vec::with_capacity(jobs.len());
        // Later batches first: what is pushed to the front last is taken next.
        for batch in batches(jobs, |job| job.id.len()).into_iter().rev() {
            let mut call = ScriptCall::new(
                ScriptId::Release,
                [
                    &keys.active(),
                    &keys.stalled(),
                    &keys.wait(),
                    &keys.prioritized(),
                    &keys.marker(),
                    &keys.meta(),
                    &keys.events(),
                    &keys.limiter(),
                ],
            );
            call.arg(keys.job_prefix()).flag(false);
            for job in batch {
                call.arg(&job.id).arg(&job.token);
            }
            let (_rate_wait_ms, refused): (i64, Vec<i64>) =
                self.connections.run(&call, Repeat::Safe).await?;
            answers.splice(0..0, settled(&refused, batch.len())?);
        }
        Ok(answers)
    }

    /// `finish` and `fail` take the same keys.
    fn ending(&self, id: ScriptId, keys: &Keys, state: &str, set: &str) -> ScriptCall {
        let [metrics, points] = keys.metrics(state);
        ScriptCall::new(
            id,
            [
                &keys.active(),
                &keys.stalled(),
                &keys.wait(),
                &keys.prioritized(),
                set,
                &keys.marker(),
                &keys.meta(),
                &keys.events(),
                &metrics,
                &points,
                &keys.delayed(),
            ],
        )
    }

    /// Runs a script that answers `{position, code, …}` for the jobs that it left as they are.
    pub(super) async fn run_settling(
        &self,
        call: &ScriptCall,
        jobs: usize,
    ) -> Result<Vec<Settled>, BrokerError> {
        let refused: Vec<i64> = self.connections.run(call, Repeat::Safe).await?;
        settled(&refused, jobs)
    }
}

/// An answer per job of a batch, from `{position, code, …}` of those that were left as they are.
pub(super) fn settled(refused: &[i64], jobs: usize) -> Result<Vec<Settled>, BrokerError> {
    let mut answers = vec![Settled::Done; jobs];
    for pair in refused.chunks(2) {
        let nonsense = || BrokerError::corrupt("settle", format!("answer {pair:?}"));
        let [position, code] = *pair else {
            return Err(nonsense());
        };
        let at = usize::try_from(position - 1).map_err(|_| nonsense())?;
        let answer = answers.get_mut(at).ok_or_else(nonsense)?;
        *answer = Settled::from_code(code).ok_or_else(nonsense)?;
    }
    Ok(answers)
}
