//! Trees of jobs: a parent runs when its children are done.
//!
//! A flow goes in with one call of `add_linked`, so there is never a part of one. A child that
//! exists already is linked instead of added; if it is done already, its parent is not released
//! before the last job of the flow is there.

use std::collections::VecDeque;

use uuid::Uuid;

use super::error::Refusal;
use super::linked::{AddedLinked, LinkedJob};
use super::{Broker, BrokerError};
use crate::job::QueueName;
use crate::job::bullmq_options::{JobsOptions, ParentOption};

/// Jobs of one call at most, over all its flows: the script stops the server while it runs.
pub const FLOW_NODES_MAX: usize = 1000;
/// Bytes of job text of one call at most.
pub const FLOW_BYTES_MAX: usize = 16 << 20;

/// A job and those that it waits for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FlowNode {
    pub queue: QueueName,
    /// Start of the keys of its queue; none: the broker's own. In a cluster all prefixes of a flow
    /// share a hash tag.
    pub prefix: Option<String>,
    pub name: String,
    /// JSON text.
    pub data: String,
    /// `parent` counts at the root only: it hangs the whole flow under a job that exists. A job
    /// without an id gets a UUID, never one that the queue counts.
    pub options: JobsOptions,
    pub children: Vec<Self>,
}

/// What became of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedNode {
    pub queue: QueueName,
    /// The id that it has if it was created.
    pub id: String,
    pub added: AddedLinked,
    pub children: Vec<Self>,
}

/// A node on its way to the script.
struct Placed<'a> {
    node: &'a FlowNode,
    above: Option<usize>,
    queue_key: String,
    id: String,
    job: LinkedJob,
}

impl Broker {
    /// Adds a flow: all of its jobs or none. See [`Broker::add_flows`].
    pub async fn add_flow(&self, flow: &FlowNode) -> Result<AddedNode, BrokerError> {
        let mut added = self.add_flows(std::slice::from_ref(flow)).await?;
        let none = || BrokerError::corrupt("add_flow", "no answer");
        added.pop().ok_or_else(none)
    }

    /// Adds flows over any queues in one atomic step: level by level, as `FlowProducer` does, so
    /// parents come before their children. Jobs with children wait for them, the others are
    /// available at once.
    ///
    /// Refused before anything is written: what `BullMQ` refuses, and more than
    /// [`FLOW_NODES_MAX`] jobs or [`FLOW_BYTES_MAX`] bytes. A root whose parent does not exist, and
    /// then all below it, is answered [`AddedLinked::ParentMissing`]. After a failure nothing is
    /// known; called again with the same ids, it adds what is missing.
    pub async fn add_flows(&self, flows: &[FlowNode]) -> Result<Vec<AddedNode>, BrokerError> {
        let placed = self.place(flows)?;
        let jobs: Vec<_> = placed
            .iter()
            .map(|placed| (placed.queue_key.as_str(), &placed.job))
            .collect();
        let answers = self.run_linked(&jobs, true, None).await?;
        Ok(grow(&placed, answers))
    }

    /// Adds jobs of any queues of this prefix in one atomic step, parents before their children; a
    /// flow whose jobs are made elsewhere. The same bounds hold; and for a flow of the record, as
    /// with [`Broker::add_until`], a last moment by the server's clock.
    pub async fn add_flow_jobs(
        &self,
        jobs: &[(QueueName, LinkedJob)],
        not_after_ms: Option<i64>,
    ) -> Result<Vec<AddedLinked>, BrokerError> {
        if jobs.len() > FLOW_NODES_MAX {
            return Err(BrokerError::Refused(Refusal::FlowNodes));
        }
        let keys: Vec<String> = jobs
            .iter()
            .map(|(queue, _)| self.queue_key(queue))
            .collect();
        let jobs = keys
            .iter()
            .zip(jobs)
            .map(|(key, (_, job))| (key.as_str(), job));
        self.run_linked(&jobs.collect::<Vec<_>>(), true, not_after_ms)
            .await
    }

    /// Level by level over all flows. Without recursion: a flow may be a long chain.
    fn place<'a>(&self, flows: &'a [FlowNode]) -> Result<Vec<Placed<'a>>, BrokerError> {
        let mut placed: Vec<Placed<'a>> = Vec::new();
        let mut waiting: VecDeque<_> = flows.iter().map(|node| (node, None)).collect();
        let mut bytes = 0;
        while let Some((node, above)) = waiting.pop_front() {
            if placed.len() == FLOW_NODES_MAX {
                return Err(BrokerError::Refused(Refusal::FlowNodes));
            }
            let next = self.place_node(node, above.map(|at: usize| (at, &placed[at])))?;
            bytes += next.job.bytes();
            if bytes > FLOW_BYTES_MAX {
                return Err(BrokerError::Refused(Refusal::FlowBytes));
            }
            let at = placed.len();
            placed.push(next);
            waiting.extend(node.children.iter().map(|child| (child, Some(at))));
        }
        Ok(placed)
    }

    fn place_node<'a>(
        &self,
        node: &'a FlowNode,
        above: Option<(usize, &Placed<'_>)>,
    ) -> Result<Placed<'a>, BrokerError> {
        let is_parent = !node.children.is_empty();
        if is_parent && node.options.deduplication.is_some() {
            return Err(BrokerError::Refused(Refusal::FlowDeduplication));
        }
        let mut options = node.options.clone();
        if let Some((_, parent)) = above {
            options.parent = Some(ParentOption {
                id: parent.id.clone(),
                queue: parent.queue_key.clone(),
            });
        }
        let mut job = LinkedJob::new(&node.name, &node.data, &options)?;
        let id = job.id.take().unwrap_or_else(|| Uuid::now_v7().to_string());
        job.id = Some(id.clone());
        job.waits_for_children = is_parent;
        let prefix = node.prefix.as_deref().unwrap_or(self.prefix());
        Ok(Placed {
            node,
            above: above.map(|(at, _)| at),
            queue_key: format!("{prefix}:{}", node.queue),
            id,
            job,
        })
    }
}

/// The trees again. Children stand behind their parents, so the last ones are picked first.
fn grow(placed: &[Placed<'_>], answers: Vec<AddedLinked>) -> Vec<AddedNode> {
    let mut children: Vec<Vec<AddedNode>> = placed.iter().map(|_| Vec::new()).collect();
    let mut roots = Vec::new();
    for (at, (placed, added)) in placed.iter().zip(answers).enumerate().rev() {
        let mut below = std::mem::take(&mut children[at]);
        below.reverse();
        let node = AddedNode {
            queue: placed.node.queue.clone(),
            id: placed.id.clone(),
            added,
            children: below,
        };
        match placed.above {
            Some(parent) => children[parent].push(node),
            None => roots.push(node),
        }
    }
    roots.reverse();
    roots
}
