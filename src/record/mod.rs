//! The record: PostgreSQL, the durable truth about every job.
//!
//! The only place of the crate that says `sqlx`. One function per statement, named after what it
//! does. Every write of an attempt names the job and the attempt number; zero rows is an answer
//! ("this attempt has no say any more"), not an error. It never talks to Redis.

pub mod accounts;
pub mod adopt;
pub mod api_keys;
pub mod contacts;
pub mod enqueue;
mod error;
pub mod flow;
mod foreign_job;
pub mod import_chunk;
pub mod imports;
pub mod jobs;
pub mod logs;
pub mod merge;
pub mod mirror;
pub mod open;
pub mod outbox;
pub mod rebuild;
pub mod restart;
pub mod server;
pub mod settle;
pub mod soak;
pub mod start;
pub mod stats;
mod tx;
pub mod types;
pub mod workspaces;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, PgConnection};

pub use error::RecordError;
pub use tx::Tx;

/// How long a caller waits for a free connection before it is told to try again.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one connection may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the record is and how many connections it may have.
#[derive(Debug, Clone)]
pub struct RecordOptions {
    pub url: String,
    /// Connections of the group commits: one per lane of enqueue and of settle, and one spare.
    pub writers: u32,
    /// Connections of everything else: handlers, pages, upkeep.
    pub connections: u32,
}

impl RecordOptions {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            writers: 5,
            connections: 12,
        }
    }
}

/// The record. A cheap handle; clones share the connections.
#[derive(Debug, Clone)]
pub struct Record {
    /// For the hot statements only, so that slow readers can not hold up a commit.
    writers: PgPool,
    pool: PgPool,
    connect: PgConnectOptions,
}

impl Record {
    /// Makes the pools. Connects on first use, so that a process may start while the record is
    /// away; only an unreadable address is an error here.
    pub fn connect(options: &RecordOptions) -> Result<Self, RecordError> {
        let connect = PgConnectOptions::from_str(&options.url)
            .map_err(|error| RecordError::Address(error.to_string()))?
            .application_name("bullwark");
        let pool_options = |max| {
            PgPoolOptions::new()
                .max_connections(max)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .test_before_acquire(false)
                .idle_timeout(Duration::from_secs(60))
        };
        // The default search path begins with a schema of the role's name. For a role named
        // `bullwark` that would be our own, where tables of the specification do not belong.
        //
        // The hot statements join a batch of ids with the primary key. On stale statistics the
        // planner may prefer to hash the whole table; taking the alternatives away leaves one plan.
        // A statement that waits for a lock for long, or a transaction whose owner vanished in the
        // middle, must not hold up the batch behind it for ever.
        let writers = pool_options(options.writers).after_connect(|connection, _| {
            Box::pin(async move {
                let settings = "SET search_path = public; SET synchronous_commit = on;
                    SET enable_hashjoin = off; SET enable_mergejoin = off;
                    SET enable_seqscan = off; SET jit = off; SET lock_timeout = '20s';
                    SET idle_in_transaction_session_timeout = '30s'";
                sqlx::raw_sql(settings).execute(connection).await.map(drop)
            })
        });
        let pool = pool_options(options.connections).after_connect(|connection, _| {
            Box::pin(async move {
                let settings = "SET search_path = public; SET jit = off;
                    SET idle_in_transaction_session_timeout = '120s'";
                sqlx::raw_sql(settings).execute(connection).await.map(drop)
            })
        });
        Ok(Self {
            writers: writers.connect_lazy_with(connect.clone()),
            pool: pool.connect_lazy_with(connect.clone()),
            connect,
        })
    }

    /// Brings the schema up to this version. Safe to repeat and to run from several processes at
    /// once: an advisory lock lets one do the work.
    pub async fn migrate(&self) -> Result<(), RecordError> {
        sqlx::migrate!("./migrations")
            .run(&self.pool)
            .await
            .map_err(RecordError::from_migration)
    }

    /// True when the schema is at least as new as this program expects.
    pub async fn is_migrated(&self) -> Result<bool, RecordError> {
        let newest = sqlx::migrate!("./migrations")
            .iter()
            .map(|m| m.version)
            .max()
            .unwrap_or(0);
        let table: Option<String> =
            sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations')::text")
                .fetch_one(&self.pool)
                .await?;
        if table.is_none() {
            return Ok(false);
        }
        let applied: Option<i64> =
            sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
                .fetch_one(&self.pool)
                .await?;
        Ok(applied.unwrap_or(0) >= newest)
    }

    /// Connects once, beside the pools, which only say that a connection took too long: this says
    /// why there is none.
    pub async fn probe(&self) -> Result<(), RecordError> {
        let connecting = PgConnection::connect_with(&self.connect);
        let connected = tokio::time::timeout(PROBE_TIMEOUT, connecting).await;
        let place = format!("{}:{}", self.connect.get_host(), self.connect.get_port());
        match connected {
            Ok(Ok(connection)) => Ok(connection.close().await?),
            Ok(Err(error)) => Err(match RecordError::from(error) {
                RecordError::Unavailable(why) => {
                    RecordError::Unavailable(format!("{place}: {why}"))
                }
                other => other,
            }),
            Err(_) => Err(RecordError::Unavailable(format!(
                "{place}: no connection within {PROBE_TIMEOUT:?}"
            ))),
        }
    }

    /// One round trip; an error means that the record is away.
    pub async fn ping(&self) -> Result<(), RecordError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Begins a transaction that rolls back unless it is committed.
    pub async fn begin(&self) -> Result<Tx, RecordError> {
        Tx::begin(self.pool.clone()).await
    }

    /// Closes the connections after what runs on them has ended.
    pub async fn close(&self) {
        self.writers.close().await;
        self.pool.close().await;
    }
}
