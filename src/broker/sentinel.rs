//! Asking a sentinel which server is the primary now.

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult};

/// The address of the primary of this name, as one sentinel sees it.
pub(super) async fn primary(
    connection: &mut MultiplexedConnection,
    name: &str,
) -> RedisResult<(String, u16)> {
    let reply: RedisResult<Option<(String, u16)>> = redis::cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(name)
        .query_async(connection)
        .await;
    match reply {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(RedisError::from((
            ErrorKind::MasterNameNotFoundBySentinel,
            "the sentinel watches no primary of this name",
            name.to_owned(),
        ))),
        Err(error) if error.to_string().contains("unknown command") => Err(RedisError::from((
            ErrorKind::InvalidClientConfig,
            "this redis is no sentinel: name a server as `redis://host:port`",
        ))),
        Err(error) => Err(error),
    }
}
