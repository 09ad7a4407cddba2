//! Reading the events of all queues in Redis, for hints of what changed.
//!
//! While somebody listens, each server reads them once, whoever and how many they are. An entry is
//! a hint and nothing more: it says which job is worth a look. It names no workspace, may come
//! before the record is as far, may be of a client's making or be trimmed before it is read. What
//! was surely missed is told as such.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::life::Hint;
use crate::broker::event::{Entry, EventId};
use crate::broker::events::{Batch, EventReader, From};
use crate::broker::{Broker, BrokerError, QueueFinder};
use crate::http::state::State;
use crate::job::QueueName;
use crate::periodic::Next;

/// Between two reads.
pub(super) const REST: Duration = Duration::from_millis(50);
/// Entries of one queue per read.
const READ_MAX: usize = 500;
/// How long a read waits for something to happen.
const READ_WAIT: Duration = Duration::from_millis(250);
/// Between two looks for new queues.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A reader that is so far behind goes on with the newest entries.
const BEHIND_MAX_MS: u64 = 1000;
/// How far back the entries of a queue are read that was found only now.
const FOUND_MS: i64 = 30_000;

/// Reads while somebody listens.
pub(super) struct Tail {
    state: State,
    broker: Broker,
    /// None while nobody listens, and after an error.
    following: Option<Following>,
    has_failed: bool,
}

struct Following {
    reader: EventReader,
    finder: QueueFinder,
    looked: Option<Instant>,
    /// When it began, by the clock of Redis.
    since_ms: i64,
}

impl Tail {
    pub(super) fn new(state: State) -> Self {
        Self {
            broker: state.services.broker.clone(),
            state,
            following: None,
            has_failed: false,
        }
    }

    /// Reads once, or waits until somebody listens.
    ///
    /// After an error nobody knows what was missed: as soon as Redis answers again, all who listen
    /// begin anew.
    pub(super) async fn step(&mut self) -> Result<Next, BrokerError> {
        if self.state.events.listened_since().is_none() {
            (self.following, self.has_failed) = (None, false);
            self.state.events.listened().await;
            return Ok(Next::Rest);
        }
        match self.read().await {
            Ok(()) => {
                if std::mem::take(&mut self.has_failed) {
                    self.state.events.reset_workspaces();
                }
                Ok(Next::Rest)
            }
            Err(error) => {
                (self.following, self.has_failed) = (None, true);
                Err(error)
            }
        }
    }

    async fn read(&mut self) -> Result<(), BrokerError> {
        let mut following = match self.following.take() {
            Some(following) => following,
            None => self.begin().await?,
        };
        if following.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            following.look(&self.broker).await?;
        }
        let read = following.reader.read(READ_MAX, READ_WAIT);
        let batches = tokio::select! {
            batches = read => batches?,
            () = self.state.events.stopping().cancelled() => return Ok(()),
        };
        for batch in batches {
            {
                let mut hints = self.state.events.hints();
                for entry in &batch.entries {
                    if let Some((job, hint)) = hint_of(entry) {
                        hints.add(job, hint);
                    }
                }
            }
            if batch.is_full && following.catch_up(&self.broker, &batch).await? {
                self.state.events.hints().miss();
            }
        }
        self.following = Some(following);
        Ok(())
    }

    /// From when the first one began to listen, who had the snapshot of a later moment.
    async fn begin(&self) -> Result<Following, BrokerError> {
        let since = self.state.events.listened_since();
        let since = since.map_or_else(Instant::now, Instant::from_std);
        Ok(Following {
            reader: self.broker.event_reader(),
            finder: self.broker.queue_finder(),
            looked: None,
            since_ms: self.broker.server_ms_at(since).await?,
        })
    }
}

impl Following {
    async fn look(&mut self, broker: &Broker) -> Result<(), BrokerError> {
        let now_ms = broker.server_ms_at(Instant::now()).await?;
        let from_ms = self.since_ms.max(now_ms - FOUND_MS);
        let ms = u64::try_from(from_ms).unwrap_or(0);
        let queues: BTreeSet<QueueName> = self.finder.look().await?.clone();
        for queue in &queues {
            if !self.reader.follows(queue) {
                let place = EventId { ms, seq: 0 };
                self.reader.follow(queue.clone(), From::After(place));
            }
        }
        let gone: Vec<QueueName> = self
            .reader
            .queues()
            .filter(|queue| !queues.contains(*queue))
            .cloned()
            .collect();
        for queue in gone {
            self.reader.forget(&queue);
        }
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// After a batch that was full: whether entries were missed, because they were trimmed, or
    /// because it takes too long to read all of them.
    async fn catch_up(&mut self, broker: &Broker, batch: &Batch) -> Result<bool, BrokerError> {
        let last = batch.entries.last().map_or(batch.after, |entry| entry.id);
        let newest = broker.newest_event(&batch.queue).await?;
        if let Some(newest) = newest.filter(|newest| newest.ms > last.ms + BEHIND_MAX_MS) {
            self.reader.follow(batch.queue.clone(), From::After(newest));
            return Ok(true);
        }
        let oldest = broker.oldest_event(&batch.queue).await?;
        Ok(oldest.is_some_and(|oldest| oldest > last))
    }
}

/// The job of an entry, and what it says of it. Entries that say nothing of a job are passed over,
/// and those of jobs of clients: they belong to no workspace, so nobody listens.
fn hint_of(entry: &Entry) -> Option<(Uuid, Hint)> {
    let mut hint = Hint::default();
    let prev = entry.bytes("prev").unwrap_or_default();
    match entry.name() {
        b"added" => hint.added = true,
        b"active" => hint.started = true,
        b"completed" | b"failed" => hint.ended = true,
        b"delayed" | b"waiting-children" => hint.waits = true,
        b"waiting" if matches!(prev, b"failed" | b"completed") => hint.retried = true,
        b"waiting" if prev == b"delayed" => {} // its time has come, which is no news
        b"waiting" => hint.waits = true,
        b"removed" => hint.removed = true,
        b"progress" => hint.progressed = true,
        _ => return None,
    }
    let id = std::str::from_utf8(entry.bytes("jobId")?).ok()?;
    let is_ours = id.len() == 36 && id.as_bytes()[14] == b'7';
    let id = is_ours.then(|| id.parse().ok()).flatten()?;
    Some((id, hint))
}
