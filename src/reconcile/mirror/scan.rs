//! The backstop: walks through a queue whose events were missed, page by page.
//!
//! Every live job of Redis, and those that ended lately, must be known to the record. The other
//! direction, open rows that are over or absent in Redis, is the sweep's.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::compare::{Doubtful, compare};
use super::repair;
use crate::broker::event::EventId;
use crate::broker::{Broker, BrokerState, LIST_MAX};
use crate::job::QueueName;
use crate::reconcile::halves::{Halves, passed_over};
use crate::reconcile::over::{Lingering, is_waiting};
use crate::reconcile::{ReconcileError, copy_logs, spoiled, tell_of_passes};
use crate::record::passes::{NotedPass, PassKind, Repaired};
use crate::record::{Record, jobs, mirror};

/// Where jobs are looked for. One that slips through is found in the next round.
const STATES: [BrokerState; 8] = BrokerState::LISTED;
/// Every queue is walked through once in this time, whatever happened.
const ROUND_EVERY: Duration = Duration::from_secs(60);
/// Jobs that ended longer ago are history: the record may have let go of them on purpose.
const RECENT: Duration = Duration::from_secs(3600);
/// Pages of one step.
const PAGES_MAX: usize = 4;
/// Walks that are noted in one statement.
const NOTED_AT_ONCE: usize = 100;

/// What is to be walked through, and how far the walk is.
#[derive(Debug, Default)]
pub(super) struct Scan {
    requested: BTreeSet<QueueName>,
    /// The queue under way, the state, and the offset in it.
    at: Option<(QueueName, usize, usize)>,
    /// Where readers were, for queues whose stream may have been trimmed beyond that.
    suspected: HashMap<QueueName, EventId>,
    /// Where the last batch of each queue began.
    read_after: HashMap<QueueName, EventId>,
    round: Option<Instant>,
    lingering: Lingering,
    /// Jobs that the record had missed.
    pub(super) repaired: u64,
    /// When the walk through the queue under way began, and what it repaired.
    under_way: Option<(Instant, Repaired)>,
    /// Walks that are over and to be noted.
    over: Vec<NotedPass>,
}

impl Scan {
    pub(super) fn request(&mut self, queue: &QueueName) {
        self.requested.insert(queue.clone());
    }

    /// Requests all queues, once per round.
    pub(super) fn request_round(&mut self, queues: &BTreeSet<QueueName>) {
        if self.round.is_none_or(|at| at.elapsed() >= ROUND_EVERY) {
            self.round = Some(Instant::now());
            self.requested.extend(queues.iter().cloned());
        }
    }

    /// The stream may have been trimmed beyond this place.
    pub(super) fn suspect_gap(&mut self, queue: &QueueName, place: EventId) {
        self.suspected.entry(queue.clone()).or_insert(place);
    }

    /// Remembers where a batch began, for [`Scan::check_gaps`].
    pub(super) fn note_gap(&mut self, queue: &QueueName, after: EventId) {
        self.read_after.insert(queue.clone(), after);
    }

    /// Requests the queues whose oldest entry is younger than a place that was to be read from.
    pub(super) async fn check_gaps(
        &mut self,
        broker: &Broker,
        behind: &HashSet<QueueName>,
    ) -> Result<(), ReconcileError> {
        for queue in behind {
            if let Some(after) = self.read_after.get(queue).copied() {
                self.suspect_gap(queue, after);
            }
        }
        while let Some((queue, place)) = self.suspected.iter().next().map(|(q, p)| (q.clone(), *p))
        {
            let oldest = broker.oldest_event(&queue).await?;
            if oldest.is_some_and(|oldest| oldest > place) && place != EventId::ZERO {
                metrics::counter!("bullwark_mirror_gaps_total").increment(1);
                tracing::debug!(%queue, "events were trimmed before they were read: scan");
                self.request(&queue);
            }
            self.suspected.remove(&queue);
        }
        Ok(())
    }

    /// Walks on, a few pages; returns whether there is more.
    pub(super) async fn step(
        &mut self,
        record: &Record,
        broker: &Broker,
    ) -> Result<bool, ReconcileError> {
        for _ in 0..PAGES_MAX {
            if self.at.is_none() {
                self.at = self.requested.pop_first().map(|queue| (queue, 0, 0));
            }
            let Some((queue, nth, offset)) = self.at.clone() else {
                self.note(record, broker).await;
                return Ok(false);
            };
            let walk = self
                .under_way
                .get_or_insert_with(|| (Instant::now(), Repaired::default()));
            let at = (&queue, STATES[nth], offset);
            let page = page(record, broker, &mut self.lingering, at).await;
            let (next, repaired) =
                page.or_else(|error| spoiled(&queue, error).map(|()| (None, Repaired::default())))?;
            self.repaired += repaired.copied + repaired.ended;
            walk.1.copied += repaired.copied;
            walk.1.ended += repaired.ended;
            self.at = match next {
                Some(offset) => Some((queue, nth, offset)),
                None if nth + 1 < STATES.len() => Some((queue, nth + 1, 0)),
                None => {
                    self.end_walk(&queue);
                    None
                }
            };
        }
        if self.over.len() >= NOTED_AT_ONCE {
            self.note(record, broker).await;
        }
        Ok(self.at.is_some() || !self.requested.is_empty())
    }

    fn end_walk(&mut self, queue: &QueueName) {
        if let Some((began, repaired)) = self.under_way.take() {
            // Another one of the same queue since takes the place of the first.
            self.over.retain(|pass| pass.queue != queue.as_str());
            self.over.push(NotedPass {
                kind: PassKind::Scan,
                queue: queue.to_string(),
                took: began.elapsed(),
                repaired,
            });
        }
    }

    async fn note(&mut self, record: &Record, broker: &Broker) {
        tell_of_passes(record, broker, &std::mem::take(&mut self.over)).await;
    }
}

/// Compares one page of a state with the record; returns the offset of the next page, and how many
/// jobs the record had missed.
async fn page(
    record: &Record,
    broker: &Broker,
    lingering: &mut Lingering,
    (queue, state, offset): (&QueueName, BrokerState, usize),
) -> Result<(Option<usize>, Repaired), ReconcileError> {
    let is_over = matches!(state, BrokerState::Completed | BrokerState::Failed);
    let (ids, next) = match is_over {
        true => (broker.newest_finished(queue, state).await?, None),
        false => {
            let page = broker.list(queue, state, offset, LIST_MAX).await?;
            (page.ids, page.next)
        }
    };
    let (mut repaired, mut halves) = (Repaired::default(), Halves::of(&ids));
    while let Some(part) = halves.next() {
        let done = look_at(record, broker, queue, part, is_over).await;
        let done = halves.judge(part, done, |id, error| {
            passed_over(queue.as_str(), id, error)
        })?;
        repaired.copied += done.unwrap_or_default();
    }
    if is_waiting(state) {
        repaired.ended += lingering
            .look(record, broker, queue, &ids, Instant::now())
            .await?;
    }
    Ok((next, repaired))
}

/// Compares these jobs with the record; returns how many it had missed.
async fn look_at(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    ids: &[String],
    is_over: bool,
) -> Result<u64, ReconcileError> {
    let (mut own, mut foreign) = (Vec::new(), Vec::new());
    for id in ids {
        match id.parse::<Uuid>() {
            Ok(uuid) if uuid.get_version_num() == 7 => own.push(uuid),
            _ if id.starts_with("0:") => {} // a marker of an old BullMQ
            _ if id.contains('\0') => {}    // no row can have it
            _ => foreign.push(id.clone()),
        }
    }
    let mut doubtful = Doubtful::default();
    if !own.is_empty() {
        let known = jobs::statuses(record, &own).await?;
        let unknown = own.iter().filter(|id| !known.contains_key(id));
        doubtful.unknown.extend(unknown.map(Uuid::to_string));
    }
    if !foreign.is_empty() {
        let known = mirror::known_foreign(record, queue, &foreign).await?;
        let names: HashSet<&str> = known.iter().map(|job| job.wire_id.as_str()).collect();
        let unknown = foreign.iter().filter(|id| !names.contains(id.as_str()));
        doubtful.unknown.extend(unknown.cloned());
        doubtful.known = known
            .into_iter()
            .filter(|job| !job.status.is_final())
            .collect();
    }
    let mut findings = compare(broker, queue, doubtful).await?;
    if is_over && !findings.adopted.is_empty() {
        let recent = broker.server_time_ms().await? - RECENT.as_millis() as i64;
        findings
            .adopted
            .retain(|job| job.ended_ms().is_none_or(|at| at >= recent));
    }
    copy_logs(record, broker, queue, &findings.ended).await?;
    let adopted = std::mem::take(&mut findings.ended_adopted);
    let repaired = repair(record, findings).await?;
    copy_logs(record, broker, queue, &adopted).await?;
    Ok(repaired)
}
