//! A job that a foreign `BullMQ` client added, as far as the record keeps it.

use uuid::Uuid;

use crate::job::schedule::ScheduleName;
use crate::job::{Priority, QueueName, Status, WireForm};

/// The name space of ids that are made from a foreign job's key.
const FOREIGN: Uuid = Uuid::from_u128(0x6f2c_1a53_9b1d_5c8e_9a55_3a4c_77b0_e1d2);
/// Before the id of the record: the name on the wire of a foreign job whose own id was given to
/// another one while Redis had forgotten it.
pub(super) const RENAMED: &str = "bullwark-";
/// The width of `jobs.job_type`.
const NAME_MAX: usize = 100;

/// The id that a job has in the record.
///
/// Bullwark's own jobs have it on the wire as well; for a foreign one it is made from what
/// identifies it there, so that adopting it twice gives the same. It begins with the time, as all
/// ids of jobs do: the passes over the record rely on that. It says version 8, made by a rule of
/// our own.
pub fn record_id(prefix: &str, queue: &QueueName, wire_id: &str, timestamp_ms: i64) -> Uuid {
    if let Ok(id) = wire_id.parse::<Uuid>()
        && id.get_version_num() == 7
    {
        return id;
    }
    if let Some(id) = wire_id.strip_prefix(RENAMED).and_then(|id| id.parse().ok()) {
        return id;
    }
    let name = format!("{prefix}:{queue}:{wire_id}:{timestamp_ms}");
    let mut bytes = Uuid::new_v5(&FOREIGN, name.as_bytes()).into_bytes();
    let ms = timestamp_ms.clamp(0, (1 << 48) - 1).to_be_bytes();
    bytes[..6].copy_from_slice(&ms[2..]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    Uuid::from_bytes(bytes)
}

/// A foreign job, as far as the record keeps it.
#[derive(Debug, Clone)]
pub struct ForeignJob {
    pub(super) id: Uuid,
    pub(super) wire_id: String,
    pub(super) queue: QueueName,
    pub(super) job_type: String,
    pub(super) payload: String,
    /// The payload as it came, when the record can hold it only as a JSON string.
    pub(super) unstorable: Option<String>,
    pub(super) priority: i32,
    pub(super) attempts: i32,
    pub(super) max_attempts: i32,
    pub(super) attempt: i32,
    pub(super) timestamp_ms: i64,
    pub(super) wire: Option<WireForm>,
    pub(super) epoch: Option<String>,
    pub(super) standing: Standing,
    pub(super) is_trace: bool,
    /// Whose schedule it is an iteration of.
    pub(super) workspace_id: Option<Uuid>,
}

/// Where a foreign job is in its life when it is adopted.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Standing {
    #[default]
    Waiting,
    /// It may start then, by the clock of Redis.
    Scheduled { due_ms: i64 },
    /// An attempt failed; the next may start then.
    Failed { error: String, due_ms: i64 },
    /// A foreign worker runs it.
    Running {
        worker: String,
        started_ms: Option<i64>,
    },
    /// `result` is JSON text, or any text.
    Completed {
        result: String,
        started_ms: Option<i64>,
        ended_ms: i64,
    },
    Dead {
        error: String,
        stack: Option<String>,
        started_ms: Option<i64>,
        ended_ms: i64,
    },
}

impl ForeignJob {
    /// `data` may be any text: what is no JSON that the record can hold is kept as a JSON string.
    pub fn new(id: Uuid, wire_id: String, queue: &QueueName, name: &str, data: &str) -> Self {
        let payload = storable_json(data);
        let name = storable_text(name);
        Self {
            id,
            wire_id,
            queue: queue.clone(),
            job_type: name.chars().take(NAME_MAX).collect(),
            unstorable: (payload != data).then(|| data.to_owned()),
            payload,
            priority: 0,
            attempts: 0,
            max_attempts: 0,
            attempt: 0,
            timestamp_ms: 0,
            wire: None,
            epoch: None,
            standing: Standing::Waiting,
            is_trace: false,
            workspace_id: None,
        }
    }

    /// What its client wrote, JSON text; none: it is not known.
    pub fn opts(&self) -> Option<&str> {
        self.wire.as_ref().map(|wire| wire.opts.as_str())
    }

    /// All that is left of a job that came and went: it is recorded only if nobody has seen more
    /// of it, that is if the record knows no job of this queue and id.
    pub fn as_trace(mut self) -> Self {
        self.is_trace = true;
        self
    }

    pub fn with_numbers(mut self, wire_priority: u32, max_attempts: u32) -> Self {
        self.priority = Priority::from_wire(wire_priority).get();
        self.max_attempts = i32::try_from(max_attempts).unwrap_or(i32::MAX);
        self
    }

    pub fn with_history(mut self, attempts_made: u32, timestamp_ms: i64) -> Self {
        let attempts = i32::try_from(attempts_made).unwrap_or(i32::MAX);
        self.attempts = attempts.min(self.max_attempts);
        // Each failure was a start, at the least.
        self.attempt = self.attempt.max(attempts);
        self.timestamp_ms = timestamp_ms;
        self
    }

    /// How often foreign workers have started it: what they made of that is their affair, so the
    /// record counts from there.
    pub fn with_starts(mut self, starts: i32) -> Self {
        self.attempt = starts.max(0);
        self
    }

    /// What it brought along, so that it can be put back into Redis as it was.
    ///
    /// Without the one character that PostgreSQL reads in no JSON: a single row with it would stop
    /// every statement that looks into this column.
    pub fn with_wire(mut self, wire: WireForm) -> Self {
        let plain = |text: Option<String>| text.map(|text| storable_text(&text));
        let schedule = wire.rjk.as_deref().and_then(ScheduleName::read);
        self.workspace_id = schedule.map(|name| name.workspace_id);
        self.wire = Some(WireForm {
            opts: storable_text(&wire.opts),
            priority: wire.priority,
            data: plain(self.unstorable.take()),
            parent_key: plain(wire.parent_key),
            parent: plain(wire.parent),
            rjk: plain(wire.rjk),
            deid: plain(wire.deid),
        });
        self
    }

    /// The memory of Redis in which it was seen.
    pub fn with_epoch(mut self, epoch: impl Into<String>) -> Self {
        self.epoch = Some(epoch.into());
        self
    }

    /// Where it is in its life; without it, it waits.
    pub fn with_standing(mut self, standing: Standing) -> Self {
        self.standing = standing;
        self
    }

    /// The id that it gets in the record.
    pub fn id(&self) -> Uuid {
        self.id
    }

    pub fn queue(&self) -> &QueueName {
        &self.queue
    }

    /// Its id on the wire.
    pub fn wire_id(&self) -> &str {
        &self.wire_id
    }

    /// When it ended, if it is over.
    pub fn ended_ms(&self) -> Option<i64> {
        match self.standing {
            Standing::Completed { ended_ms, .. } | Standing::Dead { ended_ms, .. } => {
                Some(ended_ms)
            }
            _ => None,
        }
    }

    pub(super) fn status(&self) -> Status {
        match self.standing {
            Standing::Waiting | Standing::Scheduled { .. } => Status::Pending,
            Standing::Failed { .. } => Status::Failed,
            Standing::Running { .. } => Status::Processing,
            Standing::Completed { .. } => Status::Completed,
            Standing::Dead { .. } => Status::DeadLetter,
        }
    }
}

/// JSON text that the record can hold: the text itself if it is such, else as a JSON string. Read
/// whole, because PostgreSQL refuses more than a syntax check: halves of surrogate pairs, which
/// JavaScript makes when it cuts a text, numbers out of range, and what is nested too deeply.
pub(super) fn storable_json(text: &str) -> String {
    let is_json = serde_json::from_str::<serde_json::Value>(text).is_ok();
    match is_json && !text.contains("\\u0000") {
        true => text.to_owned(),
        false => serde_json::Value::from(storable_text(text)).to_string(),
    }
}

pub(super) fn storable_text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Cut to the width of `jobs.worker_id`.
pub(super) fn worker_name(name: &str) -> String {
    storable_text(name).chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_job_s_id_follows_from_the_job_and_begins_with_its_time() {
        let queue = QueueName::default();
        let id = |wire_id: &str, ms| record_id("bull", &queue, wire_id, ms);
        assert_eq!(id("1", 5), id("1", 5));
        assert!(id("1", 5) != id("2", 5) && id("1", 5) != id("1", 6));
        assert!(id("9", 1_700_000_000_000) < id("1", 1_700_000_000_001));
        assert_eq!(id("1", 5).get_version_num(), 8);
        assert_eq!(id("1", -1).as_u128() >> 80, 0);
        let own = Uuid::now_v7();
        assert_eq!(id(&own.to_string(), 5), own);
        let renamed = id("1", 5);
        assert_eq!(id(&format!("{RENAMED}{renamed}"), 9), renamed);
    }

    #[test]
    fn any_text_becomes_json_that_the_record_can_hold() {
        for (text, json) in [
            ("{\"a\":1}", "{\"a\":1}"),
            ("not json", "\"not json\""),
            ("\"\\u0000\"", "\"\\\"\\\\u0000\\\"\""),
            ("a\0b", "\"a\u{fffd}b\""),
        ] {
            assert_eq!(storable_json(text), json);
        }
    }
}
