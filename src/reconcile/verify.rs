//! Do both stores agree? Looks at every open job of the record, at every live job of Redis, and at
//! every key of a job there.
//!
//! Changes nothing. Jobs move while it looks, so whatever seems to differ is looked at again a
//! little later, several times; what then still differs in the same way is reported.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::{ReconcileError, orphans};
use crate::broker::{Broker, BrokerState};
use crate::job::{QueueName, Status};
use crate::record::{Record, adopt, jobs, open};

/// The most differences that are reported.
const DIFFERENCES_MAX: usize = 1000;
/// How often a difference is looked at again.
const LOOKS: u32 = 4;
/// The pause between two looks: longer than a commit and a step of Redis take.
const PAUSE: Duration = Duration::from_millis(1500);
/// Where a job of Redis waits or runs.
const LIVE: [BrokerState; 6] = [
    BrokerState::Wait,
    BrokerState::Paused,
    BrokerState::Prioritized,
    BrokerState::Delayed,
    BrokerState::Active,
    BrokerState::WaitingChildren,
];

/// One job about which the stores disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub job_id: String,
    pub queue: String,
    /// Status in the record; `absent` when it does not know the job.
    pub record: String,
    /// State in Redis; `absent` when it does not know the job.
    pub redis: String,
    pub problem: String,
    /// What reconciling does about it.
    pub repair: String,
}

/// The answer of [`verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub agree: bool,
    /// Open jobs in the record.
    pub open: u64,
    /// At most a thousand; there may be more.
    pub differences: Vec<Difference>,
}

/// A job that is suspected to differ.
type Suspects = BTreeMap<(String, String), Option<Uuid>>;

/// Compares. Reads the record with few queries and Redis in pages; both stay usable meanwhile.
pub async fn verify(record: &Record, broker: &Broker) -> Result<Verdict, ReconcileError> {
    let mut suspects = Suspects::new();
    let open = suspects_of_record(record, broker, &mut suspects).await?;
    suspects_of_redis(record, broker, &mut suspects).await?;

    let mut differences = differences(record, broker, &suspects).await?;
    for _ in 1..LOOKS {
        if differences.is_empty() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        let still: Suspects = differences
            .iter()
            .map(|d| {
                (
                    (d.queue.clone(), d.job_id.clone()),
                    suspects[&(d.queue.clone(), d.job_id.clone())],
                )
            })
            .collect();
        differences = self::differences(record, broker, &still).await?;
    }
    for orphan in orphans::find(broker, LOOKS, PAUSE).await? {
        let is_same = |d: &Difference| d.job_id == orphan.job_id && d.queue == orphan.queue;
        if !differences.iter().any(is_same) {
            differences.push(orphan);
        }
    }
    differences.truncate(DIFFERENCES_MAX);
    Ok(Verdict {
        agree: differences.is_empty(),
        open,
        differences,
    })
}

/// Every open job of the record that Redis does not hold as live. Returns how many are open.
async fn suspects_of_record(
    record: &Record,
    broker: &Broker,
    suspects: &mut Suspects,
) -> Result<u64, ReconcileError> {
    let (mut count, mut after) = (0, Uuid::nil());
    loop {
        let page = open::page(record, after).await?;
        let Some(last) = page.last() else {
            return Ok(count);
        };
        after = last.id;
        count += page.len() as u64;
        let mut queues: HashMap<String, Vec<&open::OpenJob>> = HashMap::new();
        for job in &page {
            queues.entry(job.job_queue.clone()).or_default().push(job);
        }
        for (name, jobs) in queues {
            let Ok(queue) = name.parse::<QueueName>() else {
                continue;
            };
            let ids: Vec<String> = jobs.iter().map(|job| job.wire_id.clone()).collect();
            for (job, state) in jobs.iter().zip(broker.states(&queue, &ids).await?) {
                if !state.is_some_and(|state| LIVE.contains(&state))
                    && suspects.len() < DIFFERENCES_MAX
                {
                    suspects.insert((name.clone(), job.wire_id.clone()), Some(job.id));
                }
            }
        }
    }
}

/// Every live job of Redis that is not open in the record.
async fn suspects_of_redis(
    record: &Record,
    broker: &Broker,
    suspects: &mut Suspects,
) -> Result<(), ReconcileError> {
    for queue in broker.queues().await? {
        for state in LIVE {
            let mut cursor = 0;
            loop {
                let page = broker.list(&queue, state, cursor, open::LOAD_MAX).await?;
                let ids: Vec<Uuid> = page.ids.iter().filter_map(|id| id.parse().ok()).collect();
                let known = jobs::statuses(record, &ids).await?;
                let foreign = adopt::known_wire_ids(record, &queue, &page.ids).await?;
                for wire_id in page.ids {
                    let id = wire_id.parse::<Uuid>().ok();
                    let is_open = id
                        .and_then(|id| known.get(&id))
                        .or_else(|| foreign.get(&wire_id))
                        .is_some_and(|status| !status.is_final());
                    if !is_open && suspects.len() < DIFFERENCES_MAX {
                        suspects.insert((queue.to_string(), wire_id), id);
                    }
                }
                match page.next {
                    Some(next) => cursor = next,
                    None => break,
                }
            }
        }
    }
    Ok(())
}

/// Looks at suspects in both stores and keeps those that differ now.
async fn differences(
    record: &Record,
    broker: &Broker,
    suspects: &Suspects,
) -> Result<Vec<Difference>, ReconcileError> {
    let mut found = Vec::new();
    let mut queues: BTreeMap<&str, Vec<(&str, Option<Uuid>)>> = BTreeMap::new();
    for ((queue, wire_id), id) in suspects {
        queues.entry(queue).or_default().push((wire_id, *id));
    }
    for (name, jobs) in queues {
        let Ok(queue) = name.parse::<QueueName>() else {
            continue;
        };
        let wire_ids: Vec<String> = jobs.iter().map(|(id, _)| (*id).to_owned()).collect();
        let states = broker.states(&queue, &wire_ids).await?;
        let foreign = adopt::known_wire_ids(record, &queue, &wire_ids).await?;
        let ids: Vec<Uuid> = jobs.iter().filter_map(|(_, id)| *id).collect();
        let known = jobs::statuses(record, &ids).await?;
        for ((wire_id, id), state) in jobs.into_iter().zip(states) {
            let by_id = id.and_then(|id| known.get(&id)).copied();
            let status = by_id.or_else(|| foreign.get(wire_id).copied());
            if let Some((problem, repair)) = problem(status, state) {
                found.push(Difference {
                    job_id: wire_id.to_owned(),
                    queue: name.to_owned(),
                    record: status.map_or("absent", Status::as_str).to_owned(),
                    redis: state.map_or("absent", state_name).to_owned(),
                    problem: problem.to_owned(),
                    repair: repair.to_owned(),
                });
            }
        }
    }
    Ok(found)
}

/// What is wrong with a pair of states, if anything, and what is done about it.
fn problem(
    record: Option<Status>,
    redis: Option<BrokerState>,
) -> Option<(&'static str, &'static str)> {
    let is_live = redis.is_some_and(|state| LIVE.contains(&state));
    match (record, redis) {
        (Some(status), _) if !status.is_final() && is_live => None,
        (Some(status), None | Some(BrokerState::Orphan)) if !status.is_final() => {
            Some(("open in the record, not in Redis", "added to Redis again"))
        }
        (Some(status), Some(_)) if !status.is_final() => {
            Some(("open in the record, over in Redis", "the outcome is copied"))
        }
        (Some(_), _) if is_live => Some(("over in the record, live in Redis", "ended in Redis")),
        (None, _) if is_live => Some(("in Redis only", "adopted")),
        (Some(_) | None, _) => None,
    }
}

fn state_name(state: BrokerState) -> &'static str {
    match state {
        BrokerState::Wait => "wait",
        BrokerState::Paused => "paused",
        BrokerState::Prioritized => "prioritized",
        BrokerState::Delayed => "delayed",
        BrokerState::Active => "active",
        BrokerState::WaitingChildren => "waiting-children",
        BrokerState::Completed => "completed",
        BrokerState::Failed => "failed",
        BrokerState::Orphan => "orphan",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pairs_that_mean_the_same_agree() {
        use BrokerState as B;
        use Status as S;
        for (record, redis, differs) in [
            (Some(S::Pending), Some(B::Prioritized), false),
            (Some(S::Pending), Some(B::Active), false),
            (Some(S::Failed), Some(B::Delayed), false),
            (Some(S::Pending), None, true),
            (Some(S::Processing), Some(B::Completed), true),
            (Some(S::Completed), Some(B::Completed), false),
            (Some(S::Completed), None, false),
            (Some(S::Completed), Some(B::Wait), true),
            (Some(S::Cancelled), Some(B::Active), true),
            (None, Some(B::Wait), true),
            (None, Some(B::Failed), false),
        ] {
            assert_eq!(
                problem(record, redis).is_some(),
                differs,
                "{record:?} {redis:?}"
            );
        }
    }
}
