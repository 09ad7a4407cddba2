//! Keys in Redis that no job needs, and jobs that lack theirs: for [`super::verify`].
//!
//! They harm nobody soon, but they are what a wrong script leaves behind. Looks at every key once,
//! and at what seems wrong again and again: jobs move while it looks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ReconcileError;
use super::verify::Difference;
use crate::broker::{Broker, BrokerState, LIST_MAX, Orphan};
use crate::job::QueueName;

/// The most that is looked at again.
const SUSPECTS_MAX: usize = 1000;

/// What seems wrong, by queue and id.
type Suspects = BTreeMap<(QueueName, String), Orphan>;

/// Everything of this kind that is there now, and `looks` looks later, `pause` apart.
pub(super) async fn find(
    broker: &Broker,
    looks: u32,
    pause: Duration,
) -> Result<Vec<Difference>, ReconcileError> {
    let mut suspects = Suspects::new();
    for queue in broker.queues().await? {
        let mut next = Some(0);
        while let Some(cursor) = next {
            let page = broker.job_keys(&queue, cursor).await?;
            look(broker, &queue, &page.ids, &mut suspects).await?;
            next = page.next;
        }
        for state in BrokerState::LISTED {
            let mut next = Some(0);
            while let Some(offset) = next {
                let page = broker.list(&queue, state, offset, LIST_MAX).await?;
                look(broker, &queue, &page.ids, &mut suspects).await?;
                next = page.next;
            }
        }
    }
    for _ in 1..looks {
        if suspects.is_empty() {
            break;
        }
        tokio::time::sleep(pause).await;
        let before = std::mem::take(&mut suspects);
        let ids: Vec<&(QueueName, String)> = before.keys().collect();
        for part in ids.chunk_by(|a, b| a.0 == b.0) {
            let names: Vec<String> = part.iter().map(|(_, id)| id.clone()).collect();
            look(broker, &part[0].0, &names, &mut suspects).await?;
        }
        suspects.retain(|key, what| before.get(key) == Some(what));
    }
    Ok(suspects.into_iter().map(difference).collect())
}

async fn look(
    broker: &Broker,
    queue: &QueueName,
    ids: &[String],
    suspects: &mut Suspects,
) -> Result<(), ReconcileError> {
    let found = broker.find_orphans(queue, ids).await?;
    for (id, what) in ids.iter().zip(found) {
        // Clients of old versions left markers in their lists.
        let what = what.filter(|_| suspects.len() < SUSPECTS_MAX && !id.starts_with("0:"));
        if let Some(what) = what {
            suspects.insert((queue.clone(), id.clone()), what);
        }
    }
    Ok(())
}

fn difference(((queue, id), what): ((QueueName, String), Orphan)) -> Difference {
    let problem = match what {
        Orphan::Hash => "a job in no state",
        Orphan::Parts => "keys of a job that is gone",
        Orphan::Lock => "a lock of a job that is not active",
        Orphan::Ghost => "named by a state, without a hash",
    };
    Difference {
        job_id: id,
        queue: queue.to_string(),
        record: String::new(),
        redis: "orphan keys".to_owned(),
        problem: problem.to_owned(),
        // Evidence of a fault elsewhere, and harmless.
        repair: "left as it is".to_owned(),
    }
}
