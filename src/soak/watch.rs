//! The watch: looks at a run while it goes on.
//!
//! Every second it takes a sample of everything that must not grow without bound, and asks about
//! the law that holds at every moment: a job that is over in Redis is over in the record. Redis is
//! looked at first, so that an outcome on its way is no finding. While a store is away there is
//! nothing to see.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::child::Process;
use super::fleet::Pids;
use super::sides::{self, Generators};
use super::state::State;
use super::tenants::Tenants;
use super::violations::{Law, Violations};
use crate::broker::{Broker, BrokerState};
use crate::job::QueueName;
use crate::record::{Record, jobs, soak};

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
    #[serde(default)]
    pub(super) serve_rss_bytes: u64,
    /// Of the largest worker.
    #[serde(default)]
    pub(super) worker_rss_bytes: u64,
    pub(super) redis_bytes: u64,
    pub(super) events: u64,
    pub(super) kept: u64,
    pub(super) jobs_bytes: i64,
    pub(super) jobs_dead_rows: i64,
    pub(super) tables_bytes: i64,
    #[serde(default)]
    pub(super) indexes_bytes: i64,
}

/// Looks until it is told to stop.
pub(super) struct Watch {
    pub(super) record: Record,
    pub(super) broker: Broker,
    pub(super) queue: QueueName,
    pub(super) dir: PathBuf,
    pub(super) state: State,
    pub(super) tenants: Tenants,
    pub(super) found: Mutex<Violations>,
}

impl Watch {
    pub(super) async fn run(
        &self,
        generators: &Generators,
        pids: impl Fn() -> Pids,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let looking = self.tenants.run(&self.found, stop);
        let sampling = self.sample(generators, pids, stop);
        tokio::join!(looking, sampling).1
    }

    async fn sample(
        &self,
        generators: &Generators,
        pids: impl Fn() -> Pids,
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
            let (next, sides) = generators.marks();
            let state = State {
                next,
                sides,
                seconds: self.state.seconds + began.elapsed().as_secs_f64(),
                ..self.state.clone()
            };
            state.save(&self.dir)?;
            let pids = pids();
            let sample = tokio::time::timeout(PATIENCE, self.look(generators, &pids));
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
    async fn look(&self, generators: &Generators, pids: &Pids) -> Option<Sample> {
        // First: the generators wait for it.
        let open = sides::open(&self.record).await.ok()?;
        generators.note_open(open);
        self.look_at_the_law().await?;
        let counts = self.broker.counts(&self.queue).await.ok()?;
        let sizes = soak::sizes(&self.record).await.ok()?;
        let workers = pids.workers.iter();
        let worker_rss_bytes = workers.map(|pid| Process::resident_bytes(*pid)).max()?;
        let serve_rss_bytes = Process::resident_bytes(pids.serve?);
        Some(Sample {
            open,
            rss_bytes: serve_rss_bytes.max(worker_rss_bytes),
            serve_rss_bytes,
            worker_rss_bytes,
            redis_bytes: self.broker.used_memory().await.ok()?,
            events: self.broker.events_length(&self.queue).await.ok()?,
            kept: counts.completed + counts.failed,
            jobs_bytes: sizes.jobs_bytes,
            jobs_dead_rows: sizes.jobs_dead_rows,
            tables_bytes: sizes.tables_bytes,
            indexes_bytes: sizes.indexes_bytes,
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
