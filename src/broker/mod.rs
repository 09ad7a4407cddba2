//! Redis: jobs in `BullMQ`'s key layout, one method per script in `lua/`.
//!
//! The only place of the crate that says `redis`. It promises that every method is one atomic
//! step per batch, that a step may be repeated, that time is the server's, and that what it
//! leaves behind is what any `BullMQ` client expects to find. It decides nothing: what a job's
//! outcome is, the record knows.
//!
//! Where the process may die: before a script, nothing happened; after it, everything did. Only
//! a claim whose reply was lost leaves jobs that nobody runs; their lock runs out and `rescue`
//! puts them back.

mod add;
mod attempt;
mod batch;
mod children;
mod claim;
mod clean;
mod cluster;
mod connection;
mod control;
mod deduplication;
mod discover;
mod epoch;
mod error;
pub mod event;
pub mod events;
mod flow;
mod flow_tree;
mod from_active;
mod inspect;
mod job_data;
mod keys;
mod lease;
mod limiter;
mod linked;
mod locate;
mod measure;
mod metrics;
mod obliterate;
mod orphans;
mod parents;
mod probe;
mod promote;
mod quota;
mod quota_end;
mod quota_turn;
mod range;
mod read_job;
mod read_jobs;
mod readmit;
mod remove;
mod remove_tree;
mod reprocess;
mod requeue;
mod retries;
mod scan;
mod schedule;
mod schedule_list;
mod schedule_repair;
mod schedule_restore;
mod script;
mod sentinel;
mod server_clock;
mod settings;
mod settle;
mod single;
mod target;
mod trouble;
mod turns;
mod waiting;
mod waker;
mod workers;

use std::fmt;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{InfoDict, RedisResult};

pub use add::{Added, NewJob};
pub use attempt::{Confirm, Confirmed};
pub use batch::BATCH_MAX;
pub use children::{ChildCounts, ChildPage, ChildState};
pub use claim::{ClaimOptions, Claimed, ClaimedJob, RateLimit};
pub use discover::QueueFinder;
pub use error::{BrokerError, Refusal};
pub use flow::{AddedNode, FLOW_BYTES_MAX, FLOW_NODES_MAX, FlowNode};
pub use flow_tree::{FLOW_CHILDREN_MAX, FlowPart, FlowTree, Standing};
pub use from_active::ChildrenAwaited;
pub use inspect::{BrokerState, Counts, IdPage, KeyPage, LIST_MAX, QUEUES_MAX};
pub use job_data::{LogPage, OWN_LOG_ROW};
pub use lease::{RESCUE_MAX, Stalls};
pub use linked::{AddedLinked, LinkedJob, ParentLink, StoredChildren};
pub use metrics::Metrics;
pub use obliterate::Obliterated;
pub use orphans::{JobKeys, Orphan};
pub use parents::{ChildEnding, EndedChild};
pub use quota::{QuotaCredit, QuotaSeed, TakeQuota, TakenQuota};
pub use quota_end::{EndCall, Ended, QuotaState, ToldState, WindowState};
pub use quota_turn::{QuotaTicket, QuotaTurn};
pub use range::Order;
pub use read_job::{JobEnd, JobHash};
pub use read_jobs::{WireContent, WireJob};
pub use readmit::{Readmit, rebuilt_token};
pub use remove::Cancelled;
pub use remove_tree::{Detached, Removed};
pub use reprocess::{FinishedState, Reprocess};
pub use requeue::Requeued;
pub use schedule::Upserted;
pub use schedule_repair::{REPAIR_MAX, Repaired};
pub use script::{SCRIPTS, Script};
pub use settings::QueueMeta;
pub use settle::{Fail, Finish, Keep, Release, Retry, Settled};
pub use trouble::Trouble;
pub use waiting::Moved;
pub use waker::{WAIT_MAX, Waker};
pub use workers::{QueueWorker, WORKERS_MAX};

use crate::job::QueueName;
use connection::{Connections, Repeat, load_scripts};
use keys::Keys;

/// `BullMQ`'s bound: priorities take 21 bits.
pub const PRIORITY_MAX: u32 = (1 << 21) - 1;

/// Start of the token of a lease that a Bullwark worker holds.
pub const OWN_TOKEN: &str = "bullwark:";

const VERSION: &str = env!("CARGO_PKG_VERSION");
const CHECK: &str = "check redis";
/// `RPOP` with a count, `ZMSCORE` and more.
const OLDEST_SERVER: (u32, u32) = (6, 2);

/// How to reach Redis, and what to accept there.
#[derive(Clone)]
pub struct BrokerOptions {
    /// One server, `redis://[user:password@]host:port[/database]`; any nodes of a cluster,
    /// `redis-cluster://[user:password@]host:port,host:port` (or `redis://` with two or more);
    /// or sentinels and the name by which they know the primary,
    /// `redis-sentinel://[user:password@]host:port,host:port/[database/]name`. `rediss` in place
    /// of `redis` for TLS.
    ///
    /// The user is that of the servers; a sentinel's own goes to the end of the url, as
    /// `?sentinel_username=…&sentinel_password=…`.
    pub url: String,
    /// Start of all keys; `BullMQ`'s default is `bull`. In a cluster it must have a hash tag, as
    /// `{bull}` has.
    pub prefix: String,
    /// Shared connections, used in turn.
    pub connections: usize,
    /// Start even if Redis may evict keys.
    pub allow_eviction: bool,
    /// Name of this worker as dashboards show it.
    pub client_name: Option<String>,
    /// Minutes of metrics to keep per queue, as `BullMQ`'s `maxDataPoints`; none: no metrics.
    pub metrics_points_max: Option<u32>,
    /// Clients of `BullMQ` 5 share the queues: while a queue is paused, its jobs without priority
    /// are in `paused`, where those look for them. Marks each queue that this broker touches, so
    /// that all others follow; whoever stops using version 5 takes the mark off each queue with
    /// [`Broker::forget_v5_peers`].
    pub bullmq_v5_peers: bool,
}

impl fmt::Debug for BrokerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the url: it may hold a password.
        f.debug_struct("BrokerOptions")
            .field("prefix", &self.prefix)
            .field("connections", &self.connections)
            .field("allow_eviction", &self.allow_eviction)
            .finish_non_exhaustive()
    }
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            prefix: "bull".to_owned(),
            connections: 2,
            allow_eviction: false,
            client_name: None,
            metrics_points_max: None,
            bullmq_v5_peers: false,
        }
    }
}

/// Access to the queues of one prefix. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    connections: Connections,
    options: Arc<BrokerOptions>,
    served: epoch::Served,
    server_clock: server_clock::ServerClock,
    test_now_ms: Option<i64>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// Connects, checks the server and loads the scripts.
    ///
    /// Refuses a Redis that is too old or that may evict jobs.
    pub async fn connect(options: BrokerOptions) -> Result<Self, BrokerError> {
        let broker = Self::lazy(options)?;
        broker.check().await?;
        Ok(broker)
    }

    /// Connects when it is first used, so that a process can accept jobs while Redis is away.
    ///
    /// Whoever uses this calls [`Broker::check`] as soon as Redis answers. Refuses a url that names
    /// nothing, and for a cluster a prefix without a hash tag.
    pub fn lazy(options: BrokerOptions) -> Result<Self, BrokerError> {
        let connections = Connections::open(&options.url, &options.prefix, options.connections)?;
        Ok(Self {
            connections,
            options: Arc::new(options),
            served: epoch::Served::default(),
            server_clock: server_clock::ServerClock::default(),
            test_now_ms: None,
        })
    }

    /// Whether this Redis may be used; loads the scripts there. In a cluster that goes for every
    /// primary that answers, because our keys may move there.
    pub async fn check(&self) -> Result<(), BrokerError> {
        let server = self.info(CHECK, "server").await?;
        let memory = self.info(CHECK, "memory").await?;
        self.judge(&server, &memory)?;
        self.connections.load_scripts().await?;
        for (address, mut connection) in self.connections.others().await {
            let refused = self.check_other(&mut connection).await?;
            if let Err(error) = refused {
                tracing::warn!(%error, address, "not checked");
            }
        }
        Ok(())
    }

    /// A clone whose scripts take this time for the server's.
    #[doc(hidden)]
    pub fn with_test_clock(&self, now_ms: i64) -> Self {
        Self {
            test_now_ms: Some(now_ms),
            ..self.clone()
        }
    }

    /// Start of all keys.
    pub fn prefix(&self) -> &str {
        &self.options.prefix
    }

    pub async fn ping(&self) -> Result<(), BrokerError> {
        self.connections.command("ping", &redis::cmd("PING")).await
    }

    /// The clock that leases and due times are judged by.
    pub async fn server_time_ms(&self) -> Result<i64, BrokerError> {
        let (seconds, micros): (i64, i64) = self
            .connections
            .command("server_time_ms", &redis::cmd("TIME"))
            .await?;
        Ok(seconds * 1000 + micros / 1000)
    }

    /// Changes whenever the server process is another one: after a restart, and after a failover.
    pub async fn server_id(&self) -> Result<String, BrokerError> {
        let info = self.info("server_id", "server").await?;
        info.get("run_id")
            .ok_or_else(|| BrokerError::corrupt("server_id", "no run_id in INFO"))
    }

    /// A wait of its own for new jobs. Opens a connection when it first waits.
    pub fn waker(&self) -> Waker {
        Waker::new(self.connections.clone(), Arc::clone(&self.options))
    }

    fn keys(&self, queue: &QueueName) -> Keys {
        Keys::new(&self.options.prefix, queue)
    }

    async fn info(&self, doing: &'static str, section: &str) -> Result<InfoDict, BrokerError> {
        self.connections
            .command(doing, redis::cmd("INFO").arg(section))
            .await
    }

    /// As [`Broker::check`], for another primary; the inner error: it could not be asked.
    async fn check_other(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<RedisResult<()>, BrokerError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("INFO").arg("server");
        pipeline.cmd("INFO").arg("memory");
        let info = pipeline
            .query_async::<(InfoDict, InfoDict)>(connection)
            .await;
        match info {
            Ok((server, memory)) => self.judge(&server, &memory)?,
            Err(error) => return Ok(Err(error)),
        }
        Ok(load_scripts(connection).await)
    }

    fn judge(&self, server: &InfoDict, memory: &InfoDict) -> Result<(), BrokerError> {
        let version: String = server.get("redis_version").unwrap_or_default();
        if parse_version(&version).is_none_or(|found| found < OLDEST_SERVER) {
            return Err(BrokerError::Refused(Refusal::ServerTooOld(version)));
        }
        let mode: String = server.get("redis_mode").unwrap_or_default();
        if let Some(reason) = self.connections.unfit(&mode) {
            return Err(BrokerError::Refused(Refusal::Url(reason)));
        }
        // INFO, because managed services forbid CONFIG.
        let policy: String = memory.get("maxmemory_policy").unwrap_or_default();
        if policy != "noeviction" {
            if !self.options.allow_eviction {
                return Err(BrokerError::Refused(Refusal::EvictionPolicy(policy)));
            }
            tracing::warn!(
                policy,
                "redis may evict jobs; they are rebuilt from the record"
            );
        }
        Ok(())
    }
}

fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(parse_version("10.0.1").is_some_and(|v| v >= OLDEST_SERVER));
        assert!(parse_version("6.0.16").is_some_and(|v| v < OLDEST_SERVER));
        assert_eq!(parse_version("unknown"), None);
    }

    #[test]
    fn a_password_is_not_printed() {
        let url = "redis://:secret@127.0.0.1:1".to_owned();
        let options = BrokerOptions {
            url,
            ..BrokerOptions::default()
        };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
