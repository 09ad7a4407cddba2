//! One entry of a queue's event stream, as it is and as what it means.
//!
//! Most entries are only glanced at, so an [`Entry`] keeps the bytes; [`Entry::event`] makes the
//! typed event of those that somebody wants to know more about.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use redis::Value;
use serde_json::value::RawValue;

/// The place of an entry in its stream: ms of the server's clock, and a number within that ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    pub ms: u64,
    pub seq: u64,
}

impl EventId {
    /// Before every entry.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// A text that is no id of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of a stream entry")]
pub struct InvalidEventId;

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let (ms, seq) = text.split_once('-').ok_or(InvalidEventId)?;
        let number = |part: &str| part.parse().map_err(|_| InvalidEventId);
        Ok(Self {
            ms: number(ms)?,
            seq: number(seq)?,
        })
    }
}

/// An entry as it stands in the stream.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: EventId,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What happened. JSON texts are valid JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Added {
        job_id: String,
        name: String,
    },
    /// `prev` is the state before, none for a new job.
    Waiting {
        job_id: String,
        prev: Option<String>,
    },
    /// `due_ms` is a time, not a length.
    Delayed {
        job_id: String,
        due_ms: i64,
    },
    WaitingChildren {
        job_id: String,
        prev: Option<String>,
    },
    Active {
        job_id: String,
        prev: Option<String>,
    },
    /// `data` is JSON text.
    Progress {
        job_id: String,
        data: String,
    },
    /// `returnvalue` is JSON text.
    Completed {
        job_id: String,
        returnvalue: String,
        prev: Option<String>,
    },
    /// For good; `reason` is plain text.
    Failed {
        job_id: String,
        reason: String,
        prev: Option<String>,
    },
    RetriesExhausted {
        job_id: String,
        attempts_made: u64,
    },
    Stalled {
        job_id: String,
    },
    Removed {
        job_id: String,
        prev: Option<String>,
    },
    Duplicated {
        job_id: String,
    },
    /// `job_id` survives, `deduplicated_job_id` does not.
    Deduplicated {
        job_id: String,
        deduplication_id: String,
        deduplicated_job_id: String,
    },
    /// Written by `BullMQ` 5 only.
    Debounced {
        job_id: String,
        debounce_id: String,
    },
    Drained,
    Paused,
    Resumed,
    Cleaned {
        count: u64,
    },
    /// One that an application published under a name of its own.
    Other {
        name: String,
        fields: Vec<(String, String)>,
    },
    /// Not what its name promises; the reason says what is wrong.
    Invalid {
        name: String,
        reason: &'static str,
        fields: Vec<(String, String)>,
    },
}

impl Entry {
    pub(super) fn parse(reply: Value) -> Option<Self> {
        let Value::Array(parts) = reply else {
            return None;
        };
        let [Value::BulkString(id), fields] = <[Value; 2]>::try_from(parts).ok()? else {
            return None;
        };
        let id = std::str::from_utf8(&id).ok()?.parse().ok()?;
        let Value::Array(values) = fields else {
            // Redis answers nothing for an entry that was deleted meanwhile.
            return Some(Self {
                id,
                fields: Vec::new(),
            });
        };
        let mut fields = Vec::with_capacity(values.len() / 2);
        let mut values = values.into_iter();
        while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) =
            (values.next(), values.next())
        {
            fields.push((name, value));
        }
        Some(Self { id, fields })
    }

    /// The bytes of a field.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .fields
            .iter()
            .find(|(known, _)| known == name.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }

    /// The text of a field; what is no text in it is replaced.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.bytes(name).map(String::from_utf8_lossy)
    }

    /// The name of the event, empty if it has none.
    pub fn name(&self) -> &[u8] {
        match self.fields.first() {
            Some((name, value)) if name == b"event" => value,
            _ => self.bytes("event").unwrap_or_default(),
        }
    }

    /// What happened. Never fails: see [`Event::Invalid`].
    pub fn event(&self) -> Event {
        self.typed().unwrap_or_else(|reason| Event::Invalid {
            name: lossy(self.name()),
            reason,
            fields: self.texts(),
        })
    }

    fn typed(&self) -> Result<Event, &'static str> {
        let job_id = || self.required("jobId", "no jobId");
        let prev = || self.text("prev").map(Cow::into_owned);
        Ok(match self.name() {
            b"" => return Err("no name"),
            b"added" => Event::Added {
                job_id: job_id()?,
                name: self.required("name", "no name of the job")?,
            },
            b"waiting" => Event::Waiting {
                job_id: job_id()?,
                prev: prev(),
            },
            b"delayed" => Event::Delayed {
                job_id: job_id()?,
                due_ms: self.due_ms().ok_or("delay is no number")?,
            },
            b"waiting-children" => Event::WaitingChildren {
                job_id: job_id()?,
                prev: prev(),
            },
            b"active" => Event::Active {
                job_id: job_id()?,
                prev: prev(),
            },
            b"progress" => Event::Progress {
                job_id: job_id()?,
                data: self.json("data")?,
            },
            b"completed" => Event::Completed {
                job_id: job_id()?,
                returnvalue: self.json("returnvalue")?,
                prev: prev(),
            },
            b"failed" => Event::Failed {
                job_id: job_id()?,
                reason: self.required("failedReason", "no failedReason")?,
                prev: prev(),
            },
            b"retries-exhausted" => Event::RetriesExhausted {
                job_id: job_id()?,
                attempts_made: self
                    .number("attemptsMade")
                    .ok_or("attemptsMade is no number")?,
            },
            b"stalled" => Event::Stalled { job_id: job_id()? },
            b"removed" => Event::Removed {
                job_id: job_id()?,
                prev: prev(),
            },
            b"duplicated" => Event::Duplicated { job_id: job_id()? },
            b"deduplicated" => Event::Deduplicated {
                job_id: job_id()?,
                deduplication_id: self.required("deduplicationId", "no deduplicationId")?,
                deduplicated_job_id: self.required("deduplicatedJobId", "no deduplicatedJobId")?,
            },
            b"debounced" => Event::Debounced {
                job_id: job_id()?,
                debounce_id: self.required("debounceId", "no debounceId")?,
            },
            b"drained" => Event::Drained,
            b"paused" => Event::Paused,
            b"resumed" => Event::Resumed,
            b"cleaned" => Event::Cleaned {
                count: self.number("count").ok_or("count is no number")?,
            },
            name => Event::Other {
                name: lossy(name),
                fields: self.texts(),
            },
        })
    }

    fn required(&self, name: &str, missing: &'static str) -> Result<String, &'static str> {
        self.text(name).map(Cow::into_owned).ok_or(missing)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// Lua writes a large number as it likes.
    fn due_ms(&self) -> Option<i64> {
        let number: f64 = self.text("delay")?.parse().ok()?;
        number.is_finite().then_some(number as i64)
    }

    fn json(&self, name: &str) -> Result<String, &'static str> {
        let text = std::str::from_utf8(self.bytes(name).ok_or("no value")?);
        let text = text.map_err(|_| "the value is no text")?;
        serde_json::from_str::<&RawValue>(text).map_err(|_| "the value is no JSON")?;
        Ok(text.to_owned())
    }

    fn texts(&self) -> Vec<(String, String)> {
        self.fields
            .iter()
            .map(|(name, value)| (lossy(name), lossy(value)))
            .collect()
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[&str]) -> Entry {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let fields = fields.iter().map(|text| bulk(text)).collect();
        Entry::parse(Value::Array(vec![bulk("5-1"), Value::Array(fields)])).unwrap()
    }

    #[test]
    fn an_event_has_the_fields_of_its_name() {
        let completed = [
            "event",
            "completed",
            "jobId",
            "7",
            "returnvalue",
            "{}",
            "prev",
            "active",
        ];
        let expected = Event::Completed {
            job_id: "7".into(),
            returnvalue: "{}".into(),
            prev: Some("active".into()),
        };
        assert_eq!(entry(&completed).event(), expected);
        let delayed = ["event", "delayed", "jobId", "7", "delay", "1.7e12"];
        let due_ms = 1_700_000_000_000;
        assert_eq!(
            entry(&delayed).event(),
            Event::Delayed {
                job_id: "7".into(),
                due_ms
            }
        );
        assert_eq!(entry(&["event", "drained"]).event(), Event::Drained);
        let other = Event::Other {
            name: "mine".into(),
            fields: vec![("event".into(), "mine".into()), ("a".into(), "b".into())],
        };
        assert_eq!(entry(&["event", "mine", "a", "b"]).event(), other);
    }

    #[test]
    fn what_is_not_as_promised_is_reported() {
        for fields in [
            &["event", "completed", "jobId", "7", "returnvalue", "{"][..],
            &["event", "completed", "jobId", "7"],
            &["event", "progress", "jobId", "7", "data", "not json"],
            &["event", "active"],
            &["event", "delayed", "jobId", "7", "delay", "soon"],
            &["x", "y"],
            &[],
        ] {
            let event = entry(fields).event();
            assert!(
                matches!(event, Event::Invalid { .. }),
                "{fields:?}: {event:?}"
            );
        }
    }

    #[test]
    fn ids_are_in_the_order_of_the_stream() {
        let id = |text: &str| text.parse::<EventId>().unwrap();
        assert!(id("9-5") < id("10-0") && id("10-0") < id("10-1"));
        assert_eq!(id("10-1").to_string(), "10-1");
        for text in ["", "1", "$", "a-1", "1-"] {
            assert_eq!(text.parse::<EventId>(), Err(InvalidEventId), "{text}");
        }
    }
}
