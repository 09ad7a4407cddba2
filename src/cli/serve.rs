//! `bullwark serve`

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Done, Global, connect, endpoints};
use crate::app::App;
use crate::http::{Exposition, HttpOptions};
use crate::record::{api_keys, workspaces};
use crate::tasks::Tasks;

/// Example: bullwark serve --http-addr 0.0.0.0:8080
#[derive(Debug, Args)]
#[command(
    after_help = "The key in BULLWARK_API_KEY is valid for the default workspace; without it, one \
    is made at the first start and kept in the file api-key of the data directory."
)]
pub(crate) struct Serve {
    /// Where to listen [env: BULLWARK_HTTP_ADDR] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    http_addr: Option<String>,
    /// Jobs that a workspace may create in an hour, unless its plan says otherwise
    /// [env: BULLWARK_JOBS_PER_HOUR] [default: any number]
    #[arg(long, value_name = "JOBS")]
    jobs_per_hour: Option<u32>,
    /// Whose pages may use the API from a browser, with commas [env: BULLWARK_CORS_ORIGINS]
    /// [default: nobody's]
    #[arg(long, value_name = "ORIGINS")]
    cors_origins: Option<String>,
}

pub(crate) async fn run(global: &Global, serve: Serve) -> Done {
    let mut signals = Signals::listen()?;
    // Installed before anything counts.
    let metrics = Exposition::install().context("metrics")?;
    let mut given = global.given();
    given.http_addr = serve.http_addr;
    given.jobs_per_hour = serve.jobs_per_hour;
    given.cors_origins = serve.cors_origins;
    let config = global.config_with(given)?;
    let app = connect::app_with_patience(config).await?;
    let tasks = Tasks::new();
    app.start_upkeep(&tasks);
    let stop = CancellationToken::new();
    let listener = bind(&app).await?;
    tracing::info!(address = %listener.local_addr()?, "serving");
    ensure_api_key(&app).await?;
    let options = HttpOptions {
        metrics: Some(metrics),
        ..app.http_options()
    };
    let server = crate::http::serve(app.services(), options, listener, stop.clone());
    tokio::pin!(server);
    let served = tokio::select! {
        served = &mut server => served,
        () = signals.next() => {
            stop.cancel();
            server.await
        }
    };
    tasks.stop(STOP_LIMIT).await;
    app.close().await;
    Ok(served?)
}

/// Makes the key of the settings valid, or one that is kept in the data directory.
async fn ensure_api_key(app: &App) -> anyhow::Result<()> {
    let (key, place) = match &app.config.api_key {
        Some(key) => (String::from(key), "BULLWARK_API_KEY".to_owned()),
        None => {
            let data_dir = &app.config.data_dir;
            let key = endpoints::api_key(data_dir)
                .with_context(|| format!("API key in {}", data_dir.display()))?;
            (
                key,
                data_dir.join(endpoints::KEY_FILE).display().to_string(),
            )
        }
    };
    api_keys::ensure(&app.record, &key, workspaces::DEFAULT_WORKSPACE, "serve").await?;
    tracing::info!(place, "the API key of the default workspace is here");
    Ok(())
}

/// How long upkeep may take to end.
pub(crate) const STOP_LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// Listens where the settings say.
pub(crate) async fn bind(app: &App) -> Result<tokio::net::TcpListener, anyhow::Error> {
    let address = app.config.http_addr;
    tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| {
            anyhow::anyhow!("can not listen on {address}: {error}; choose another with --http-addr")
        })
}

/// Ctrl-C and the signal of a supervisor.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal to stop.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
