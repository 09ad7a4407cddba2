//! Following the events of all queues: who does it, from where, and when it fell behind.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::came::Came;
use super::mirror_entries;
use super::scan::Scan;
use crate::broker::event::EventId;
use crate::broker::events::{EventReader, From};
use crate::broker::{Broker, QueueFinder};
use crate::job::QueueName;
use crate::periodic::{Next, every};
use crate::reconcile::ReconcileError;
use crate::record::{Record, mirror};
use crate::tasks::Tasks;

/// Between two reads: what happens meanwhile shares a batch.
const REST: Duration = Duration::from_millis(50);
/// Entries of one queue per read.
const READ_MAX: usize = 1000;
/// How long a read waits for something to happen.
const READ_WAIT: Duration = Duration::from_millis(250);
/// Between two looks for new queues, for lost events, and at the lease.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the others wait when the one that follows is gone.
const LEASE: Duration = Duration::from_millis(2500);
/// A place that covers nothing new is written at most so often.
const POSITION_EVERY: Duration = Duration::from_secs(2);
const DUTY: &str = "mirror";

/// Starts following; ends when `tasks` stop.
pub fn start(record: &Record, broker: &Broker, tasks: &Tasks) {
    let mirror = Arc::new(Mutex::new(Mirror::new(record.clone(), broker.clone())));
    let following = mirror.clone();
    every(tasks, "mirror", REST, move || {
        let mirror = following.clone();
        async move {
            let is_behind = mirror.lock().await.step().await?;
            Ok::<_, ReconcileError>(if is_behind { Next::Again } else { Next::Rest })
        }
    });
    let stopping = tasks.stopping().clone();
    tasks.spawn("mirror lease", async move {
        stopping.cancelled().await;
        mirror.lock().await.leave().await;
    });
}

/// One follower of a prefix.
#[derive(Debug)]
pub struct Mirror {
    record: Record,
    broker: Broker,
    /// Names this follower in the lease.
    token: String,
    finder: QueueFinder,
    /// None while somebody else follows, and after an error: then the places are read again.
    reader: Option<EventReader>,
    looked: Option<Instant>,
    /// When the place of a queue was written last.
    committed: HashMap<QueueName, Instant>,
    /// Queues whose last batch was full.
    behind: HashSet<QueueName>,
    /// Queues that keep few events: so many of them at once mean that others may have been missed.
    short: HashMap<QueueName, usize>,
    scan: Scan,
    came: Came,
}

impl Mirror {
    pub fn new(record: Record, broker: Broker) -> Self {
        Self {
            finder: broker.queue_finder(),
            token: uuid::Uuid::new_v4().to_string(),
            record,
            broker,
            reader: None,
            looked: None,
            committed: HashMap::new(),
            behind: HashSet::new(),
            short: HashMap::new(),
            scan: Scan::default(),
            came: Came::default(),
        }
    }

    /// Reads once and mirrors what was read; returns whether there is more to do at once.
    ///
    /// After an error nothing is lost: the next step begins at the place that the record knows.
    pub async fn step(&mut self) -> Result<bool, ReconcileError> {
        let done = self.try_step().await;
        if done.is_err() {
            self.reader = None;
            self.looked = None;
        }
        done
    }

    async fn try_step(&mut self) -> Result<bool, ReconcileError> {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.looked = Some(Instant::now());
            if !self.broker.take_duty(DUTY, &self.token, LEASE).await? {
                self.reader = None;
                return Ok(false);
            }
            self.look().await?;
        }
        let Some(reader) = self.reader.as_mut() else {
            return Ok(false);
        };
        let batches = reader.read(READ_MAX, READ_WAIT).await?;
        let mut is_behind = false;
        for batch in batches {
            let Some(last) = batch.entries.last().map(|entry| entry.id) else {
                continue;
            };
            is_behind |= batch.is_full;
            let is_short = self.short.get(&batch.queue);
            if batch.is_full || is_short.is_some_and(|most| batch.entries.len() >= *most) {
                self.behind.insert(batch.queue.clone());
            }
            let written = self.committed.get(&batch.queue);
            let is_due = written.is_none_or(|at| at.elapsed() >= POSITION_EVERY);
            let prefix = self.broker.prefix().to_owned();
            let position = Some((prefix.as_str(), &batch.queue, last.ms, last.seq));
            let (record, broker, came) = (&self.record, &self.broker, &mut self.came);
            mirror_entries(
                record,
                broker,
                came,
                &batch.queue,
                &batch.entries,
                position,
                is_due,
            )
            .await?;
            if is_due {
                self.committed.insert(batch.queue.clone(), Instant::now());
            }
            metrics::counter!("bullwark_mirror_events_total").increment(batch.entries.len() as u64);
            self.scan.note_gap(&batch.queue, batch.after);
        }
        is_behind |= self.scan.step(&self.record, &self.broker).await?;
        Ok(is_behind)
    }

    /// Finds new queues, and queues whose events were trimmed before they were read.
    async fn look(&mut self) -> Result<(), ReconcileError> {
        let mut places = HashMap::new();
        if self.reader.is_none() {
            let known = mirror::positions(&self.record, self.broker.prefix()).await?;
            for (queue, ms, seq) in known {
                places.insert(queue, EventId { ms, seq });
            }
        }
        let queues = self.finder.look().await?.clone();
        let reader = self
            .reader
            .get_or_insert_with(|| self.broker.event_reader());
        for queue in &queues {
            if reader.follows(queue) {
                continue;
            }
            let place = match places.get(queue).copied() {
                // A stream that ends before our place is another one: by a clock that went back.
                Some(place) if self.broker.newest_event(queue).await? < Some(place) => None,
                place => place,
            };
            reader.follow(queue.clone(), From::After(place.unwrap_or(EventId::ZERO)));
            let kept = self.broker.queue_meta(queue).await?.events_max;
            let kept = kept.and_then(|kept| usize::try_from(kept / 2).ok());
            if let Some(most) = kept.filter(|most| *most < READ_MAX) {
                self.short.insert(queue.clone(), most);
            }
            match place {
                Some(place) => self.scan.suspect_gap(queue, place),
                // Never followed: what its stream has forgotten is in Redis all the same.
                None => self.scan.request(queue),
            }
        }
        let gone: Vec<QueueName> = reader
            .queues()
            .filter(|queue| !queues.contains(*queue))
            .cloned()
            .collect();
        for queue in gone {
            reader.forget(&queue);
            self.committed.remove(&queue);
            self.short.remove(&queue);
        }
        let behind = std::mem::take(&mut self.behind);
        self.scan.check_gaps(&self.broker, &behind).await?;
        self.scan.request_round(&queues);
        Ok(())
    }

    async fn leave(&self) {
        if self.reader.is_some()
            && let Err(error) = self.broker.leave_duty(DUTY, &self.token).await
        {
            tracing::debug!(%error, "the lease of the mirror ends by itself");
        }
    }
}
