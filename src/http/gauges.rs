//! Gauges of the queues and of the record: what no event of this process tells.
//!
//! Anybody who may write makes queues, so only so many have series of their own.

use std::collections::{BTreeMap, BTreeSet};

use super::state::State;
use crate::broker::{Broker, BrokerError, QueueFinder};
use crate::job::QueueName;
use crate::reconcile::ReconcileError;
use crate::record::passes::{self, OPEN_MAX};
use crate::record::{Record, RecordError, stats};

/// Queues that are shown one by one: the first ones that were seen with jobs.
const QUEUES_MAX: usize = 300;
/// What all other queues are shown as. No queue has this name: it holds a colon.
const OTHERS: &str = "other:queues";

/// The states of a queue, as they are shown.
const STATES: [&str; 6] = [
    "waiting",
    "delayed",
    "waiting_children",
    "active",
    "completed_kept",
    "failed_kept",
];

/// Looks at all queues, of whatever workspace.
pub(super) struct Gauges {
    finder: QueueFinder,
    /// Those that have series.
    shown: BTreeSet<String>,
    /// Jobs of all queues that waited or ran in Redis at the last look; none: not known.
    live: Option<u64>,
}

/// So many of them are of jobs that wait or run.
const LIVE: usize = 4;

/// What is known of a queue.
#[derive(Default)]
struct Seen {
    jobs: [u64; 6],
    is_paused: bool,
    oldest_seconds: f64,
}

impl Gauges {
    pub(super) fn new(broker: &Broker) -> Self {
        Self {
            finder: broker.queue_finder(),
            shown: BTreeSet::new(),
            live: None,
        }
    }

    /// Sets all gauges. A queue that is gone shows 0. What one store does not tell stays as it was;
    /// the other one is shown all the same.
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
        let of_redis = self.look_at_redis(broker).await;
        self.look_at_record(record, broker.prefix()).await?;
        Ok(of_redis?)
    }

    async fn look_at_redis(&mut self, broker: &Broker) -> Result<(), BrokerError> {
        self.live = None;
        let queues: Vec<QueueName> = self.finder.look().await?.iter().cloned().collect();
        let (mut all, mut first_error) = (BTreeMap::<String, Seen>::new(), Ok(()));
        for queue in queues {
            let counts = match broker.counts(&queue).await {
                Ok(counts) => counts,
                Err(error) if error.is_unavailable() => return Err(error),
                // One queue at fault does not hide the others.
                Err(error) => {
                    first_error = first_error.and(Err(error));
                    continue;
                }
            };
            let jobs = [
                counts.wait + counts.paused + counts.prioritized,
                counts.delayed,
                counts.waiting_children,
                counts.active,
                counts.completed,
                counts.failed,
            ];
            let seen = all.entry(self.shown_as(queue.as_str())).or_default();
            for (sum, jobs) in seen.jobs.iter_mut().zip(jobs) {
                *sum += jobs;
            }
            seen.is_paused |= counts.is_paused;
        }
        self.live = first_error.is_ok().then(|| {
            let live = |seen: &Seen| seen.jobs[..LIVE].iter().sum::<u64>();
            all.values().map(live).sum()
        });
        for name in &self.shown {
            let seen = all.remove(name).unwrap_or_default();
            for (state, jobs) in STATES.into_iter().zip(seen.jobs) {
                metrics::gauge!("bullwark_queue_jobs", "queue" => name.clone(), "state" => state)
                    .set(jobs as f64);
            }
            metrics::gauge!("bullwark_queue_paused", "queue" => name.clone())
                .set(f64::from(u8::from(seen.is_paused)));
        }
        first_error
    }

    async fn look_at_record(&mut self, record: &Record, prefix: &str) -> Result<(), RecordError> {
        let mut view = record.view().await?;
        let agreement = passes::agreement(&mut view, prefix).await?;
        metrics::gauge!("bullwark_untold_jobs").set(agreement.untold as f64);
        // Too many to be counted, or Redis away: not known is not 0.
        if let Some(live) = self.live.filter(|_| agreement.open < OPEN_MAX) {
            let drift = agreement
                .open
                .abs_diff(i64::try_from(live).unwrap_or(i64::MAX));
            metrics::gauge!("bullwark_drift_jobs").set(drift as f64);
        }
        let dead = stats::count_all_dead(&mut view).await?;
        metrics::gauge!("bullwark_dead_letters").set(dead as f64);
        let ages = stats::oldest_ready(&mut view).await?;
        let mut all = BTreeMap::<String, Seen>::new();
        for (queue, seconds) in ages.of_queues {
            let seen = all.entry(self.shown_as(&queue)).or_default();
            seen.oldest_seconds = seen.oldest_seconds.max(seconds);
        }
        for name in &self.shown {
            let seen = all.remove(name);
            // Behind too many others: not known is not 0.
            if seen.is_some() || ages.is_whole {
                metrics::gauge!("bullwark_oldest_ready_seconds", "queue" => name.clone())
                    .set(seen.unwrap_or_default().oldest_seconds);
            }
        }
        Ok(())
    }

    fn shown_as(&mut self, queue: &str) -> String {
        let name = match self.shown.contains(queue) || self.shown.len() < QUEUES_MAX {
            true => queue,
            false => OTHERS,
        };
        self.shown.insert(name.to_owned());
        name.to_owned()
    }
}
