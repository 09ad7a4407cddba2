//! What a parent knows of its children.

use super::{Broker, BrokerError, LIST_MAX};
use crate::job::QueueName;

/// Children that [`Broker::children_values`] reads at most.
const CHILDREN_MAX: usize = 100_000;

/// What became of a child, as its parent was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChildState {
    /// It completed; its value is kept, JSON text.
    Processed,
    /// It is not over.
    Pending,
    /// It failed, and the parent goes on without it; the reason is kept, plain text.
    Ignored,
    /// It failed, and the parent with it.
    Failed,
}

/// How many children a parent has of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChildCounts {
    pub processed: u64,
    pub pending: u64,
    pub ignored: u64,
    pub failed: u64,
}

/// A page of children. It may be empty, or longer than asked for, although there is a next one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChildPage {
    /// The full key of each child's hash, with its value or reason where the parent keeps one.
    pub children: Vec<(String, Option<String>)>,
    /// What to pass for the next page; none: this was the last. A child may come twice.
    pub next: Option<u64>,
}

impl Broker {
    /// How many children a job has of each kind, at one moment.
    pub async fn child_counts(
        &self,
        queue: &QueueName,
        id: &str,
    ) -> Result<ChildCounts, BrokerError> {
        let keys = self.keys(queue);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("HLEN").arg(keys.part(id, "processed"));
        pipeline.cmd("SCARD").arg(keys.part(id, "dependencies"));
        pipeline.cmd("HLEN").arg(keys.part(id, "failed"));
        pipeline.cmd("ZCARD").arg(keys.part(id, "unsuccessful"));
        let (processed, pending, ignored, failed) =
            self.connections.pipeline("child_counts", &pipeline).await?;
        Ok(ChildCounts {
            processed,
            pending,
            ignored,
            failed,
        })
    }

    /// A page of the children of a job, about `limit` of them, at most [`LIST_MAX`]. Begin with
    /// cursor 0.
    pub async fn children(
        &self,
        queue: &QueueName,
        id: &str,
        state: ChildState,
        cursor: u64,
        limit: usize,
    ) -> Result<ChildPage, BrokerError> {
        let keys = self.keys(queue);
        let (command, key) = match state {
            ChildState::Processed => ("HSCAN", keys.part(id, "processed")),
            ChildState::Pending => ("SSCAN", keys.part(id, "dependencies")),
            ChildState::Ignored => ("HSCAN", keys.part(id, "failed")),
            ChildState::Failed => ("ZSCAN", keys.part(id, "unsuccessful")),
        };
        let mut cmd = redis::cmd(command);
        cmd.arg(key)
            .arg(cursor)
            .arg("COUNT")
            .arg(limit.clamp(1, LIST_MAX));
        let (next, flat): (u64, Vec<String>) = self.connections.command("children", &cmd).await?;
        let mut children = Vec::with_capacity(flat.len());
        let mut flat = flat.into_iter();
        while let Some(key) = flat.next() {
            let value = match state {
                ChildState::Pending => None,
                ChildState::Processed | ChildState::Ignored => flat.next(),
                // When it failed, which nobody needs.
                ChildState::Failed => flat.next().and(None),
            };
            children.push((key, value));
        }
        Ok(ChildPage {
            children,
            next: (next != 0).then_some(next),
        })
    }

    /// The values of the children that completed, JSON text by the key of the child, sorted.
    ///
    /// With `next`, there are more than this reads, 100,000: go on with [`Broker::children`].
    pub async fn children_values(
        &self,
        queue: &QueueName,
        id: &str,
    ) -> Result<ChildPage, BrokerError> {
        self.whole(queue, id, ChildState::Processed).await
    }

    /// Why children failed that their parent goes on without, by the key of the child, sorted.
    ///
    /// With `next`, there are more than this reads, 100,000: go on with [`Broker::children`].
    pub async fn ignored_failures(
        &self,
        queue: &QueueName,
        id: &str,
    ) -> Result<ChildPage, BrokerError> {
        self.whole(queue, id, ChildState::Ignored).await
    }

    async fn whole(
        &self,
        queue: &QueueName,
        id: &str,
        state: ChildState,
    ) -> Result<ChildPage, BrokerError> {
        let mut whole = ChildPage::default();
        let mut cursor = 0;
        while whole.children.len() < CHILDREN_MAX {
            let page = self.children(queue, id, state, cursor, LIST_MAX).await?;
            whole.children.extend(page.children);
            whole.next = page.next;
            match page.next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        whole.children.sort();
        whole.children.dedup_by(|a, b| a.0 == b.0);
        Ok(whole)
    }
}
