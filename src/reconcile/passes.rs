//! The passes over the open jobs of the record.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::halves::{Halves, passed_over};
use super::relay::requeue_stored;
use super::{ReconcileError, flows, links, mirror};
use crate::broker::{Broker, BrokerState};
use crate::fault::{self, Point};
use crate::job::QueueName;
use crate::record::Record;
use crate::record::adopt;
use crate::record::logs::{self, LogLevel, NewLog};
use crate::record::open::{self, LOAD_MAX, OpenJob, SEAL_LAG, StoredJob};
use crate::record::owed_logs;
use crate::record::passes::{NotedPass, PassKind, Repaired};

/// How old a job must be before it may be delivered here. Longer than its own delivery may take
/// from the beginning of its commit (1.9 s), so that the original add and this one never race.
const DELIVER_LAG: Duration = Duration::from_secs(2);

/// Looks at one step of new jobs and adds those that Redis does not know. Returns whether there is
/// more to do at once.
///
/// While Redis is away the watermark stays, so nothing is passed over. A job
/// that Redis refuses does not hold it up: it stays open, and the sweep tries it again and again.
pub async fn deliver_recent(record: &Record, broker: &Broker) -> Result<bool, ReconcileError> {
    let Some(step) = open::next_step(record, "delivered", DELIVER_LAG).await? else {
        return Ok(false);
    };
    let pass = add_absent(record, broker, &step.open, "its way to Redis was cut short");
    if !pass.await?.is_complete {
        return Ok(false);
    }
    open::advance(record, "delivered", &step).await?;
    Ok(step.more)
}

/// Notes what is still open of jobs past the lag, so that all later passes look at those alone.
/// Returns whether there is more to do at once.
pub async fn seal(record: &Record) -> Result<bool, ReconcileError> {
    let Some(step) = open::next_step(record, "sealed", SEAL_LAG).await? else {
        return Ok(false);
    };
    open::seal(record, &step).await?;
    Ok(step.more)
}

/// A round over all open jobs of the record, page by page.
#[derive(Debug, Default)]
pub struct Sweep {
    after: Uuid,
    began: Option<Instant>,
    added: u64,
}

impl Sweep {
    /// Looks at the next page; after the last one, notes what the round repaired, and the next
    /// round begins. A page that failed is looked at again.
    pub async fn step(&mut self, record: &Record, broker: &Broker) -> Result<(), ReconcileError> {
        let began = *self.began.get_or_insert_with(Instant::now);
        if let Some(next) = sweep_page(record, broker, self.after, &mut self.added).await? {
            self.after = next;
            return Ok(());
        }
        let pass = NotedPass {
            kind: PassKind::Sweep,
            queue: String::new(),
            took: began.elapsed(),
            repaired: Repaired {
                added: self.added,
                ..Repaired::default()
            },
        };
        *self = Self::default();
        super::tell_of_passes(record, broker, &[pass]).await;
        Ok(())
    }
}

/// Looks at one page of all open jobs after `after` and adds those that Redis has forgotten.
/// Returns where to go on; nothing at the end of the round.
pub async fn sweep_open(
    record: &Record,
    broker: &Broker,
    after: Uuid,
) -> Result<Option<Uuid>, ReconcileError> {
    sweep_page(record, broker, after, &mut 0).await
}

/// The same; counts what was repaired.
pub(super) async fn sweep_page(
    record: &Record,
    broker: &Broker,
    after: Uuid,
    repaired: &mut u64,
) -> Result<Option<Uuid>, ReconcileError> {
    let page = open::page(record, after).await?;
    let Some(last) = page.last().map(|job| job.id) else {
        return Ok(None);
    };
    let old: Vec<OpenJob> = page
        .into_iter()
        .filter(|job| is_older(job, DELIVER_LAG))
        .collect();
    let pass = add_absent(record, broker, &old, "Redis had forgotten it").await?;
    *repaired += pass.repaired;
    Ok(Some(last))
}

/// By the clock of this process: only a hint that keeps the sweep away from jobs that are on their
/// way. A wrong clock costs a needless add, which is harmless, or a delay. A foreign job may carry
/// any time; its row was made when it was in Redis already.
fn is_older(job: &OpenJob, age: Duration) -> bool {
    let made_ms = (job.id.as_u128() >> 80) as i64;
    let is_foreign = job.wire_id.len() != 36 || job.wire_id != job.id.to_string();
    is_foreign || crate::clock::now_ms().saturating_sub(made_ms) > age.as_millis() as i64
}

/// What a page of open jobs lacks in Redis.
#[derive(Default)]
struct Lacking {
    absent: Vec<Uuid>,
    /// A hash that no list names.
    orphans: Vec<Uuid>,
    /// Of a worker that may be alive, and only Redis have lost its memory.
    running: Vec<Uuid>,
    /// Adopted jobs that are where they should be.
    seen: Vec<Uuid>,
}

/// What became of the jobs that were looked at.
struct Pass {
    /// None was too young to be touched.
    is_complete: bool,
    repaired: u64,
}

/// Adds waiting jobs that are not in Redis, or only half: a hash that no list names. Running ones
/// are left to their worker: it may be alive and only Redis have lost its memory; if it is not, its
/// silence is noticed. Jobs that are over in Redis have their outcome copied, and adopted ones that
/// a client removed are cancelled. Not complete when some were committed so recently that their own
/// delivery may still be on its way: a job that waited long for its commit has an old id all the
/// same. A job that one of the stores refuses is passed over, and left as it is.
async fn add_absent(
    record: &Record,
    broker: &Broker,
    open: &[OpenJob],
    why: &str,
) -> Result<Pass, ReconcileError> {
    let mut pass = Pass {
        is_complete: true,
        repaired: 0,
    };
    let mut halves = Halves::of(open);
    while let Some(part) = halves.next() {
        let done = add_absent_of(record, broker, part, why).await;
        let done = halves.judge(part, done, |job, error| {
            passed_over(&job.job_queue, &job.wire_id, error);
        })?;
        if let Some(done) = done {
            pass.is_complete &= done.is_complete;
            pass.repaired += done.repaired;
        }
    }
    Ok(pass)
}

async fn add_absent_of(
    record: &Record,
    broker: &Broker,
    open: &[OpenJob],
    why: &str,
) -> Result<Pass, ReconcileError> {
    let mut queues: HashMap<QueueName, Vec<&OpenJob>> = HashMap::new();
    for job in open {
        match job.job_queue.parse() {
            Ok(queue) => queues.entry(queue).or_default().push(job),
            Err(error) => passed_over(&job.job_queue, &job.wire_id, &error),
        }
    }
    // Asked before Redis is looked at: if it loses its memory in between, nothing is cancelled.
    let epoch = broker.epoch().await?;
    let mut lacking = Lacking::default();
    let (mut parents, mut clients_parents, mut repaired) = (Vec::new(), Vec::new(), 0);
    for (queue, jobs) in queues {
        let wire_ids: Vec<String> = jobs.iter().map(|job| job.wire_id.clone()).collect();
        let mut doubtful = Vec::new();
        for (job, state) in jobs.iter().zip(broker.states(&queue, &wire_ids).await?) {
            let is_running = job.status == "processing";
            match state {
                None if is_running => lacking.running.push(job.id),
                None => lacking.absent.push(job.id),
                Some(BrokerState::Completed | BrokerState::Failed) => doubtful.push(job.id),
                Some(BrokerState::Orphan) if is_running => {}
                Some(BrokerState::Orphan) => lacking.orphans.push(job.id),
                Some(BrokerState::Active) => {}
                Some(_) if is_running => doubtful.push(job.id),
                Some(BrokerState::WaitingChildren) => {
                    parents.push(job.id);
                    clients_parents.push((queue.clone(), job.wire_id.clone()));
                }
                Some(_) => {}
            }
            if state.is_some() && job.wire_id != job.id.to_string() {
                lacking.seen.push(job.id);
            }
        }
        for ids in doubtful.chunks(LOAD_MAX) {
            repaired += mirror::follow_up(record, broker, &queue, ids).await?;
        }
    }
    flows::tell_waiting(record, broker, &parents).await?;
    links::tell_waiting(record, broker, &clients_parents).await?;
    settle_foreign(record, broker, &mut lacking, &epoch).await?;
    let mut is_complete = true;
    lacking.absent.sort();
    for ids in lacking.absent.chunks(LOAD_MAX) {
        let jobs = load_settled(record, ids, &mut is_complete).await?;
        keep_counters(broker, &jobs).await?;
        flows::deliver(record, broker, &jobs).await?;
        if !jobs.is_empty() {
            fault::point(Point::AfterReadd);
        }
        note(record, &jobs, why).await?;
        repaired += jobs.len() as u64;
    }
    for ids in lacking.orphans.chunks(LOAD_MAX) {
        let jobs = load_settled(record, ids, &mut is_complete).await?;
        requeue_stored(record, broker, jobs.clone()).await?;
        note(record, &jobs, why).await?;
        repaired += jobs.len() as u64;
    }
    Ok(Pass {
        is_complete,
        repaired,
    })
}

/// Adopted jobs: those absent from the memory of Redis in which they were last seen were removed by
/// a client, and leave `lacking`; where another memory answers, they were lost.
async fn settle_foreign(
    record: &Record,
    broker: &Broker,
    lacking: &mut Lacking,
    epoch: &str,
) -> Result<(), ReconcileError> {
    adopt::seen_in(record, &lacking.seen, epoch).await?;
    let gone = [&lacking.absent[..], &lacking.running[..]].concat();
    if gone.is_empty() {
        return Ok(());
    }
    let removed = match broker.epoch().await? == epoch {
        true => adopt::last_seen_in(record, &gone, epoch).await?,
        false => HashSet::new(),
    };
    let removed_ids: Vec<Uuid> = removed.iter().copied().collect();
    for ids in removed_ids.chunks(LOAD_MAX) {
        mirror::cancel_removed(record, ids).await?;
    }
    lacking.absent.retain(|id| !removed.contains(id));
    lacking.running.retain(|id| !removed.contains(id));
    for ids in lacking.running.chunks(LOAD_MAX) {
        mirror::give_back(record, ids).await?;
    }
    Ok(())
}

/// A client's own numbers come from a counter, which was lost with the jobs: it must not give them
/// again.
pub(super) async fn keep_counters(
    broker: &Broker,
    jobs: &[StoredJob],
) -> Result<(), ReconcileError> {
    let mut highest: HashMap<&QueueName, u64> = HashMap::new();
    for stored in jobs {
        if let Ok(number) = stored.wire_id.parse::<u64>() {
            let entry = highest.entry(&stored.job.queue).or_default();
            *entry = number.max(*entry);
        }
    }
    for (queue, number) in highest {
        broker.count_from(queue, number).await?;
    }
    Ok(())
}

/// Reads again: what ended since is not added, and what is too young is left out.
pub(super) async fn load_settled(
    record: &Record,
    ids: &[Uuid],
    is_complete: &mut bool,
) -> Result<Vec<StoredJob>, ReconcileError> {
    let mut jobs = open::load(record, ids).await?;
    let all = jobs.len();
    jobs.retain(|stored| stored.age_ms >= DELIVER_LAG.as_millis() as i64);
    *is_complete &= jobs.len() == all;
    Ok(jobs)
}

pub(super) async fn note(
    record: &Record,
    jobs: &[StoredJob],
    why: &str,
) -> Result<(), ReconcileError> {
    if jobs.is_empty() {
        return Ok(());
    }
    let message = message(why);
    let line = |stored: &StoredJob| NewLog {
        job_id: stored.job.id,
        attempt: 0,
        level: LogLevel::Info,
        message: message.clone(),
        metadata: None,
    };
    let lines: Vec<NewLog> = jobs.iter().map(line).collect();
    logs::insert_many(record, &lines).await?;
    metrics::counter!("bullwark_jobs_reconciled_total").increment(jobs.len() as u64);
    Ok(())
}

/// The same, where many jobs are put back while others wait: the lines are written later. Returns
/// the note of them, if there are any.
pub(super) async fn note_later(
    record: &Record,
    jobs: &[StoredJob],
    why: &str,
) -> Result<Option<i64>, ReconcileError> {
    if jobs.is_empty() {
        return Ok(None);
    }
    let ids: Vec<Uuid> = jobs.iter().map(|stored| stored.job.id).collect();
    let note = owed_logs::owe(record, &ids, &message(why)).await?;
    metrics::counter!("bullwark_jobs_reconciled_total").increment(jobs.len() as u64);
    Ok(Some(note))
}

fn message(why: &str) -> String {
    format!("reconciled: added to Redis again, {why}")
}
