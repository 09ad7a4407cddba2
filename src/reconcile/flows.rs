//! Jobs of flows come back with their links.
//!
//! A parent is put back with what the record knows of its children: those that are done, with their
//! results, and those that it still waits for. So each job of a flow can be put back alone, in any
//! state of its relatives, and a parent never starts too early.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{ReconcileError, links};
use crate::broker::{
    AddedLinked, Broker, ChildEnding, EndedChild, LinkedJob, ParentLink, StoredChildren,
};
use crate::enqueue::stored_entry;
use crate::job::Status;
use crate::job::flow::{FlowWire, OnFailure};
use crate::record::open::{LOAD_MAX, StoredJob};
use crate::record::{Record, flow};

/// Jobs that are read with those that are put back or told, about.
const RELATIVES_MAX: usize = 1000;

type Relatives = HashMap<Uuid, flow::Relative>;

/// Adds stored jobs that Redis lacks, those of flows with their links.
pub(super) async fn deliver(
    record: &Record,
    broker: &Broker,
    jobs: &[StoredJob],
) -> Result<(), ReconcileError> {
    let linked = jobs
        .iter()
        .filter_map(|stored| Some((stored, stored.flow.as_ref()?)));
    let mut linked: Vec<(&StoredJob, &FlowWire)> = linked.collect();
    if linked.is_empty() {
        return links::deliver(record, broker, jobs).await;
    }
    let plain = jobs.iter().filter(|stored| stored.flow.is_none());
    let plain: Vec<StoredJob> = plain.cloned().collect();
    links::deliver(record, broker, &plain).await?;
    // Ids ascend from parents to children.
    linked.sort_by_key(|(stored, _)| stored.job.id);
    for part in parts(&linked, |(_, wire)| wire) {
        let relatives = relatives(record, part.iter().map(|(_, wire)| *wire)).await?;
        add_linked(broker, part, &relatives).await?;
    }
    Ok(())
}

/// Consecutive parts whose jobs have about [`RELATIVES_MAX`] relatives.
fn parts<T>(jobs: &[T], wire: impl Fn(&T) -> &FlowWire) -> Vec<&[T]> {
    let (mut parts, mut first, mut count) = (Vec::new(), 0, 0);
    for (at, job) in jobs.iter().enumerate() {
        let more = wire(job).children.len() + 1;
        if at > first && count + more > RELATIVES_MAX {
            parts.push(&jobs[first..at]);
            (first, count) = (at, 0);
        }
        count += more;
    }
    parts.push(&jobs[first..]);
    parts
}

async fn relatives<'a>(
    record: &Record,
    wires: impl Iterator<Item = &'a FlowWire>,
) -> Result<Relatives, ReconcileError> {
    let mut ids: HashSet<Uuid> = HashSet::new();
    for wire in wires {
        ids.extend(wire.children.iter().copied().chain(wire.parent_id()));
    }
    let ids: Vec<Uuid> = ids.into_iter().collect();
    let relatives = flow::relatives(record, &ids).await?.into_iter();
    Ok(relatives.map(|relative| (relative.id, relative)).collect())
}

/// In this order; one call per run of one queue.
async fn add_linked(
    broker: &Broker,
    jobs: &[(&StoredJob, &FlowWire)],
    relatives: &Relatives,
) -> Result<(), ReconcileError> {
    for run in jobs.chunk_by(|(a, _), (b, _)| a.job.queue == b.job.queue) {
        let entries: Vec<LinkedJob> = run
            .iter()
            .map(|(stored, wire)| entry(broker, stored, wire, relatives))
            .collect();
        let added = broker.add_linked(&run[0].0.job.queue, &entries).await?;
        let orphans = added.iter().filter(|a| **a == AddedLinked::ParentMissing);
        let orphans = orphans.count();
        if orphans > 0 {
            // Its turn comes in the next round, after its parent's.
            tracing::info!(
                jobs = orphans,
                "children are not put back before their parents"
            );
        }
    }
    Ok(())
}

fn entry(broker: &Broker, stored: &StoredJob, wire: &FlowWire, relatives: &Relatives) -> LinkedJob {
    let mut linked = LinkedJob::from(stored_entry(stored));
    linked.opts.clone_from(&wire.opts);
    linked.unless_released = true; // it was read a moment ago, and may have run since
    // A parent that is over waits for nobody, and may be gone from Redis.
    let parent = wire.parent_id().and_then(|id| relatives.get(&id));
    if parent.is_some_and(|parent| !is_over(parent.status)) {
        linked.parent = wire
            .parent_key
            .clone()
            .zip(wire.parent.clone())
            .map(|(key, json)| ParentLink { key, json });
    }
    if wire.children.is_empty() {
        return linked;
    }
    let children = wire.children.iter().filter_map(|id| relatives.get(id));
    let mut stood = StoredChildren::default();
    let mut may_run = false;
    for child in children {
        let (result, error) = (child.result.clone(), child.error.clone());
        let (key, rule) = (key(broker.prefix(), child), child.wire.on_failure());
        may_run |= stand(&mut stood, key, child.status, rule, result, error);
    }
    // It has run before: whatever its children do now, it waits for them no longer.
    let is_first = stored.attempts == 0 && stored.attempt == 0;
    linked.waits_for_children = is_first && !may_run && !stood.pending.is_empty();
    if !is_first {
        stood.pending.clear(); // nobody would tell it of their end
    }
    linked.children = stood;
    linked
}

/// Tells waiting parents of children that are over, in case Redis had lost one of them when the
/// child ended: nobody else would.
pub(super) async fn tell_waiting(
    record: &Record,
    broker: &Broker,
    parents: &[Uuid],
) -> Result<(), ReconcileError> {
    for parents in parents.chunks(LOAD_MAX) {
        let links = flow::links(record, parents).await?;
        for part in parts(&links, |(_, wire)| wire) {
            let relatives = relatives(record, part.iter().map(|(_, wire)| wire)).await?;
            let children = part.iter().flat_map(|(_, wire)| &wire.children);
            let ended: Vec<EndedChild> = children
                .filter_map(|id| ended(broker.prefix(), relatives.get(id)?))
                .collect();
            broker.tell_parents(&ended).await?;
        }
    }
    Ok(())
}

/// The child if it is over.
fn ended(prefix: &str, child: &flow::Relative) -> Option<EndedChild> {
    let result = || child.result.clone().unwrap_or_else(|| "null".to_owned());
    let ending = match child.status {
        Status::Completed => ChildEnding::Completed(result()),
        Status::DeadLetter => ChildEnding::Failed(child.error.clone().unwrap_or_default()),
        Status::Cancelled => ChildEnding::Removed,
        Status::Pending | Status::Processing | Status::Failed => return None,
    };
    Some(EndedChild {
        key: key(prefix, child),
        parent_key: child.wire.parent_key.clone()?,
        parent: child.wire.parent.clone()?,
        ending,
    })
}

fn key(prefix: &str, child: &flow::Relative) -> String {
    format!("{prefix}:{}:{}", child.queue, child.id)
}

pub(super) fn is_over(status: Status) -> bool {
    matches!(
        status,
        Status::Completed | Status::DeadLetter | Status::Cancelled
    )
}

/// Notes how a child stands to its parent; true: it has set the parent free.
pub(super) fn stand(
    stood: &mut StoredChildren,
    key: String,
    status: Status,
    rule: OnFailure,
    result: Option<String>,
    error: Option<String>,
) -> bool {
    let error = error.unwrap_or_default();
    match (status, rule) {
        (Status::Completed, _) => {
            let result = result.unwrap_or_else(|| "null".to_owned());
            stood.processed.push((key, result));
        }
        (Status::DeadLetter, OnFailure::FailParent) => {
            stood.failed.push(key);
            return true; // to fail at its claim
        }
        (Status::DeadLetter, OnFailure::ContinueParent) => {
            stood.ignored.push((key, error));
            return true;
        }
        (Status::DeadLetter, OnFailure::IgnoreDependency) => stood.ignored.push((key, error)),
        (Status::DeadLetter, OnFailure::RemoveDependency) | (Status::Cancelled, _) => {}
        (Status::DeadLetter, OnFailure::Wait)
        | (Status::Pending | Status::Processing | Status::Failed, _) => stood.pending.push(key),
    }
    false
}
