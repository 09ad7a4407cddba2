//! The claim loop: as many due jobs as there are free slots, in one call.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::events::WorkerEvent;
use super::execute::execute;
use super::held::{ForgetOnPanic, Held, Phase};
use super::lapsed::may_begin;
use super::options::Manners;
use super::order::order;
use super::restart::{Claimed, put_back, restart};
use super::wire::Wire;
use super::{Shared, Slot, TakenJob};
use crate::broker::{BrokerError, ClaimOptions, ClaimedJob, OWN_TOKEN, Waker};
use crate::fault::{self, Point};
use crate::job::{QueueName, wire};
use crate::reconcile;
use crate::record::adopt;

/// The most jobs of one claim.
pub const CLAIM_MAX: usize = 200;
/// How long a job may wait for the end of its last attempt to be dealt with.
const HELD_PATIENCE: Duration = Duration::from_secs(2);
/// How long a job rests that was handed out while this worker still holds it.
const HELD_DELAY: Duration = Duration::from_secs(1);
/// The highest number of a start that Redis may claim; far more than any job has.
const NUMBER_MAX: u32 = 1_000_000_000;
/// The pause after a failed claim.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause while another process compares the memory of Redis with the record.
const TURN_PAUSE: Duration = Duration::from_millis(50);

/// Claims until `stop`. Jobs go to tasks of their own. Calls `ready` when it is connected.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken, ready: impl FnOnce()) {
    let mut waker = shared.broker.waker();
    let names: Vec<QueueName> = shared.queues.iter().map(|q| q.name.clone()).collect();
    tokio::select! {
        () = connect(&shared, &mut waker, &names) => {}
        () = stop.cancelled() => return,
    }
    ready();
    let mut is_drained = false;
    while !stop.is_cancelled() {
        let free = tokio::select! {
            permit = shared.steering.slots().clone().acquire_owned() => permit,
            () = stop.cancelled() => return,
        };
        // Fails only when the semaphore is closed, which nobody does.
        let Ok(first) = free else { return };
        if shared.steering.is_surplus() {
            first.forget();
            continue;
        }
        if let Some(pause) = await_memory(&shared, &stop).await {
            tokio::select! {
                () = tokio::time::sleep(pause) => continue,
                () = stop.cancelled() => return,
            }
        }
        let (pause, next_due) = match take_turn(&shared, first).await {
            Turn::Paused => {
                // Paused, too, it is one of the queue's workers on dashboards.
                if let Err(error) = waker.open(&names).await {
                    tracing::warn!(%error, "no connection while paused");
                }
                tokio::select! {
                    () = shared.steering.until_paused(false) => {}
                    () = stop.cancelled() => return,
                }
                continue;
            }
            Turn::Limited(until) => (Some(until.saturating_duration_since(Instant::now())), None),
            Turn::Claimed(Round {
                claimed: 0,
                next_due,
                may_wait,
            }) => {
                // Told once, and never of a queue whose jobs were only not given out.
                if !may_wait
                    && !std::mem::replace(&mut is_drained, true)
                    && let Some(events) = shared.events()
                {
                    events.tell(WorkerEvent::Drained);
                }
                (None, next_due)
            }
            Turn::Claimed(_) => {
                is_drained = false;
                continue;
            }
            Turn::Failed(BrokerError::OtherMemory { .. }) => {
                shared.broker.stop_serving();
                continue;
            }
            Turn::Failed(error) => {
                tracing::warn!(%error, "claim failed");
                if let Some(events) = shared.events() {
                    events.error(error.to_string());
                }
                (Some(PAUSE), None)
            }
        };
        let rest = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => idle(&mut waker, &names, next_due, shared.idle).await,
            }
        };
        tokio::select! {
            () = rest => {}
            () = shared.steering.until_paused(true) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Opens the connection by which dashboards know the worker, however long that takes.
async fn connect(shared: &Shared, waker: &mut Waker, names: &[QueueName]) {
    while let Err(error) = waker.open(names).await {
        tracing::warn!(%error, "no connection to wait on yet");
        tokio::time::sleep(PAUSE).await;
    }
    if let Some(events) = shared.events() {
        events.tell(WorkerEvent::Ready);
    }
}

/// Has Redis and the record compared, if that was not done yet or if either may be another one by
/// now. Some: not done, try again after this pause.
async fn await_memory(shared: &Shared, stop: &CancellationToken) -> Option<Duration> {
    if shared.broker.served().is_some() && shared.record.unchecked().is_none() {
        return None;
    }
    let compared = tokio::select! {
        compared = Box::pin(reconcile::readmit(&shared.record, &shared.broker)) => compared,
        () = stop.cancelled() => return Some(Duration::ZERO),
    };
    match compared {
        Ok(true) => None,
        Ok(false) => Some(TURN_PAUSE),
        Err(error) => {
            tracing::warn!(%error, "redis and the record were not compared: nothing is claimed");
            if let Some(events) = shared.events() {
                events.error(error.to_string());
            }
            Some(PAUSE)
        }
    }
}

/// What became of one turn of the loop.
enum Turn {
    Paused,
    /// A rate limit was met by a job; nothing is claimed before.
    Limited(Instant),
    Claimed(Round),
    Failed(BrokerError),
}

/// Claims, unless something keeps the worker from it. Never dropped half-way: a claim goes on in
/// Redis, and its jobs would be nobody's.
async fn take_turn(shared: &Arc<Shared>, first: OwnedSemaphorePermit) -> Turn {
    let limited_until = *shared.limited_until();
    if let Some(until) = limited_until.filter(|until| *until > Instant::now()) {
        return Turn::Limited(until);
    }
    let Some(_claiming) = shared.steering.may_claim().await else {
        return Turn::Paused;
    };
    claim_round(shared, first)
        .await
        .map_or_else(Turn::Failed, Turn::Claimed)
}

async fn idle(
    waker: &mut Waker,
    names: &[QueueName],
    next_due: Option<Duration>,
    longest: Duration,
) {
    let timeout = next_due.map_or(longest, |due| due.min(longest));
    if let Err(error) = waker.wait(names, timeout).await {
        tracing::warn!(%error, "wait for jobs failed");
        tokio::time::sleep(PAUSE).await;
    }
}

struct Round {
    claimed: usize,
    /// How long until the next delayed job is due.
    next_due: Option<Duration>,
    /// A queue gave nothing out, whatever waits there: it is paused, or at one of its limits.
    may_wait: bool,
}

/// One look at the queues in turn, until the free slots are filled.
async fn claim_round(
    shared: &Arc<Shared>,
    first: OwnedSemaphorePermit,
) -> Result<Round, BrokerError> {
    let mut slots = vec![first];
    while slots.len() < CLAIM_MAX {
        let Ok(slot) = shared.steering.slots().clone().try_acquire_owned() else {
            break;
        };
        slots.push(slot);
    }
    let mut round = Round {
        claimed: 0,
        next_due: None,
        may_wait: false,
    };
    for queue in order(&shared.queues, rand::random) {
        if slots.is_empty() {
            break;
        }
        let manners = shared.manners.as_ref();
        let options = ClaimOptions {
            token: format!("{OWN_TOKEN}{}:{}", shared.worker_id, shared.next_claim()),
            max: slots.len(),
            lease: shared.lease,
            worker_name: manners.and_then(|manners| manners.name.clone()),
            limit: manners.and_then(|manners| manners.limit),
            whole: shared.handlers.forwards(),
        };
        let asked_at = Instant::now();
        let claimed = shared.broker.claim(queue, &options).await?;
        round.claimed += claimed.jobs.len();
        round.may_wait |= claimed.is_held || claimed.wait_ms.is_some();
        let until_due = |due: i64| Duration::from_millis((due - claimed.now_ms).max(0) as u64);
        round.next_due = [
            round.next_due,
            claimed.next_due_ms.map(until_due),
            claimed.wait_ms.map(|ms| limit_wait(manners, ms)),
        ]
        .into_iter()
        .flatten()
        .min();
        if !claimed.jobs.is_empty() {
            fault::point(Point::AfterClaim);
            metrics::histogram!("bullwark_claim_jobs").record(claimed.jobs.len() as f64);
            let rest = slots.split_off(claimed.jobs.len().min(slots.len()));
            let used = std::mem::replace(&mut slots, rest);
            start(
                shared,
                queue,
                claimed.jobs,
                used,
                &options.token,
                (claimed.now_ms, asked_at),
            );
        }
    }
    Ok(round)
}

fn limit_wait(manners: Option<&Manners>, wait_ms: i64) -> Duration {
    let wait = Duration::from_millis(wait_ms.max(1).unsigned_abs());
    let longest = manners.and_then(|manners| manners.limit_wait_max);
    longest.map_or(wait, |longest| wait.min(longest))
}

/// First starts go straight to their handlers; all others are checked against the record before.
/// What this worker holds already is put back.
fn start(
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
        let slot = Slot::from(slot);
        let options = wire::read_options(&job.opts);
        let own_id = job.id.parse::<Uuid>().ok();
        let is_first = job.attempts_started == 1
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
        let needs_wire =
            envelope.is_none() || shared.manners.is_some() || shared.handlers.forwards();
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
                    run_next(shared, queue, holder, claimed_job(shared, wire, held, slot));
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
                timeout: envelope
                    .timeout_seconds
                    .map(|seconds| Duration::from_secs(u64::from(seconds))),
                checkpoint: None,
            };
            run_first(shared, taken, slot, asked_at);
        } else if let Some(wire) = wire {
            again.push(claimed_job(shared, wire, held, slot));
        }
    }
    if !again.is_empty() {
        let shared_clone = shared.clone();
        let queue = queue.clone();
        shared.jobs.spawn("restart", async move {
            let mut leased = Vec::with_capacity(again.len());
            for claimed in again {
                if may_begin(&shared_clone, &claimed.held, asked_at).await {
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

fn claimed_job(shared: &Shared, wire: Arc<Wire>, held: Arc<Held>, slot: Slot) -> Claimed {
    let _forget = ForgetOnPanic::new(&shared.held, &held);
    Claimed {
        wire,
        held,
        slot,
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
