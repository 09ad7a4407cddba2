//! What is asked and noted of attempts that go on: `confirm` and `update_progress`.

use super::batch::batches;
use super::connection::ScriptCall;
use super::script::ScriptId;
use super::settle::{Settled, settled};
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;

/// An attempt that is about to end.
#[derive(Debug, Clone)]
pub struct Confirm {
    pub id: String,
    pub token: String,
    /// It succeeded: then no child may be open or have failed.
    pub completes: bool,
}

/// Whether an attempt may end now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    /// `Done`: it may.
    pub settled: Settled,
    /// How many rows the job's log has in Redis.
    pub log_rows: u64,
}

impl Broker {
    /// Whether attempts may end now; asked before an outcome is recorded.
    pub async fn confirm(
        &self,
        queue: &QueueName,
        jobs: &[Confirm],
    ) -> Result<Vec<Confirmed>, BrokerError> {
        let keys = self.keys(queue);
        let mut answers = Vec::with_capacity(jobs.len());
        for batch in batches(jobs, |job| job.id.len()) {
            let mut call = ScriptCall::new(ScriptId::Confirm, [&keys.active()]);
            call.arg(keys.job_prefix());
            for job in batch {
                call.arg(&job.id).arg(&job.token).flag(job.completes);
            }
            let (refused, log_rows): (Vec<i64>, Vec<u64>) =
                self.connections.run(&call, Repeat::Safe).await?;
            let settled = settled(&refused, batch.len())?.into_iter();
            answers.extend(
                settled
                    .zip(log_rows)
                    .map(|(settled, log_rows)| Confirmed { settled, log_rows }),
            );
        }
        Ok(answers)
    }

    /// Notes how far jobs are, `(id, token, JSON text)`, if they still hold the lease.
    pub async fn update_progress(
        &self,
        queue: &QueueName,
        jobs: &[(String, String, String)],
    ) -> Result<Vec<Settled>, BrokerError> {
        let keys = self.keys(queue);
        let mut answers = Vec::with_capacity(jobs.len());
        for batch in batches(jobs, |(_, _, progress)| progress.len()) {
            let both = [keys.meta(), keys.events()];
            let mut call = ScriptCall::new(ScriptId::UpdateProgress, [&both[0], &both[1]]);
            call.arg(keys.job_prefix());
            for (id, token, progress) in batch {
                call.arg(id).arg(token).arg(progress);
            }
            answers.extend(self.run_settling(&call, batch.len()).await?);
        }
        Ok(answers)
    }
}
