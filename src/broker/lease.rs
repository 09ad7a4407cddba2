//! Leases: `extend` keeps them, `rescue` finds those that ran out.

use std::time::Duration;

use super::batch::{batches, mark};
use super::claim::millis;
use super::connection::ScriptCall;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;

/// After so many rescued jobs a check looks at no further suspects.
pub const RESCUE_MAX: usize = 1000;
/// Active jobs that one check marks as suspects, at most; the oldest ones.
const SUSPECTS_MAX: u32 = 50_000;

/// How often a job may stall before it fails at its next claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stalls {
    pub max: u32,
    /// Of a job that Bullwark accepted.
    pub own_max: u32,
}

impl From<u32> for Stalls {
    fn from(max: u32) -> Self {
        Self { max, own_max: max }
    }
}

impl Broker {
    /// Prolongs leases, `(id, token)`; false: the lease is lost, stop working on that job.
    pub async fn extend(
        &self,
        queue: &QueueName,
        jobs: &[(String, String)],
        lease: Duration,
    ) -> Result<Vec<bool>, BrokerError> {
        let keys = self.keys(queue);
        let mut answers = Vec::with_capacity(jobs.len());
        for batch in batches(jobs, |(id, token)| id.len() + token.len()) {
            let mut call = ScriptCall::new(ScriptId::Extend, [&keys.stalled()]);
            call.arg(keys.job_prefix()).arg(millis(lease));
            for (id, token) in batch {
                call.arg(id).arg(token);
            }
            let lost: Vec<usize> = self.connections.run(&call, Repeat::Safe).await?;
            let mut held = vec![true; batch.len()];
            mark(&mut held, lost, &false)
                .ok_or_else(|| BrokerError::corrupt("extend", "a position outside the batch"))?;
            answers.extend(held);
        }
        Ok(answers)
    }

    /// The stalled check: puts jobs back whose lease ran out, and returns their ids.
    ///
    /// It needs two rounds, `interval` apart: the first marks, the second finds the lock gone.
    /// Within the interval of any worker's check nothing happens. A job that was rescued more
    /// than `stalls` allow is claimed once more, with a deferred failure.
    pub async fn rescue(
        &self,
        queue: &QueueName,
        interval: Duration,
        stalls: impl Into<Stalls>,
        max: usize,
    ) -> Result<Vec<String>, BrokerError> {
        let (keys, stalls) = (self.keys(queue), stalls.into());
        let mut call = ScriptCall::new(
            ScriptId::Rescue,
            [
                &keys.stalled(),
                &keys.wait(),
                &keys.active(),
                &keys.stalled_check(),
                &keys.marker(),
                &keys.meta(),
                &keys.events(),
                &keys.repeat(),
            ],
        );
        call.arg(keys.job_prefix())
            .arg(millis(interval))
            .arg(stalls.max)
            .arg(stalls.own_max)
            .arg(max.min(RESCUE_MAX))
            .arg(SUSPECTS_MAX)
            .number_or_empty(self.test_now_ms);
        // Sent again after a lost reply, it would answer "checked already": the ids are lost
        // then, but the jobs are back in the queue.
        self.connections.run(&call, Repeat::Safe).await
    }
}
