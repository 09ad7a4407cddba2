//! The load that `bullwark bench` makes: producers and a worker at once, on private stores.
//!
//! Every job is enqueued by a call of its own (unless a batch is asked for), acknowledged after its
//! commit, run by a handler that does nothing, and settled. The report says how fast that went and
//! at what cost, and whether every job completed exactly once: counted by the handler, by the
//! record, and by the agreement of both stores.

mod cost;
mod enrich;
mod http;
mod http_client;
mod load;
mod rebuild;

use std::time::Duration;

use serde::Serialize;

use crate::reconcile;
use crate::record::server;

pub use enrich::{EnrichReport, run_enrich};
pub use http::{HttpBenchOptions, HttpReport, Round, run_http};
pub use load::Load;
pub use rebuild::{RebuildReport, run_rebuild};

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    pub jobs: usize,
    /// Callers that enqueue at the same time.
    pub producers: usize,
    /// Jobs per call; 1 measures single calls.
    pub batch: usize,
    /// Slots of the worker.
    pub slots: usize,
    /// Jobs per second to send; 0 sends as fast as the answers come.
    pub rate: u32,
    /// The longest time the whole may take.
    pub limit: Duration,
}

/// The report. Times are in milliseconds, from the intended moment of sending.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub jobs: usize,
    pub seconds: f64,
    pub jobs_per_second: f64,
    /// How fast calls were answered alone, until the last was.
    pub enqueued_per_second: f64,
    pub start_ms: Percentiles,
    pub done_ms: Percentiles,
    pub wal_bytes_per_job: f64,
    pub commits_per_job: f64,
    /// Of this process and both stores.
    pub cpu_seconds: f64,
    pub cpu_us_per_job: CpuPerJob,
    pub rss_bytes: u64,
    pub exactly_once: bool,
}

/// Microseconds of processor time per job, by process.
#[derive(Debug, Clone, Serialize)]
pub struct CpuPerJob {
    pub bullwark: f64,
    pub redis: f64,
    pub postgres: f64,
}

/// Processor time in seconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct CpuSeconds {
    pub bullwark: f64,
    pub redis: f64,
    pub postgres: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

/// The processes whose cost counts, besides this one.
#[derive(Debug, Clone, Copy)]
pub struct StorePids {
    pub redis: Option<u32>,
    pub postgres: Option<u32>,
}

/// A measurement that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    App(#[from] crate::app::AppError),
    #[error(transparent)]
    Record(#[from] crate::record::RecordError),
    #[error(transparent)]
    Reconcile(#[from] reconcile::ReconcileError),
    #[error(transparent)]
    Schedule(#[from] crate::control::ScheduleError),
    #[error("enqueue: {0}")]
    Enqueue(#[from] crate::enqueue::EnqueueError),
    #[error("connection: {0}")]
    Connection(#[from] std::io::Error),
    #[error("server: {0}")]
    Server(String),
    #[error("only {done} of {jobs} jobs were done within {limit:?}")]
    Late {
        done: usize,
        jobs: usize,
        limit: Duration,
    },
}

/// Runs the load once.
pub async fn run(
    load: Load,
    options: &BenchOptions,
    pids: StorePids,
) -> Result<Report, BenchError> {
    let app = load.app().clone();
    // Connections, statements and scripts are made before the clock starts.
    load.warm_up().await?;
    let counters_before = server::counters(&app.record).await?;
    let cost_before = cost::Cost::now(pids);
    let measured = load.run(options).await?;
    let cost = cost::Cost::now(pids).since(&cost_before);
    let counters = server::counters(&app.record).await?;

    // Outside the measured time: did every job complete exactly once, everywhere?
    let jobs = options.jobs as f64;
    let verdict = reconcile::verify(&app.record, &app.broker).await?;
    let completed: i64 = server::count_by_status(&app.record)
        .await?
        .into_iter()
        .map(|(status, count)| if status == "completed" { count } else { 0 })
        .sum();
    let exactly_once = measured.runs_once
        && completed as usize == options.jobs + Load::WARM_UP_JOBS
        && server::completed_twice_started(&app.record).await? == 0
        && verdict.agree;
    load.stop().await?;

    let us_per_job = |seconds: f64| round(seconds * 1e6 / jobs, 2);
    let seconds = measured.seconds;
    Ok(Report {
        jobs: options.jobs,
        seconds: round(seconds, 3),
        jobs_per_second: round(jobs / seconds, 0),
        enqueued_per_second: round(jobs / measured.enqueue_seconds, 0),
        start_ms: measured.start_ms,
        done_ms: measured.done_ms,
        wal_bytes_per_job: round(
            (counters.wal_bytes - counters_before.wal_bytes) as f64 / jobs,
            1,
        ),
        commits_per_job: round(
            (counters.commits - counters_before.commits) as f64 / jobs,
            4,
        ),
        cpu_seconds: round(cost.bullwark + cost.redis + cost.postgres, 2),
        cpu_us_per_job: CpuPerJob {
            bullwark: us_per_job(cost.bullwark),
            redis: us_per_job(cost.redis),
            postgres: us_per_job(cost.postgres),
        },
        rss_bytes: cost::resident_bytes(),
        exactly_once,
    })
}

fn round(number: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (number * scale).round() / scale
}
