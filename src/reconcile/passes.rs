//! The passes over the open jobs of the record.

use std::collections::HashMap;
use std::time::Duration;

use uuid::Uuid;

use super::ReconcileError;
use crate::broker::{Broker, BrokerState};
use crate::enqueue::deliver_stored;
use crate::job::QueueName;
use crate::record::logs::{self, LogLevel, NewLog};
use crate::record::open::{self, LOAD_MAX, OpenJob, SEAL_LAG};
use crate::record::{Record, jobs::CONTROL_MAX};

/// How old a job must be before it may be delivered here. Longer than a delivery stays fresh
/// (one second), so that the original add and this one never race.
const DELIVER_LAG: Duration = Duration::from_secs(2);
/// The specification's silence after which a worker counts as gone.
const SILENCE: Duration = Duration::from_secs(5 * 60);

/// Looks at one step of new jobs and adds those that Redis does not know. Returns whether there is
/// more to do at once. While Redis is away the watermark stays, so nothing is passed over.
pub async fn deliver_recent(record: &Record, broker: &Broker) -> Result<bool, ReconcileError> {
    let Some(step) = open::next_step(record, "delivered", DELIVER_LAG).await? else {
        return Ok(false);
    };
    add_absent(record, broker, &step.open, "its way to Redis was cut short").await?;
    open::advance(record, "delivered", &step).await?;
    Ok(step.more)
}

/// Notes what is still open of jobs past the lag, so that all later passes look at those alone.
/// Returns whether there is more to do at once.
pub async fn seal(record: &Record) -> Result<bool, ReconcileError> {
    let Some(step) = open::next_step(record, "sealed", SEAL_LAG).await? else {
        return Ok(false);
    };
    open::seal(record, &step).await?;
    Ok(step.more)
}

/// Looks at one page of all open jobs after `after` and adds those that Redis has forgotten.
/// Returns where to go on; nothing at the end of the round.
pub async fn sweep_open(
    record: &Record,
    broker: &Broker,
    after: Uuid,
) -> Result<Option<Uuid>, ReconcileError> {
    let page = open::page(record, after).await?;
    let Some(last) = page.last().map(|job| job.id) else {
        return Ok(None);
    };
    let old: Vec<OpenJob> = page
        .into_iter()
        .filter(|job| is_older(job.id, DELIVER_LAG))
        .collect();
    add_absent(record, broker, &old, "Redis had forgotten it").await?;
    Ok(Some(last))
}

/// Puts running jobs without a sign of life back to pending. Redis gives them back by itself when
/// their lease ends; if it has forgotten them, the sweep adds them.
pub async fn reset_silent(record: &Record) -> Result<usize, ReconcileError> {
    let mut reset = 0;
    loop {
        let jobs = open::reset_silent(record, SILENCE).await?;
        reset += jobs.len();
        if jobs.len() < CONTROL_MAX {
            metrics::counter!("bullwark_jobs_silent_total").increment(reset as u64);
            return Ok(reset);
        }
    }
}

/// By the clock of this process: only a hint that keeps the sweep away from jobs that are on their
/// way. A wrong clock costs a needless add, which is harmless, or a delay.
fn is_older(id: Uuid, age: Duration) -> bool {
    let made_ms = (id.as_u128() >> 80) as i64;
    crate::clock::now_ms().saturating_sub(made_ms) > age.as_millis() as i64
}

/// Adds waiting jobs that are not in Redis. Running ones are left to their worker: it may be alive
/// and only Redis have lost its memory; if it is not, its silence is noticed.
async fn add_absent(
    record: &Record,
    broker: &Broker,
    open: &[OpenJob],
    why: &str,
) -> Result<(), ReconcileError> {
    let mut queues: HashMap<QueueName, Vec<&OpenJob>> = HashMap::new();
    for job in open.iter().filter(|job| job.status != "processing") {
        if let Ok(queue) = job.job_queue.parse() {
            queues.entry(queue).or_default().push(job);
        }
    }
    let mut absent = Vec::new();
    for (queue, jobs) in queues {
        let wire_ids: Vec<String> = jobs.iter().map(|job| job.wire_id.clone()).collect();
        let states = broker.states(&queue, &wire_ids).await?;
        let missing = jobs
            .iter()
            .zip(states)
            .filter(|(_, state)| matches!(state, None | Some(BrokerState::Orphan)));
        absent.extend(missing.map(|(job, _)| job.id));
    }
    absent.sort();
    for ids in absent.chunks(LOAD_MAX) {
        // Read again: what ended since is not added.
        let jobs = open::load(record, ids).await?;
        deliver_stored(broker, &jobs).await?;
        let lines: Vec<NewLog> = jobs
            .iter()
            .map(|stored| audit(stored.job.id, why))
            .collect();
        logs::insert_many(record, &lines).await?;
        metrics::counter!("bullwark_jobs_reconciled_total").increment(jobs.len() as u64);
    }
    Ok(())
}

fn audit(job_id: Uuid, why: &str) -> NewLog {
    NewLog {
        job_id,
        attempt: 0,
        level: LogLevel::Info,
        message: format!("reconciled: added to Redis again, {why}"),
        metadata: None,
    }
}
