//! Lets schedules go on whose chain of jobs broke.
//!
//! Every worker makes the next iteration when it claims one, so there is little to do here: jobs
//! that Redis lost, and workers that know nothing of schedules. A run is one page of one queue's
//! schedules, so that it is short however many there are; a round is all pages of all queues.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::broker::{Broker, BrokerError, QueueFinder};
use crate::job::QueueName;
use crate::periodic::{Next, every};
use crate::tasks::Tasks;

/// Between two rounds.
const REPAIR_EVERY: Duration = Duration::from_secs(5);

/// What is left of a round over all queues.
struct Round {
    finder: QueueFinder,
    queues: Vec<QueueName>,
    first: usize,
}

/// Starts the repair of the schedules of all queues; it ends when `tasks` stop.
pub fn start_schedules(broker: &Broker, tasks: &Tasks) {
    let broker = broker.clone();
    let round = Arc::new(Mutex::new(Round {
        finder: broker.queue_finder(),
        queues: Vec::new(),
        first: 0,
    }));
    every(tasks, "schedules", REPAIR_EVERY, move || {
        let (broker, round) = (broker.clone(), round.clone());
        async move { repair_page(&broker, &mut *round.lock().await).await }
    });
}

/// Looks at the next page; `Rest` after the last one of the last queue. A queue that can not be
/// looked at does not keep the others from it.
async fn repair_page(broker: &Broker, round: &mut Round) -> Result<Next, BrokerError> {
    let first = std::mem::take(&mut round.first);
    if round.queues.is_empty() {
        round.queues = round.finder.look().await?.iter().cloned().collect();
    }
    let Some(queue) = round.queues.pop() else {
        return Ok(Next::Rest);
    };
    let repaired = broker.repair_schedules(&queue, first).await?;
    let jobs = repaired.job_ids.len();
    if jobs > 0 {
        metrics::counter!("bullwark_schedules_repaired_total").increment(jobs as u64);
        tracing::warn!(%queue, schedules = jobs, "schedules had stopped; they go on");
    }
    if let Some(next) = repaired.next {
        round.first = next;
        round.queues.push(queue);
    }
    Ok(if round.queues.is_empty() {
        Next::Rest
    } else {
        Next::Again
    })
}
