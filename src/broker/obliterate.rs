//! A queue is deleted whole, or what got lost in it: `obliterate` and `remove_orphans`.

use std::collections::BTreeSet;

use super::batch::batches;
use super::connection::ScriptCall;
use super::keys::check_job_id;
use super::script::ScriptId;
use super::{Broker, BrokerError, Repeat};
use crate::job::QueueName;

/// Jobs that one script call deletes.
const DELETE_MAX: usize = 1000;
/// Script calls at most: ten million jobs.
const CALLS_MAX: usize = 10_000;
/// Pages of a scan at most, a thousand keys of the database each.
const PAGES_MAX: usize = 100_000;
/// Times that a queue is looked through for what no state names.
const ROUNDS_MAX: usize = 10;
/// `de:…` and `dn:…` keys that go with one command.
const DEDUP_KEYS_MAX: usize = 1000;
/// Such keys that one round looks up.
const DEDUP_LOOK_MAX: usize = 100_000;

/// Ends of keys that belong to a job.
const JOB_PARTS: [&str; 6] = [
    ":lock",
    ":logs",
    ":dependencies",
    ":processed",
    ":failed",
    ":unsuccessful",
];

/// What became of a queue that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obliterated {
    Done,
    /// Only a paused queue is deleted. Nothing was changed.
    NotPaused,
    /// Somebody works on jobs of it, and `force` was not given.
    HasActive,
    /// Jobs come faster than they go, or there are more than one call may delete: call again.
    Unfinished,
}

impl Broker {
    /// Deletes a paused queue with all its jobs, schedules, settings, metrics and events. With
    /// `force` also active jobs, whoever works on them.
    ///
    /// In bounded parts: after an error, some may be gone, and the queue stays paused. Done again,
    /// it goes on; when all is gone it answers [`Obliterated::NotPaused`].
    pub async fn obliterate(
        &self,
        queue: &QueueName,
        force: bool,
    ) -> Result<Obliterated, BrokerError> {
        for _ in 0..ROUNDS_MAX {
            for _ in 0..CALLS_MAX {
                match self.obliterate_part(queue, force, None).await? {
                    1 => {}
                    0 => break,
                    code => return obliterated(code),
                }
            }
            // What is in no state goes before the settings: with those gone, the queue may be in
            // use again.
            self.remove_orphans(queue).await?;
            let dedup_keys = self.dedup_keys(queue).await?;
            let is_last = dedup_keys.len() <= DEDUP_KEYS_MAX;
            if !is_last {
                self.forget_dedup_keys(queue, &dedup_keys).await?;
                continue;
            }
            let last = self
                .obliterate_part(queue, force, Some(&dedup_keys))
                .await?;
            if last != 1 {
                return obliterated(last);
            }
        }
        Ok(Obliterated::Unfinished)
    }

    /// Deletes jobs that have a hash but are in no state, and parts of jobs without a hash.
    /// Answers how many.
    ///
    /// Walks over all keys of the database, so it is for people, not for a loop.
    pub async fn remove_orphans(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        let (mut removed, mut cursor) = (0, 0);
        for _ in 0..PAGES_MAX {
            let page = self.scan_keys(queue, cursor).await?;
            let ids: BTreeSet<String> = page.keys.iter().filter_map(|key| job_of(key)).collect();
            let ids: Vec<String> = ids.into_iter().collect();
            for batch in batches(&ids, String::len) {
                removed += self.remove_orphans_of(queue, batch).await?;
            }
            match page.next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        Ok(removed)
    }

    async fn remove_orphans_of(
        &self,
        queue: &QueueName,
        ids: &[String],
    ) -> Result<u64, BrokerError> {
        let keys = self.keys(queue);
        let mut call = ScriptCall::new(
            ScriptId::RemoveOrphans,
            keys.states().each_ref().map(String::as_str),
        );
        call.arg(keys.job_prefix());
        ids.iter().for_each(|id| {
            call.arg(id);
        });
        let removed: Vec<String> = self.connections.run(&call, Repeat::Safe).await?;
        Ok(removed.len() as u64)
    }

    /// The code of `obliterate.lua`; with `last`, the queue's own keys go, and those.
    async fn obliterate_part(
        &self,
        queue: &QueueName,
        force: bool,
        last: Option<&[String]>,
    ) -> Result<i64, BrokerError> {
        let keys = self.keys(queue);
        let mut call = ScriptCall::new(ScriptId::Obliterate, [&keys.meta()]);
        call.arg(keys.job_prefix())
            .arg(DELETE_MAX)
            .flag(force)
            .flag(last.is_some());
        last.unwrap_or_default().iter().for_each(|suffix| {
            call.arg(suffix);
        });
        self.connections.run(&call, Repeat::Safe).await
    }

    /// Suffixes of the keys of deduplication ids.
    async fn dedup_keys(&self, queue: &QueueName) -> Result<Vec<String>, BrokerError> {
        let (mut found, mut cursor) = (BTreeSet::new(), 0);
        for _ in 0..PAGES_MAX {
            let page = self.scan_keys(queue, cursor).await?;
            let is_dedup = |key: &String| key.starts_with("de:") || key.starts_with("dn:");
            found.extend(page.keys.into_iter().filter(is_dedup));
            match page.next {
                Some(next) if found.len() < DEDUP_LOOK_MAX => cursor = next,
                _ => break,
            }
        }
        Ok(found.into_iter().collect())
    }

    async fn forget_dedup_keys(
        &self,
        queue: &QueueName,
        suffixes: &[String],
    ) -> Result<(), BrokerError> {
        let keys = self.keys(queue);
        for part in suffixes.chunks(DEDUP_KEYS_MAX) {
            let mut cmd = redis::cmd("DEL");
            part.iter().for_each(|suffix| {
                cmd.arg(keys.job(suffix));
            });
            let _: u64 = self.connections.command("obliterate", &cmd).await?;
        }
        Ok(())
    }
}

fn obliterated(code: i64) -> Result<Obliterated, BrokerError> {
    match code {
        0 => Ok(Obliterated::Done),
        -1 => Ok(Obliterated::NotPaused),
        -2 => Ok(Obliterated::HasActive),
        _ => Err(BrokerError::corrupt("obliterate", format!("code {code}"))),
    }
}

/// The id of the job that a key may belong to; none for keys of the queue itself.
pub(super) fn job_of(suffix: &str) -> Option<String> {
    let is_of_queue = ["de:", "dn:", "metrics:"]
        .iter()
        .any(|start| suffix.starts_with(start));
    let part = JOB_PARTS.iter().find_map(|end| suffix.strip_suffix(end));
    let id = part.unwrap_or(suffix);
    (!is_of_queue && check_job_id(id).is_ok()).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_queue_are_told_from_keys_of_jobs() {
        for suffix in [
            "meta",
            "de:x",
            "dn:x",
            "metrics:failed",
            "metrics:failed:data",
        ] {
            assert_eq!(job_of(suffix), None, "{suffix}");
        }
        for (suffix, id) in [
            ("7", "7"),
            ("7:lock", "7"),
            ("7:unsuccessful", "7"),
            ("repeat:s:5", "repeat:s:5"),
            ("repeat:s:5:logs", "repeat:s:5"),
        ] {
            assert_eq!(job_of(suffix).as_deref(), Some(id), "{suffix}");
        }
    }
}
