//! The claim loop: as many due jobs as there are free slots, in one call.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::begin::begin;
use super::events::WorkerEvent;
use super::options::Manners;
use super::order::order;
use crate::broker::{BrokerError, ClaimOptions, OWN_TOKEN, Waker};
use crate::fault::{self, Point};
use crate::job::QueueName;
use crate::reconcile;

/// The most jobs of one claim.
pub const CLAIM_MAX: usize = 200;
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
        let (pause, next_due, is_full) = match take_turn(&shared, first).await {
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
            Turn::Claimed(Round {
                claimed: 0,
                next_due,
                may_wait,
                is_full,
            }) => {
                // Told once, and never of a queue whose jobs were only not given out.
                if !may_wait
                    && !std::mem::replace(&mut is_drained, true)
                    && let Some(events) = shared.events()
                {
                    events.tell(WorkerEvent::Drained);
                }
                (None, next_due, is_full)
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
                (Some(PAUSE), None, false)
            }
        };
        let rest = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => {
                    // The marker of a queue that rests here is left to those who may claim.
                    let rests = |name: &QueueName| {
                        let has_share = is_full && shared.share.is_of(name);
                        has_share || shared.limited.left(name).is_some()
                    };
                    let mut awaited = names.clone();
                    awaited.retain(|name| !rests(name));
                    idle(&mut waker, &awaited, next_due, shared.idle).await;
                }
            }
        };
        tokio::select! {
            () = rest => {}
            () = shared.share.freed(), if is_full => {}
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
    Claimed(Round),
    Failed(BrokerError),
}

/// Claims, unless something keeps the worker from it. Never dropped half-way: a claim goes on in
/// Redis, and its jobs would be nobody's.
async fn take_turn(shared: &Arc<Shared>, first: OwnedSemaphorePermit) -> Turn {
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
    /// Deliveries have all that they may take: theirs was not asked.
    is_full: bool,
}

impl Round {
    fn look_again_in(&mut self, wait: Option<Duration>) {
        self.next_due = [self.next_due, wait].into_iter().flatten().min();
    }
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
        is_full: false,
    };
    let mut fault = None;
    let mut ordered = order(&shared.queues, rand::random);
    shared.share.settle_order(&mut ordered);
    for queue in ordered {
        if slots.is_empty() {
            break;
        }
        if let Some(left) = shared.limited.left(queue) {
            round.may_wait = true;
            round.look_again_in(Some(left));
            continue;
        }
        let room = shared.share.room(queue, shared.steering.size());
        if room == 0 {
            (round.may_wait, round.is_full) = (true, true);
            continue;
        }
        let manners = shared.manners.as_ref();
        let options = ClaimOptions {
            token: format!("{OWN_TOKEN}{}:{}", shared.worker_id, shared.next_claim()),
            max: slots.len().min(room),
            lease: shared.lease,
            worker_name: manners.and_then(|manners| manners.name.clone()),
            limit: manners.and_then(|manners| manners.limit),
            whole: shared.handlers.forwards(),
            heeds_limiter: true,
        };
        let asked_at = Instant::now();
        let claimed = match shared.broker.claim(queue, &options).await {
            Ok(claimed) => claimed,
            Err(error @ BrokerError::Corrupt { .. }) => {
                // A queue at fault keeps the worker from no other one.
                fault.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        round.claimed += claimed.jobs.len();
        round.may_wait |= claimed.is_held || claimed.wait_ms.is_some();
        let until_due = |due: i64| Duration::from_millis((due - claimed.now_ms).max(0) as u64);
        round.look_again_in(claimed.next_due_ms.map(until_due));
        round.look_again_in(claimed.wait_ms.map(|ms| limit_wait(manners, ms)));
        if !claimed.jobs.is_empty() {
            fault::point(Point::AfterClaim);
            metrics::histogram!("bullwark_claim_jobs").record(claimed.jobs.len() as f64);
            let rest = slots.split_off(claimed.jobs.len().min(slots.len()));
            let used = std::mem::replace(&mut slots, rest);
            begin(
                shared,
                queue,
                claimed.jobs,
                used,
                &options.token,
                (claimed.now_ms, asked_at),
            );
        }
    }
    match fault {
        Some(error) if round.claimed == 0 => Err(error),
        Some(error) => {
            tracing::warn!(%error, "a queue is passed over");
            Ok(round)
        }
        None => Ok(round),
    }
}

fn limit_wait(manners: Option<&Manners>, wait_ms: i64) -> Duration {
    let wait = Duration::from_millis(wait_ms.max(1).unsigned_abs());
    let longest = manners.and_then(|manners| manners.limit_wait_max);
    longest.map_or(wait, |longest| wait.min(longest))
}
