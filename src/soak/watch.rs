//! The watch: looks at a run while it goes on.
//!
//! Every second it takes a sample of everything that must not grow without bound, and asks about
//! the law that holds at every moment: a job that is over in Redis is over in the record. Redis is
//! looked at first, so that an outcome on its way is no finding. While a store is away there is
//! nothing to see.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::child::Process;
use super::generator::Generator;
use super::state::State;
use super::violations::{Law, Violations};
use crate::broker::{Broker, BrokerState};
use crate::job::QueueName;
use crate::record::workspaces::DEFAULT_WORKSPACE;
use crate::record::{Record, jobs, soak, stats};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long one look may take; it is given up while a store is away.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was seen at one moment.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Seconds of the run, those before a pause included.
    pub(super) seconds: f64,
    pub(super) accepted: u64,
    pub(super) open: u64,
    /// Of the largest process under test.
    pub(super) rss_bytes: u64,
    pub(super) redis_bytes: u64,
    pub(super) events: u64,
    pub(super) kept: u64,
    pub(super) jobs_bytes: i64,
    pub(super) jobs_dead_rows: i64,
    pub(super) tables_bytes: i64,
}

/// Looks until it is told to stop.
pub(super) struct Watch {
    pub(super) record: Record,
    pub(super) broker: Broker,
    pub(super) queue: QueueName,
    pub(super) dir: PathBuf,
    pub(super) state: State,
    pub(super) found: Mutex<Violations>,
}

impl Watch {
    pub(super) async fn run(
        &self,
        generator: &Generator,
        pids: impl Fn() -> Vec<u32>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return Ok(()),
            }
            let state = State {
                next: generator.low_water(),
                seconds: self.state.seconds + began.elapsed().as_secs_f64(),
                ..self.state.clone()
            };
            state.save(&self.dir)?;
            let pids = pids();
            let sample = tokio::time::timeout(PATIENCE, self.look(generator, &pids));
            if let Ok(Some(sample)) = sample.await {
                let sample = Sample {
                    seconds: state.seconds,
                    accepted: state.next,
                    ..sample
                };
                append(&self.dir.join("samples"), &sample)?;
            }
        }
    }

    /// None: a store is away.
    async fn look(&self, generator: &Generator, pids: &[u32]) -> Option<Sample> {
        self.look_at_the_law().await?;
        let open = stats::count_open(&self.record, DEFAULT_WORKSPACE)
            .await
            .ok()?;
        let open = open.iter().map(|count| count.jobs.unsigned_abs()).sum();
        generator.open.store(open, Ordering::Relaxed);
        let counts = self.broker.counts(&self.queue).await.ok()?;
        let sizes = soak::sizes(&self.record).await.ok()?;
        let (jobs_bytes, jobs_dead_rows) = sizes.get("jobs").copied().unwrap_or_default();
        Some(Sample {
            open,
            rss_bytes: pids.iter().map(|pid| Process::resident_bytes(*pid)).max()?,
            redis_bytes: self.broker.used_memory().await.ok()?,
            events: self.broker.events_length(&self.queue).await.ok()?,
            kept: counts.completed + counts.failed,
            jobs_bytes,
            jobs_dead_rows,
            tables_bytes: sizes.values().map(|(bytes, _)| bytes).sum(),
            ..Sample::default()
        })
    }

    async fn look_at_the_law(&self) -> Option<()> {
        for state in [BrokerState::Completed, BrokerState::Failed] {
            let over = self.broker.newest_finished(&self.queue, state).await.ok()?;
            let ids: Vec<Uuid> = over.iter().filter_map(|id| id.parse().ok()).collect();
            let statuses = jobs::statuses(&self.record, &ids).await.ok()?;
            for id in ids {
                let status = statuses.get(&id);
                if !status.is_some_and(|status| status.is_final()) {
                    let status = status.map_or("absent", |status| status.as_str());
                    let text = format!("job {id}: over in Redis, {status} in the record");
                    let mut found = self
                        .found
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    found.add(Law::Agreement, text);
                }
            }
        }
        Some(())
    }
}

fn append(path: &Path, sample: &Sample) -> anyhow::Result<()> {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?;
    writeln!(file, "{}", serde_json::to_string(sample)?)?;
    Ok(())
}

/// All samples of a run. One that a crash cut off is passed over.
pub(super) fn samples(dir: &Path) -> Vec<Sample> {
    let text = std::fs::read_to_string(dir.join("samples")).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
