//! The mirror: the record follows what `BullMQ` clients do in Redis.
//!
//! It reads the events of all queues. A job that a client added is adopted; what a foreign worker
//! makes of a job, its own or one of ours, is copied to the row: that it runs, that it failed and
//! when it is tried again, how it ended, how far it is; and what a person does in a `BullMQ`
//! dashboard: removed, run again, due at another time. It never writes to Redis.
//!
//! Events only say where to look. The row is brought to what Redis shows at that moment, under the
//! condition that nobody changed it since it was read; so an event that is read twice changes
//! nothing. The place in the stream is committed together with what it covers. Dying anywhere
//! means to read some events again.
//!
//! One process follows at a time, by a lease that saves work and nothing else: two at once write
//! the same. Streams are short; whoever falls behind misses events. That is noticed, and the queue
//! is walked through instead (`scan`).

mod adoption;
mod came;
mod compare;
mod decide;
mod facts;
mod follow;
mod scan;

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

pub use follow::{Mirror, start};

use super::halves::{Halves, passed_over};
use super::{ReconcileError, copy_logs};
use crate::broker::Broker;
use crate::broker::event::Entry;
use crate::fault::{self, Point};
use crate::job::{QueueName, wire};
use crate::record::adopt::ForeignJob;
use crate::record::logs::{self, LOG_BATCH_MAX, LogLevel, NewLog};
use crate::record::mirror::{self, Mirrored, Position, Question};
use crate::record::{Record, jobs, rebuild};
use came::Came;
use compare::{Doubtful, Findings, compare, write};

/// Above so many new jobs of ours in one batch it is not checked whether the record has them all:
/// a client that makes ids like ours is found by the scan.
const OWN_CHECK_MAX: usize = 200;
/// Events that are searched for what clients did to a job.
const CATCH_UP_EVENTS_MAX: usize = 2000;

/// Brings the record to what these events of a queue point at. With `position` it is noted that
/// they were read; when nothing else is to be written, only if `is_due`. An event whose job can not
/// be read or asked about is passed over; should that change, the scan finds the job.
async fn mirror_entries(
    record: &Record,
    broker: &Broker,
    came: &mut Came,
    queue: &QueueName,
    entries: &[Entry],
    position: Option<Position<'_>>,
    is_due: bool,
) -> Result<Mirrored, ReconcileError> {
    let whole = mirror_part(record, broker, came, queue, entries, position, is_due).await;
    if !whole.as_ref().is_err_and(ReconcileError::is_about_entries) {
        return whole;
    }
    let (mut mirrored, mut halves) = (Mirrored::default(), Halves::of(entries));
    while let Some(part) = halves.next() {
        let done = mirror_part(record, broker, came, queue, part, None, false).await;
        let done = halves.judge(part, done, |entry, error| {
            let id = entry.bytes("jobId").unwrap_or_default();
            passed_over(queue.as_str(), &String::from_utf8_lossy(id), error);
        })?;
        let done = done.unwrap_or_default();
        mirrored.adopted += done.adopted;
        mirrored.changed += done.changed;
    }
    if position.is_some() {
        mirror::commit(record, &[], &[], position).await?;
    }
    Ok(mirrored)
}

async fn mirror_part(
    record: &Record,
    broker: &Broker,
    came: &mut Came,
    queue: &QueueName,
    entries: &[Entry],
    position: Option<Position<'_>>,
    is_due: bool,
) -> Result<Mirrored, ReconcileError> {
    let touched = facts::sort(entries);
    let mut doubtful = Doubtful::default();
    if !touched.foreign.is_empty() {
        let ids: Vec<String> = touched.foreign.keys().map(|id| (*id).to_owned()).collect();
        doubtful.known = mirror::known_foreign(record, queue, &ids).await?;
        let known: std::collections::HashSet<&str> = doubtful
            .known
            .iter()
            .map(|job| job.wire_id.as_str())
            .collect();
        doubtful.unknown = ids
            .iter()
            .filter(|id| !known.contains(id.as_str()))
            .cloned()
            .collect();
        // What is over stays so, and is not even looked at, unless its events say otherwise.
        doubtful.known.retain(|job| {
            let facts = touched.foreign.get(job.wire_id.as_str());
            !job.status.is_final()
                || facts.is_some_and(|f| f.may_change_what_is_over(job.is_taken_for_removed))
        });
        for (id, facts) in &touched.foreign {
            doubtful.hints.insert((*id).to_owned(), facts.hints());
            if let Some(added) = facts.added().or_else(|| came.of(queue, id)) {
                doubtful.added.insert((*id).to_owned(), added);
            }
        }
    }
    let asked: Vec<(Uuid, Question)> = touched
        .own
        .iter()
        .filter_map(|(id, facts)| Some((*id, facts.question()?)))
        .collect();
    if !asked.is_empty() {
        let known = mirror::known_own(record, &asked).await?;
        for job in &known {
            if let Some(facts) = touched.own.get(&job.id) {
                doubtful.hints.insert(job.wire_id.clone(), facts.hints());
            }
        }
        doubtful.known.extend(known);
    }
    let added = touched
        .own
        .iter()
        .filter(|(_, facts)| facts.added().is_some());
    let added: Vec<Uuid> = added.map(|(id, _)| *id).collect();
    if !added.is_empty() && added.len() <= OWN_CHECK_MAX {
        let recorded = jobs::statuses(record, &added).await?;
        let strangers = added.iter().filter(|id| !recorded.contains_key(id));
        doubtful.unknown.extend(strangers.map(Uuid::to_string));
    }
    if doubtful.is_empty() && !is_due {
        return Ok(Mirrored::default());
    }
    let added = doubtful.added.clone();
    let findings = compare(broker, queue, doubtful).await?;
    came.note(queue, &findings.vanished, added);
    if findings.is_nothing() && !is_due {
        return Ok(Mirrored::default());
    }
    fault::point(Point::BeforeMirrorCommit);
    // Before the ends are written: whoever dies in between reads these events again.
    copy_logs(record, broker, queue, &findings.ended).await?;
    if findings.ended_adopted.is_empty() {
        return write(record, &findings, position).await;
    }
    let mirrored = write(record, &findings, None).await?;
    fault::point(Point::AfterMirrorCopy);
    copy_logs(record, broker, queue, &findings.ended_adopted).await?;
    mirror::commit(record, &[], &[], position).await?;
    Ok(mirrored)
}

/// Tells the record what clients did to these jobs a moment ago.
///
/// For a worker that claimed a job before the mirror heard of that, and is told that it is over, or
/// not due yet. A client may have run it again, or promoted it. Looks at the newest events only.
/// Returns how many rows changed; the worker asks the record about them once more.
pub async fn catch_up(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    wire_ids: &[String],
) -> Result<u64, ReconcileError> {
    let mut entries = broker.newest_events(queue, CATCH_UP_EVENTS_MAX).await?;
    entries.retain(|entry| {
        entry
            .bytes("jobId")
            .is_some_and(|id| wire_ids.iter().any(|known| known.as_bytes() == id))
    });
    let mirrored = mirror_entries(
        record,
        broker,
        &mut Came::default(),
        queue,
        &entries,
        None,
        false,
    )
    .await?;
    Ok(mirrored.changed)
}

/// Of these jobs, those that a client has put back after they were over.
///
/// At most one start may have followed. That is what events say, where the counts in Redis say
/// nothing because the client has reset them. A memory of Redis that has lost its end has lost
/// these events as well.
pub async fn put_back_by_clients(
    broker: &Broker,
    queue: &QueueName,
    wire_ids: &[String],
) -> Result<HashSet<String>, ReconcileError> {
    let entries = broker.newest_events(queue, CATCH_UP_EVENTS_MAX).await?;
    let mut put_back: HashMap<&str, bool> = HashMap::new(); // started since
    for entry in &entries {
        let id = entry
            .bytes("jobId")
            .and_then(|id| std::str::from_utf8(id).ok());
        let known = id.and_then(|id| wire_ids.iter().find(|known| *known == id));
        let Some(id) = known else { continue };
        let is_retry = matches!(entry.bytes("prev"), Some(b"failed" | b"completed"));
        match (entry.name(), put_back.get(id.as_str())) {
            (b"waiting", _) if is_retry => drop(put_back.insert(id, false)),
            (b"active", Some(false)) => drop(put_back.insert(id, true)),
            (b"active" | b"waiting" | b"delayed" | b"completed" | b"failed", _) => {
                put_back.remove(id.as_str());
            }
            _ => {}
        }
    }
    Ok(put_back.into_keys().map(str::to_owned).collect())
}

/// Brings open rows to what Redis shows of their jobs, where events were missed. Returns how many
/// were changed.
pub(super) async fn follow_up(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    ids: &[Uuid],
) -> Result<u64, ReconcileError> {
    let known = mirror::known_by_id(record, ids).await?;
    let doubtful = Doubtful {
        known: known
            .into_iter()
            .filter(|job| !job.status.is_final())
            .collect(),
        ..Doubtful::default()
    };
    let findings = compare(broker, queue, doubtful).await?;
    copy_logs(record, broker, queue, &findings.ended).await?;
    repair(record, findings).await
}

/// Open jobs that are absent in the memory of Redis in which they were last seen: a client took
/// them out without a word, as `drain` and `obliterate` do. Returns how many were cancelled.
pub(super) async fn cancel_removed(record: &Record, ids: &[Uuid]) -> Result<u64, ReconcileError> {
    let known = mirror::known_by_id(record, ids).await?;
    let open = known.iter().filter(|job| !job.status.is_final());
    repair(record, Findings::of(open.map(decide::removed).collect())).await
}

/// Jobs that a foreign worker ran when Redis lost its memory of them: they are pending again.
pub(super) async fn give_back(record: &Record, ids: &[Uuid]) -> Result<u64, ReconcileError> {
    let known = mirror::known_by_id(record, ids).await?;
    let changes = known.iter().filter_map(decide::given_back).collect();
    repair(record, Findings::of(changes)).await
}

/// Jobs that only Redis knows are adopted. Returns how many.
pub(super) async fn adopt_unknown(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    wire_ids: Vec<String>,
) -> Result<u64, ReconcileError> {
    let doubtful = Doubtful {
        unknown: wire_ids,
        ..Doubtful::default()
    };
    let findings = compare(broker, queue, doubtful).await?;
    repair(record, findings).await
}

/// The same for a record that lost its tail: each job is marked, and one of ours goes back to its
/// workspace.
pub(super) async fn recover_unknown(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    wire_ids: Vec<String>,
) -> Result<u64, ReconcileError> {
    let doubtful = Doubtful {
        unknown: wire_ids,
        ..Doubtful::default()
    };
    let findings = compare(broker, queue, doubtful).await?;
    let adopted = write(record, &findings, None).await?.adopted;
    let of_workspaces = findings.adopted.iter().filter_map(|job| {
        let options = wire::read_options(job.opts()?);
        Some((job.id(), options.envelope?.workspace_id?))
    });
    rebuild::give_to_workspaces(record, &of_workspaces.collect::<Vec<_>>()).await?;
    let line = |job: &ForeignJob| NewLog {
        job_id: job.id(),
        attempt: 0,
        level: LogLevel::Warn,
        message: "recovered: only Redis knew it, because the record had lost its tail".to_owned(),
        metadata: None,
    };
    for jobs in findings.adopted.chunks(LOG_BATCH_MAX) {
        let lines: Vec<NewLog> = jobs.iter().map(line).collect();
        logs::insert_many(record, &lines).await?;
    }
    Ok(adopted)
}

/// Writes the outcomes of open jobs that are over in Redis into a record that lost its tail.
pub(super) async fn recover_outcomes(
    record: &Record,
    broker: &Broker,
    queue: &QueueName,
    ids: &[Uuid],
) -> Result<u64, ReconcileError> {
    let known = mirror::known_by_id(record, ids).await?;
    let doubtful = Doubtful {
        known: known
            .into_iter()
            .filter(|job| !job.status.is_final())
            .collect(),
        ..Doubtful::default()
    };
    let mut findings = compare(broker, queue, doubtful).await?;
    for change in &mut findings.changes {
        let note = "recovered: the outcome was only in Redis, because the record had lost its tail";
        change.note = Some(note.to_owned());
    }
    Ok(write(record, &findings, None).await?.changed)
}

/// Walks through all jobs of these queues in Redis: those that the record does not know are
/// adopted. Returns how many.
pub(super) async fn scan_all(
    record: &Record,
    broker: &Broker,
    queues: &[QueueName],
) -> Result<u64, ReconcileError> {
    let mut scan = scan::Scan::default();
    queues.iter().for_each(|queue| scan.request(queue));
    while scan.step(record, broker).await? {}
    Ok(scan.repaired)
}

async fn repair(record: &Record, mut findings: Findings) -> Result<u64, ReconcileError> {
    if findings.is_nothing() {
        return Ok(0);
    }
    for change in &mut findings.changes {
        change
            .note
            .get_or_insert_with(|| "reconciled: copied from Redis".to_owned());
    }
    let repaired = write(record, &findings, None).await?;
    let repaired = repaired.adopted + repaired.changed;
    metrics::counter!("bullwark_jobs_reconciled_total").increment(repaired);
    Ok(repaired)
}
