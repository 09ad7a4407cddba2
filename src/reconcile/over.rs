//! What the record says is over must not wait in Redis: it is ended there, too, and not run.
//!
//! After a loss Redis may show many such jobs; they are ended before anything is claimed. Otherwise
//! there should be none: an outcome that Redis was not told of leaves its job active, and whoever
//! rescues that asks the record. The scan looks all the same, and ends a job that it finds so twice
//! with some time in between. That time is a client's: its own retry of a job that is over looks
//! alike until the mirror has heard of it.
//!
//! Ending a job twice changes nothing; dying in between leaves it active under a lease that ends.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{ReconcileError, mirror, spoiled};
use crate::broker::{Broker, BrokerState, LIST_MAX, Readmit, WireJob};
use crate::clock;
use crate::job::{ForeignOptions, Outcome, QueueName};
use crate::record::Record;
use crate::record::logs::{self, LOG_BATCH_MAX, LogLevel, NewLog};
use crate::record::rebuild::{self, OverJob};
use crate::settle::{Ended, Manner, tell};

/// Where jobs wait. Those that are active are asked about when their lease ends.
const WAITING: [BrokerState; 5] = [
    BrokerState::Wait,
    BrokerState::Paused,
    BrokerState::Prioritized,
    BrokerState::Delayed,
    BrokerState::WaitingChildren,
];
/// Of a job that is being ended: longer than that takes.
const LEASE: Duration = Duration::from_secs(30);
/// How long a job that is over may wait before that is no coincidence.
const PATIENCE: Duration = Duration::from_secs(30);
/// What was seen longer ago is forgotten: the job is elsewhere by now.
const MEMORY: Duration = Duration::from_secs(600);
/// Jobs that are kept in mind at once.
const LINGERING_MAX: usize = 10_000;

/// Jobs that were over and waited, and when that was seen first. A memory of this process: what it
/// forgets is seen again.
#[derive(Debug, Default)]
pub struct Lingering(HashMap<Uuid, Instant>);

impl Lingering {
    /// Looks at jobs that wait in Redis, and ends those that were seen to be over long enough
    /// before `now`. Returns how many.
    pub async fn look(
        &mut self,
        record: &Record,
        broker: &Broker,
        queue: &QueueName,
        wire_ids: &[String],
        now: Instant,
    ) -> Result<u64, ReconcileError> {
        let over = rebuild::over_among(record, queue, wire_ids).await?;
        if over.is_empty() {
            return Ok(0);
        }
        self.0
            .retain(|_, since| now.saturating_duration_since(*since) < MEMORY);
        let mut due = Vec::new();
        for job in over {
            match self.0.get(&job.id) {
                Some(since) if now.saturating_duration_since(*since) >= PATIENCE => {
                    self.0.remove(&job.id);
                    due.push(job);
                }
                Some(_) => {}
                None if self.0.len() < LINGERING_MAX => drop(self.0.insert(job.id, now)),
                None => {}
            }
        }
        end_in_redis(record, broker, queue, due).await
    }
}

/// Whether jobs in this state wait. Those that are active are asked about when their lease ends.
pub(super) fn is_waiting(state: BrokerState) -> bool {
    WAITING.contains(&state)
}

/// Ends in Redis whatever waits in a queue and is over by the record. Returns how many.
pub(super) async fn end_all(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
) -> Result<u64, ReconcileError> {
    let mut ended = 0;
    for state in WAITING {
        let done = end_all_in(record, broker, queue, state).await;
        ended += done.or_else(|error| spoiled(queue, error).map(|()| 0))?;
    }
    Ok(ended)
}

async fn end_all_in(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    state: BrokerState,
) -> Result<u64, ReconcileError> {
    let (mut offset, mut ended) = (0, 0);
    loop {
        let page = broker.list(queue, state, offset, LIST_MAX).await?;
        let over = rebuild::over_among(record, queue, &page.ids).await?;
        let gone = end_in_redis(record, broker, queue, over).await?;
        ended += gone;
        match page.next {
            // What left the page makes room for others, which were not looked at.
            _ if gone > 0 => {}
            Some(next) => offset = next,
            None => return Ok(ended),
        }
    }
}

/// Ends those of these jobs in Redis that are still over by the record when Redis has been looked
/// at: a person who ran one again in between has the last word. Such a job counts one more start
/// than the record knows, as does one that was put back before it ended: claims ask about those.
async fn end_in_redis(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    over: Vec<OverJob>,
) -> Result<u64, ReconcileError> {
    if over.is_empty() {
        return Ok(0);
    }
    let ids: Vec<String> = over.iter().map(|job| job.wire_id.clone()).collect();
    let seen = broker.read_jobs(queue, &ids, true).await?;
    let again = run_again(broker, queue, &over, &seen).await?;
    let (mut later, mut ending) = (Vec::new(), HashMap::new());
    for (job, seen) in over.iter().zip(seen) {
        match seen {
            Some(seen) if is_another(job, &seen) => later.push(job.wire_id.clone()),
            Some(_) if again.contains(&job.wire_id) => {}
            Some(seen) if is_newer(job, &seen) => {}
            Some(seen) => drop(ending.insert(job.id, manner(job, &seen))),
            None => {}
        }
    }
    mirror::adopt_unknown(record, broker, queue, later).await?;
    if ending.is_empty() {
        return Ok(0);
    }
    let mut over = rebuild::over_among(record, queue, &ids).await?;
    over.retain(|job| ending.contains_key(&job.id));
    tracing::debug!(%queue, jobs = over.len(), "jobs that are over were waiting");
    let token = format!("{}rebuild", crate::broker::OWN_TOKEN);
    let active: Vec<Readmit> = over
        .iter()
        .map(|job| Readmit {
            id: job.wire_id.clone(),
            starts: job.attempt.unsigned_abs(),
            starts_max: Some(job.attempt.unsigned_abs()),
            token: Some(token.clone()),
        })
        .collect();
    let found = broker.readmit(queue, &active, LEASE).await?;
    let mut found = found.into_iter();
    over.retain(|_| found.next() == Some(true));
    let lines: Vec<NewLog> = over.iter().map(|job| audit(job.id)).collect();
    let ended: Vec<Ended> = over
        .into_iter()
        .map(|job| {
            let manner = ending.remove(&job.id).flatten();
            ended(queue, &token, job, manner)
        })
        .collect();
    tell(broker, &ended.iter().collect::<Vec<_>>()).await?;
    for lines in lines.chunks(LOG_BATCH_MAX) {
        logs::insert_many(record, lines).await?;
    }
    metrics::counter!("bullwark_jobs_reconciled_total").increment(ended.len() as u64);
    Ok(ended.len() as u64)
}

fn audit(job_id: Uuid) -> NewLog {
    NewLog {
        job_id,
        attempt: 0,
        level: LogLevel::Info,
        message: "reconciled: ended in Redis, where it waited although it was over".to_owned(),
        metadata: None,
    }
}

/// A client's job leaves behind what its client wished.
fn manner(job: &OverJob, seen: &WireJob) -> Option<Box<Manner>> {
    let content = seen.content.as_ref()?;
    let is_own = job.wire_id == job.id.to_string();
    let options = || ForeignOptions::read(&content.opts);
    let manner = || Manner::of(&options(), None, None, seen.stacktrace.clone());
    (!is_own).then(|| Box::new(manner()))
}

fn ended(queue: &QueueName, token: &str, job: OverJob, manner: Option<Box<Manner>>) -> Ended {
    Ended {
        id: job.id,
        wire_id: job.wire_id,
        queue: queue.clone(),
        token: token.to_owned(),
        attempt: job.attempt,
        max_attempts: job.max_attempts.unsigned_abs(),
        started_at: clock::now(),
        outcome: Outcome::recorded(job.status, job.result, job.error),
        manner,
        kept_result: None,
    }
}

/// Whether the hash is that of a later job with the same id.
fn is_another(job: &OverJob, seen: &WireJob) -> bool {
    job.wire_id != job.id.to_string() && seen.timestamp_ms != job.created_ms
}

/// Whether Redis counts a start that the record does not know of.
fn is_newer(job: &OverJob, seen: &WireJob) -> bool {
    i64::from(seen.attempts_started) > i64::from(job.attempt)
}

/// Those that a client has run again after they were over. That takes away when a job was started,
/// and leaves how often; an earlier state of Redis knows of fewer starts. Where the client took
/// that away as well, events tell.
async fn run_again(
    broker: &Broker,
    queue: &QueueName,
    over: &[OverJob],
    seen: &[Option<WireJob>],
) -> Result<HashSet<String>, ReconcileError> {
    let (mut again, mut asked) = (HashSet::new(), Vec::new());
    for (job, seen) in over.iter().zip(seen) {
        let Some(seen) = seen.as_ref().filter(|seen| seen.processed_ms.is_none()) else {
            continue;
        };
        match i32::try_from(seen.attempts_started).unwrap_or(i32::MAX) {
            0 if !seen.is_counted => asked.push(job.wire_id.clone()),
            starts if starts > 0 && starts == job.attempt => {
                again.insert(job.wire_id.clone());
            }
            _ => {}
        }
    }
    if !asked.is_empty() {
        again.extend(mirror::put_back_by_clients(broker, queue, &asked).await?);
    }
    Ok(again)
}
