//! Where a job stands: in both stores, among its relatives, and what it waits for.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Caller;
use super::state::State;
use crate::broker::{Broker, BrokerError, BrokerState};
use crate::clock;
use crate::job::{QueueName, Status};
use crate::record::RecordError;
use crate::record::jobs::JobRow;
use crate::record::roster;
use crate::record::timeline::{Flow, Kin, Ties};

/// How long Redis may take to say where the job is.
const PATIENCE: Duration = Duration::from_secs(1);
/// Children that are shown one by one.
const CHILDREN_MAX: usize = 200;

/// A job in both stores.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stores {
    record: InRecord,
    redis: InRedis,
}

/// A job in PostgreSQL.
#[derive(Debug, Serialize, ToSchema)]
struct InRecord {
    #[schema(value_type = Status)]
    status: String,
}

/// A job in Redis.
#[derive(Debug, Serialize, ToSchema)]
struct InRedis {
    status: RedisStatus,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RedisStatus {
    Waiting,
    Delayed,
    Active,
    WaitingChildren,
    Completed,
    Failed,
    /// It is there, but in no state: nobody will run it.
    Orphan,
    Absent,
    /// Redis did not answer.
    Unavailable,
}

impl From<BrokerState> for RedisStatus {
    fn from(state: BrokerState) -> Self {
        match state {
            BrokerState::Wait | BrokerState::Paused | BrokerState::Prioritized => Self::Waiting,
            BrokerState::Delayed => Self::Delayed,
            BrokerState::Active => Self::Active,
            BrokerState::WaitingChildren => Self::WaitingChildren,
            BrokerState::Completed => Self::Completed,
            BrokerState::Failed => Self::Failed,
            BrokerState::Orphan => Self::Orphan,
        }
    }
}

/// Something that keeps a job from starting.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[schema(as = WaitReason)]
pub(super) enum Reason {
    Delayed {
        until: Option<DateTime<Utc>>,
    },
    Children {
        /// How many are not over.
        open: Option<usize>,
    },
    QueuePaused,
    QueueConcurrency {
        limit: u64,
        active: u64,
    },
    RateLimit {
        until: Option<DateTime<Utc>>,
    },
    /// No worker runs its type: none looks at its queue, or those that do have no handler for it,
    /// or are paused. Workers of BullMQ clients run every type.
    NoWorker {
        /// Workers that look at its queue.
        of_queue: u64,
    },
    InLine {
        /// Jobs of the queue that could start, whosever they are.
        waiting: u64,
    },
    /// It was handed out a moment ago.
    Starting,
    /// On its way there, or to be put back.
    NotInRedis,
    RedisUnavailable,
    BeingReconciled,
}

/// The job in both stores, and why it waits, if it does.
pub(super) async fn standing(
    state: &State,
    caller: Caller,
    job: &JobRow,
    ties: &Ties,
) -> (Stores, Vec<Reason>) {
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
        None => RedisStatus::Unavailable,
        Some(None) => RedisStatus::Absent,
        Some(Some(place)) => place.state.into(),
    };
    let waits = match job.status.parse() {
        Ok(Status::Pending | Status::Failed) => {
            let in_line = seen.iter().flatten().any(Place::is_in_line);
            let idle_workers = match job.job_queue.parse() {
                Ok(queue) if in_line => {
                    let workers = idle_workers(state, caller, &queue, &job.job_type);
                    let known = tokio::time::timeout(PATIENCE, workers).await;
                    known.ok().flatten()
                }
                _ => None,
            };
            reasons(job, ties, seen, idle_workers)
        }
        _ => Vec::new(),
    };
    let stores = Stores {
        record: InRecord {
            status: job.status.clone(),
        },
        redis: InRedis { status: redis },
    };
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

impl Place {
    /// Whether only its turn is missing.
    fn is_in_line(&self) -> bool {
        matches!(
            self.state,
            BrokerState::Wait | BrokerState::Paused | BrokerState::Prioritized
        )
    }
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

/// How many workers look at a queue of which none runs this type; none: some does, or it is not
/// known whether one does.
async fn idle_workers(
    state: &State,
    caller: Caller,
    queue: &QueueName,
    job_type: &str,
) -> Option<u64> {
    let (record, broker) = (&state.services.record, &state.services.broker);
    let turn = state.read_turn(caller).await.ok()?;
    let serving = roster::serving(record, broker.prefix(), queue.as_str(), job_type).await;
    drop(turn); // Redis may be slow
    let told = |error: &RecordError| tracing::debug!(%error, "workers are not known");
    let serving = serving.inspect_err(told).ok()?;
    if serving.job_type > 0 {
        return None;
    }
    // A connection more than ours is of a BullMQ client. Where the server does not show its
    // connections there may be any number.
    let told = |error: &BrokerError| tracing::debug!(%error, "workers are not known");
    let connected = broker.workers(queue).await.inspect_err(told).ok()?.len();
    let ours = usize::try_from(serving.first).unwrap_or(0);
    (connected <= ours).then_some(serving.queue.unsigned_abs())
}

/// Everything that keeps the job from starting.
fn reasons(
    job: &JobRow,
    ties: &Ties,
    seen: Option<Option<Place>>,
    idle_workers: Option<u64>,
) -> Vec<Reason> {
    let due = job.next_retry_at.or(job.scheduled_for);
    let due: Option<DateTime<Utc>> = due.filter(|due| *due > clock::now());
    let place = match seen {
        None => return vec![Reason::RedisUnavailable],
        // On its way there, or to be put back.
        Some(None) => return vec![Reason::NotInRedis],
        Some(Some(place)) => place,
    };
    match place.state {
        BrokerState::Delayed => vec![Reason::Delayed { until: due }],
        BrokerState::WaitingChildren => {
            let children = ties.flow.as_ref().map(|flow| flow.children.as_slice());
            let is_open = |status: &str| status.parse::<Status>().is_ok_and(|s| !s.is_final());
            let open = children.map(|all| all.iter().filter(|kin| is_open(&kin.status)).count());
            vec![Reason::Children { open }]
        }
        BrokerState::Wait | BrokerState::Paused | BrokerState::Prioritized => {
            let mut all = Vec::new();
            if place.is_paused {
                all.push(Reason::QueuePaused);
            }
            if let Some(limit) = place.concurrency.filter(|limit| place.active >= *limit) {
                let active = place.active;
                all.push(Reason::QueueConcurrency { limit, active });
            }
            if let Some(left) = place.rate_limited {
                let until = TimeDelta::from_std(left)
                    .map(|left| clock::now() + left)
                    .ok();
                all.push(Reason::RateLimit { until });
            }
            if let Some(of_queue) = idle_workers {
                all.push(Reason::NoWorker { of_queue });
            }
            all.push(Reason::InLine {
                waiting: place.waiting,
            });
            all
        }
        BrokerState::Active => vec![Reason::Starting],
        BrokerState::Completed | BrokerState::Failed | BrokerState::Orphan => {
            vec![Reason::BeingReconciled]
        }
    }
}

/// The next of kin of a job in its flow.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Family {
    parent: Option<Kin>,
    /// The first of them.
    #[schema(max_items = 200)]
    children: Vec<Kin>,
    children_total: usize,
    /// How many of them are in which status.
    children_by_status: BTreeMap<String, usize>,
}

/// The flow of a job, with a bounded number of its children.
pub(super) fn family(flow: &Flow) -> Family {
    let mut by_status: BTreeMap<String, usize> = BTreeMap::new();
    for child in &flow.children {
        *by_status.entry(child.status.clone()).or_default() += 1;
    }
    Family {
        parent: flow.parent.clone(),
        children: flow.children.iter().take(CHILDREN_MAX).cloned().collect(),
        children_total: flow.children.len(),
        children_by_status: by_status,
    }
}
