//! What running jobs tell the record behind their back: that they run, that they live and how far
//! they are.
//!
//! Written in coalesced batches, and not at all for a job that has ended meanwhile: a short job
//! costs one INSERT and one UPDATE, no more. Losing a round costs nothing that matters.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::held::{Held, HeldJobs};
use crate::broker::Broker;
use crate::job::{Progress, QueueName};
use crate::record::start::{self, RunningAttempt, START_MAX};
use crate::record::{Record, RecordError};

/// How long a start may stay unwritten.
const ROUND: Duration = Duration::from_millis(100);
/// At most 4 progress writes per second and job.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// The specification's heartbeat.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(30);

pub(super) struct Journal {
    pub(super) record: Record,
    pub(super) broker: Broker,
    pub(super) worker_id: Arc<str>,
    pub(super) held: Arc<HeldJobs>,
}

impl Journal {
    /// Runs until `stop`, then writes what is left.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_progress = Instant::now();
        let mut last_heartbeat = Instant::now();
        loop {
            let is_last = tokio::select! {
                _ = rounds.tick() => false,
                () = stop.cancelled() => true,
            };
            let with_heartbeat = last_heartbeat.elapsed() >= HEARTBEAT_EVERY;
            let with_progress = is_last || last_progress.elapsed() >= PROGRESS_EVERY;
            if with_progress {
                last_progress = Instant::now();
            }
            match self.write(with_heartbeat, with_progress).await {
                Ok(()) if with_heartbeat => last_heartbeat = Instant::now(),
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "journal round lost"),
            }
            if is_last {
                return;
            }
        }
    }

    async fn write(&self, with_heartbeat: bool, with_progress: bool) -> Result<(), RecordError> {
        let jobs = self.held.all();
        self.mark(&jobs, with_heartbeat).await?;
        if with_progress {
            self.save_progress(&jobs).await?;
        }
        Ok(())
    }

    async fn mark(&self, jobs: &[Arc<Held>], with_heartbeat: bool) -> Result<(), RecordError> {
        let due: Vec<&Arc<Held>> = jobs
            .iter()
            .filter(|job| job.runs())
            .filter(|job| with_heartbeat || !job.is_marked.load(Ordering::Relaxed))
            .collect();
        for batch in due.chunks(START_MAX) {
            let rows: Vec<RunningAttempt> = batch
                .iter()
                .map(|job| RunningAttempt {
                    id: job.id,
                    attempt: job.attempt,
                    started_at: job.started_at,
                })
                .collect();
            let marked = start::mark_running(&self.record, &self.worker_id, &rows).await?;
            let marked: HashSet<Uuid> = marked.into_iter().collect();
            for job in batch.iter().filter(|job| marked.contains(&job.id)) {
                job.is_marked.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    async fn save_progress(&self, jobs: &[Arc<Held>]) -> Result<(), RecordError> {
        let fresh: Vec<(&Arc<Held>, Progress)> = jobs
            .iter()
            .filter_map(|job| Some((job, job.progress().take()?)))
            .collect();
        for batch in fresh.chunks(START_MAX) {
            let rows: Vec<_> = batch
                .iter()
                .map(|(job, p)| (job.id, job.attempt, p.clone()))
                .collect();
            let saved = start::save_progress(&self.record, &self.worker_id, &rows).await;
            let ids: HashSet<Uuid> = saved
                .as_deref()
                .unwrap_or_default()
                .iter()
                .copied()
                .collect();
            let (shown, kept): (Vec<_>, Vec<_>) =
                batch.iter().partition(|(job, _)| ids.contains(&job.id));
            // The record is away, or somebody has the job locked: later, unless there is news.
            for (job, progress) in kept {
                job.progress().get_or_insert_with(|| progress.clone());
            }
            saved?;
            self.show_progress(&shown).await;
        }
        Ok(())
    }

    /// For dashboards and event readers of `BullMQ`; nothing depends on it.
    async fn show_progress(&self, batch: &[&(&Arc<Held>, Progress)]) {
        let mut queues: HashMap<&QueueName, Vec<(String, String, String)>> = HashMap::new();
        for (job, progress) in batch {
            let Ok(json) = serde_json::to_string(progress) else {
                continue;
            };
            let row = (job.wire_id.clone(), job.token.clone(), json);
            queues.entry(&job.queue).or_default().push(row);
        }
        for (queue, rows) in queues {
            if let Err(error) = self.broker.update_progress(queue, &rows).await {
                tracing::debug!(%error, %queue, "progress not shown");
            }
        }
    }
}
