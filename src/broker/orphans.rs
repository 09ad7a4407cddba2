//! Finding what is left of jobs that are gone: `find_orphans`.

use std::collections::BTreeSet;

use super::batch::batches;
use super::connection::ScriptCall;
use super::obliterate::job_of;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;

/// Something that no job needs, or that a job lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Orphan {
    /// A job that is in no state: nobody will ever run it.
    Hash,
    /// Locks, logs or links without a job.
    Parts,
    /// The lock of a job that is not active.
    Lock,
    /// A state names it, and it has no hash.
    Ghost,
}

/// A page of the jobs that keys of a queue belong to.
#[derive(Debug, Clone, Default)]
pub struct JobKeys {
    pub ids: Vec<String>,
    /// What to pass for the next page; none: this was the last.
    pub next: Option<u64>,
}

impl Broker {
    /// Ids of jobs that have any key. Begin with cursor 0; an id may come twice.
    pub async fn job_keys(&self, queue: &QueueName, cursor: u64) -> Result<JobKeys, BrokerError> {
        let page = self.scan_keys(queue, cursor).await?;
        let ids: BTreeSet<String> = page.keys.iter().filter_map(|key| job_of(key)).collect();
        Ok(JobKeys {
            ids: ids.into_iter().collect(),
            next: page.next,
        })
    }

    /// What is wrong with the keys of each of these ids, if anything.
    pub async fn find_orphans(
        &self,
        queue: &QueueName,
        ids: &[String],
    ) -> Result<Vec<Option<Orphan>>, BrokerError> {
        let keys = self.keys(queue);
        let mut answers = Vec::with_capacity(ids.len());
        for batch in batches(ids, String::len) {
            let mut call = ScriptCall::new(
                ScriptId::FindOrphans,
                keys.states().each_ref().map(String::as_str),
            );
            call.arg(keys.job_prefix());
            batch.iter().for_each(|id| {
                call.arg(id);
            });
            let found: Vec<String> = self.connections.run(&call, Repeat::Safe).await?;
            if found.len() != batch.len() {
                let reason = "ids and answers differ in number";
                return Err(BrokerError::corrupt("find_orphans", reason));
            }
            for what in found {
                answers.push(match what.as_str() {
                    "" => None,
                    "hash" => Some(Orphan::Hash),
                    "parts" => Some(Orphan::Parts),
                    "lock" => Some(Orphan::Lock),
                    "ghost" => Some(Orphan::Ghost),
                    _ => return Err(BrokerError::corrupt("find_orphans", what)),
                });
            }
        }
        Ok(answers)
    }
}
