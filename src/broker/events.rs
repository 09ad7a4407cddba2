//! The events of queues, read on a connection of its own, as `BullMQ`'s `QueueEvents` does.
//!
//! One reader follows many queues. It keeps its place in each stream; who must survive a crash
//! keeps the place elsewhere and begins there again. A read is bounded in entries and in time, and
//! may be dropped at any moment: the place moves only with what was handed out. Streams are
//! trimmed: a reader that is too slow misses entries, and is told so.
//!
//! It never ends because of what somebody wrote into a stream: see `Event::Invalid`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::connection::Connections;
use super::event::{Entry, EventId};
use super::locate::Link;
use super::waker::{base64, name_connection};
use super::{Broker, BrokerError, BrokerOptions, Keys};
use crate::job::QueueName;

/// Queues that one command names. With more, a read goes through them in turn, without waiting.
const QUEUES_PER_READ: usize = 250;
/// The longest that one read waits.
pub const READ_WAIT_MAX: Duration = Duration::from_secs(10);
/// How much later than the wait the reply may come.
const REPLY_MARGIN: Duration = Duration::from_secs(2);
const DOING: &str = "read events";

/// Where a reader begins in a queue's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// After what is there now.
    Now,
    /// After this entry; [`EventId::ZERO`] is before the oldest one.
    After(EventId),
}

/// Entries of one queue, in their order.
#[derive(Debug)]
pub struct Batch {
    pub queue: QueueName,
    pub entries: Vec<Entry>,
    /// The place before these entries.
    pub after: EventId,
    /// As many as were asked for: there are probably more.
    pub is_full: bool,
}

/// Follows the events of several queues.
pub struct EventReader {
    connections: Connections,
    options: Arc<BrokerOptions>,
    /// None while a read is under way: if that is dropped, its connection is, too.
    link: Option<Link>,
    places: BTreeMap<QueueName, From>,
}

impl fmt::Debug for EventReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReader")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// A reader that follows no queue yet. Opens a connection when it first reads.
    pub fn event_reader(&self) -> EventReader {
        EventReader {
            connections: self.connections.clone(),
            options: Arc::clone(&self.options),
            link: None,
            places: BTreeMap::new(),
        }
    }

    /// The newest entry of a queue's stream; none: the stream is empty.
    pub async fn newest_event(&self, queue: &QueueName) -> Result<Option<EventId>, BrokerError> {
        let newest = self.newest_events(queue, 1).await?;
        Ok(newest.last().map(|entry| entry.id))
    }

    /// The newest entries of a queue's stream, oldest of them first.
    pub async fn newest_events(
        &self,
        queue: &QueueName,
        max: usize,
    ) -> Result<Vec<Entry>, BrokerError> {
        let mut cmd = redis::cmd("XREVRANGE");
        cmd.arg(self.keys(queue).events()).arg("+").arg("-");
        cmd.arg("COUNT").arg(max.max(1));
        let reply: Value = self.connections.command(DOING, &cmd).await?;
        let mut entries = entries_of(reply)?;
        entries.reverse();
        Ok(entries)
    }

    /// The oldest entry that a queue's stream still has; none: the stream is empty.
    pub async fn oldest_event(&self, queue: &QueueName) -> Result<Option<EventId>, BrokerError> {
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(self.keys(queue).events()).arg("-").arg("+");
        cmd.arg("COUNT").arg(1);
        let reply: Value = self.connections.command(DOING, &cmd).await?;
        let mut entries = entries_of(reply)?;
        Ok(entries.pop().map(|entry| entry.id))
    }
}

impl EventReader {
    /// Follows a queue from there on; one that is followed already goes on from the new place.
    pub fn follow(&mut self, queue: QueueName, from: From) {
        self.places.insert(queue, from);
    }

    /// Stops following a queue.
    pub fn forget(&mut self, queue: &QueueName) {
        self.places.remove(queue);
    }

    /// The queues that are followed.
    pub fn queues(&self) -> impl Iterator<Item = &QueueName> {
        self.places.keys()
    }

    /// Whether this queue is followed.
    pub fn follows(&self, queue: &QueueName) -> bool {
        self.places.contains_key(queue)
    }

    /// Waits until a queue has entries, at most `wait` and [`READ_WAIT_MAX`], and returns at most
    /// `max` of each queue. No batch is empty; no batch at all means that nothing happened.
    ///
    /// Reconnects at the next call after an error, and misses nothing by that.
    pub async fn read(&mut self, max: usize, wait: Duration) -> Result<Vec<Batch>, BrokerError> {
        let Some(first) = self.places.keys().next().cloned() else {
            tokio::time::sleep(wait.min(READ_WAIT_MAX)).await;
            return Ok(Vec::new());
        };
        let generation = self.connections.generation();
        let mut link = match self
            .link
            .take()
            .filter(|link| link.generation == generation)
        {
            Some(link) => link,
            None => self.open(&first).await?,
        };
        let wait = wait.min(READ_WAIT_MAX);
        self.settle_places(&mut link).await?;
        let queues: Vec<QueueName> = self.places.keys().cloned().collect();
        let (mut batches, mut places) = (Vec::new(), Vec::new());
        let waits = queues.len() <= QUEUES_PER_READ && !wait.is_zero();
        for part in queues.chunks(QUEUES_PER_READ) {
            let cmd = self.command(part, max, waits.then_some(wait));
            let reply = self.timed(wait, &cmd, &mut link).await?;
            batches.extend(self.take(part, reply, max, &mut places)?);
        }
        // Not before all of them are here: what is not handed out is read again.
        self.places.extend(places);
        self.link = Some(link);
        if batches.is_empty() && !waits {
            tokio::time::sleep(wait).await;
        }
        Ok(batches)
    }

    fn command(&self, queues: &[QueueName], max: usize, wait: Option<Duration>) -> redis::Cmd {
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("COUNT").arg(max.max(1));
        if let Some(wait) = wait {
            // 0 would wait for ever.
            cmd.arg("BLOCK").arg(wait.as_millis().max(1) as u64);
        }
        cmd.arg("STREAMS");
        for queue in queues {
            cmd.arg(self.keys(queue).events());
        }
        for queue in queues {
            match self.places.get(queue) {
                Some(From::After(id)) => cmd.arg(id.to_string()),
                Some(From::Now) | None => cmd.arg("$"),
            };
        }
        cmd
    }

    /// `$` means another place at every read; a reader needs the one of its first.
    async fn settle_places(&mut self, link: &mut Link) -> Result<(), BrokerError> {
        let fresh: Vec<QueueName> = self
            .places
            .iter()
            .filter(|(_, place)| **place == From::Now)
            .map(|(queue, _)| queue.clone())
            .collect();
        for queue in fresh {
            let mut cmd = redis::cmd("XREVRANGE");
            cmd.arg(self.keys(&queue).events()).arg("+").arg("-");
            cmd.arg("COUNT").arg(1);
            let reply = self.timed(Duration::ZERO, &cmd, link).await?;
            let newest = entries_of(reply)?
                .pop()
                .map_or(EventId::ZERO, |entry| entry.id);
            self.places.insert(queue, From::After(newest));
        }
        Ok(())
    }

    /// Sorts a reply by queue and moves the places.
    fn take(
        &self,
        queues: &[QueueName],
        reply: Value,
        max: usize,
        places: &mut Vec<(QueueName, From)>,
    ) -> Result<Vec<Batch>, BrokerError> {
        let streams = match reply {
            Value::Nil => return Ok(Vec::new()),
            Value::Array(streams) => streams,
            Value::Map(pairs) => pairs
                .into_iter()
                .map(|(key, entries)| Value::Array(vec![key, entries]))
                .collect(),
            _ => return Err(BrokerError::corrupt(DOING, "the reply is no list")),
        };
        let keys: Vec<String> = queues
            .iter()
            .map(|queue| self.keys(queue).events())
            .collect();
        let mut batches = Vec::with_capacity(streams.len());
        for stream in streams {
            let (key, entries) = match stream {
                Value::Array(pair) => match <[Value; 2]>::try_from(pair) {
                    Ok([Value::BulkString(key), entries]) => (key, entries),
                    _ => return Err(BrokerError::corrupt(DOING, "a stream without a name")),
                },
                _ => return Err(BrokerError::corrupt(DOING, "a stream that is no list")),
            };
            let at = keys.iter().position(|known| known.as_bytes() == key);
            let queue = at
                .map(|at| queues[at].clone())
                .ok_or_else(|| BrokerError::corrupt(DOING, "a stream that nobody asked for"))?;
            let entries = entries_of(entries)?;
            let Some(last) = entries.last().map(|entry| entry.id) else {
                continue;
            };
            let before = self.places.get(&queue).copied();
            places.push((queue.clone(), From::After(last)));
            batches.push(Batch {
                queue,
                is_full: entries.len() >= max.max(1),
                entries,
                after: match before {
                    Some(From::After(id)) => id,
                    Some(From::Now) | None => EventId::ZERO,
                },
            });
        }
        Ok(batches)
    }

    fn keys(&self, queue: &QueueName) -> Keys {
        Keys::new(&self.options.prefix, queue)
    }

    /// `BullMQ`'s tools tell readers of events by the name of this connection.
    async fn open(&self, queue: &QueueName) -> Result<Link, BrokerError> {
        let failed = |error| BrokerError::from_redis("open the event reader's connection", &error);
        let mut link = self.connections.dedicated().await.map_err(failed)?;
        let encoded = base64(queue.as_str().as_bytes());
        let name = format!("{}:{encoded}:qe", self.options.prefix);
        name_connection(&mut link.connection, &name)
            .await
            .map_err(failed)?;
        Ok(link)
    }

    /// Sends a command; gives up on the reply some time after the server should have stopped
    /// waiting.
    async fn timed(
        &self,
        wait: Duration,
        cmd: &redis::Cmd,
        link: &mut Link,
    ) -> Result<Value, BrokerError> {
        let reply = cmd.query_async::<Value>(&mut link.connection);
        match tokio::time::timeout(wait + REPLY_MARGIN, reply).await {
            Ok(reply) => reply.map_err(|error| {
                self.connections.learn(link.generation, &error);
                BrokerError::from_redis(DOING, &error)
            }),
            Err(_) => {
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                self.connections.learn(link.generation, &late.into());
                Err(BrokerError::away(DOING, "no reply in time"))
            }
        }
    }
}

fn entries_of(reply: Value) -> Result<Vec<Entry>, BrokerError> {
    let Value::Array(entries) = reply else {
        return Err(BrokerError::corrupt(DOING, "entries that are no list"));
    };
    entries
        .into_iter()
        .map(|entry| {
            Entry::parse(entry).ok_or_else(|| BrokerError::corrupt(DOING, "an entry without an id"))
        })
        .collect()
}
