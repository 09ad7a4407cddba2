//! Jobs that were started before: the record is asked first (law 5).
//!
//! It knows whether the job is over (then Redis is told, nothing runs), whether it is due, and
//! which number this start has. Jobs that the record does not know were added by a foreign client:
//! they are adopted, and only then run.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::execute::{execute, hand_over};
use super::held::Held;
use super::{Shared, TakenJob};
use crate::broker::{ClaimedJob, Retry};
use crate::job::wire::{self, Envelope};
use crate::job::{Ending, Event, JobError, Outcome, QueueName, RetryRule, Status};
use crate::record::adopt::{self, ForeignJob};
use crate::record::start::{self, Restart, Restarted, START_MAX};
use crate::settle::{Ended, tell};

/// Lost leases in a row after which a job counts as the cause.
pub const LEASE_LOSSES_MAX: u32 = 5;
/// The pause between two tries to reach the record.
const PAUSE: Duration = Duration::from_millis(500);

type Claimed = (ClaimedJob, OwnedSemaphorePermit);

/// Checks claimed jobs against the record and runs those that may run.
pub(super) async fn restart(
    shared: Arc<Shared>,
    queue: QueueName,
    token: String,
    started_at: DateTime<Utc>,
    jobs: Vec<Claimed>,
) {
    let held: Vec<Arc<Held>> = jobs
        .iter()
        .map(|(job, _)| {
            let id = adopt::record_id(shared.broker.prefix(), &queue, &job.id, job.timestamp_ms);
            let number = i32::try_from(job.attempts_started).unwrap_or(i32::MAX - 1);
            Arc::new(Held::new(id, &job.id, &queue, &token, number, started_at))
        })
        .collect();
    // Their leases are renewed while the record is asked, however long that takes.
    shared.held.insert(held.iter().cloned());
    let answers = ask(&shared, &queue, &held, &jobs).await;
    for (((job, slot), held), answer) in jobs.into_iter().zip(held).zip(answers) {
        let shared_clone = shared.clone();
        shared.jobs.spawn("job", async move {
            carry_out(&shared_clone, job, &held, answer).await;
            drop(slot);
        });
    }
}

/// Asks until there is an answer for each job. Without an answer, at a shutdown, the job is left to
/// its lease.
async fn ask(
    shared: &Shared,
    queue: &QueueName,
    held: &[Arc<Held>],
    jobs: &[Claimed],
) -> Vec<Option<Restart>> {
    let mut answers = Vec::with_capacity(held.len());
    for (held, jobs) in held.chunks(START_MAX).zip(jobs.chunks(START_MAX)) {
        let starts: Vec<(Uuid, i32)> = held.iter().map(|held| (held.id, held.attempt)).collect();
        let mut answered = loop {
            match start::restart_many(&shared.record, &shared.worker_id, &starts).await {
                Ok(answered) => break answered.into_iter().map(Some).collect(),
                Err(error) => tracing::warn!(%error, "restarts not checked"),
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = shared.interrupted.cancelled() => break vec![None; held.len()],
            }
        };
        adopt_unknown(shared, queue, &starts, jobs, &mut answered).await;
        answers.append(&mut answered);
    }
    answers
}

/// Writes jobs that the record does not know into it, then asks again for those.
async fn adopt_unknown(
    shared: &Shared,
    queue: &QueueName,
    starts: &[(Uuid, i32)],
    jobs: &[Claimed],
    answers: &mut [Option<Restart>],
) {
    let unknown: Vec<usize> = (0..answers.len())
        .filter(|nth| answers[*nth] == Some(Restart::Unknown))
        .collect();
    if unknown.is_empty() {
        return;
    }
    let foreign: Vec<ForeignJob> = unknown
        .iter()
        .map(|nth| {
            let job = &jobs[*nth].0;
            ForeignJob::new(starts[*nth].0, job.id.clone(), queue, &job.name, &job.data)
                .with_numbers(job.priority, wire::read_options(&job.opts).max_attempts)
                .with_history(job.attempts_made, job.timestamp_ms)
        })
        .collect();
    let asked: Vec<(Uuid, i32)> = unknown.iter().map(|nth| starts[*nth]).collect();
    let adopted = async {
        adopt::adopt_many(&shared.record, &foreign).await?;
        start::restart_many(&shared.record, &shared.worker_id, &asked).await
    };
    match adopted.await {
        Ok(known) => {
            metrics::counter!("bullwark_jobs_adopted_total").increment(known.len() as u64);
            for (nth, answer) in unknown.into_iter().zip(known) {
                answers[nth] = Some(answer);
            }
        }
        Err(error) => {
            tracing::warn!(%error, jobs = unknown.len(), "foreign jobs not adopted");
            for nth in unknown {
                answers[nth] = None;
            }
        }
    }
}

async fn carry_out(
    shared: &Arc<Shared>,
    job: ClaimedJob,
    held: &Arc<Held>,
    answer: Option<Restart>,
) {
    match answer {
        Some(Restart::Run(restarted)) => run(shared, job, held, *restarted).await,
        Some(Restart::Over {
            status,
            result,
            error,
        }) => {
            let (started_at, token) = (held.started_at, held.token.clone());
            let ended = Ended {
                id: held.id,
                wire_id: held.wire_id.clone(),
                queue: held.queue.clone(),
                token,
                attempt: held.attempt,
                max_attempts: 0,
                started_at,
                outcome: over(status, result, error),
            };
            tracing::info!(job.id = %held.id, %status, "not run again: the record says it is over");
            if let Err(error) = tell(&shared.broker, &[&ended]).await {
                tracing::warn!(%error, job.id = %held.id, "redis not told");
            }
            shared.held.remove(held.id, &held.token);
        }
        Some(Restart::Later { delay_ms }) => {
            let retry = Retry {
                id: held.wire_id.clone(),
                token: held.token.clone(),
                delay_ms,
                reason: String::new(),
                stacktrace: String::new(),
                count_attempt: false,
                lifo: false,
            };
            if let Err(error) = shared.broker.retry(&held.queue, &[retry]).await {
                tracing::warn!(%error, job.id = %held.id, "not put back");
            }
            shared.held.remove(held.id, &held.token);
        }
        // Left to its lease: it comes back.
        Some(Restart::Unknown) | None => shared.held.remove(held.id, &held.token),
    }
}

async fn run(shared: &Arc<Shared>, job: ClaimedJob, held: &Held, restarted: Restarted) {
    let envelope = wire::read_options(&job.opts).envelope.unwrap_or_default();
    let Envelope {
        workspace_id,
        timeout_seconds,
        ..
    } = envelope;
    let rule = RetryRule {
        attempts: restarted.attempts,
        max_attempts: restarted.max_attempts,
        retry_delay_seconds: restarted.retry_delay_seconds,
        backoff: restarted.backoff,
    };
    // The record numbers the start; Redis may have lost count.
    let numbered = Arc::new(Held::new(
        held.id,
        &held.wire_id,
        &held.queue,
        &held.token,
        restarted.attempt,
        held.started_at,
    ));
    numbered
        .is_marked
        .store(true, std::sync::atomic::Ordering::Relaxed);
    held.has_ended
        .store(true, std::sync::atomic::Ordering::Relaxed);
    shared.held.insert([numbered.clone()]);

    if restarted.lease_losses >= LEASE_LOSSES_MAX {
        let why = format!(
            "crash loop: {} workers in a row vanished while they ran this job",
            restarted.lease_losses
        );
        numbered
            .has_ended
            .store(true, std::sync::atomic::Ordering::Relaxed);
        hand_over(
            shared,
            &numbered,
            Ending::Error(JobError::Permanent(why)),
            &rule,
        )
        .await;
        return;
    }
    if let Some(why) = job.deferred_failure {
        numbered
            .has_ended
            .store(true, std::sync::atomic::Ordering::Relaxed);
        hand_over(
            shared,
            &numbered,
            Ending::Error(JobError::Permanent(why)),
            &rule,
        )
        .await;
        return;
    }
    let taken = TakenJob {
        held: numbered,
        job_type: job.name,
        payload: job.data,
        rule,
        workspace_id,
        timeout: timeout_seconds.map(|seconds| Duration::from_secs(u64::from(seconds))),
        checkpoint: restarted.checkpoint,
    };
    execute(shared.clone(), taken).await;
}

/// What Redis must be told of a job that is over.
fn over(status: Status, result: Option<String>, error: Option<String>) -> Outcome {
    let event = match status {
        Status::Completed => Event::Succeeded,
        Status::Cancelled => Event::Cancelled,
        Status::DeadLetter | Status::Failed | Status::Pending | Status::Processing => {
            Event::Discarded
        }
    };
    Outcome {
        event,
        result,
        error,
        delay: Duration::ZERO,
        attempts: 0,
    }
}
