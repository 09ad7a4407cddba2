//! Claimed jobs begin: at once, or when the record has been asked.
//!
//! The hot path is here. A job of the record that was never started goes straight to its handler;
//! its start is written behind. Whatever else was claimed is checked before (law 5).

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use uuid::Uuid;

use super::execute::execute;
use super::held::{ForgetOnPanic, Held, Phase};
use super::lapsed::may_begin;
use super::latency::Latency;
use super::restart::{Claimed, put_back, restart};
use super::wire::Wire;
use super::{Shared, Slot, TakenJob};
use crate::broker::ClaimedJob;
use crate::job::{QueueName, wire};
use crate::record::adopt;

/// How long a job may wait for the end of its last attempt to be dealt with.
const HELD_PATIENCE: Duration = Duration::from_secs(2);
/// How long a job rests that was handed out while this worker still holds it.
const HELD_DELAY: Duration = Duration::from_secs(1);
/// The highest number of a start that Redis may claim; far more than any job has.
const NUMBER_MAX: u32 = 1_000_000_000;

/// First starts go straight to their handlers; all others are checked against the record before.
/// What this worker holds already is put back.
pub(super) fn begin(
    shared: &Arc<Shared>,
    queue: &QueueName,
    jobs: Vec<ClaimedJob>,
    slots: Vec<OwnedSemaphorePermit>,
    token: &str,
    (now_ms, asked_at): (i64, Instant),
) {
    let started_at = DateTime::from_timestamp_millis(now_ms).unwrap_or_default();
    let (mut again, mut held_already) = (Vec::new(), Vec::new());
    for (job, slot) in jobs.into_iter().zip(slots) {
        let slot = Slot::new(slot, shared.share.enter(queue));
        let options = wire::read_options(&job.opts);
        let latency = Latency::new(&job, &options, now_ms);
        let own_id = job.id.parse::<Uuid>().ok();
        let is_first = job.attempts_started == 1
            && job.is_counted
            && job.attempts_made == 0
            && job.stalled_count == 0
            && job.stacktrace.is_none() // a client that runs it again may reset the counts
            && job.deferred_failure.is_none();
        let (id, number, envelope) = match (own_id, &options.envelope) {
            (Some(id), Some(envelope)) if is_first => (id, 1, Some(envelope)),
            _ => {
                let prefix = shared.broker.prefix();
                let id = adopt::record_id(prefix, queue, &job.id, job.timestamp_ms);
                let number = job.attempts_started.min(NUMBER_MAX);
                (id, number as i32, None)
            }
        };
        let envelope = envelope.cloned();
        // The hot path keeps nothing that it does not need.
        let needs_wire = envelope.as_ref().is_none_or(|envelope| envelope.is_parent)
            || shared.manners.is_some()
            || shared.handlers.forwards();
        let wire = needs_wire.then(|| Arc::new(Wire::new(job.clone(), &options)));
        let held = Held::new(id, &job.id, queue, token, number, started_at).with_wire(wire.clone());
        let held = Arc::new(match envelope {
            Some(_) => held,
            None => held.in_phase(Phase::Asked),
        });
        if let Err(holder) = shared.held.claim(&held) {
            match wire {
                // Its end, or who ran it, has put it back a moment ago: its next run.
                Some(wire) => {
                    let claimed = claimed_job(shared, wire, held, (slot, asked_at));
                    run_next(shared, queue, holder, claimed);
                }
                None => held_already.push((held, slot)),
            }
        } else if let Some(envelope) = envelope {
            let taken = TakenJob {
                held,
                job_type: job.name,
                payload: job.data,
                rule: options.retry_rule(0),
                workspace_id: envelope.workspace_id,
                priority: job.priority,
                timeout: envelope
                    .timeout_seconds
                    .map(|seconds| Duration::from_secs(u64::from(seconds))),
                checkpoint: None,
                latency,
            };
            run_first(shared, taken, slot, asked_at);
        } else if let Some(wire) = wire {
            again.push(claimed_job(shared, wire, held, (slot, asked_at)));
        }
    }
    if !again.is_empty() {
        let shared_clone = shared.clone();
        let queue = queue.clone();
        shared.jobs.spawn("restart", async move {
            let mut leased = Vec::with_capacity(again.len());
            for claimed in again {
                if may_begin(&shared_clone, &claimed.held, claimed.asked_at).await {
                    leased.push(claimed);
                }
            }
            restart(shared_clone, queue, leased).await;
        });
    }
    if !held_already.is_empty() {
        let shared_clone = shared.clone();
        shared.jobs.spawn("put back", async move {
            let held: Vec<_> = held_already.iter().map(|(held, _)| held.as_ref()).collect();
            tracing::warn!(
                jobs = held.len(),
                "handed out again while still held: put back"
            );
            put_back(&shared_clone, &held, HELD_DELAY).await;
        });
    }
}

fn claimed_job(
    shared: &Shared,
    wire: Arc<Wire>,
    held: Arc<Held>,
    (slot, asked_at): (Slot, Instant),
) -> Claimed {
    let _forget = ForgetOnPanic::new(&shared.held, &held);
    Claimed {
        wire,
        held,
        slot,
        asked_at,
        _forget,
    }
}

/// Runs a job when this worker has done with its last attempt, whose outcome is all but told.
fn run_next(shared: &Arc<Shared>, queue: &QueueName, holder: Arc<Held>, claimed: Claimed) {
    let (shared_clone, queue) = (shared.clone(), queue.clone());
    shared.jobs.spawn("restart", async move {
        // Nobody renews the lease of a claim that waits.
        let patience = HELD_PATIENCE.min(shared_clone.lease / 2);
        let gone = tokio::time::timeout(patience, holder.gone.cancelled());
        let is_gone = gone.await.is_ok();
        if is_gone && shared_clone.held.claim(&claimed.held).is_ok() {
            return restart(shared_clone, queue, vec![claimed]).await;
        }
        put_back(&shared_clone, &[claimed.held.as_ref()], HELD_DELAY).await;
    });
}

fn run_first(shared: &Arc<Shared>, taken: TakenJob, slot: Slot, asked_at: Instant) {
    let shared_clone = shared.clone();
    shared.jobs.spawn("job", async move {
        if may_begin(&shared_clone, &taken.held, asked_at).await {
            execute(shared_clone, taken).await;
        }
        drop(slot);
    });
}
