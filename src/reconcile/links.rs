//! Jobs of `BullMQ` clients come back with their links: parents, schedules, deduplication ids.
//!
//! Each job can be put back alone, in any state of its relatives, and again after dying anywhere:
//! a parent comes with what the record knows of its children, and a child whose parent is still
//! to come waits for the next round.

use std::collections::{HashMap, HashSet};

use super::ReconcileError;
use super::flows::{is_over, stand};
use crate::broker::{
    AddedLinked, Broker, ChildEnding, ChildState, EndedChild, LinkedJob, ParentLink, StoredChildren,
};
use crate::enqueue::{deliver_stored, stored_entry};
use crate::job::bullmq_options::{Deduplication, JobsOptions};
use crate::job::flow::OnFailure;
use crate::job::{QueueName, Status, WireForm};
use crate::record::open::StoredJob;
use crate::record::{Record, family};

/// Children that are looked at, and that Redis is told of, in one call.
const TELL_MAX: usize = 500;

/// What the record knows of the relatives of some jobs.
#[derive(Default)]
struct Family {
    /// By the key of their parent.
    children: HashMap<String, Vec<family::Child>>,
    /// Keys of parents that will not run again.
    over: HashSet<String>,
    /// Keys of parents that are to be put back, too, if Redis lacks them.
    open: HashSet<String>,
}

/// Adds stored jobs that Redis lacks, none of them of a flow that Bullwark accepted itself.
pub(super) async fn deliver(
    record: &Record,
    broker: &Broker,
    jobs: &[StoredJob],
) -> Result<(), ReconcileError> {
    let is_foreign = |stored: &&StoredJob| stored.wire.is_some();
    let (foreign, plain): (Vec<_>, Vec<_>) = jobs.iter().partition(is_foreign);
    let family = Family::of(record, broker, &foreign).await?;
    if !foreign.iter().any(|stored| family.ties(broker, stored)) {
        return Ok(deliver_stored(broker, jobs).await?);
    }
    let plain: Vec<StoredJob> = plain.into_iter().cloned().collect();
    deliver_stored(broker, &plain).await?;
    let ordered = parents_first(broker, &foreign);
    for run in ordered.chunk_by(|a, b| a.job.queue == b.job.queue) {
        add(broker, run, &family).await?;
    }
    Ok(())
}

/// In this order; what can not come back with all of its links comes back with the others.
async fn add(broker: &Broker, run: &[&StoredJob], family: &Family) -> Result<(), ReconcileError> {
    let queue = &run[0].job.queue;
    let entries: Vec<LinkedJob> = run.iter().map(|job| family.entry(broker, job)).collect();
    let answers = broker.add_linked(queue, &entries).await?;
    for (mut entry, answer) in entries.into_iter().zip(answers) {
        match answer {
            // A newer job took the id. This one was accepted before that, and must run.
            AddedLinked::Deduplicated { .. } => entry.deduplication = None,
            AddedLinked::ParentMissing if !family.will_come(&entry) => entry.parent = None,
            // Its turn comes in the next round, after its parent's.
            AddedLinked::ParentMissing
            | AddedLinked::ParentKept
            | AddedLinked::Created { .. }
            | AddedLinked::Duplicate { .. } => continue,
        }
        broker.add_linked(queue, &[entry]).await?;
    }
    Ok(())
}

/// Tells waiting parents of children that are over and that they still wait for, in case Redis had
/// lost one of them when the child ended: nobody else would.
pub(super) async fn tell_waiting(
    record: &Record,
    broker: &Broker,
    parents: &[(QueueName, String)],
) -> Result<(), ReconcileError> {
    let start = format!("{}:", broker.prefix());
    let keys: Vec<String> = parents
        .iter()
        .map(|(queue, id)| format!("{start}{queue}:{id}"))
        .collect();
    // Flows of the record's own have none: asked at once, or each of them would cost two calls.
    let with_children = match keys.is_empty() {
        true => return Ok(()),
        false => family::parents_among(record, &keys).await?,
    };
    for ((queue, id), parent_key) in parents.iter().zip(keys) {
        if !with_children.contains(&parent_key) {
            continue;
        }
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let page = broker
                .children(queue, id, ChildState::Pending, from, TELL_MAX)
                .await?;
            cursor = page.next;
            let names = page.children.iter().filter_map(|(key, _)| {
                // Names of queues hold no colon, ids may.
                let (queue, id) = key.strip_prefix(&start)?.split_once(':')?;
                Some((queue.to_owned(), id.to_owned()))
            });
            let names: Vec<(String, String)> = names.collect();
            if names.is_empty() {
                continue;
            }
            let children = family::ended(record, &parent_key, &names).await?;
            let ended: Vec<EndedChild> = children
                .iter()
                .filter_map(|child| ended(broker, child))
                .collect();
            if !ended.is_empty() {
                broker.tell_parents(&ended).await?;
            }
        }
    }
    Ok(())
}

/// The child if it is over.
fn ended(broker: &Broker, child: &family::Child) -> Option<EndedChild> {
    let result = || child.result.clone().unwrap_or_else(|| "null".to_owned());
    let ending = match child.status {
        Status::Completed => ChildEnding::Completed(result()),
        Status::DeadLetter => ChildEnding::Failed(child.error.clone().unwrap_or_default()),
        Status::Cancelled => ChildEnding::Removed,
        Status::Pending | Status::Processing | Status::Failed => return None,
    };
    Some(EndedChild {
        key: child_key(broker, child),
        parent_key: child.parent_key.clone(),
        parent: child.parent.clone(),
        ending,
    })
}

fn child_key(broker: &Broker, child: &family::Child) -> String {
    format!("{}:{}:{}", broker.prefix(), child.queue, child.wire_id)
}

fn key(broker: &Broker, stored: &StoredJob) -> String {
    format!(
        "{}:{}:{}",
        broker.prefix(),
        stored.job.queue,
        stored.wire_id
    )
}

fn parent_key(stored: &StoredJob) -> Option<&String> {
    stored.wire.as_ref()?.parent_key.as_ref()
}

/// The order stays, but for parents that stand behind one of their descendants.
fn parents_first<'a>(broker: &Broker, jobs: &[&'a StoredJob]) -> Vec<&'a StoredJob> {
    let places: HashMap<String, usize> =
        (0..).zip(jobs).map(|(n, j)| (key(broker, j), n)).collect();
    let mut is_placed = vec![false; jobs.len()];
    let mut ordered = Vec::with_capacity(jobs.len());
    for first in 0..jobs.len() {
        let (mut line, mut next) = (Vec::new(), Some(first));
        // A client may have written a circle: nobody is placed twice.
        while let Some(place) = next.filter(|place| !is_placed[*place]) {
            is_placed[place] = true;
            line.push(jobs[place]);
            next = parent_key(jobs[place]).and_then(|key| places.get(key).copied());
        }
        ordered.extend(line.into_iter().rev());
    }
    ordered
}

/// Queue and id of the parent, if it is of this prefix. The key does not tell them apart: an id
/// may hold a colon.
fn parent_name(prefix: &str, wire: &WireForm) -> Option<(String, String)> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Parent {
        id: String,
        queue_key: String,
    }
    let parent: Parent = serde_json::from_str(wire.parent.as_deref()?).ok()?;
    let queue = parent.queue_key.strip_prefix(prefix)?.strip_prefix(':')?;
    Some((queue.to_owned(), parent.id))
}

impl Family {
    async fn of(
        record: &Record,
        broker: &Broker,
        jobs: &[&StoredJob],
    ) -> Result<Self, ReconcileError> {
        let mut family = Self::default();
        if jobs.is_empty() {
            return Ok(family);
        }
        let keys: Vec<String> = jobs.iter().map(|stored| key(broker, stored)).collect();
        for child in family::children(record, &keys).await? {
            let of_parent = family.children.entry(child.parent_key.clone());
            of_parent.or_default().push(child);
        }
        let mut parents: HashMap<(String, String), &String> = HashMap::new();
        for wire in jobs.iter().filter_map(|stored| stored.wire.as_ref()) {
            let name = parent_name(broker.prefix(), wire);
            parents.extend(name.zip(wire.parent_key.as_ref()));
        }
        let names: Vec<_> = parents.keys().cloned().collect();
        if names.is_empty() {
            return Ok(family);
        }
        for (name, status) in family::statuses(record, &names).await? {
            let parent = parents[&name].clone();
            match is_over(status) {
                true => family.over.insert(parent),
                false => family.open.insert(parent),
            };
        }
        Ok(family)
    }

    /// Whether anything ties the job to others.
    fn ties(&self, broker: &Broker, stored: &StoredJob) -> bool {
        let is_tied = |wire: &WireForm| {
            wire.parent_key.is_some() || wire.rjk.is_some() || wire.deid.is_some()
        };
        stored.wire.as_ref().is_some_and(is_tied)
            || self.children.contains_key(&key(broker, stored))
    }

    fn will_come(&self, entry: &LinkedJob) -> bool {
        let parent = entry.parent.as_ref();
        parent.is_some_and(|parent| self.open.contains(&parent.key))
    }

    fn entry(&self, broker: &Broker, stored: &StoredJob) -> LinkedJob {
        let mut linked = LinkedJob::from(stored_entry(stored));
        if let Some(wire) = &stored.wire {
            linked.schedule_id.clone_from(&wire.rjk);
            linked.deduplication = deduplication(wire, stored.age_ms);
            // A parent that is over waits for nobody, and may be gone from Redis.
            let parent = wire.parent_key.clone().zip(wire.parent.clone());
            linked.parent = parent
                .filter(|(key, _)| !self.over.contains(key))
                .map(|(key, json)| ParentLink { key, json });
        }
        let Some(children) = self.children.get(&key(broker, stored)) else {
            return linked;
        };
        let mut stood = StoredChildren::default();
        let mut may_run = false;
        for child in children {
            let (result, error) = (child.result.clone(), child.error.clone());
            let rule = OnFailure::read(&child.parent);
            let key = child_key(broker, child);
            may_run |= stand(&mut stood, key, child.status, rule, result, error);
        }
        // It has run before: whatever its children do now, it waits for them no longer.
        let is_first = stored.attempts == 0 && stored.attempt == 0;
        linked.waits_for_children = is_first && !may_run && !stood.pending.is_empty();
        linked.children = stood;
        linked
    }
}

/// Its hold on its deduplication id: until it ends, or for what is left of the time. How often
/// others extended that time is not known.
///
/// Without the modes: they say what a newcomer does to the owner, and it is none.
fn deduplication(wire: &WireForm, age_ms: i64) -> Option<Deduplication> {
    let id = wire.deid.clone()?;
    let asked = JobsOptions::read(&wire.opts).deduplication;
    let asked = asked.filter(|asked| !asked.keep_last_if_active);
    let ttl_ms = asked.and_then(|asked| asked.ttl_ms).filter(|ttl| *ttl > 0);
    let ttl_ms = ttl_ms.map(|ttl| ttl.saturating_sub(age_ms));
    (ttl_ms.is_none_or(|rest| rest > 0)).then(|| Deduplication {
        id,
        ttl_ms,
        ..Deduplication::default()
    })
}
