//! Wiring: puts stores, doors, worker, upkeep and server together, and takes them apart in the
//! reverse order.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, BrokerOptions};
use crate::config::Config;
use crate::enqueue::Enqueue;
use crate::job::{InvalidType, JobTypes};
use crate::record::{
    Record, RecordError, RecordOptions, adopt, restart, settle, types, workspaces,
};
use crate::tasks::{Names, Tasks};
use crate::upkeep;
use crate::worker::{Handlers, Worker, WorkerOptions};

/// How long background tasks may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// An application that could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("job type: {0}")]
    Type(#[from] InvalidType),
    #[error("worker: {0}")]
    Worker(#[from] std::io::Error),
    #[cfg(feature = "server")]
    #[error(transparent)]
    Storage(#[from] crate::storage::StorageError),
    #[error("the record's schema is older than this program: run `bullwark migrate`")]
    NotMigrated,
}

impl AppError {
    /// True when a store is away: the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Record(error) => error.is_unavailable(),
            Self::Broker(error) => error.is_unavailable(),
            // Somebody may be migrating right now.
            Self::NotMigrated => true,
            Self::Type(_) | Self::Worker(_) => false,
            #[cfg(feature = "server")]
            Self::Storage(_) => false,
        }
    }
}

/// Everything of a process that talks to both stores.
#[derive(Debug, Clone)]
pub struct App {
    pub config: Config,
    pub record: Record,
    pub broker: Broker,
    pub broker_options: BrokerOptions,
    pub enqueue: Enqueue,
    pub handlers: Handlers,
    pub types: JobTypes,
    /// Where files are kept.
    #[cfg(feature = "server")]
    storage: crate::storage::Storage,
    enqueueing: Tasks,
    /// Duties of upkeep that fail.
    failing: Names,
}

impl App {
    /// Connects to both stores and opens the way in. Fails when the record is away, or one of them
    /// is not fit; Redis may be away. Once connected, an outage of either is survived.
    pub async fn connect(config: Config, handlers: Handlers) -> Result<Self, AppError> {
        let record = Record::connect(&RecordOptions::new(&config.database_url))?;
        record.probe().await?;
        if !record.is_migrated().await? {
            return Err(AppError::NotMigrated);
        }
        let broker_options = BrokerOptions {
            url: String::from(&config.redis_url),
            prefix: config.prefix.clone(),
            allow_eviction: config.allows_eviction,
            bullmq_v5_peers: config.bullmq_v5_peers,
            ..BrokerOptions::default()
        };
        let broker = Broker::lazy(broker_options.clone())?;
        match broker.check().await {
            // Jobs are accepted all the same, and delivered when Redis is back.
            Err(error) if error.is_unavailable() => {
                tracing::warn!(%error, "starting without Redis")
            }
            checked => checked?,
        }
        workspaces::ensure_default(&record).await?;
        let builtin = handlers.job_types()?;
        let rows: Vec<_> = builtin
            .iter()
            .map(|t| (t.name.clone(), t.schema.clone()))
            .collect();
        types::publish_builtin(&record, &rows).await?;
        let types = upkeep::declared_types(&record, builtin.clone()).await?;
        let enqueueing = Tasks::new();
        let enqueue = Enqueue::start(record.clone(), broker.clone(), types, &enqueueing);
        let types = builtin;
        Ok(Self {
            #[cfg(feature = "server")]
            storage: config.files()?,
            config,
            record,
            broker,
            broker_options,
            enqueue,
            handlers,
            types,
            enqueueing,
            failing: Names::default(),
        })
    }

    /// Shows the workers of this process under a name on dashboards, and keeps so many minutes of
    /// metrics in Redis. Connects anew when it is next used.
    pub fn name_connections(
        &mut self,
        name: Option<String>,
        metrics_points_max: Option<u32>,
    ) -> Result<(), BrokerError> {
        self.broker_options.client_name = name;
        self.broker_options.metrics_points_max = metrics_points_max;
        self.broker = Broker::lazy(self.broker_options.clone())?;
        Ok(())
    }

    /// Runs the statements of a job's way once with nothing, on several connections: they are open
    /// and the statements prepared when the first job comes.
    pub async fn warm(&self) {
        for _ in 0..2 {
            let (started, adopted, settled) = tokio::join!(
                restart::restart_many(&self.record, "", &[]),
                adopt::adopt_many(&self.record, &[]),
                settle::settle_many(&self.record, &[]),
            );
            let failed = started.err().or(adopted.err()).or(settled.err());
            if let Some(error) = failed {
                tracing::debug!(%error, "not warmed up");
            }
        }
    }

    /// What the HTTP server works on.
    #[cfg(feature = "server")]
    pub fn services(&self) -> crate::http::Services {
        crate::http::Services {
            record: self.record.clone(),
            broker: self.broker.clone(),
            enqueue: self.enqueue.clone(),
            types: self.types.clone(),
            storage: self.storage.clone(),
            sealer: self.config.sealer(),
            allows_private_addresses: self.config.allows_private_addresses,
            failing: self.failing.clone(),
        }
    }

    /// Limits of the HTTP server, and whose tokens it takes.
    #[cfg(feature = "server")]
    pub fn http_options(&self) -> crate::http::HttpOptions {
        let config = &self.config;
        crate::http::HttpOptions {
            tokens: crate::http::TokenOptions {
                secret: config.jwt_secret.clone(),
                jwks_url: config.jwks_url.clone(),
                audience: config.jwt_audience.clone(),
                issuer: config.jwt_issuer.clone(),
            },
            jobs_per_hour: config.jobs_per_hour,
            cors_origins: config.cors_origins.clone(),
            redacted: config.redacted.clone(),
            ..crate::http::HttpOptions::default()
        }
    }

    /// Starts the duties of a process that stays.
    pub fn start_upkeep(&self, tasks: &Tasks) {
        let tasks = &tasks.with_failing(&self.failing);
        upkeep::start_rescue(&self.broker, self.config.max_stalled_count, tasks);
        self.start_upkeep_without_rescue(tasks);
    }

    /// The same for a process whose worker makes its own stalled check.
    pub fn start_upkeep_without_rescue(&self, tasks: &Tasks) {
        let tasks = &tasks.with_failing(&self.failing);
        upkeep::start(&self.record, &self.broker, tasks);
        upkeep::start_types(&self.record, &self.enqueue, &self.types, tasks);
    }

    /// Runs a worker until `stop`, see [`Worker::run`].
    pub async fn work(
        &self,
        options: WorkerOptions,
        stop: CancellationToken,
        hurry: CancellationToken,
    ) -> Result<(), AppError> {
        let worker = Worker {
            record: self.record.clone(),
            broker: self.broker.clone(),
            broker_options: self.broker_options.clone(),
            handlers: self.handlers.clone(),
            enqueue: self.enqueue.clone(),
            options,
        };
        Ok(worker.run(stop, hurry).await?)
    }

    /// Commits and delivers what was accepted, then closes the stores.
    pub async fn close(self) {
        if !self.enqueueing.stop(STOP_LIMIT).await {
            tracing::warn!("some jobs are not delivered yet; reconcile will");
        }
        self.record.close().await;
    }
}

/// A name that no other process has or will have: host, process, and a random part.
pub fn worker_id() -> String {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "host".to_owned());
    let host: String = host.chars().take(40).collect();
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{host}-{}-{}", std::process::id(), &random[..8])
}
