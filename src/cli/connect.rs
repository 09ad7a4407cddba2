//! Connecting a command to both stores, and saying what to do when that fails.

use std::time::Duration;

use super::{Done, Failure, Global, output};
use crate::app::{App, AppError};
use crate::config::Config;
use crate::handlers::import_csv::SourceOptions;
use crate::handlers::{self, BuiltinOptions};
use crate::record::{Record, RecordOptions};
use crate::worker::Handlers;

/// How long a process that stays tries to reach its stores at the start.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

/// Connects once.
pub(crate) async fn app(global: &Global) -> Result<App, Failure> {
    let config = global.config()?;
    let handlers = builtin(&config)?;
    Ok(App::connect(config, handlers).await?)
}

/// Connects; waits a while for stores that are just starting.
pub(crate) async fn app_with_patience(config: Config) -> Result<App, Failure> {
    let handlers = builtin(&config)?;
    let started = tokio::time::Instant::now();
    loop {
        match App::connect(config.clone(), handlers.clone()).await {
            Err(error) if error.is_unavailable() && started.elapsed() < PATIENCE => {
                tracing::warn!(%error, "waiting for the stores");
                tokio::time::sleep(PAUSE).await;
            }
            other => return Ok(other?),
        }
    }
}

/// The built-in handlers with these settings.
pub(super) fn builtin(config: &Config) -> Result<Handlers, AppError> {
    let source = SourceOptions {
        storage: config.files()?,
        allowed_dir: config.import_dir.clone(),
        allow_private_addresses: config.allows_private_addresses,
        ..SourceOptions::new(&config.data_dir)
    };
    Ok(handlers::builtin(&BuiltinOptions {
        source,
        sealer: config.sealer(),
        public_url: config.public_url.clone(),
        dns_servers: config.dns_servers.clone(),
        provider_patience: config.provider_patience,
        smtp_probe: config.smtp_probe.clone(),
        has_diagnostics: config.has_diagnostics,
    }))
}

/// The record alone, for what Redis has no part in.
pub(crate) async fn record(global: &Global) -> Result<Record, Failure> {
    let config = global.config()?;
    let record = Record::connect(&RecordOptions::new(&config.database_url))?;
    record.probe().await?;
    match record.is_migrated().await? {
        true => Ok(record),
        false => Err(AppError::NotMigrated.into()),
    }
}

/// `bullwark migrate`
pub(crate) async fn migrate(global: &Global) -> Done {
    let config = global.config()?;
    let record = Record::connect(&RecordOptions::new(&config.database_url))?;
    record.probe().await?;
    record.migrate().await?;
    record.close().await;
    match global.json {
        true => output::json(&serde_json::json!({ "migrated": true })),
        false => output::line("The schema is up to date."),
    }
    Ok(())
}
