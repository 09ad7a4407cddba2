//! The stalled check of a worker that keeps `BullMQ`'s manners: at once, then in its own interval.
//! Other workers have the check among their duties (`upkeep`), for all queues.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Shared;
use super::events::{Events, WorkerEvent};
use super::options::StalledCheck;
use crate::broker::RESCUE_MAX;
use crate::tasks::Tasks;

/// Starts the check, if this worker makes one, until `stop`.
pub(super) fn start(shared: &Arc<Shared>, tasks: &Tasks, stop: &CancellationToken) {
    let Some(manners) = &shared.manners else {
        return;
    };
    let Some(check) = manners.stalled else { return };
    let (shared, stop, events) = (shared.clone(), stop.clone(), manners.events.clone());
    tasks.spawn("stalled", async move {
        loop {
            // Not while the worker is paused, and at once when it is resumed: as BullMQ's.
            tokio::select! {
                () = shared.steering.until_paused(false) => {}
                () = stop.cancelled() => return,
            }
            run_once(&shared, check, &events).await;
            tokio::select! {
                () = tokio::time::sleep(check.every) => {}
                () = shared.steering.until_paused(true) => {}
                () = stop.cancelled() => return,
            }
        }
    });
}

async fn run_once(shared: &Shared, check: StalledCheck, events: &Events) {
    for queue in &shared.queues {
        let rescued = shared
            .broker
            .rescue(&queue.name, check.every, check.stalls_max, RESCUE_MAX)
            .await;
        match rescued {
            Ok(ids) => {
                for id in ids {
                    events.tell(WorkerEvent::Stalled { id });
                }
            }
            Err(error) => events.error(error.to_string()),
        }
    }
}
