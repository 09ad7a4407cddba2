//! Every Redis key of a queue, in one place. The layout is `BullMQ`'s.

use super::error::{BrokerError, Refusal};
use crate::job::QueueName;

/// Ids that would overwrite a key of the queue itself.
const RESERVED_IDS: [&str; 23] = [
    "wait",
    "paused",
    "active",
    "prioritized",
    "delayed",
    "waiting-children",
    "completed",
    "failed",
    "id",
    "pc",
    "marker",
    "meta",
    "events",
    "stalled",
    "stalled-check",
    "limiter",
    "repeat",
    "delay",
    "priority",
    "metrics:completed",
    "metrics:completed:data",
    "metrics:failed",
    "metrics:failed:data",
];

/// The keys of one queue.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    base: String,
}

impl Keys {
    pub(super) fn new(prefix: &str, queue: &QueueName) -> Self {
        Self {
            base: format!("{prefix}:{queue}:"),
        }
    }

    fn key(&self, suffix: &str) -> String {
        let mut key = String::with_capacity(self.base.len() + suffix.len());
        key.push_str(&self.base);
        key.push_str(suffix);
        key
    }

    /// Start of the key of a job's HASH, `…id`; its lock is the STRING `…id:lock`.
    pub(super) fn job_prefix(&self) -> &str {
        &self.base
    }

    /// HASH of a job.
    pub(super) fn job(&self, id: &str) -> String {
        self.key(id)
    }

    /// What a job has besides its hash: `logs`, `dependencies`, `processed`, `failed` and
    /// `unsuccessful`.
    pub(super) fn part(&self, id: &str, part: &str) -> String {
        self.key(&format!("{id}:{part}"))
    }

    /// STRING, the id of the job that owns a deduplication id.
    pub(super) fn dedup(&self, dedup_id: &str) -> String {
        self.key(&format!("de:{dedup_id}"))
    }

    /// LIST of ids without priority, next one at the tail.
    pub(super) fn wait(&self) -> String {
        self.key("wait")
    }

    /// LIST that `BullMQ` 5 renames `wait` to while a queue is paused.
    pub(super) fn paused(&self) -> String {
        self.key("paused")
    }

    /// LIST of ids in processing, newest at the head.
    pub(super) fn active(&self) -> String {
        self.key("active")
    }

    /// ZSET of ids with a priority.
    pub(super) fn prioritized(&self) -> String {
        self.key("prioritized")
    }

    /// ZSET of ids by due time.
    pub(super) fn delayed(&self) -> String {
        self.key("delayed")
    }

    /// ZSET of parents by the time they began to wait.
    pub(super) fn waiting_children(&self) -> String {
        self.key("waiting-children")
    }

    /// ZSET of ids by finish time.
    pub(super) fn completed(&self) -> String {
        self.key("completed")
    }

    /// ZSET of ids by finish time.
    pub(super) fn failed(&self) -> String {
        self.key("failed")
    }

    /// STRING, counts added jobs.
    pub(super) fn id(&self) -> String {
        self.key("id")
    }

    /// STRING, counts arrivals in `prioritized`.
    pub(super) fn pc(&self) -> String {
        self.key("pc")
    }

    /// ZSET that blocked workers pop from.
    pub(super) fn marker(&self) -> String {
        self.key("marker")
    }

    /// HASH of the queue's settings.
    pub(super) fn meta(&self) -> String {
        self.key("meta")
    }

    /// STREAM of events.
    pub(super) fn events(&self) -> String {
        self.key("events")
    }

    /// SET of ids suspected to be stalled.
    pub(super) fn stalled(&self) -> String {
        self.key("stalled")
    }

    /// STRING that exists while a stalled check is recent.
    pub(super) fn stalled_check(&self) -> String {
        self.key("stalled-check")
    }

    /// STRING, counts activations in the current window.
    pub(super) fn limiter(&self) -> String {
        self.key("limiter")
    }

    /// ZSET of the current iteration of each schedule.
    pub(super) fn repeat(&self) -> String {
        self.key("repeat")
    }

    /// HASH of a schedule; the HASH of an iteration's job is `…repeat:id:ms`.
    pub(super) fn schedule(&self, id: &str) -> String {
        self.key(&format!("repeat:{id}"))
    }

    /// HASH of a finished state's metrics, and the LIST of its points.
    pub(super) fn metrics(&self, state: &str) -> [String; 2] {
        [
            self.key(&format!("metrics:{state}")),
            self.key(&format!("metrics:{state}:data")),
        ]
    }

    /// The sets and lists of all states, in the order in which `prelude_states.lua` takes them.
    pub(super) fn states(&self) -> [String; 8] {
        [
            self.completed(),
            self.failed(),
            self.delayed(),
            self.prioritized(),
            self.active(),
            self.wait(),
            self.paused(),
            self.waiting_children(),
        ]
    }

    /// Glob for keys of this queue that end in `suffix`, which may hold a `*`.
    pub(super) fn pattern(&self, suffix: &str) -> String {
        format!("{}{suffix}", escape_glob(&self.base))
    }
}

/// Glob for the `meta` keys of all queues.
pub(super) fn every_meta(prefix: &str) -> String {
    format!("{}:*:meta", escape_glob(prefix))
}

/// The queue that a `meta` key belongs to; none if its name is not one of ours.
pub(super) fn queue_of_meta(prefix: &str, key: &str) -> Option<QueueName> {
    key.strip_prefix(prefix)?
        .strip_prefix(':')?
        .strip_suffix(":meta")?
        .parse()
        .ok()
}

/// A job id must not name a key of the queue, or the job would destroy it. An empty id would
/// make `BullMQ` choose one of its own.
pub(super) fn check_job_id(id: &str) -> Result<(), BrokerError> {
    let is_old_marker = id.starts_with("0:");
    if id.is_empty() || is_old_marker || RESERVED_IDS.contains(&id) {
        return Err(BrokerError::Refused(Refusal::JobId(id.to_owned())));
    }
    Ok(())
}

fn escape_glob(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_bullmq() {
        let queue = "mails".parse::<QueueName>().unwrap();
        let keys = Keys::new("bull", &queue);
        assert_eq!(keys.job_prefix(), "bull:mails:");
        assert_eq!(keys.waiting_children(), "bull:mails:waiting-children");
        let metrics = [
            "bull:mails:metrics:failed",
            "bull:mails:metrics:failed:data",
        ];
        assert_eq!(keys.metrics("failed"), metrics);
    }

    #[test]
    fn a_prefix_is_taken_literally_in_a_scan() {
        assert_eq!(every_meta("b*ll"), "b\\*ll:*:meta");
        assert_eq!(queue_of_meta("bull", "bull:a:meta"), "a".parse().ok());
        assert_eq!(queue_of_meta("bull", "bull:a:b:meta"), None);
        assert_eq!(queue_of_meta("bull", "bullet:a:meta"), None);
    }

    #[test]
    fn ids_that_would_overwrite_the_queue_are_refused() {
        for id in ["", "meta", "wait", "events", "0:1"] {
            assert!(check_job_id(id).is_err(), "{id}");
        }
        for id in ["1", "metadata", "0197c3de-0000-7000-8000-000000000000"] {
            assert!(check_job_id(id).is_ok(), "{id}");
        }
    }
}
