//! Running jobs whose worker gave the record no sign: the specification's rule, the backstop behind
//! the leases.
//!
//! The record may have been away itself, and Redis, which keeps an outcome waiting that must be
//! asked about: a worker that is alive renews its lease all the same. So a job whose lease is held
//! is left alone, and while Redis can't tell, all are.

use std::collections::HashMap;
use std::time::Duration;

use uuid::Uuid;

use super::ReconcileError;
use super::halves::passed_over;
use crate::broker::Broker;
use crate::job::QueueName;
use crate::record::open::{self, OpenJob};
use crate::record::{Record, rebuild};

/// The specification's five minutes.
const SILENCE: Duration = Duration::from_secs(300);

/// Puts running jobs without a sign of life and without a lease back to pending. Returns how many.
/// Redis gives them back by itself; if it has forgotten them, the sweep adds them.
pub async fn reset_silent(record: &Record, broker: &Broker) -> Result<u64, ReconcileError> {
    let (mut reset, mut after) = (0, Uuid::nil());
    loop {
        let silent = open::silent(record, SILENCE, after).await?;
        let Some(last) = silent.last().map(|job| job.id) else {
            break;
        };
        after = last;
        let epoch = broker.epoch().await?;
        let lost = without_lease(broker, silent).await?;
        // One that forgot the leases is not the one that was compared, before or after.
        let compared = rebuild::compared(record, broker.prefix()).await?;
        if compared.as_ref() != Some(&epoch) || broker.epoch().await? != epoch {
            break;
        }
        reset += open::reset_silent(record, SILENCE, &lost).await?;
    }
    metrics::counter!("bullwark_jobs_silent_total").increment(reset);
    Ok(reset)
}

async fn without_lease(
    broker: &Broker,
    jobs: Vec<OpenJob>,
) -> Result<Vec<OpenJob>, ReconcileError> {
    let mut queues: HashMap<QueueName, Vec<OpenJob>> = HashMap::new();
    for job in jobs {
        match job.job_queue.parse() {
            Ok(queue) => queues.entry(queue).or_default().push(job),
            Err(error) => passed_over(&job.job_queue, &job.wire_id, &error),
        }
    }
    let mut lost = Vec::new();
    for (queue, jobs) in queues {
        let ids: Vec<String> = jobs.iter().map(|job| job.wire_id.clone()).collect();
        let seen = broker.read_jobs(&queue, &ids, false).await?;
        for (job, seen) in jobs.into_iter().zip(seen) {
            if seen.is_none_or(|seen| seen.token.is_none()) {
                lost.push(job);
            }
        }
    }
    Ok(lost)
}
