//! How commands reach Redis: shared connections for the hot path, a small pool for the rest.
//!
//! A call that is safe to repeat is sent again when its reply was lost or Redis was starting; the
//! others only when Redis says that they did not begin. Retries are few and short: whoever calls
//! has its own patience.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_redis::{Manager, Pool, PoolError, Runtime};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisError, RedisResult, ServerErrorKind, ToRedisArgs,
};

use super::error::{BrokerError, Outcome, Refusal};
use super::script::{SCRIPTS, ScriptId};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Unanswered bytes end a half-open link after this time; the client library alone would not.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections for calls that are not hot.
const POOL_MAX: usize = 4;
/// Attempts to reconnect within one call.
const RECONNECTS_MAX: usize = 2;
/// Waits before a call is sent again: there are as many retries as waits.
const RETRY_WAITS: [Duration; 2] = [Duration::from_millis(60), Duration::from_millis(250)];

/// Whether a lost reply may be answered by sending the command again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Safe,
    OnlyIfNotRun,
}

#[derive(Clone)]
pub(super) struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    managers: Vec<ConnectionManager>,
    next: AtomicUsize,
    pool: Pool,
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

    /// The number, or empty for zero or none.
    pub(super) fn number_or_empty(&mut self, value: Option<i64>) -> &mut Self {
        match value {
            Some(number) => self.arg(number),
            None => self.arg(""),
        }
    }
}

impl Connections {
    /// Connects when it is first used.
    pub(super) fn open(url: &str, count: usize) -> Result<Self, BrokerError> {
        let client = open_client(url)?;
        let doing = "connect to redis";
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(RECONNECTS_MAX)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(200))
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let mut managers = Vec::with_capacity(count.max(1));
        for _ in 0..count.max(1) {
            let manager = client.get_connection_manager_lazy(config.clone());
            managers.push(manager.map_err(|error| BrokerError::from_redis(doing, &error))?);
        }
        let manager = Manager::new_with_config(
            client.get_connection_info().clone(),
            connection_config(Some(RESPONSE_TIMEOUT)),
        )
        .map_err(|error| BrokerError::from_redis(doing, &error))?;
        let pool = Pool::builder(manager)
            .max_size(POOL_MAX)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(RESPONSE_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|error| BrokerError::corrupt(doing, error.to_string()))?;
        let next = AtomicUsize::new(0);
        let shared = Shared {
            client,
            managers,
            next,
            pool,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// For connections of their own, as a waker needs one.
    pub(super) fn client(&self) -> &Client {
        &self.shared.client
    }

    fn manager(&self) -> ConnectionManager {
        let next = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.managers[next % self.shared.managers.len()].clone()
    }

    /// Runs a script. Redis forgets scripts when it restarts; then all are loaded again.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        call: &ScriptCall,
        repeat: Repeat,
    ) -> Result<T, BrokerError> {
        let doing = call.id.script().name;
        let mut waits = RETRY_WAITS.iter();
        let mut is_loaded = false;
        loop {
            let mut connection = self.manager();
            let error = match call.cmd.query_async::<T>(&mut connection).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            if is_missing_script(&error) && !is_loaded {
                tracing::debug!(script = doing, "redis does not know our scripts, load them");
                is_loaded = true;
                load_scripts(&mut connection)
                    .await
                    .map_err(|error| BrokerError::from_redis("load scripts", &error))?;
                continue;
            }
            let may_repeat = match Outcome::of(&error) {
                Outcome::NotRun => true,
                Outcome::MaybeRun => repeat == Repeat::Safe,
                Outcome::Bug => false,
            };
            let wait = waits.next().filter(|_| may_repeat);
            let Some(wait) = wait else {
                return Err(BrokerError::from_redis(doing, &error));
            };
            tracing::debug!(script = doing, %error, "redis call failed, try again");
            tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.5))).await;
        }
    }

    pub(super) async fn load_scripts(&self) -> Result<(), BrokerError> {
        load_scripts(&mut self.manager())
            .await
            .map_err(|error| BrokerError::from_redis("load scripts", &error))
    }

    /// Sends a plain command that is safe to repeat, over the pool.
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

    /// Sends plain commands that are safe to repeat, over the pool.
    pub(super) async fn pipeline<T: FromRedisValue>(
        &self,
        doing: &'static str,
        pipeline: &Pipeline,
    ) -> Result<T, BrokerError> {
        let mut waits = RETRY_WAITS.iter();
        loop {
            let result = match self.shared.pool.get().await {
                Ok(mut connection) => pipeline.query_async::<T>(&mut connection).await,
                Err(PoolError::Backend(error)) => Err(error),
                Err(error) => {
                    return Err(BrokerError::Unavailable {
                        doing,
                        reason: error.to_string(),
                    });
                }
            };
            let error = match result {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            match waits.next() {
                Some(wait) if Outcome::of(&error) != Outcome::Bug => {
                    tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.5))).await;
                }
                _ => return Err(BrokerError::from_redis(doing, &error)),
            }
        }
    }
}

/// Timeouts for a connection; without a response timeout for one that blocks.
pub(super) fn connection_config(response_timeout: Option<Duration>) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(response_timeout)
}

fn open_client(url: &str) -> Result<Client, BrokerError> {
    let refuse = |error: RedisError| BrokerError::Refused(Refusal::Url(error.to_string()));
    let info = url.into_connection_info().map_err(refuse)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(USER_TIMEOUT);
    let settings = info
        .redis_settings()
        .clone()
        .set_lib_name("bullwark", crate::broker::VERSION);
    Client::open(info.set_tcp_settings(tcp).set_redis_settings(settings)).map_err(refuse)
}

fn is_missing_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

async fn load_scripts(connection: &mut ConnectionManager) -> RedisResult<()> {
    let mut pipeline = redis::pipe();
    for script in SCRIPTS {
        pipeline
            .cmd("SCRIPT")
            .arg("LOAD")
            .arg(script.source)
            .ignore();
    }
    pipeline.query_async(connection).await
}
