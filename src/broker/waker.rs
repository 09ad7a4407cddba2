//! Waiting for jobs on a connection of its own.
//!
//! It blocks on the `marker` keys only, never on a list of jobs: a reply that gets lost costs a
//! wake-up, not a job. So the caller must claim after a wait that timed out, too. In a cluster the
//! connection goes to the node of our slot: the markers of all queues are there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;

use super::connection::Connections;
use super::locate::Link;
use super::{BrokerError, BrokerOptions, Keys};
use crate::job::QueueName;

/// One wait at most. Longer would leave a job unseen whose marker was lost.
pub const WAIT_MAX: Duration = Duration::from_secs(10);
/// Redis takes a shorter wait for none at all, that is for ever.
const WAIT_MIN: Duration = Duration::from_millis(2);
/// How much later than the wait the reply may come.
const REPLY_MARGIN: Duration = Duration::from_secs(2);
const DOING: &str = "wait for a job";

/// Waits for jobs of several queues at once.
pub struct Waker {
    connections: Connections,
    options: Arc<BrokerOptions>,
    /// None while a wait is under way: if that wait is dropped, its connection is, too. A
    /// command that goes on in the server would take a marker that nobody reads.
    link: Option<Link>,
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").finish_non_exhaustive()
    }
}

impl Waker {
    pub(super) fn new(connections: Connections, options: Arc<BrokerOptions>) -> Self {
        Self {
            connections,
            options,
            link: None,
        }
    }

    /// Opens the connection, so that dashboards see the worker before it first waits.
    pub async fn open(&mut self, queues: &[QueueName]) -> Result<(), BrokerError> {
        if let (None, Some(first)) = (&self.link, queues.first()) {
            self.link = Some(self.connect(first).await?);
        }
        Ok(())
    }

    /// Waits until a queue may have a job, at most `timeout` and at most [`WAIT_MAX`].
    ///
    /// The queue that woke us may turn out to have nothing yet: a marker also announces the next
    /// delayed job, and the claim tells when that is due. Reconnects at the next call after an
    /// error; it may be dropped at any time.
    pub async fn wait(
        &mut self,
        queues: &[QueueName],
        timeout: Duration,
    ) -> Result<Option<QueueName>, BrokerError> {
        let Some(first) = queues.first() else {
            tokio::time::sleep(timeout.min(WAIT_MAX)).await;
            return Ok(None);
        };
        let timeout = timeout.clamp(WAIT_MIN, WAIT_MAX);
        let generation = self.connections.generation();
        let mut link = match self
            .link
            .take()
            .filter(|link| link.generation == generation)
        {
            Some(link) => link,
            None => self.connect(first).await?,
        };
        let markers: Vec<String> = queues
            .iter()
            .map(|queue| Keys::new(&self.options.prefix, queue).marker())
            .collect();
        let mut cmd = redis::cmd("BZPOPMIN");
        cmd.arg(&markers).arg(timeout.as_secs_f64());
        let reply = cmd.query_async::<Option<(String, String, String)>>(&mut link.connection);
        let popped = match tokio::time::timeout(timeout + REPLY_MARGIN, reply).await {
            Ok(popped) => popped.map_err(|error| {
                self.connections.learn(link.generation, &error);
                BrokerError::from_redis(DOING, &error)
            })?,
            Err(_) => {
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                self.connections.learn(link.generation, &late.into());
                return Err(BrokerError::away(DOING, "no reply in time"));
            }
        };
        self.link = Some(link);
        Ok(popped.and_then(|(key, _, _)| {
            let at = markers.iter().position(|marker| *marker == key)?;
            Some(queues[at].clone())
        }))
    }

    async fn connect(&self, queue: &QueueName) -> Result<Link, BrokerError> {
        self.open_named(queue)
            .await
            .map_err(|error| BrokerError::from_redis("open the waker's connection", &error))
    }

    /// `BullMQ`'s dashboards find workers by the name of this connection.
    async fn open_named(&self, queue: &QueueName) -> RedisResult<Link> {
        let mut link = self.connections.dedicated().await?;
        let mut name = format!(
            "{}:{}",
            self.options.prefix,
            base64(queue.as_str().as_bytes())
        );
        if let Some(worker) = &self.options.client_name {
            name.push_str(":w:");
            name.push_str(worker);
        }
        name_connection(&mut link.connection, &name).await?;
        Ok(link)
    }
}

/// A name is worth a try, not an outage: Redis refuses blanks in it.
pub(super) async fn name_connection(
    connection: &mut MultiplexedConnection,
    name: &str,
) -> RedisResult<()> {
    let name: String = name.chars().filter(|c| c.is_ascii_graphic()).collect();
    let named: RedisResult<()> = redis::cmd("CLIENT")
        .arg("SETNAME")
        .arg(name)
        .query_async(connection)
        .await;
    if let Err(error) = named {
        if error.is_io_error() {
            return Err(error);
        }
        tracing::debug!(%error, "redis does not take the connection's name");
    }
    Ok(())
}

/// Standard alphabet with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            if place <= chunk.len() {
                let digit = bits >> (18 - 6 * place) & 63;
                text.push(char::from(ALPHABET[digit as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn names_of_connections_are_encoded_as_node_does() {
        for (text, encoded) in [
            ("", ""),
            ("a", "YQ=="),
            ("ab", "YWI="),
            ("abc", "YWJj"),
            ("high_priority", "aGlnaF9wcmlvcml0eQ=="),
            ("größe?>", "Z3LDtsOfZT8+"),
        ] {
            assert_eq!(base64(text.as_bytes()), encoded, "{text}");
        }
    }
}
