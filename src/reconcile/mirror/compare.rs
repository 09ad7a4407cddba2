//! Looks at jobs in Redis and works out what the record lacks.
//!
//! The rows were read before, so that whoever changes one meanwhile wins (see `record::mirror`).

use std::collections::HashMap;

use uuid::Uuid;

use super::adoption::adoption;
use super::decide::{self, End, Hints};
use crate::broker::{Broker, BrokerError, WireJob};
use crate::job::{QueueName, Status, WireForm};
use crate::reconcile::ReconcileError;
use crate::reconcile::halves::{Halves, passed_over};
use crate::record::adopt::{ForeignJob, Standing, record_id};
use crate::record::mirror::{self, Change, KnownJob, Mirrored, Position};
use crate::record::{Record, RecordError};

/// Jobs of one queue that may differ between the stores.
#[derive(Debug, Default)]
pub(super) struct Doubtful {
    /// With their rows.
    pub(super) known: Vec<KnownJob>,
    /// Ids on the wire that the record has no row for.
    pub(super) unknown: Vec<String>,
    /// By the id on the wire.
    pub(super) hints: HashMap<String, Hints>,
    /// When unknown jobs were added, and their names, as far as events say so.
    pub(super) added: HashMap<String, (i64, String)>,
}

/// What to write.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) adopted: Vec<ForeignJob>,
    pub(super) changes: Vec<Change>,
    /// Unknown jobs that are gone, and how they ended is not known yet.
    pub(super) vanished: Vec<String>,
    /// Jobs of which a run by foreign code is over: their logs may have grown. The first ones are
    /// rows that exist, the others are adopted here.
    pub(super) ended: Vec<(Uuid, String)>,
    pub(super) ended_adopted: Vec<(Uuid, String)>,
    /// Lost jobs whose id belongs to a later one, with the number of their newest start.
    pub(super) renamed: Vec<(Uuid, i32)>,
    /// Where that is, if it is of one queue.
    queue: Option<QueueName>,
}

impl Findings {
    pub(super) fn of(changes: Vec<Change>) -> Self {
        Self {
            changes,
            ..Self::default()
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.adopted.is_empty() && self.changes.is_empty() && self.renamed.is_empty()
    }
}

impl Doubtful {
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.unknown.is_empty()
    }
}

pub(super) async fn compare(
    broker: &Broker,
    queue: &QueueName,
    doubtful: Doubtful,
) -> Result<Findings, BrokerError> {
    let Doubtful {
        known,
        mut unknown,
        hints,
        added,
    } = doubtful;
    let mut findings = Findings {
        queue: Some(queue.clone()),
        ..Findings::default()
    };
    if known.is_empty() && unknown.is_empty() {
        return Ok(findings);
    }
    let epoch = broker.epoch().await?;
    let now_ms = broker.server_time_ms().await?;
    let none = Hints::default();
    let ids: Vec<String> = known.iter().map(|job| job.wire_id.clone()).collect();
    let seen = broker.read_jobs(queue, &ids, false).await?;
    for (known, seen) in known.iter().zip(&seen) {
        let hints = hints.get(&known.wire_id).unwrap_or(&none);
        let is_another = seen.as_ref().is_some_and(|seen| is_another(known, seen));
        let change = match is_another {
            false => decide::change(known, seen.as_ref(), hints, now_ms),
            // Its id was given to a later job: what became of it?
            true => {
                unknown.push(known.wire_id.clone());
                let ended = decide::change(known, None, hints, now_ms);
                let was_removed = known.epoch.as_ref() == Some(&epoch);
                match (ended, known.status.is_final()) {
                    (Some(ended), _) => Some(ended),
                    (None, true) => None,
                    (None, false) if was_removed => Some(decide::removed(known)),
                    (None, false) if never_began(known) && is_iteration(&known.wire_id) => {
                        Some(decide::made_again(known))
                    }
                    (None, false) => {
                        findings.renamed.push((known.id, known.attempt));
                        None
                    }
                }
            }
        };
        if let (Some(change), Some(_), false) = (&change, seen, is_another)
            && change.to != Status::Processing
        {
            findings.ended.push((known.id, known.wire_id.clone()));
        }
        findings.changes.extend(change);
    }
    let seen = broker.read_jobs(queue, &unknown, true).await?;
    for (wire_id, seen) in unknown.iter().zip(seen) {
        let adopted = match seen {
            Some(seen) => {
                let adopted = adoption(broker.prefix(), queue, wire_id, &seen, &epoch);
                if let Some(job) = adopted.as_ref().filter(|_| seen.attempts_started > 0) {
                    findings.ended_adopted.push((job.id(), wire_id.clone()));
                }
                adopted
            }
            None => trace(broker.prefix(), queue, wire_id, &hints, &added),
        };
        if adopted.is_none() {
            findings.vanished.push(wire_id.clone());
        }
        findings.adopted.extend(adopted);
    }
    Ok(findings)
}

/// Whether the hash is that of a later job with the same id.
fn is_another(known: &KnownJob, seen: &WireJob) -> bool {
    let is_own = known.wire_id == known.id.to_string();
    !is_own && seen.timestamp_ms != known.created_ms
}

fn never_began(known: &KnownJob) -> bool {
    known.status == Status::Pending && known.attempt == 0
}

/// Whether the id names a moment of a schedule: two jobs with this id are the same one.
fn is_iteration(wire_id: &str) -> bool {
    let moment = wire_id
        .strip_prefix("repeat:")
        .and_then(|id| id.rsplit_once(':'));
    moment.is_some_and(|(_, ms)| ms.parse::<i64>().is_ok())
}

/// What is left of a job that came and went between two looks: its name and how it ended.
fn trace(
    prefix: &str,
    queue: &QueueName,
    wire_id: &str,
    hints: &HashMap<String, Hints>,
    added: &HashMap<String, (i64, String)>,
) -> Option<ForeignJob> {
    let (added_ms, name) = added.get(wire_id)?;
    let standing = match hints.get(wire_id)?.ended.clone()? {
        End::Completed { returnvalue, at_ms } => Standing::Completed {
            result: returnvalue,
            started_ms: None,
            ended_ms: at_ms,
        },
        End::Failed { reason, at_ms } => Standing::Dead {
            error: reason,
            stack: None,
            started_ms: None,
            ended_ms: at_ms,
        },
    };
    let id = record_id(prefix, queue, wire_id, *added_ms);
    let job = ForeignJob::new(id, wire_id.to_owned(), queue, name, "null")
        .with_history(0, *added_ms)
        .with_starts(1)
        .with_wire(WireForm::default())
        .with_standing(standing)
        .as_trace();
    Some(job)
}

/// Writes what was found and how far it was read. A job that the record can never hold is left out,
/// so that it does not keep the others out: see `halves`.
pub(super) async fn write(
    record: &Record,
    findings: &Findings,
    position: Option<Position<'_>>,
) -> Result<Mirrored, ReconcileError> {
    let Findings {
        adopted,
        changes,
        renamed,
        vanished: _,
        ended: _,
        ended_adopted: _,
        queue,
    } = findings;
    if !renamed.is_empty() {
        mirror::rename_many(record, renamed).await?;
    }
    let mut mirrored = match mirror::commit(record, adopted, changes, position).await {
        Err(RecordError::Refused { .. }) => Mirrored::default(),
        done => return Ok(count(done?)),
    };
    let mut halves = Halves::of(adopted);
    while let Some(part) = halves.next() {
        let written = mirror::commit(record, part, &[], None).await;
        let written = halves.judge(part, written.map_err(Into::into), |job, error| {
            passed_over(job.queue().as_str(), job.wire_id(), error);
        })?;
        mirrored.adopted += written.unwrap_or_default().adopted;
    }
    let queue = queue.as_ref().map_or("", QueueName::as_str);
    let mut halves = Halves::of(changes);
    while let Some(part) = halves.next() {
        let written = mirror::commit(record, &[], part, None).await;
        let written = halves.judge(part, written.map_err(Into::into), |change, error| {
            passed_over(queue, &change.id.to_string(), error);
        })?;
        mirrored.changed += written.unwrap_or_default().changed;
    }
    if position.is_some() {
        mirror::commit(record, &[], &[], position).await?;
    }
    Ok(count(mirrored))
}

fn count(mirrored: Mirrored) -> Mirrored {
    metrics::counter!("bullwark_jobs_adopted_total").increment(mirrored.adopted);
    metrics::counter!("bullwark_jobs_mirrored_total").increment(mirrored.changed);
    mirrored
}
