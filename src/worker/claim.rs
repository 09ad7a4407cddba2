//! The claim loop: as many due jobs as there are free slots, in one call.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::execute::execute;
use super::held::Held;
use super::order::order;
use super::restart::restart;
use super::{Shared, TakenJob};
use crate::broker::{BrokerError, ClaimOptions, ClaimedJob, Waker};
use crate::job::{QueueName, wire};

/// The most jobs of one claim.
pub const CLAIM_MAX: usize = 200;
/// How long an idle worker waits for a wake-up before it looks by itself.
const IDLE: Duration = Duration::from_secs(5);
/// The pause after a failed claim.
const PAUSE: Duration = Duration::from_millis(500);

/// Claims until `stop`. Jobs go to tasks of their own.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut waker = shared.broker.waker();
    let names: Vec<QueueName> = shared.queues.iter().map(|q| q.name.clone()).collect();
    loop {
        let free = tokio::select! {
            permit = shared.slots.clone().acquire_owned() => permit,
            () = stop.cancelled() => return,
        };
        let Ok(first) = free else { return };
        match claim_round(&shared, first).await {
            Ok(Round {
                claimed: 0,
                next_due,
            }) => {
                tokio::select! {
                    () = idle(&mut waker, &names, next_due) => {}
                    () = stop.cancelled() => return,
                }
            }
            Ok(_) if stop.is_cancelled() => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "claim failed");
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}

async fn idle(waker: &mut Waker, names: &[QueueName], next_due: Option<Duration>) {
    let timeout = next_due.map_or(IDLE, |due| due.min(IDLE));
    if let Err(error) = waker.wait(names, timeout).await {
        tracing::warn!(%error, "wait for jobs failed");
        tokio::time::sleep(PAUSE).await;
    }
}

struct Round {
    claimed: usize,
    /// How long until the next delayed job is due.
    next_due: Option<Duration>,
}

/// One look at the queues in turn, until the free slots are filled.
async fn claim_round(
    shared: &Arc<Shared>,
    first: OwnedSemaphorePermit,
) -> Result<Round, BrokerError> {
    let mut slots = vec![first];
    while slots.len() < CLAIM_MAX {
        let Ok(slot) = shared.slots.clone().try_acquire_owned() else {
            break;
        };
        slots.push(slot);
    }
    let mut round = Round {
        claimed: 0,
        next_due: None,
    };
    for queue in order(&shared.queues, rand::random) {
        if slots.is_empty() {
            break;
        }
        let options = ClaimOptions {
            token: format!("{}:{}", shared.worker_id, shared.next_claim()),
            max: slots.len(),
            lease: shared.lease,
            worker_name: None,
        };
        let claimed = shared.broker.claim(queue, &options).await?;
        round.claimed += claimed.jobs.len();
        let until_due = |due: i64| Duration::from_millis((due - claimed.now_ms).max(0) as u64);
        round.next_due = [
            round.next_due,
            claimed.next_due_ms.map(until_due),
            claimed
                .wait_ms
                .map(|ms| Duration::from_millis(ms.max(1) as u64)),
        ]
        .into_iter()
        .flatten()
        .min();
        if !claimed.jobs.is_empty() {
            metrics::histogram!("bullwark_claim_jobs").record(claimed.jobs.len() as f64);
            let rest = slots.split_off(claimed.jobs.len().min(slots.len()));
            let used = std::mem::replace(&mut slots, rest);
            start(
                shared,
                queue,
                claimed.jobs,
                used,
                &options.token,
                claimed.now_ms,
            );
        }
    }
    Ok(round)
}

/// First starts go straight to their handlers; all others are checked against the record before.
fn start(
    shared: &Arc<Shared>,
    queue: &QueueName,
    jobs: Vec<ClaimedJob>,
    slots: Vec<OwnedSemaphorePermit>,
    token: &str,
    now_ms: i64,
) {
    let started_at = DateTime::from_timestamp_millis(now_ms).unwrap_or_default();
    let mut again = Vec::new();
    let mut first_starts = Vec::with_capacity(jobs.len());
    for (job, slot) in jobs.into_iter().zip(slots) {
        let options = wire::read_options(&job.opts);
        let id = job.id.parse::<Uuid>().ok();
        let is_first = job.attempts_started == 1
            && job.attempts_made == 0
            && job.stalled_count == 0
            && job.deferred_failure.is_none();
        match (id, &options.envelope) {
            (Some(id), Some(envelope)) if is_first => {
                let held = Arc::new(Held::new(id, &job.id, queue, token, 1, started_at));
                let taken = TakenJob {
                    held,
                    job_type: job.name,
                    payload: job.data,
                    rule: options.retry_rule(0),
                    workspace_id: envelope.workspace_id,
                    timeout: envelope
                        .timeout_seconds
                        .map(|seconds| Duration::from_secs(u64::from(seconds))),
                    checkpoint: None,
                };
                first_starts.push((taken, slot));
            }
            _ => again.push((job, slot)),
        }
    }
    shared
        .held
        .insert(first_starts.iter().map(|(taken, _)| taken.held.clone()));
    for (taken, slot) in first_starts {
        let shared_clone = shared.clone();
        shared.jobs.spawn("job", async move {
            execute(shared_clone, taken).await;
            drop(slot);
        });
    }
    if !again.is_empty() {
        let (shared_clone, queue, token) = (shared.clone(), queue.clone(), token.to_owned());
        shared.jobs.spawn("restart", async move {
            restart(shared_clone, queue, token, started_at, again).await;
        });
    }
}
