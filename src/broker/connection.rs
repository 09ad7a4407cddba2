//! How commands reach Redis: shared connections for the hot path, a small pool for the rest.
//!
//! A call that is safe to repeat is sent again when its reply was lost or Redis was starting; the
//! others only when Redis says that they did not begin. Retries are few and short: whoever calls
//! has its own patience.
//!
//! In a cluster and behind sentinels, all calls share connections to the one server that is ours
//! now. An error that says that it is ours no longer makes the next attempt search for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_redis::PoolError;
use redis::aio::{ConnectionLike, ConnectionManager, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult,
    ServerErrorKind, ToRedisArgs,
};

use super::error::{BrokerError, Outcome, is_elsewhere};
use super::locate::{Lane, Link, Locator};
use super::retries::Retries;
use super::script::{SCRIPTS, ScriptId};
use super::single::Single;
use super::target::{Target, wrong_kind};

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a lost reply may be answered by sending the command again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Safe,
    OnlyIfNotRun,
}

const LOADING: &str = "load scripts";

#[derive(Clone)]
pub(super) struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    way: Way,
    next: AtomicUsize,
}

/// How servers are reached.
enum Way {
    /// The server has one address for ever.
    Single(Single),
    /// The address changes.
    Located { locator: Locator, lanes: Vec<Lane> },
}

/// A connection for one attempt.
enum Connection {
    Managed(ConnectionManager),
    Located(Link),
}

/// A script call that is being put together: keys first, then arguments.
pub(super) struct ScriptCall {
    id: ScriptId,
    cmd: Cmd,
}

impl ScriptCall {
    pub(super) fn new<const N: usize>(id: ScriptId, keys: [&str; N]) -> Self {
        debug_assert_eq!(N, id.script().keys, "keys of {}", id.script().name);
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(id.hash()).arg(N);
        for key in keys {
            cmd.arg(key);
        }
        Self { id, cmd }
    }

    pub(super) fn arg(&mut self, value: impl ToRedisArgs) -> &mut Self {
        self.cmd.arg(value);
        self
    }

    /// `1` or empty.
    pub(super) fn flag(&mut self, value: bool) -> &mut Self {
        self.arg(if value { "1" } else { "" })
    }

    /// The number, or empty for none.
    pub(super) fn number_or_empty(&mut self, value: Option<i64>) -> &mut Self {
        match value {
            Some(number) => self.arg(number),
            None => self.arg(""),
        }
    }
}

impl Connections {
    /// Connects when it is first used. `prefix` is that of all keys.
    pub(super) fn open(url: &str, prefix: &str, count: usize) -> Result<Self, BrokerError> {
        let target = Target::read(url, prefix).map_err(BrokerError::Refused)?;
        let count = count.max(1);
        let way = match target {
            Target::Single(info) => Way::Single(
                Single::open(*info, count)
                    .map_err(|error| BrokerError::from_redis("connect to redis", &error))?,
            ),
            Target::Group(group) => Way::Located {
                locator: Locator::new(*group),
                lanes: (0..count).map(|_| Lane::new()).collect(),
            },
        };
        let next = AtomicUsize::new(0);
        Ok(Self {
            shared: Arc::new(Shared { way, next }),
        })
    }

    /// A connection that nobody else uses and that waits for replies for ever, as a waker needs.
    pub(super) async fn dedicated(&self) -> RedisResult<Link> {
        match &self.shared.way {
            Way::Single(single) => Ok(Link {
                connection: single.dedicated().await?,
                generation: 0,
            }),
            Way::Located { locator, .. } => locator.connect(None).await,
        }
    }

    /// Grows when our server may be another one; 0 for ever where there is only one.
    pub(super) fn generation(&self) -> u64 {
        match &self.shared.way {
            Way::Single(_) => 0,
            Way::Located { locator, .. } => locator.generation(),
        }
    }

    /// Notes an error of a connection of that generation.
    pub(super) fn learn(&self, generation: u64, error: &RedisError) {
        if let Way::Located { locator, .. } = &self.shared.way
            && is_elsewhere(error)
        {
            locator.learn(generation, error);
        }
    }

    /// Why a server of this mode is not to be reached as the url says.
    pub(super) fn unfit(&self, mode: &str) -> Option<String> {
        match (&self.shared.way, mode) {
            (Way::Single(_), "cluster" | "sentinel") => Some(wrong_kind(mode)),
            _ => None,
        }
    }

    /// Connections to primaries that our keys may move to.
    pub(super) async fn others(&self) -> Vec<(String, MultiplexedConnection)> {
        match &self.shared.way {
            Way::Single(_) => Vec::new(),
            Way::Located { locator, .. } => locator.others().await,
        }
    }

    async fn connection(&self) -> RedisResult<Connection> {
        let next = self.shared.next.fetch_add(1, Ordering::Relaxed);
        match &self.shared.way {
            Way::Single(single) => Ok(Connection::Managed(single.manager(next))),
            Way::Located { locator, lanes } => {
                let lane = &lanes[next % lanes.len()];
                let link = lane.link(locator, RESPONSE_TIMEOUT).await?;
                Ok(Connection::Located(link))
            }
        }
    }

    async fn query<T: FromRedisValue>(
        &self,
        connection: &mut Connection,
        cmd: &Cmd,
    ) -> RedisResult<T> {
        match connection {
            Connection::Managed(manager) => cmd.query_async(manager).await,
            Connection::Located(link) => {
                let result = cmd.query_async(&mut link.connection).await;
                result.inspect_err(|error| self.learn(link.generation, error))
            }
        }
    }

    /// Runs a script. Redis forgets scripts when it restarts; then all are loaded again.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        call: &ScriptCall,
        repeat: Repeat,
    ) -> Result<T, BrokerError> {
        let doing = call.id.script().name;
        let mut retries = Retries::new(doing);
        let mut loads = 0;
        loop {
            let mut connection = match self.connection().await {
                Ok(connection) => connection,
                Err(error) => {
                    let may_repeat = Outcome::of(&error) != Outcome::Bug;
                    retries.again(&error, may_repeat).await?;
                    continue;
                }
            };
            let error = match self.query::<T>(&mut connection, &call.cmd).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            // Loaded, they may be forgotten again before the call comes.
            if is_missing_script(&error) && loads < LOADS_MAX {
                tracing::debug!(script = doing, "redis does not know our scripts, load them");
                loads += 1;
                self.load_on(&mut connection).await?;
                continue;
            }
            let may_repeat = match Outcome::of(&error) {
                Outcome::NotRun => true,
                Outcome::MaybeRun => repeat == Repeat::Safe,
                Outcome::Bug => false,
            };
            retries.again(&error, may_repeat).await?;
        }
    }

    pub(super) async fn load_scripts(&self) -> Result<(), BrokerError> {
        match self.connection().await {
            Ok(mut connection) => self.load_on(&mut connection).await,
            Err(error) => Err(BrokerError::from_redis(LOADING, &error)),
        }
    }

    async fn load_on(&self, connection: &mut Connection) -> Result<(), BrokerError> {
        let loaded = match connection {
            Connection::Managed(manager) => load_scripts(manager).await,
            Connection::Located(link) => load_scripts(&mut link.connection)
                .await
                .inspect_err(|error| self.learn(link.generation, error)),
        };
        loaded.map_err(|error| BrokerError::from_redis(LOADING, &error))
    }

    /// Sends a plain command that is safe to repeat. Not hot: it goes over the pool.
    pub(super) async fn command<T: FromRedisValue>(
        &self,
        doing: &'static str,
        cmd: &Cmd,
    ) -> Result<T, BrokerError> {
        let mut pipeline = redis::pipe();
        pipeline.add_command(cmd.clone());
        let (reply,) = self.pipeline(doing, &pipeline).await?;
        Ok(reply)
    }

    /// Sends plain commands on one key that are safe to repeat. Not hot: they go over the pool.
    pub(super) async fn pipeline<T: FromRedisValue>(
        &self,
        doing: &'static str,
        pipeline: &Pipeline,
    ) -> Result<T, BrokerError> {
        let mut retries = Retries::new(doing);
        loop {
            let result = match &self.shared.way {
                Way::Single(single) => match single.pool.get().await {
                    Ok(mut connection) => pipeline
                        .query_async::<T>(&mut connection)
                        .await
                        .map_err(first_of),
                    Err(PoolError::Backend(error)) => Err(error),
                    Err(error) => {
                        return Err(BrokerError::away(doing, error.to_string()));
                    }
                },
                Way::Located { .. } => self.located_pipeline(pipeline).await,
            };
            match result {
                Ok(reply) => return Ok(reply),
                Err(error) => {
                    let may_repeat = Outcome::of(&error) != Outcome::Bug;
                    retries.again(&error, may_repeat).await?;
                }
            }
        }
    }

    async fn located_pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> RedisResult<T> {
        match self.connection().await? {
            Connection::Managed(mut manager) => {
                pipeline.query_async(&mut manager).await.map_err(first_of)
            }
            Connection::Located(mut link) => {
                let result = pipeline.query_async(&mut link.connection).await;
                let result = result.map_err(first_of);
                result.inspect_err(|error| self.learn(link.generation, error))
            }
        }
    }
}

/// How often one call has the scripts loaded.
const LOADS_MAX: u32 = 3;

/// Timeouts for a connection; without a response timeout for one that blocks.
pub(super) fn connection_config(response_timeout: Option<Duration>) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(response_timeout)
}

/// The error of a pipeline hides what each command met: a server that can't answer now would look
/// like a bug of ours.
fn first_of(error: RedisError) -> RedisError {
    let first = error.clone().into_server_errors();
    let first = first.and_then(|errors| errors.first().cloned());
    first.map_or(error, |(_, error)| error.into())
}

fn is_missing_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

pub(super) async fn load_scripts(connection: &mut impl ConnectionLike) -> RedisResult<()> {
    let mut pipeline = redis::pipe();
    for script in SCRIPTS {
        pipeline
            .cmd("SCRIPT")
            .arg("LOAD")
            .arg(script.source)
            .ignore();
    }
    pipeline.query_async(connection).await.map_err(first_of)
}
