//! A memory of Redis is made to agree with the record: `readmit`, before jobs are claimed from it.

use std::time::Duration;

use super::batch::{batches, mark};
use super::claim::millis;
use super::connection::ScriptCall;
use super::keys::check_job_id;
use super::script::ScriptId;
use super::{Broker, BrokerError, OWN_TOKEN, Repeat};
use crate::job::QueueName;

/// Active jobs that are searched for each job that is to be active.
const ACTIVE_MAX: u32 = 10_000;

/// What the record says of a job's starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readmit {
    pub id: String,
    /// So often it was started, at least.
    pub starts: u32,
    /// One that was started more often is left as it is.
    pub starts_max: Option<u32>,
    /// It runs: it is to be active, under this token if nobody holds its lease.
    pub token: Option<String>,
}

impl Broker {
    /// Corrects the starts of jobs, and makes those active that run; false: Redis has no such
    /// job, or it was started more often.
    pub async fn readmit(
        &self,
        queue: &QueueName,
        jobs: &[Readmit],
        lease: Duration,
    ) -> Result<Vec<bool>, BrokerError> {
        let keys = self.keys(queue);
        let mut answers = Vec::with_capacity(jobs.len());
        for batch in batches(jobs, |job| job.id.len()) {
            let mut call = ScriptCall::new(
                ScriptId::Readmit,
                [
                    &keys.active(),
                    &keys.wait(),
                    &keys.paused(),
                    &keys.prioritized(),
                    &keys.delayed(),
                    &keys.waiting_children(),
                    &keys.stalled(),
                ],
            );
            call.arg(keys.job_prefix())
                .arg(millis(lease))
                .arg(ACTIVE_MAX);
            for job in batch {
                check_job_id(&job.id)?;
                call.arg(&job.id)
                    .arg(job.starts)
                    .arg(job.token.as_deref().unwrap_or_default())
                    .number_or_empty(job.starts_max.map(i64::from));
            }
            let absent: Vec<usize> = self.connections.run(&call, Repeat::Safe).await?;
            let mut present = vec![true; batch.len()];
            mark(&mut present, absent, &false)
                .ok_or_else(|| BrokerError::corrupt("readmit", "a position outside the batch"))?;
            answers.extend(present);
        }
        Ok(answers)
    }
}

/// The token of a job that is put back while its worker may be alive: that worker, and nobody else,
/// takes the lease over with its next renewal (`is_holder` in `prelude.lua`).
pub fn rebuilt_token(worker_id: &str) -> String {
    format!("{OWN_TOKEN}{worker_id}:rebuilt")
}
