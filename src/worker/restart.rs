//! Jobs that were started before: the record is asked first (law 5).
//!
//! It knows whether the job is over (then Redis is told, nothing runs), whether it is due, and
//! which number this start has. Jobs that the record does not know were added by a foreign client:
//! they are adopted, and only then run.
//!
//! A job that takes its process down takes its neighbours along, and they must not be blamed. So
//! jobs that lost several workers in a row are suspects: a process runs one of them at a time, and
//! a suspect that waits for its turn has not begun, whatever happens to the process.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use uuid::Uuid;

use super::ask::{Answer, ask};
use super::execute::{execute, fail_unrun};
use super::held::{ForgetOnPanic, Held, Phase};
use super::lapsed::may_begin;
use super::latency::Latency;
use super::wire::Wire;
use super::{Shared, Slot, TakenJob};
use crate::broker::{ClaimedJob, Release, Retry};
use crate::job::wire::{self, Envelope};
use crate::job::{Outcome, QueueName, RetryRule, Status};
use crate::record::restart::{self, Restart, Restarted};
use crate::record::start::START_MAX;
use crate::settle::{Ended, tell};
use crate::tasks::panic_text;

/// Lost leases in a row after which a job counts as the cause.
pub const LEASE_LOSSES_MAX: u32 = 5;
/// Lost leases in a row after which a job is a suspect.
const SUSPECT_LOSSES: u32 = 2;
/// How often the record is asked again about a job that somebody has locked there.
const LOCKED_ROUNDS_MAX: u32 = 20;
/// Between two such questions.
const LOCKED_PAUSE: Duration = Duration::from_millis(20);
/// How long it rests if it is locked even then.
const LOCKED_DELAY: Duration = Duration::from_millis(200);
/// How long a suspect rests while another one has its turn.
const TURN_DELAY: Duration = Duration::from_secs(1);

/// A claimed job that the record is asked about.
pub(super) struct Claimed {
    pub(super) wire: Arc<Wire>,
    pub(super) held: Arc<Held>,
    pub(super) slot: Slot,
    /// When it was claimed: before Redis gave the lease.
    pub(super) asked_at: Instant,
    /// Until its own task has it: whoever carries it may panic while the record is asked.
    pub(super) _forget: ForgetOnPanic,
}

/// Checks claimed jobs against the record and runs those that may run. Their leases are renewed
/// meanwhile, however long it takes.
pub(super) async fn restart(shared: Arc<Shared>, queue: QueueName, mut jobs: Vec<Claimed>) {
    let mut locked = Vec::new();
    let mut rounds = 0;
    while !jobs.is_empty() {
        let rest = jobs.split_off(jobs.len().min(START_MAX));
        let batch = std::mem::replace(&mut jobs, rest);
        let batch = await_turns(&shared, batch).await;
        let answers = ask(&shared, &queue, &batch).await;
        for (claimed, answer) in batch.into_iter().zip(answers) {
            if answer == Answer::Record(Restart::Locked) && rounds < LOCKED_ROUNDS_MAX {
                locked.push(claimed);
                continue;
            }
            let shared_clone = shared.clone();
            let mut run = Box::pin(async move {
                let Claimed {
                    wire,
                    held,
                    slot,
                    asked_at,
                    ..
                } = claimed;
                let run = carry_out(&shared_clone, &wire, (&held, asked_at), answer);
                if let Err(panic) = AssertUnwindSafe(run).catch_unwind().await {
                    let panic = panic_text(panic.as_ref());
                    tracing::error!(job.id = %held.id, panic, "a run panicked: left to its lease");
                    shared_clone.held.remove(held.id, &held.token);
                }
                drop(slot);
            });
            // BullMQ's users see jobs start in the order of the queue: each begins here, in turn,
            // before the runtime's threads take over in whatever order.
            if shared.manners.is_none() || futures_util::poll!(run.as_mut()).is_pending() {
                shared.jobs.spawn("job", run);
            }
        }
        // A lock of the record lasts for a statement or a write of a handler: short.
        if jobs.is_empty() && !locked.is_empty() {
            rounds += 1;
            tokio::time::sleep(LOCKED_PAUSE).await;
            jobs = std::mem::take(&mut locked);
        }
    }
}

/// Lets one suspect pass and puts the others back. When the record does not answer, nobody is a
/// suspect: asking it again is the next step anyhow.
async fn await_turns(shared: &Shared, jobs: Vec<Claimed>) -> Vec<Claimed> {
    if shared.manners.is_some() {
        return jobs; // BullMQ's stalled count judges them
    }
    let stalled: Vec<Uuid> = jobs
        .iter()
        .filter(|claimed| claimed.wire.job.stalled_count >= SUSPECT_LOSSES)
        .filter(|claimed| claimed.slot._turn.is_none())
        .map(|claimed| claimed.held.id)
        .collect();
    if stalled.is_empty() {
        return jobs;
    }
    let suspects = restart::lost_often(&shared.record, &stalled, SUSPECT_LOSSES).await;
    let suspects = suspects.unwrap_or_else(|error| {
        tracing::warn!(%error, "suspects not known");
        HashSet::new()
    });
    let (mut passed, mut waiting) = (Vec::with_capacity(jobs.len()), Vec::new());
    for mut claimed in jobs {
        if suspects.contains(&claimed.held.id) && claimed.slot._turn.is_none() {
            match shared.suspect.clone().try_acquire_owned() {
                Ok(turn) => claimed.slot._turn = Some(turn),
                Err(_) => {
                    waiting.push(claimed.held);
                    continue;
                }
            }
        }
        passed.push(claimed);
    }
    let waiting_jobs: Vec<&Held> = waiting.iter().map(Arc::as_ref).collect();
    put_back(shared, &waiting_jobs, TURN_DELAY).await;
    for held in &waiting {
        shared.held.remove(held.id, &held.token);
    }
    passed
}

async fn carry_out(
    shared: &Arc<Shared>,
    wire: &Arc<Wire>,
    (held, asked_at): (&Arc<Held>, Instant),
    answer: Answer,
) {
    match answer {
        Answer::Record(Restart::Run(restarted)) => {
            return run(shared, wire, (held, asked_at), *restarted).await;
        }
        Answer::Record(Restart::Over {
            status,
            result,
            error,
        }) => {
            tracing::info!(job.id = %held.id, %status, "not run again: the record says it is over");
            // Redis keeps the current iteration of a schedule, also one that was cancelled. When
            // the next one is made it is like any other, and the schedule goes on.
            if wire.job.repeat_job_key.is_some() {
                make_next_iteration(shared, &held.queue, &wire.job).await;
            }
            let counted = restart::count_start(&shared.record, held.id, held.attempt).await;
            if let Err(error) = counted {
                tracing::warn!(%error, job.id = %held.id, "a start is not counted");
            }
            end_in_redis(shared, held, Outcome::recorded(status, result, error)).await;
        }
        Answer::Unrecordable(why) => {
            tracing::error!(
                wire_id = held.wire_id,
                why,
                "a foreign job can not be adopted"
            );
            let outcome = Outcome::recorded(Status::DeadLetter, None, Some(why));
            end_in_redis(shared, held, outcome).await;
        }
        Answer::Record(Restart::Later { delay_ms }) => {
            let delay = Duration::from_millis(delay_ms.max(0).unsigned_abs());
            put_back(shared, &[held], delay).await;
        }
        Answer::Record(Restart::Locked) => put_back(shared, &[held], LOCKED_DELAY).await,
        // Adopted and gone since, or never asked: somebody else may.
        Answer::Record(Restart::Unknown) | Answer::None => {
            let release = Release {
                id: held.wire_id.clone(),
                token: held.token.clone(),
            };
            if let Err(error) = shared.broker.release(&held.queue, &[release]).await {
                tracing::warn!(%error, job.id = %held.id, "not released: left to its lease");
            }
        }
    }
    shared.held.remove(held.id, &held.token);
}

async fn end_in_redis(shared: &Shared, held: &Held, outcome: Outcome) {
    let ended = Ended {
        id: held.id,
        wire_id: held.wire_id.clone(),
        queue: held.queue.clone(),
        token: held.token.clone(),
        attempt: held.attempt,
        max_attempts: 0,
        started_at: held.started_at,
        outcome,
        manner: held
            .wire
            .as_ref()
            .and_then(|wire| wire.manner(shared.manners.as_ref())),
        kept_result: None,
    };
    if let Err(error) = tell(&shared.broker, &[&ended]).await {
        tracing::warn!(%error, job.id = %held.id, "redis not told");
    }
}

/// Puts jobs of one queue back unrun, for later. Where that fails, their leases end.
pub(super) async fn put_back(shared: &Shared, jobs: &[&Held], delay: Duration) {
    let retry = |held: &&Held| Retry {
        id: held.wire_id.clone(),
        token: held.token.clone(),
        delay_ms: i64::try_from(delay.as_millis()).unwrap_or(i64::MAX),
        reason: String::new(),
        stacktrace: String::new(),
        count_attempt: false,
        lifo: false,
    };
    let Some(first) = jobs.first() else { return };
    let retries: Vec<Retry> = jobs.iter().map(retry).collect();
    if let Err(error) = shared.broker.retry(&first.queue, &retries).await {
        tracing::warn!(%error, jobs = jobs.len(), "not put back");
    }
}

async fn run(
    shared: &Arc<Shared>,
    wire: &Arc<Wire>,
    (held, asked_at): (&Held, Instant),
    restarted: Restarted,
) {
    let job = &wire.job;
    let options = wire::read_options(&job.opts);
    let latency = Latency::new(job, &options, held.started_at.timestamp_millis());
    let envelope = options.envelope.unwrap_or_default();
    let Envelope {
        workspace_id,
        timeout_seconds,
        ..
    } = envelope;
    let rule = match wire.is_own {
        true => RetryRule {
            attempts: restarted.attempts,
            max_attempts: restarted.max_attempts,
            retry_delay_seconds: restarted.retry_delay_seconds,
            backoff: restarted.backoff,
        },
        false => wire.retry_rule(restarted.attempts, restarted.max_attempts),
    };
    let verdict = deferred_failure(shared, job, restarted.lease_losses);
    // The record numbers the start; Redis may have lost count.
    let numbered = Held::new(
        held.id,
        &held.wire_id,
        &held.queue,
        &held.token,
        restarted.attempt,
        held.started_at,
    )
    .with_wire(Some(wire.clone()));
    numbered.is_marked.store(true, Ordering::Relaxed);
    let numbered = Arc::new(match verdict {
        Some(_) => numbered.in_phase(Phase::Ended),
        None => numbered,
    });
    shared.held.number(&numbered);
    if job.repeat_job_key.is_some() {
        make_next_iteration(shared, &held.queue, job).await;
    }
    let taken = TakenJob {
        held: numbered,
        job_type: job.name.clone(),
        payload: job.data.clone(),
        rule,
        workspace_id,
        priority: job.priority,
        timeout: timeout_seconds.map(|seconds| Duration::from_secs(u64::from(seconds))),
        checkpoint: restarted.checkpoint,
        latency,
    };
    match verdict {
        Some(why) => fail_unrun(shared, taken, why).await,
        // The process may have been frozen while the record was asked.
        None => {
            if may_begin(shared, &taken.held, asked_at).await {
                execute(shared.clone(), taken).await;
            }
        }
    }
}

/// Why a job must fail without being run, if it must.
fn deferred_failure(shared: &Shared, job: &ClaimedJob, lease_losses: u32) -> Option<String> {
    if let Some(why) = &job.deferred_failure {
        return Some(why.clone());
    }
    let Some(manners) = &shared.manners else {
        return (lease_losses >= LEASE_LOSSES_MAX).then(|| {
            format!("crash loop: {lease_losses} workers in a row vanished while they ran this job")
        });
    };
    let starts_max = manners.starts_max?;
    (job.attempts_started > starts_max).then(|| "job started more than allowable limit".to_owned())
}

/// Whoever claims an iteration of a schedule makes the next one. If that fails the schedule is
/// repaired by upkeep; the claimed job runs all the same.
async fn make_next_iteration(shared: &Shared, queue: &QueueName, job: &ClaimedJob) {
    if let Err(error) = shared.broker.schedule_next(queue, job).await {
        tracing::warn!(%error, job.id, "next iteration not made: left to upkeep");
        if let Some(events) = shared.events() {
            events.error(error.to_string());
        }
    }
}
