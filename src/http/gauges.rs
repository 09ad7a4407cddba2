//! Gauges of the queues and of the record: what no event of this process tells.

use std::collections::{BTreeSet, HashMap};

use super::state::State;
use crate::broker::{Broker, QueueFinder};
use crate::reconcile::ReconcileError;
use crate::record::stats;

/// Looks at all queues, of whatever workspace.
pub(super) struct Gauges {
    finder: QueueFinder,
    /// Queues that had a job that could start.
    aged: BTreeSet<String>,
}

impl Gauges {
    pub(super) fn new(broker: &Broker) -> Self {
        Self {
            finder: broker.queue_finder(),
            aged: BTreeSet::new(),
        }
    }

    /// Sets all gauges. A queue that is gone shows 0.
    pub(super) async fn look(&mut self, state: &State) -> Result<(), ReconcileError> {
        let (record, broker) = (&state.services.record, &state.services.broker);
        for pool in record.pools() {
            for (state, count) in [("idle", pool.idle), ("busy", pool.busy)] {
                metrics::gauge!(
                    "bullwark_record_connections", "pool" => pool.name, "state" => state
                )
                .set(f64::from(count));
            }
        }
        let oldest = stats::oldest_ready(record).await?;
        let oldest: HashMap<String, f64> = oldest.into_iter().collect();
        self.aged.extend(oldest.keys().cloned());
        for queue in &self.aged {
            let seconds = oldest.get(queue).copied().unwrap_or_default();
            metrics::gauge!("bullwark_oldest_ready_seconds", "queue" => queue.clone()).set(seconds);
        }
        metrics::gauge!("bullwark_dead_letters").set(stats::count_all_dead(record).await? as f64);
        for queue in self.finder.look().await? {
            let counts = broker.counts(queue).await?;
            let states = [
                ("waiting", counts.wait + counts.paused + counts.prioritized),
                ("delayed", counts.delayed),
                ("waiting_children", counts.waiting_children),
                ("active", counts.active),
                ("completed_kept", counts.completed),
                ("failed_kept", counts.failed),
            ];
            let name = queue.to_string();
            for (state, jobs) in states {
                metrics::gauge!("bullwark_queue_jobs", "queue" => name.clone(), "state" => state)
                    .set(jobs as f64);
            }
            metrics::gauge!("bullwark_queue_paused", "queue" => name)
                .set(f64::from(u8::from(counts.is_paused)));
        }
        Ok(())
    }
}
