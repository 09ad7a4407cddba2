//! One server with one address: shared connections that reconnect by themselves, and a pool.

use std::time::Duration;

use deadpool_redis::{Manager, Pool, Runtime};
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{Client, ConnectionInfo, ErrorKind, RedisError, RedisResult};

use super::connection::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT, connection_config};

/// Connections for calls that are not hot.
const POOL_MAX: usize = 4;
/// Attempts to reconnect within one call.
const RECONNECTS_MAX: usize = 2;

pub(super) struct Single {
    client: Client,
    managers: Vec<ConnectionManager>,
    pub(super) pool: Pool,
}

impl Single {
    /// Connects when it is first used.
    pub(super) fn open(info: ConnectionInfo, count: usize) -> RedisResult<Self> {
        let client = Client::open(info)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(RECONNECTS_MAX)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(200))
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let managers = (0..count)
            .map(|_| client.get_connection_manager_lazy(config.clone()))
            .collect::<RedisResult<Vec<_>>>()?;
        let manager = Manager::new_with_config(
            client.get_connection_info().clone(),
            connection_config(Some(RESPONSE_TIMEOUT)),
        )?;
        let pool = Pool::builder(manager)
            .max_size(POOL_MAX)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(RESPONSE_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|error| {
                RedisError::from((
                    ErrorKind::Client,
                    "the pool was not made",
                    error.to_string(),
                ))
            })?;
        Ok(Self {
            client,
            managers,
            pool,
        })
    }

    /// One of the shared connections, in turn.
    pub(super) fn manager(&self, turn: usize) -> ConnectionManager {
        self.managers[turn % self.managers.len()].clone()
    }

    /// A connection that waits for replies for ever.
    pub(super) async fn dedicated(&self) -> RedisResult<MultiplexedConnection> {
        self.client
            .get_multiplexed_async_connection_with_config(&connection_config(None))
            .await
    }
}
