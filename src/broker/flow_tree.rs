//! A flow as it stands in Redis: a job, its children, and theirs.

use std::collections::HashMap;

use redis::{FromRedisValue, Value};

use super::flow::FLOW_NODES_MAX;
use super::{Broker, BrokerError};
use crate::job::QueueName;

/// The most children of one kind per job that are looked at.
pub const FLOW_CHILDREN_MAX: usize = 1000;

/// How much of a flow to read. The defaults are `BullMQ`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowPart {
    /// Levels, the first job's included.
    pub depth: usize,
    /// Children per job and per way that they stand, about; at most [`FLOW_CHILDREN_MAX`].
    pub children_max: usize,
}

impl Default for FlowPart {
    fn default() -> Self {
        Self {
            depth: 10,
            children_max: 20,
        }
    }
}

/// A job of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowTree {
    /// `prefix:queue:id`.
    pub key: String,
    /// The job's hash, as it is.
    pub fields: HashMap<String, String>,
    pub standing: Standing,
    /// First those that are done, then those that are not, that failed, that were ignored.
    pub children: Vec<Self>,
}

/// How a child stands to its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The job that was asked for.
    Root,
    /// With what it returned, JSON text.
    Processed(String),
    /// The parent waits for it.
    Pending,
    /// It failed, and its parent with it.
    Failed,
    /// It failed with this reason, and its parent goes on.
    Ignored(String),
}

/// A child that is yet to be read.
struct Named {
    key: String,
    above: Option<usize>,
    standing: Standing,
}

/// Replies per job.
const REPLIES: usize = 5;

impl Broker {
    /// The flow below a job; none: the job is not there. Children that were removed are left out,
    /// and no more than [`FLOW_NODES_MAX`] jobs are read.
    ///
    /// Not one moment's picture: jobs may move while it is read.
    pub async fn flow(
        &self,
        queue: &QueueName,
        id: &str,
        part: FlowPart,
    ) -> Result<Option<FlowTree>, BrokerError> {
        let mut level = vec![Named {
            key: format!("{}:{id}", self.queue_key(queue)),
            above: None,
            standing: Standing::Root,
        }];
        let mut found: Vec<(Option<usize>, FlowTree)> = Vec::new();
        for _ in 0..part.depth {
            level.truncate(FLOW_NODES_MAX - found.len());
            if level.is_empty() {
                break;
            }
            let replies = self.read_level(&level, part.children_max).await?;
            let mut below = Vec::new();
            for (named, replies) in level.into_iter().zip(replies.chunks(REPLIES)) {
                let fields: HashMap<String, String> = read(&replies[0])?;
                if fields.is_empty() {
                    continue;
                }
                let above = Some(found.len());
                let children = children(&replies[1..], part.children_max)?.into_iter();
                below.extend(children.map(|(key, standing)| Named {
                    key,
                    above,
                    standing,
                }));
                let tree = FlowTree {
                    key: named.key,
                    fields,
                    standing: named.standing,
                    children: Vec::new(),
                };
                found.push((named.above, tree));
            }
            level = below;
        }
        Ok(grow(found))
    }

    async fn read_level(
        &self,
        level: &[Named],
        children_max: usize,
    ) -> Result<Vec<Value>, BrokerError> {
        let count = children_max.clamp(1, FLOW_CHILDREN_MAX);
        let mut pipeline = redis::pipe();
        for Named { key, .. } in level {
            pipeline.cmd("HGETALL").arg(key);
            for (command, part) in [
                ("HSCAN", "processed"),
                ("SSCAN", "dependencies"),
                ("HSCAN", "failed"),
            ] {
                let set = format!("{key}:{part}");
                pipeline.cmd(command).arg(set).arg(0);
                pipeline.arg("COUNT").arg(count);
            }
            let failed = format!("{key}:unsuccessful");
            pipeline.cmd("ZRANGE").arg(failed).arg(0).arg(count - 1);
        }
        self.connections.pipeline("flow", &pipeline).await
    }
}

/// Small sets are scanned whole, whatever the count.
fn children(
    replies: &[Value],
    children_max: usize,
) -> Result<Vec<(String, Standing)>, BrokerError> {
    type Pairs = (String, Vec<(String, String)>);
    let count = children_max.clamp(1, FLOW_CHILDREN_MAX);
    let (_, processed): Pairs = read(&replies[0])?;
    let (_, pending): (String, Vec<String>) = read(&replies[1])?;
    let (_, ignored): Pairs = read(&replies[2])?;
    let failed: Vec<String> = read(&replies[3])?;
    let processed = processed.into_iter().take(count);
    let pending = pending.into_iter().take(count);
    let ignored = ignored.into_iter().take(count);
    Ok(processed
        .map(|(key, value)| (key, Standing::Processed(value)))
        .chain(pending.map(|key| (key, Standing::Pending)))
        .chain(failed.into_iter().map(|key| (key, Standing::Failed)))
        .chain(ignored.map(|(key, reason)| (key, Standing::Ignored(reason))))
        .collect())
}

fn read<T: FromRedisValue>(reply: &Value) -> Result<T, BrokerError> {
    T::from_redis_value_ref(reply).map_err(|error| BrokerError::corrupt("flow", error.to_string()))
}

/// Children stand behind their parents, so the last ones are picked first.
fn grow(found: Vec<(Option<usize>, FlowTree)>) -> Option<FlowTree> {
    let mut below: Vec<Vec<FlowTree>> = found.iter().map(|_| Vec::new()).collect();
    for (at, (above, mut tree)) in found.into_iter().enumerate().rev() {
        tree.children = std::mem::take(&mut below[at]);
        tree.children.reverse();
        match above {
            Some(parent) => below[parent].push(tree),
            None => return Some(tree),
        }
    }
    None
}
