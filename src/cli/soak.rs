//! `bullwark soak`, and the hidden commands of its processes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::serve::{STOP_LIMIT, Signals};
use super::worker::{WorkerFlags, work_until_signal};
use super::{Done, Failure, Global, connect, output, whole};
use crate::soak::{self, Mix, SoakOptions};
use crate::tasks::Tasks;

/// Example: bullwark soak --duration 10m --faults all --seed 7
#[derive(Debug, Args)]
#[command(
    after_help = "Runs on private stores. Exit code 0 only if every invariant held. Faults: kill, \
    kill-serve, stop, rolling, flush, redis-restart, redis-empty, redis-rollback, pg-restart, \
    pg-terminate, slow, cut, half-open, answers-lost, refused; proxy (the last five), all, none."
)]
pub(crate) struct Soak {
    /// Send jobs for so long, such as 90s, 10m, 1h [default: 1m, or as long as --jobs takes]
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Send so many jobs
    #[arg(long)]
    jobs: Option<u64>,
    /// Send as many jobs as the specification's 1,000 per minute make in this time, such as 7d;
    /// most of them are short ones
    #[arg(long, value_parser = humantime::parse_duration, conflicts_with = "jobs")]
    volume: Option<Duration>,
    /// Repeat the jobs and the order of faults of a run
    #[arg(long)]
    seed: Option<u64>,
    /// Faults, separated by commas
    #[arg(long, default_value = "all")]
    faults: String,
    /// Seconds between two faults, on average
    #[arg(long, default_value_t = 5, value_parser = whole(1..=86_400))]
    fault_every: u32,
    /// Jobs per second to send; 0: as fast as answers come
    #[arg(long, default_value_t = 0)]
    rate: u64,
    #[arg(long, default_value_t = 3, value_parser = whole(1..=50))]
    workers: u32,
    /// Jobs at once of each worker
    #[arg(long, default_value_t = 150, value_parser = whole(1..=10_000))]
    slots: u32,
    /// Milliseconds after which the jobs of a killed worker may run elsewhere
    #[arg(long, default_value_t = 5_000, value_parser = whole(1000..=3_600_000))]
    lease_ms: u32,
    /// Keep everything of the run here; the same directory again goes on with it
    #[arg(long)]
    dir: Option<PathBuf>,
}

const JOBS_PER_MINUTE: u64 = 1_000;
const DURATION: Duration = Duration::from_secs(60);

pub(crate) async fn run(global: &Global, soak: Soak) -> Done {
    let mut signals = Signals::listen()?;
    let is_kept = soak.dir.is_some();
    let name = format!("bullwark-soak-{}", std::process::id());
    let dir = soak.dir.unwrap_or_else(|| std::env::temp_dir().join(name));
    let in_volume = |volume: Duration| volume.as_secs() / 60 * JOBS_PER_MINUTE;
    let jobs = soak.jobs.or(soak.volume.map(in_volume));
    let duration = soak.duration.or(jobs.is_none().then_some(DURATION));
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let dir = dir.canonicalize()?;
    let options = SoakOptions {
        program: std::env::current_exe()?,
        dir: dir.clone(),
        seed: soak.seed,
        faults: soak.faults,
        duration,
        jobs,
        mix: match soak.volume {
            Some(_) => Mix::Brisk,
            None => Mix::Rich,
        },
        rate: soak.rate,
        workers: soak.workers as usize,
        slots: soak.slots as usize,
        lease: Duration::from_millis(soak.lease_ms.into()),
        fault_every: Duration::from_secs(soak.fault_every.into()),
    };
    let Some(report) = Box::pin(soak::run(options, signals.next())).await? else {
        output::note(&format!("interrupted; go on with --dir {}", dir.display()));
        return Err(Failure::Silent);
    };
    std::fs::write(dir.join("report.json"), serde_json::to_string(&report)?)?;
    std::fs::write(dir.join("report.md"), report.markdown())?;
    match global.json {
        true => output::json(&report),
        false => output::line(&report.markdown()),
    }
    if report.passed() {
        if !is_kept {
            std::fs::remove_dir_all(&dir).ok();
        }
        return Ok(());
    }
    if !global.json {
        output::line(&serde_json::to_string_pretty(&report)?);
    }
    let place = dir.display();
    let text = format!("invariants are violated; the files of the run are in {place}");
    Err(Failure::Failed(anyhow::anyhow!(text)))
}

/// A worker that knows the soak's job type.
#[derive(Debug, Args)]
pub(crate) struct SoakWorker {
    /// Address of the ledger
    #[arg(long)]
    ledger: String,
    #[command(flatten)]
    options: WorkerFlags,
}

pub(crate) async fn work(global: &Global, worker: SoakWorker) -> Done {
    let signals = Signals::listen()?;
    let mut app = connect::app_with_patience(global.config()?).await?;
    let tasks = Tasks::new();
    // Only run, not offered: the type is declared, and the server checks it as any other.
    app.handlers = soak::handlers(app.handlers, &worker.ledger, &tasks).await?;
    let upkeep = Tasks::new();
    app.start_upkeep(&upkeep);
    let worked = work_until_signal(&app, worker.options.settle(), signals).await;
    upkeep.stop(STOP_LIMIT).await;
    app.close().await;
    Ok(worked?)
}

/// The ledger of a soak.
#[derive(Debug, Args)]
pub(crate) struct SoakLedger {
    file: PathBuf,
}

pub(crate) async fn serve_ledger(ledger: SoakLedger) -> Done {
    let mut signals = Signals::listen()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    output::line(&listener.local_addr()?.to_string());
    let stop = async move { signals.next().await };
    Ok(soak::serve_ledger(listener, &ledger.file, stop).await?)
}
