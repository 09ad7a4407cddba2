//! The command line: one file per command.
//!
//! Results go to standard output, as tables for people or with `--json` for machines; what happens
//! meanwhile goes to standard error. Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 a
//! store is away (try again).

#![expect(clippy::doc_markdown, reason = "doc comments are the help text here")]

mod audit;
mod bench;
mod client;
mod connect;
mod demo;
mod dev;
mod endpoints;
mod enqueue;
mod event_lines;
mod export;
mod forward;
mod import;
mod jobs;
mod output;
mod reconcile;
mod serve;
mod soak;
mod stores;
mod types;
mod watch;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::app::AppError;
use crate::broker::BrokerError;
use crate::config::{Config, ConfigError, Given, environment};
use crate::enqueue::EnqueueError;
use crate::reconcile::ReconcileError;
use crate::record::RecordError;

/// Durable job queue: BullMQ's Redis layout for speed, PostgreSQL as the record.
#[derive(Debug, Parser)]
#[command(name = "bullwark", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
struct Global {
    /// PostgreSQL [env: BULLWARK_DATABASE_URL, else DATABASE_URL]
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// Redis: a server, a cluster or sentinels [env: BULLWARK_REDIS_URL, else REDIS_URL]
    #[arg(long, global = true, value_name = "URL")]
    redis_url: Option<String>,
    /// Start of all keys in Redis [env: BULLWARK_PREFIX] [default: bull]
    #[arg(long, global = true)]
    prefix: Option<String>,
    /// Uploads, reports and private stores [env: BULLWARK_DATA_DIR] [default: .bullwark]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Also know the job types noop, sleep, fail and crash [env: BULLWARK_DIAGNOSTICS=1]
    #[arg(long, global = true)]
    diagnostics: bool,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything on this machine: private stores, server, worker
    Dev(dev::Dev),
    /// Serve the HTTP API
    Serve(serve::Serve),
    /// Run jobs
    Worker(worker::WorkerArgs),
    /// Bring the database schema up to this version
    Migrate,
    /// Run private Redis and PostgreSQL alone; prints their addresses as JSON
    Stores,
    /// Enqueue a job, or many from a file
    Enqueue(enqueue::EnqueueArgs),
    /// Import a CSV file and watch it
    Import(import::ImportArgs),
    /// Export records into a file
    Export(export::ExportArgs),
    /// List, show, retry, cancel and delete jobs
    Jobs(jobs::Jobs),
    /// List job types, or declare one that other workers serve
    Types(types::Types),
    /// Print the document of the HTTP API, OpenAPI 3.1
    Openapi,
    /// Show how many jobs are in each state
    Stats,
    /// Check that both stores agree; exit code 0 only if they do
    Verify,
    /// Check that the lineage of records was not rewritten, or print what proves it
    Audit(audit::Audit),
    /// Repair now whatever differs between the stores, or print it
    Reconcile(reconcile::Reconcile),
    /// Measure jobs per second on private stores
    Bench(bench::Bench),
    /// Send jobs while everything breaks, and prove that nothing was lost
    Soak(soak::Soak),
    #[command(hide = true)]
    SoakWorker(soak::SoakWorker),
    #[command(hide = true)]
    SoakLedger(soak::SoakLedger),
}

/// A whole number within bounds, for options.
fn whole(
    bounds: std::ops::RangeInclusive<i64>,
) -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(bounds)
}

/// A command that did not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Explained already; only the exit code is missing.
    Silent,
    Failed(anyhow::Error),
    /// A store is away.
    Unavailable(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        match is_unavailable(&error) {
            true => Self::Unavailable(error),
            false => Self::Failed(error),
        }
    }
}

/// True when a store is away: the same command may succeed later.
fn is_unavailable(error: &anyhow::Error) -> bool {
    let app = error.downcast_ref().map(AppError::is_unavailable);
    let enqueue = || error.downcast_ref().map(EnqueueError::is_unavailable);
    let record = || error.downcast_ref().map(RecordError::is_unavailable);
    let broker = || error.downcast_ref().map(BrokerError::is_unavailable);
    let reconcile = || error.downcast_ref().map(ReconcileError::is_unavailable);
    app.or_else(enqueue)
        .or_else(record)
        .or_else(broker)
        .or_else(reconcile)
        .unwrap_or(false)
}

pub(crate) type Done = Result<(), Failure>;

/// Parses the command line, runs the command and says how it went.
pub fn main() -> ExitCode {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let cli = Cli::parse();
    #[cfg(feature = "fault-points")]
    if let Err(error) = crate::fault::arm_from(environment) {
        output::error(&error.to_string());
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&format!("no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(run(cli));
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Silent) => ExitCode::FAILURE,
        Err(Failure::Failed(error)) => {
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
        Err(Failure::Unavailable(error)) => {
            output::error(&format!("{error:#}"));
            ExitCode::from(3)
        }
    }
}

async fn run(cli: Cli) -> Done {
    let global = cli.global;
    let level = match cli.command {
        Command::Dev(_) | Command::Serve(_) | Command::Worker(_) => "info,sqlx=warn",
        _ => "warn,sqlx=error",
    };
    crate::telemetry::start(level);
    match cli.command {
        Command::Dev(dev) => Box::pin(dev::run(&global, dev)).await,
        Command::Serve(serve) => Box::pin(serve::run(&global, serve)).await,
        Command::Worker(worker) => Box::pin(worker::run(&global, worker)).await,
        Command::Migrate => connect::migrate(&global).await,
        Command::Stores => stores::run(&global).await,
        Command::Enqueue(enqueue) => enqueue::run(&global, enqueue).await,
        Command::Import(import) => import::run(&global, import).await,
        Command::Export(export) => export::run(&global, export).await,
        Command::Jobs(jobs) => jobs::run(&global, jobs).await,
        Command::Types(types) => types::run(&global, types).await,
        Command::Openapi => {
            output::line(&crate::http::openapi());
            Ok(())
        }
        Command::Stats => jobs::stats(&global).await,
        Command::Verify => reconcile::verify(&global).await,
        Command::Audit(args) => Box::pin(audit::run(&global, args)).await,
        Command::Reconcile(args) => Box::pin(reconcile::run(&global, args)).await,
        Command::Bench(bench) => Box::pin(bench::run(&global, bench)).await,
        Command::Soak(soak) => soak::run(&global, soak).await,
        Command::SoakWorker(worker) => soak::work(&global, worker).await,
        Command::SoakLedger(ledger) => soak::serve_ledger(ledger).await,
    }
}

impl Global {
    fn given(&self) -> Given {
        Given {
            database_url: self.database_url.clone(),
            redis_url: self.redis_url.clone(),
            prefix: self.prefix.clone(),
            http_addr: None,
            data_dir: self.data_dir.clone(),
            has_diagnostics: self.diagnostics,
            jobs_per_hour: None,
            cors_origins: None,
        }
    }

    /// The settings of this process.
    fn config(&self) -> Result<Config, ConfigError> {
        self.config_with(self.given())
    }

    fn config_with(&self, given: Given) -> Result<Config, ConfigError> {
        Config::settle(given, environment, endpoints::discover)
    }

    /// Where the data of this machine's private stores is.
    fn data_dir(&self) -> PathBuf {
        let from_environment = environment("BULLWARK_DATA_DIR").filter(|dir| !dir.is_empty());
        self.data_dir
            .clone()
            .or_else(|| from_environment.map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from(crate::config::DATA_DIR))
    }
}
