//! Finding our server in a cluster or behind sentinels, again and again.
//!
//! All keys of a prefix are on one server at a time, so one address is all there is to find. Any
//! connection that learns that it is at the wrong place starts a new *generation*; connections of
//! older generations are not used for further commands. Nothing is sent twice in here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use rand::seq::SliceRandom;
use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult, Value};
use tokio::time::Instant;

use super::connection::{CONNECT_TIMEOUT, connection_config};
use super::target::{Group, Kind, at_address};
use super::{cluster, sentinel};

/// Who is asked where our server is, at once: the first good answer counts.
const ASKED_MAX: usize = 5;
/// The longest search.
const SEARCH_MAX: Duration = Duration::from_secs(5);

type Node = (String, u16);

/// Knows how to find the server.
#[derive(Debug)]
pub(super) struct Locator {
    group: Group,
    generation: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Where a node said that our slot is.
    moved_to: Option<Node>,
    /// Primaries of the cluster, as a node saw them last.
    nodes: Vec<Node>,
}

/// A connection to the server that was ours in its generation.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    pub(super) generation: u64,
}

impl Locator {
    pub(super) fn new(group: Group) -> Self {
        Self {
            group,
            generation: AtomicU64::new(1),
            known: Mutex::default(),
        }
    }

    /// Grows with every new search; never 0.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What an error on a connection of that generation means for all of them.
    pub(super) fn learn(&self, generation: u64, error: &RedisError) {
        let mut known = self.known();
        if self.generation() != generation {
            return;
        }
        known.moved_to = error
            .redirect_node()
            .and_then(|(address, _)| parse_address(address));
        self.generation.store(generation + 1, Ordering::Release);
        drop(known);
        tracing::debug!(%error, "look again for our redis server");
    }

    /// Searches, and connects. Without a response timeout for a connection that blocks.
    pub(super) async fn connect(&self, response_timeout: Option<Duration>) -> RedisResult<Link> {
        let generation = self.generation();
        let search = tokio::time::timeout(SEARCH_MAX, self.search(response_timeout));
        let connection = search.await.unwrap_or_else(|_| {
            let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
            Err(RedisError::from(error))
        })?;
        Ok(Link {
            connection,
            generation,
        })
    }

    async fn search(
        &self,
        response_timeout: Option<Duration>,
    ) -> RedisResult<MultiplexedConnection> {
        let hint = self.known().moved_to.clone();
        if let Some(node) = hint {
            match self.open(&node, response_timeout).await {
                Ok(connection) => return Ok(connection),
                Err(error) => tracing::debug!(%error, "not there"),
            }
            let mut known = self.known();
            known.moved_to.take_if(|still| *still == node);
        }
        let mut answers: FuturesUnordered<_> = self
            .to_ask()
            .into_iter()
            .map(|info| self.ask(info))
            .collect();
        let mut tried: Vec<Node> = Vec::new();
        let mut why: Option<RedisError> = None;
        while let Some(answer) = answers.next().await {
            let found = match answer {
                Ok(node) if tried.contains(&node) => continue,
                Ok(node) => {
                    tried.push(node);
                    self.open(&tried[tried.len() - 1], response_timeout).await
                }
                Err(error) => Err(error),
            };
            match found {
                Ok(connection) => return Ok(connection),
                // The word of a server tells more than a link that broke.
                Err(error) if why.as_ref().is_none_or(RedisError::is_io_error) => {
                    why = Some(error);
                }
                Err(_) => {}
            }
        }
        Err(why.unwrap_or_else(cluster::uncovered))
    }

    /// The seeds and the nodes known since, in any order.
    fn to_ask(&self) -> Vec<ConnectionInfo> {
        let mut infos = self.group.seeds.clone();
        for (host, port) in &self.known().nodes {
            infos.push(at_address(&self.group.server, host, *port));
        }
        infos.shuffle(&mut rand::rng());
        infos.truncate(ASKED_MAX);
        infos
    }

    /// Where one node or sentinel says that our server is.
    async fn ask(&self, info: ConnectionInfo) -> RedisResult<Node> {
        let host = match info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
            _ => String::new(),
        };
        let mut connection = open(info, Some(CONNECT_TIMEOUT)).await?;
        match &self.group.kind {
            Kind::Sentinel { primary } => sentinel::primary(&mut connection, primary).await,
            Kind::Cluster { slot } => {
                let ranges = cluster::ranges(&mut connection, &host).await?;
                let ours = ranges
                    .iter()
                    .find(|range| (range.first..=range.last).contains(slot))
                    .map(|range| (range.host.clone(), range.port));
                let mut nodes: Vec<Node> = ranges
                    .into_iter()
                    .map(|range| (range.host, range.port))
                    .collect();
                nodes.sort();
                nodes.dedup();
                if !nodes.is_empty() {
                    self.known().nodes = nodes;
                }
                ours.ok_or_else(cluster::uncovered)
            }
        }
    }

    /// Connects to a server that is said to be ours. One that has become a replica is refused:
    /// it would answer what needs no key, with an old state.
    async fn open(
        &self,
        (host, port): &Node,
        response_timeout: Option<Duration>,
    ) -> RedisResult<MultiplexedConnection> {
        let info = at_address(&self.group.server, host, *port);
        let mut connection = open(info, response_timeout).await?;
        let role = redis::cmd("ROLE");
        let role = role.query_async::<Vec<Value>>(&mut connection);
        let role = match tokio::time::timeout(CONNECT_TIMEOUT, role).await {
            Ok(role) => role,
            Err(_) => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        };
        match role.as_deref() {
            Ok([Value::BulkString(role), ..]) if role != b"master" => Err(RedisError::from((
                ErrorKind::Server(redis::ServerErrorKind::ReadOnly),
                "this server is no primary any more",
            ))),
            Err(error) if error.is_io_error() => Err(error.clone()),
            // Whoever may not ask has to believe it.
            _ => Ok(connection),
        }
    }

    /// Connections to the cluster's other primaries: our slot may move there. Those that don't
    /// answer are left out.
    pub(super) async fn others(&self) -> Vec<(String, MultiplexedConnection)> {
        let Kind::Cluster { .. } = self.group.kind else {
            return Vec::new();
        };
        let nodes = self.known().nodes.clone();
        let opened = stream::iter(nodes).map(async |node| {
            let opening = self.open(&node, Some(CONNECT_TIMEOUT));
            let opened = tokio::time::timeout(SEARCH_MAX, opening).await;
            let address = format!("{}:{}", node.0, node.1);
            match opened {
                Ok(Ok(connection)) => Some((address, connection)),
                _ => {
                    tracing::warn!(address, "a primary of the cluster does not answer");
                    None
                }
            }
        });
        let opened = opened.buffer_unordered(ASKED_MAX);
        opened.filter_map(std::future::ready).collect().await
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A shared connection that is made when it is first used, and again in every generation.
pub(super) struct Lane {
    link: Mutex<Option<Link>>,
    /// One caller connects, the others wait for it, and share its failure, too.
    connecting: tokio::sync::Mutex<Option<(Instant, RedisError)>>,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            link: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(None),
        }
    }

    fn current(&self, locator: &Locator) -> Option<Link> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.clone()
            .filter(|link| link.generation == locator.generation())
    }

    pub(super) async fn link(
        &self,
        locator: &Locator,
        response_timeout: Duration,
    ) -> RedisResult<Link> {
        if let Some(link) = self.current(locator) {
            return Ok(link);
        }
        let since = Instant::now();
        let mut failure = self.connecting.lock().await;
        if let Some(link) = self.current(locator) {
            return Ok(link);
        }
        if let Some((_, error)) = failure.as_ref().filter(|(at, _)| *at >= since) {
            return Err(error.clone());
        }
        match locator.connect(Some(response_timeout)).await {
            Ok(link) => {
                *failure = None;
                let mut current = self.link.lock().unwrap_or_else(PoisonError::into_inner);
                *current = Some(link.clone());
                Ok(link)
            }
            Err(error) => {
                *failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

async fn open(
    info: ConnectionInfo,
    response_timeout: Option<Duration>,
) -> RedisResult<MultiplexedConnection> {
    let config = connection_config(response_timeout);
    Client::open(info)?
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// `host:port`; a host may be an IPv6 address. None without a host: then whoever asks must know.
fn parse_address(address: &str) -> Option<Node> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    let port = port.split('@').next()?.parse().ok()?;
    (!matches!(host, "" | "?")).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_redirect_is_read() {
        let node = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(parse_address("127.0.0.1:7001"), node("127.0.0.1", 7001));
        assert_eq!(parse_address("::1:7001"), node("::1", 7001));
        assert_eq!(parse_address("name.local:7001"), node("name.local", 7001));
        assert_eq!(parse_address(":7001"), None);
    }
}
