//! The record: PostgreSQL, the durable truth about every job.
//!
//! The only place of the crate that says `sqlx`. One function per statement, named after what it
//! does. Every write of an attempt names the job and the attempt number; zero rows is an answer
//! ("this attempt has no say any more"), not an error. It never talks to Redis.

pub mod access;
pub mod accounts;
pub mod actions;
pub mod adopt;
pub mod alerts;
mod answering;
pub mod api_keys;
pub mod change_seals;
pub mod cleanup;
pub mod connections;
pub mod contacts;
pub mod control;
pub mod creations;
pub mod crm;
pub mod custom_fields;
pub mod data_changes;
pub mod dead_letters;
pub mod download_links;
pub mod drain;
pub mod effects;
pub mod email_domains;
pub mod email_events;
pub mod email_log;
pub mod email_sends;
pub mod enqueue;
pub mod enriched;
pub mod enrichment_items;
mod error;
pub mod events;
pub mod exports;
pub mod family;
pub mod file_deliveries;
pub mod filter;
pub mod flow;
pub mod flow_tree;
mod foreign_job;
pub mod import_chunk;
pub mod import_templates;
pub mod import_undo;
pub mod imports;
pub mod jobs;
pub mod latencies;
pub mod list;
pub mod log_copies;
pub mod logs;
pub mod lookups;
pub mod mark;
pub mod merge;
pub mod mirror;
pub mod open;
pub mod outbox;
pub mod owed_logs;
pub mod owners;
pub mod passes;
pub mod pipeline;
mod probe;
pub mod queues;
pub mod quotas;
pub mod rebuild;
pub mod restart;
pub mod retention;
pub mod rollups;
pub mod roster;
pub mod schedules;
pub mod sealed_secrets;
pub mod sequences;
pub mod server;
pub mod sessions;
pub mod settle;
pub mod soak;
pub mod start;
pub mod stats;
pub mod steps;
pub mod stragglers;
pub mod suppressions;
pub mod timeline;
mod tx;
pub mod types;
pub mod verified_emails;
mod view;
pub mod webhook_attempts;
pub mod webhook_deliveries;
pub mod webhook_events;
pub mod webhook_upkeep;
pub mod webhooks;
pub mod workers;
pub mod workspaces;

use std::str::FromStr;
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use answering::Answering;

pub use error::{RecordError, Trouble};
pub use probe::Look;
pub use tx::Tx;
pub use view::{View, Viewer};

/// Connections that are left to others by who could do without one.
const SPARE_CONNECTIONS: usize = 3;
/// How long a caller waits for a free connection before it is told to try again.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that rested for longer is tried before it is used. Those of the group commits are
/// not: whoever commits tries again, which costs a round trip only when it is needed.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// Where the record is and how many connections it may have.
#[derive(Clone)]
pub struct RecordOptions {
    pub url: String,
    /// Connections of the group commits: one per lane of enqueue and of settle, and one spare.
    pub writers: u32,
    /// Connections of everything else: handlers, pages, upkeep.
    pub connections: u32,
}

impl std::fmt::Debug for RecordOptions {
    /// Not the url: it may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordOptions").finish_non_exhaustive()
    }
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
#[derive(Clone)]
pub struct Record {
    /// For the hot statements only, so that slow readers can not hold up a commit.
    writers: PgPool,
    pool: PgPool,
    connect: PgConnectOptions,
    answering: Answering,
    fullness: probe::Fullness,
    /// Set while the server of this change is looked at.
    looked_at: Option<u64>,
}

impl std::fmt::Debug for Record {
    /// Not how it connects: that has a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").finish_non_exhaustive()
    }
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
        let answering = Answering::default();
        let asked = answering.clone();
        let aged = answering.clone();
        let writers = pool_options(options.writers).before_acquire(move |_, about| {
            let is_outdated = aged.is_outdated(about.age);
            Box::pin(async move { Ok(!is_outdated) })
        });
        let writers = writers.after_connect(move |connection, _| {
            let asked = asked.clone();
            Box::pin(async move {
                asked.ask(connection).await?;
                let settings = "SET search_path = public; SET synchronous_commit = on;
                    SET enable_hashjoin = off; SET enable_mergejoin = off;
                    SET enable_seqscan = off; SET jit = off; SET lock_timeout = '20s';
                    SET idle_in_transaction_session_timeout = '30s'";
                sqlx::raw_sql(settings).execute(connection).await.map(drop)
            })
        });
        let asked = answering.clone();
        let aged = answering.clone();
        let general = pool_options(options.connections).before_acquire(move |connection, about| {
            let is_outdated = aged.is_outdated(about.age);
            // Whatever ended the server meanwhile also ended this connection: the first caller
            // afterwards should not be the one to notice.
            Box::pin(async move {
                if !is_outdated && about.idle_for > TRUSTED_FOR {
                    connection.ping().await?;
                }
                Ok(!is_outdated)
            })
        });
        let pool = general.after_connect(move |connection, _| {
            let asked = asked.clone();
            Box::pin(async move {
                asked.ask(connection).await?;
                let settings = "SET search_path = public; SET jit = off;
                    SET idle_in_transaction_session_timeout = '120s'";
                sqlx::raw_sql(settings).execute(connection).await.map(drop)
            })
        });
        Ok(Self {
            writers: writers.connect_lazy_with(connect.clone()),
            pool: pool.connect_lazy_with(connect.clone()),
            connect,
            answering,
            fullness: probe::Fullness::default(),
            looked_at: None,
        })
    }

    /// Whether somebody who could do without may take a connection: a few are left for others.
    pub fn has_spare_connections(&self) -> bool {
        let unmade = (self.pool.options().get_max_connections()).saturating_sub(self.pool.size());
        self.pool.num_idle() + unmade as usize > SPARE_CONNECTIONS
    }

    /// The number of the last change of servers, if there was one since [`Record::set_checked`]:
    /// another server answers, or this one came back, perhaps in an earlier state.
    pub fn unchecked(&self) -> Option<u64> {
        self.answering.unchecked()
    }

    /// The server that answers was looked at after this change.
    pub fn set_checked(&self, change: u64) {
        self.answering.set_checked(change);
    }

    /// Every server that answers is looked at here: until that was done, nothing that was seen in
    /// Redis is written to it. What it lacks would look like news of `BullMQ` clients.
    pub fn await_check(&self) {
        self.answering.await_check();
    }

    /// The number of the last change of servers, for a look at the one that answers.
    pub async fn server_change(&self) -> Result<u64, RecordError> {
        if self.answering.changes() == 0 {
            drop(self.pool.acquire().await?);
        }
        Ok(self.answering.changes())
    }

    /// A clone that writes to the server of this change, and to no other: for the look itself.
    pub fn for_look(&self, change: u64) -> Self {
        Self {
            looked_at: Some(change),
            ..self.clone()
        }
    }

    /// An error if what answers may lack its tail. To be asked with a connection in hand by whoever
    /// writes what was seen in Redis, and by whoever misses a row that should be there.
    pub(crate) fn check_server(&self) -> Result<(), RecordError> {
        self.answering.check(self.looked_at)
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
