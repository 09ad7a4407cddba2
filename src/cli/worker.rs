//! `bullwark worker`

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::forward::{self, ForwardFlags};
use super::serve::{STOP_LIMIT, Signals};
use super::{Done, Global, connect, output, whole};
use crate::app::{App, AppError, worker_id};
use crate::http::{Exposition, WorkerAdmin, serve_worker};
use crate::job::webhook;
use crate::tasks::Tasks;
use crate::worker::{Events, ServedQueue, WorkerOptions};

/// Example: bullwark worker --queue high_priority --queue default --concurrency 100
#[derive(Debug, Args)]
#[command(
    after_help = "At SIGTERM or Ctrl-C no new job is taken and running ones may finish; at a \
    second signal they are given back at once."
)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) options: WorkerFlags,
    #[command(flatten)]
    pub(crate) forwarding: ForwardFlags,
}

/// Options of everything that runs jobs.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkerFlags {
    /// Queue to serve; repeat for several, first one first, or weighted: --queue a=3 --queue b=1
    #[arg(
        long = "queue",
        value_name = "NAME[=WEIGHT]",
        allow_hyphen_values = true
    )]
    queues: Vec<ServedQueue>,
    /// Jobs at once [default: 50; 1 with --forward]
    #[arg(long, value_parser = whole(1..=10_000))]
    pub(crate) concurrency: Option<u32>,
    /// Milliseconds after which the jobs of a killed worker may run elsewhere
    #[arg(long, default_value_t = 10_000, value_parser = whole(1000..=3_600_000))]
    lease_ms: u32,
    /// Seconds that running jobs may take after the signal to stop
    #[arg(long, default_value_t = 120)]
    shutdown_limit: u64,
}

impl WorkerFlags {
    pub(crate) fn settle(&self) -> WorkerOptions {
        let mut options = WorkerOptions::new(worker_id());
        options.queues = match self.queues.is_empty() {
            true => default_queues(),
            false => self.queues.clone(),
        };
        options.slots = self.concurrency.unwrap_or(SLOTS) as usize;
        options.lease = Duration::from_millis(u64::from(self.lease_ms));
        options.shutdown_limit = Duration::from_secs(self.shutdown_limit);
        options
    }
}

/// How long requests to the admin port may take to end with the worker.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Jobs at once when nothing is said.
const SLOTS: u32 = 50;

/// The specification's queues, most urgent first. That jobs have ended is told before others begin:
/// deliveries wait for receivers, not for this machine, and have a share of the slots at most.
fn default_queues() -> Vec<ServedQueue> {
    [
        "high_priority",
        webhook::QUEUE,
        "default",
        "scheduled",
        "low_priority",
    ]
    .iter()
    .filter_map(|name| name.parse().ok())
    .collect()
}

pub(crate) async fn run(global: &Global, worker: WorkerArgs) -> Done {
    if let Some(url) = &worker.forwarding.forward {
        return forward::run(global, &worker.options, &worker.forwarding, url).await;
    }
    let signals = Signals::listen()?;
    // Installed before anything counts.
    let metrics = Exposition::install().context("metrics")?;
    let app = connect::app_with_patience(global.config()?).await?;
    let options = worker.options.settle();
    let admin = match worker.forwarding.admin {
        Some(address) => Some(forward::listen(address).await?),
        None => None,
    };
    if global.json {
        let mut hello = serde_json::json!({ "worker": options.worker_id });
        if let Some(listener) = &admin {
            hello["admin"] = format!("http://{}", listener.local_addr()?).into();
        }
        output::json(&hello);
    }
    if worker.forwarding.paused {
        options.steering.pause(false).await;
    }
    tracing::info!(worker = options.worker_id, slots = options.slots, "working");
    let (tasks, serving, stop_admin) = (Tasks::new(), Tasks::new(), CancellationToken::new());
    metrics.keep_small(&tasks);
    if let Some(listener) = admin {
        let admin = WorkerAdmin {
            steering: options.steering.clone(),
            events: Events::default(),
            metrics,
            tasks: serving.clone(),
        };
        serving.spawn("admin", serve_worker(admin, listener, stop_admin.clone()));
    }
    app.start_upkeep(&tasks);
    let steering = options.steering.clone();
    let worked = tokio::select! {
        worked = work_until_signal(&app, options, signals) => Some(worked),
        () = steering.abandoned().cancelled() => None,
    };
    steering.set_closed();
    stop_admin.cancel();
    // Whoever closed the worker gets the answer; one that waits for a pause may wait for ever.
    serving.stop(ANSWER_LIMIT).await;
    // Abandoned: what is held is left to its lease.
    let Some(worked) = worked else { return Ok(()) };
    tasks.stop(STOP_LIMIT).await;
    app.close().await;
    Ok(worked?)
}

/// Works until the first signal, then shuts down; the second signal hurries it.
pub(crate) async fn work_until_signal(
    app: &App,
    options: WorkerOptions,
    mut signals: Signals,
) -> Result<(), AppError> {
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    let closing = options.steering.closing().clone();
    let work = app.work(options, stop.clone(), hurry.clone());
    tokio::pin!(work);
    loop {
        tokio::select! {
            worked = &mut work => return worked,
            () = closing.cancelled(), if !stop.is_cancelled() => stop.cancel(),
            () = signals.next() => {
                if stop.is_cancelled() {
                    hurry.cancel();
                }
                stop.cancel();
            }
        }
    }
}
