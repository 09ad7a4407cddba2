//! Where a job stands: in both stores, among its relatives, and what it waits for.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::state::State;
use crate::broker::{Broker, BrokerError, BrokerState};
use crate::clock;
use crate::job::{QueueName, Status};
use crate::record::jobs::JobRow;
use crate::record::timeline::{Flow, Ties};

/// How long Redis may take to say where the job is.
const PATIENCE: Duration = Duration::from_secs(1);
/// Children that are shown one by one.
const CHILDREN_MAX: usize = 200;

/// The job in both stores, and why it waits, if it does.
pub(super) async fn standing(state: &State, job: &JobRow, ties: &Ties) -> (Value, Vec<Value>) {
    let seen = match job.job_queue.parse() {
        Ok(queue) => {
            let look = look(&state.services.broker, &queue, &ties.wire_id);
            tokio::time::timeout(PATIENCE, look).await.ok()
        }
        // Redis holds no queue of such a name.
        Err(_) => Some(Ok(None)),
    };
    let seen = seen.and_then(|seen| {
        let told = |error: &BrokerError| tracing::debug!(%error, job.id = %job.id, "not seen");
        seen.inspect_err(told).ok()
    });
    let redis = match &seen {
        None => json!({ "status": "unavailable" }),
        Some(None) => json!({ "status": "absent" }),
        Some(Some(place)) => json!({ "status": name_of(place.state) }),
    };
    let waits = match job.status.parse() {
        Ok(Status::Pending | Status::Failed) => reasons(job, ties, seen),
        _ => Vec::new(),
    };
    let stores = json!({ "record": { "status": job.status }, "redis": redis });
    (stores, waits)
}

/// A job in Redis, and what holds for its queue.
struct Place {
    state: BrokerState,
    is_paused: bool,
    concurrency: Option<u64>,
    rate_limited: Option<Duration>,
    active: u64,
    waiting: u64,
}

async fn look(
    broker: &Broker,
    queue: &QueueName,
    wire_id: &str,
) -> Result<Option<Place>, BrokerError> {
    let ids = [wire_id.to_owned()];
    let Some(state) = broker
        .states(queue, &ids)
        .await?
        .into_iter()
        .flatten()
        .next()
    else {
        return Ok(None);
    };
    let counts = broker.counts(queue).await?;
    Ok(Some(Place {
        state,
        is_paused: counts.is_paused,
        concurrency: broker.queue_meta(queue).await?.concurrency,
        rate_limited: broker.rate_limit_ttl(queue, None).await?,
        active: counts.active,
        waiting: counts.wait + counts.paused + counts.prioritized,
    }))
}

fn name_of(state: BrokerState) -> &'static str {
    match state {
        BrokerState::Wait | BrokerState::Paused | BrokerState::Prioritized => "waiting",
        BrokerState::Delayed => "delayed",
        BrokerState::Active => "active",
        BrokerState::WaitingChildren => "waiting_children",
        BrokerState::Completed => "completed",
        BrokerState::Failed => "failed",
        BrokerState::Orphan => "orphan",
    }
}

/// Everything that keeps the job from starting.
fn reasons(job: &JobRow, ties: &Ties, seen: Option<Option<Place>>) -> Vec<Value> {
    let due = job.next_retry_at.or(job.scheduled_for);
    let due: Option<DateTime<Utc>> = due.filter(|due| *due > clock::now());
    let reason = |reason: &str| json!({ "reason": reason });
    let place = match seen {
        None => return vec![reason("redis_unavailable")],
        // On its way there, or to be put back.
        Some(None) => return vec![reason("not_in_redis")],
        Some(Some(place)) => place,
    };
    match place.state {
        BrokerState::Delayed => vec![json!({ "reason": "delayed", "until": due })],
        BrokerState::WaitingChildren => {
            let children = ties.flow.as_ref().map(|flow| flow.children.as_slice());
            let is_open = |status: &str| status.parse::<Status>().is_ok_and(|s| !s.is_final());
            let open = children.map(|all| all.iter().filter(|kin| is_open(&kin.status)).count());
            vec![json!({ "reason": "children", "open": open })]
        }
        BrokerState::Wait | BrokerState::Paused | BrokerState::Prioritized => {
            let mut all = Vec::new();
            if place.is_paused {
                all.push(reason("queue_paused"));
            }
            if let Some(limit) = place.concurrency.filter(|limit| place.active >= *limit) {
                all.push(json!({
                    "reason": "queue_concurrency", "limit": limit, "active": place.active,
                }));
            }
            if let Some(left) = place.rate_limited {
                let until = TimeDelta::from_std(left)
                    .map(|left| clock::now() + left)
                    .ok();
                all.push(json!({ "reason": "rate_limit", "until": until }));
            }
            all.push(json!({ "reason": "in_line", "waiting": place.waiting }));
            all
        }
        BrokerState::Active => vec![reason("starting")],
        BrokerState::Completed | BrokerState::Failed | BrokerState::Orphan => {
            vec![reason("being_reconciled")]
        }
    }
}

/// The flow of a job, with a bounded number of its children.
pub(super) fn flow(flow: &Flow) -> Value {
    let mut by_status: BTreeMap<&str, usize> = BTreeMap::new();
    for child in &flow.children {
        *by_status.entry(&child.status).or_default() += 1;
    }
    json!({
        "parent": flow.parent,
        "children": flow.children.iter().take(CHILDREN_MAX).collect::<Vec<_>>(),
        "children_total": flow.children.len(),
        "children_by_status": by_status,
    })
}
