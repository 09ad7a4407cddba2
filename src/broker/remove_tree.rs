//! Jobs and their children are taken out by hand: `remove`, `remove_children`, `detach_child`.
//!
//! Unlike [`Broker::cancel`], these leave alone what somebody works on.
//!
//! A call whose reply was lost is sent again, and answers then what a second call would.

use super::connection::ScriptCall;
use super::keys::check_job_id;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;

/// Calls of a script at most, each of which removes up to a thousand jobs.
const CALLS_MAX: usize = 1000;

/// What became of a job that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    Done,
    /// Redis knows no such job.
    JobMissing,
    /// Somebody works on it, or on one of the children that were to go with it. It stays, and so
    /// do those children that were there when it was noticed.
    Locked,
    /// It has more descendants than one call may look at, about 20,000. Nothing was changed.
    TooManyChildren,
    /// It is the current iteration of a schedule, which would end with it. It stays.
    Scheduled,
}

/// What became of a child that was to lose its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detached {
    Done,
    /// The parent does not wait for it. Nothing was changed.
    NotPending,
    /// Redis knows no such child.
    JobMissing,
    /// Redis knows no such parent. Nothing was changed.
    ParentMissing,
}

impl Broker {
    /// Deletes a job, with its children in whatever queue if asked; its parent does not wait for
    /// it any more, and its deduplication id is free.
    ///
    /// A large tree goes in parts, leaves first: after an error, some may be gone. Done again, it
    /// goes on.
    pub async fn remove(
        &self,
        queue: &QueueName,
        id: &str,
        with_children: bool,
    ) -> Result<Removed, BrokerError> {
        check_job_id(id)?;
        let keys = self.keys(queue);
        let mut call = ScriptCall::new(ScriptId::Remove, [&keys.meta()]);
        call.arg(keys.job_prefix()).arg(id).flag(with_children);
        for _ in 0..CALLS_MAX {
            match self.connections.run(&call, Repeat::Safe).await? {
                1.. => {}
                0 => return Ok(Removed::Done),
                -1 => return Ok(Removed::JobMissing),
                -2 => return Ok(Removed::Locked),
                -4 => return Ok(Removed::TooManyChildren),
                -8 => return Ok(Removed::Scheduled),
                code => return Err(BrokerError::corrupt("remove", format!("code {code}"))),
            }
        }
        Ok(Removed::TooManyChildren) // children come faster than they go
    }

    /// Deletes the pending children of a job, with theirs, in whatever queues; answers how many.
    /// Those that somebody works on stay, and so do those that failed. None: it has more
    /// descendants than one call may look at, about 20,000.
    pub async fn remove_children(
        &self,
        queue: &QueueName,
        id: &str,
    ) -> Result<Option<u64>, BrokerError> {
        check_job_id(id)?;
        let keys = self.keys(queue);
        let mut call = ScriptCall::new(ScriptId::RemoveChildren, [&keys.meta()]);
        call.arg(keys.job_prefix()).arg(id);
        let mut removed = 0;
        for _ in 0..CALLS_MAX {
            let (count, left): (u64, i64) = self.connections.run(&call, Repeat::Safe).await?;
            removed += count;
            match left {
                1.. => {}
                0 => return Ok(Some(removed)),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// A child has no parent any more, and the parent, given as the full key of its hash, does not
    /// wait for it. The second time the parent does not wait for it.
    pub async fn detach_child(
        &self,
        queue: &QueueName,
        id: &str,
        parent_key: &str,
    ) -> Result<Detached, BrokerError> {
        check_job_id(id)?;
        let job = self.keys(queue).job(id);
        let mut call = ScriptCall::new(ScriptId::DetachChild, [&job]);
        call.arg(parent_key);
        match self.connections.run(&call, Repeat::Safe).await? {
            0 => Ok(Detached::Done),
            1 => Ok(Detached::NotPending),
            -1 => Ok(Detached::JobMissing),
            -5 => Ok(Detached::ParentMissing),
            code => Err(BrokerError::corrupt("detach_child", format!("code {code}"))),
        }
    }
}
