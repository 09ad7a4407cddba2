//! `bullwark dev`: everything on one machine, with one command.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::demo::Demo;
use super::endpoints::{self, Endpoints};
use super::import::{self, ImportArgs};
use super::serve::{STOP_LIMIT, Signals, bind};
use super::worker::WorkerFlags;
use super::{Done, Global, connect, output};
use crate::app::App;
use crate::config::Config;
use crate::http::{Exposition, HttpOptions};
use crate::record::list::{self, JobFilter};
use crate::record::{Record, RecordOptions, api_keys, workspaces};
use crate::stores::{Stores, StoresError, StoresOptions};
use crate::tasks::Tasks;

/// What a fresh data directory is filled with, so that there is something to see.
const EXAMPLE: &[u8] = include_bytes!("../../examples/data/accounts.csv");
/// How often the servers are looked at.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Starts private Redis and PostgreSQL in the data directory, and server and worker on them.
#[derive(Debug, Args)]
#[command(
    after_help = "Ctrl-C stops everything; running jobs may finish, a second Ctrl-C gives them \
    back at once. The data stays in --data-dir (default .bullwark) for the next start."
)]
pub(crate) struct Dev {
    /// Where to listen [env: BULLWARK_HTTP_ADDR] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    http_addr: Option<String>,
    /// Do not import the example file into a fresh data directory
    #[arg(long)]
    no_example: bool,
    /// Enrich so many example accounts (5000), with a simulator of Clearbit, ZoomInfo and Apollo,
    /// and show it
    #[arg(long, value_name = "ACCOUNTS", num_args = 0..=1, default_missing_value = "5000",
        require_equals = true, value_parser = super::whole(1..=100_000))]
    enrichment: Option<u32>,
    #[command(flatten)]
    worker: WorkerFlags,
}

pub(crate) async fn run(global: &Global, dev: Dev) -> Done {
    let data_dir = global.data_dir();
    let mut signals = Signals::listen()?;
    say(
        global,
        &format!("Starting Redis and PostgreSQL in {} …", data_dir.display()),
    );
    let mut stores = tokio::select! {
        started = Stores::start(StoresOptions::kept(&data_dir)) => started?,
        () = signals.next() => return Ok(()),
    };
    let done = serve_on(global, &dev, &mut stores, signals).await;
    stores.stop().await?;
    if done.is_ok() {
        say(global, "Stopped. The data stays for the next start.");
    }
    done
}

fn say(global: &Global, text: &str) {
    if !global.json {
        output::note(text);
    }
}

async fn serve_on(global: &Global, dev: &Dev, stores: &mut Stores, mut signals: Signals) -> Done {
    // Installed before anything counts.
    let metrics = Exposition::install().context("metrics")?;
    let app = prepare(global, dev, stores).await?;
    let key = endpoints::api_key(&app.config.data_dir)
        .with_context(|| format!("API key in {}", app.config.data_dir.display()))?;
    api_keys::ensure(&app.record, &key, workspaces::DEFAULT_WORKSPACE, "dev").await?;
    let listener = bind(&app).await?;
    let http_url = format!("http://{}", listener.local_addr()?);
    let published = endpoints::publish(
        &app.config.data_dir,
        &Endpoints {
            redis_url: stores.redis_url.clone(),
            database_url: stores.database_url.clone(),
            http_url: Some(http_url.clone()),
            pid: std::process::id(),
        },
    )?;

    let (stop, hurry, stop_serving) = (
        CancellationToken::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let (upkeep, serving, working) = (Tasks::new(), Tasks::new(), Tasks::new());
    app.start_upkeep(&upkeep);
    let options = HttpOptions {
        metrics: Some(metrics),
        ..app.http_options()
    };
    let server = crate::http::serve(app.services(), options, listener, stop_serving.clone());
    serving.spawn("http", async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "HTTP server ended");
        }
    });
    let worker = app.clone();
    let (options, stopping, hurrying) = (dev.worker.settle(), stop.clone(), hurry.clone());
    working.spawn("worker", async move {
        if let Err(error) = worker.work(options, stopping, hurrying).await {
            tracing::error!(%error, "worker ended");
        }
    });

    announce(global, &app, &http_url, &key);
    if let Some(accounts) = dev.enrichment {
        let demo = Demo {
            accounts: accounts as usize,
            global: global.clone(),
            app: app.clone(),
            tasks: upkeep.clone(),
        };
        upkeep.spawn("enrichment", async move {
            if let Err(error) = demo.run().await {
                tracing::error!(?error, "enrichment of the example accounts");
            }
        });
    } else if !dev.no_example && is_fresh(&app).await? {
        let (global, data_dir) = (global.clone(), app.config.data_dir.clone());
        let stopping = upkeep.stopping().clone();
        upkeep.spawn("example", async move {
            tokio::select! {
                done = import_example(&global, &data_dir) => if let Err(error) = done {
                    tracing::warn!(?error, "example import");
                },
                () = stopping.cancelled() => {}
            }
        });
    }

    let failed = wait(stores, &mut signals).await;
    drop(published);
    say(
        global,
        "Stopping; running jobs may finish. Ctrl-C again to give them back now.",
    );
    stop.cancel();
    stop_serving.cancel();
    tokio::select! {
        () = working.drained() => {}
        () = signals.next() => {
            hurry.cancel();
            working.drained().await;
        }
    }
    serving.drained().await;
    upkeep.stop(STOP_LIMIT).await;
    app.close().await;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Migrates and connects.
async fn prepare(global: &Global, dev: &Dev, stores: &Stores) -> Result<App, super::Failure> {
    let config = settle(global, dev, stores)?;
    let record = Record::connect(&RecordOptions::new(&config.database_url))?;
    record.migrate().await?;
    record.close().await;
    connect::app_with_patience(config).await
}

/// Waits for a signal, or for one of the servers to end by itself.
async fn wait(stores: &mut Stores, signals: &mut Signals) -> Option<StoresError> {
    let mut checks = tokio::time::interval(CHECK_EVERY);
    loop {
        tokio::select! {
            () = signals.next() => return None,
            _ = checks.tick() => {
                if let Err(error) = stores.check() {
                    return Some(error);
                }
            }
        }
    }
}

fn settle(global: &Global, dev: &Dev, stores: &Stores) -> anyhow::Result<Config> {
    let mut given = global.given();
    given.http_addr = dev.http_addr.clone();
    given.redis_url = Some(stores.redis_url.clone());
    // The Unix socket is faster, where its path is short enough to exist.
    let database_url = stores
        .database_socket_url
        .as_ref()
        .unwrap_or(&stores.database_url);
    given.database_url = Some(database_url.clone());
    given.data_dir = Some(stores.dir().to_owned());
    let mut config = global.config_with(given)?;
    // The simulator is on this machine.
    config.allows_private_addresses |= dev.enrichment.is_some();
    Ok(config)
}

fn announce(global: &Global, app: &App, http_url: &str, key: &str) {
    if global.json {
        output::json(&serde_json::json!({
            "http_url": http_url,
            "api_key": key,
            "redis_url": &*app.config.redis_url,
            "database_url": &*app.config.database_url,
        }));
        return;
    }
    let body = serde_json::json!({
        "jobType": "import_csv",
        "payload": { "file_url": "https://example.com/accounts.csv", "entity_type": "accounts" },
    });
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "bullwark".to_owned());
    output::line(&format!(
        "
Bullwark is running.

  API        {http_url}/api/jobs
  API key    {key}
  Data       {}

Enqueue a job:

  curl -X POST {http_url}/api/jobs -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' \\
    -d '{body}'

Import a file of yours, in another terminal:

  {program} import FILE.csv --entity accounts

Ctrl-C stops everything.
",
        app.config.data_dir.display(),
    ));
}

async fn is_fresh(app: &App) -> anyhow::Result<bool> {
    let filter = JobFilter {
        limit: 1,
        ..JobFilter::default()
    };
    Ok(list::list_page(&mut app.record.view().await?, &filter)
        .await?
        .is_empty())
}

/// Imports the example file through the server, as the user's first command would.
async fn import_example(global: &Global, data_dir: &Path) -> Done {
    let file = data_dir.join("examples").join("accounts.csv");
    write_example(&file).with_context(|| format!("write {}", file.display()))?;
    say(
        global,
        "Importing the example file once, so that there is something to see:",
    );
    let mut global = global.clone();
    global.data_dir = Some(data_dir.to_owned());
    import::run(&global, ImportArgs::example(file)).await
}

fn write_example(file: &Path) -> std::io::Result<()> {
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(file, EXAMPLE)
}
