//! The options of a job that a `BullMQ` client added, as far as whoever runs it must honour them.
//!
//! Reading is forgiving: whatever can not be read counts as absent. The names are those of the JSON
//! in the job's Redis hash.

use serde::{Deserialize, Deserializer};

use super::Backoff;

/// The most texts of a stack trace list that are kept when the job does not say.
const STACK_TRACES_MAX: usize = 100;
/// The delay of a backoff that names a strategy and no delay: the specification's first one.
const UNKNOWN_DELAY_MS: u64 = 60_000;

/// How long finished jobs stay in Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeepFinished {
    /// The newest so many; 0: not even this one; none: all.
    pub count: Option<u64>,
    /// Those younger than this.
    pub age_seconds: Option<u64>,
    /// Jobs that go for their age per call.
    pub limit: Option<u64>,
}

/// What the options say. See `JobsOptions` of `BullMQ`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ForeignOptions {
    /// Runs allowed; 0 means one, as 1 does.
    pub attempts: u32,
    pub backoff: Option<Backoff>,
    pub lifo: bool,
    pub remove_on_complete: Option<KeepFinished>,
    pub remove_on_fail: Option<KeepFinished>,
    /// Stack traces that are kept, newest last.
    pub stack_traces_max: usize,
    pub keep_logs: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Raw {
    #[serde(deserialize_with = "lenient")]
    attempts: Option<f64>,
    #[serde(deserialize_with = "lenient")]
    backoff: Option<RawBackoff>,
    #[serde(deserialize_with = "lenient")]
    lifo: Option<bool>,
    #[serde(deserialize_with = "lenient")]
    remove_on_complete: Option<RawKeep>,
    #[serde(deserialize_with = "lenient")]
    remove_on_fail: Option<RawKeep>,
    #[serde(deserialize_with = "lenient")]
    stack_trace_limit: Option<f64>,
    #[serde(deserialize_with = "lenient", rename = "kl")]
    keep_logs: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawBackoff {
    Delay(f64),
    Rule {
        #[serde(default)]
        r#type: String,
        #[serde(default)]
        delay: Option<f64>,
        #[serde(default)]
        jitter: Option<f64>,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawKeep {
    Flag(bool),
    Count(f64),
    Rule {
        #[serde(default)]
        count: Option<f64>,
        #[serde(default)]
        age: Option<f64>,
        #[serde(default)]
        limit: Option<f64>,
    },
}

/// A value of another type than expected is no value.
fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// A number of JavaScript as a count.
fn count(number: f64) -> u64 {
    number.max(0.0) as u64
}

impl KeepFinished {
    pub const ALL: Self = Self {
        count: None,
        age_seconds: None,
        limit: None,
    };

    /// `removeOnComplete` and `removeOnFail` in any of their forms: a flag, a number, or an object
    /// with `age` in seconds, `count` and `limit`. A negative count keeps all.
    pub fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str::<RawKeep>(json).ok().map(Self::from)
    }
}

impl From<RawKeep> for KeepFinished {
    fn from(raw: RawKeep) -> Self {
        let (number, age, limit) = match raw {
            RawKeep::Flag(true) => (Some(0.0), None, None),
            RawKeep::Flag(false) => (None, None, None),
            RawKeep::Count(number) => (Some(number), None, None),
            RawKeep::Rule { count, age, limit } => (count, age, limit),
        };
        Self {
            count: number.filter(|number| *number >= 0.0).map(count),
            age_seconds: age.map(count),
            limit: limit.map(count),
        }
    }
}

impl From<RawBackoff> for Option<Backoff> {
    fn from(raw: RawBackoff) -> Self {
        let (kind, delay, jitter) = match raw {
            RawBackoff::Delay(delay) => ("fixed".to_owned(), Some(delay), None),
            RawBackoff::Rule {
                r#type,
                delay,
                jitter,
            } => (r#type, delay, jitter),
        };
        let delay_ms = count(delay.unwrap_or(0.0));
        let jitter = jitter.unwrap_or(0.0).clamp(0.0, 1.0);
        match kind.as_str() {
            "fixed" => Some(Backoff::Fixed { delay_ms, jitter }),
            "exponential" => Some(Backoff::Exponential {
                delay_ms,
                max_ms: Some(u64::MAX),
                jitter,
            }),
            // A strategy of the application's own, which only its worker knows. Its delay is a
            // better guess than none: without one, a job would spend all its attempts at once.
            _ => Some(Backoff::Fixed {
                delay_ms: match delay_ms {
                    0 => UNKNOWN_DELAY_MS,
                    delay_ms => delay_ms,
                },
                jitter,
            }),
        }
    }
}

impl ForeignOptions {
    /// Reads `opts` of a job's hash.
    pub fn read(opts: &str) -> Self {
        let raw: Raw = serde_json::from_str(opts).unwrap_or_default();
        Self {
            attempts: raw.attempts.unwrap_or(0.0).clamp(0.0, 1e9) as u32,
            backoff: raw.backoff.and_then(Into::into),
            lifo: raw.lifo.unwrap_or(false),
            remove_on_complete: raw.remove_on_complete.map(Into::into),
            remove_on_fail: raw.remove_on_fail.map(Into::into),
            stack_traces_max: raw
                .stack_trace_limit
                .map_or(STACK_TRACES_MAX, |limit| count(limit) as usize),
            keep_logs: raw.keep_logs.map(count),
        }
    }
}

/// The stack traces of a job after one more failure: a JSON array, newest last. `before` may be
/// anything that a client has left there.
pub fn append_stack_trace(before: Option<&str>, stack: &str, max: usize) -> String {
    let mut traces: Vec<serde_json::Value> = before
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default();
    traces.push(stack.into());
    let excess = traces.len().saturating_sub(max);
    traces.drain(..excess);
    serde_json::Value::Array(traces).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_every_form_that_bullmq_writes() {
        let options = ForeignOptions::read(
            r#"{"attempts":3,"backoff":{"type":"exponential","delay":100,"jitter":0.5},"lifo":true,
               "removeOnComplete":true,"removeOnFail":{"age":10,"count":5,"limit":2},
               "stackTraceLimit":1,"kl":7,"other":[1]}"#,
        );
        assert_eq!(options.attempts, 3);
        assert_eq!(
            options.backoff,
            Some(Backoff::Exponential {
                delay_ms: 100,
                max_ms: Some(u64::MAX),
                jitter: 0.5
            })
        );
        assert!(options.lifo);
        let none_kept = KeepFinished {
            count: Some(0),
            ..KeepFinished::ALL
        };
        assert_eq!(options.remove_on_complete, Some(none_kept));
        let some_kept = KeepFinished {
            count: Some(5),
            age_seconds: Some(10),
            limit: Some(2),
        };
        assert_eq!(options.remove_on_fail, Some(some_kept));
        assert_eq!((options.stack_traces_max, options.keep_logs), (1, Some(7)));
        for (json, kept) in [("false", None), ("-1", None), ("12", Some(12))] {
            assert_eq!(KeepFinished::from_json(json).unwrap().count, kept, "{json}");
        }
        let fixed = ForeignOptions::read(r#"{"backoff":2000}"#).backoff;
        assert_eq!(
            fixed,
            Some(Backoff::Fixed {
                delay_ms: 2000,
                jitter: 0.0
            })
        );
    }

    #[test]
    fn nonsense_counts_as_absent() {
        for opts in [
            "",
            "null",
            "[]",
            r#"{"attempts":"x","backoff":[],"lifo":1,"removeOnComplete":"no"}"#,
        ] {
            let options = ForeignOptions::read(opts);
            assert_eq!((options.attempts, options.backoff), (0, None), "{opts}");
            assert_eq!(options.remove_on_complete, None, "{opts}");
        }
    }

    #[test]
    fn the_newest_stack_traces_stay() {
        assert_eq!(append_stack_trace(None, "a", 9), r#"["a"]"#);
        assert_eq!(
            append_stack_trace(Some(r#"["a","b"]"#), "c", 2),
            r#"["b","c"]"#
        );
        assert_eq!(append_stack_trace(Some("broken"), "c", 2), r#"["c"]"#);
        assert_eq!(append_stack_trace(Some(r#"["a"]"#), "b", 0), "[]");
    }
}
