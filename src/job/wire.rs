//! A job as `BullMQ` clients see it: the `opts` JSON of its Redis hash.
//!
//! Foreign workers honour what they know (`attempts`, `backoff`, `removeOnComplete` …); what only
//! Bullwark knows stands under the one name `bullwark`, which other clients pass over. Reading is
//! forgiving: a foreign client may have written anything.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Backoff, NewJob, RetryRule, backoff};

/// How many finished jobs Redis keeps for lists of `BullMQ` tools; the record keeps them all.
pub const KEEP_COMPLETED: u64 = 1000;
/// Dead letters that Redis keeps; the record keeps them all.
pub const KEEP_FAILED: u64 = 5000;

/// What a worker must know of a job without asking the record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    #[serde(rename = "ws", default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<Uuid>,
    /// Seconds an attempt may run, when the job says so itself.
    #[serde(rename = "to", default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
    #[serde(rename = "rd", default, skip_serializing_if = "Option::is_none")]
    pub retry_delay_seconds: Option<i32>,
    #[serde(rename = "bo", default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// It has children: before it completes, Redis is asked how they stand.
    #[serde(rename = "pa", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_parent: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireOptions<'a> {
    attempts: u32,
    job_id: Uuid,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<i64>,
    priority: u32,
    backoff: WireBackoff,
    remove_on_complete: WireKeep,
    remove_on_fail: WireKeep,
    bullwark: &'a Envelope,
}

/// `BullMQ`'s nearest rule, for its own workers.
#[derive(Serialize)]
struct WireBackoff {
    r#type: &'static str,
    delay: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter: Option<f64>,
}

#[derive(Serialize)]
struct WireKeep {
    count: u64,
}

#[derive(Deserialize)]
struct ForeignOptions {
    #[serde(default)]
    attempts: Option<f64>,
    #[serde(default)]
    delay: Option<serde_json::Value>,
    #[serde(default)]
    bullwark: Option<Envelope>,
}

/// The options of a claimed job.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedOptions {
    /// Retries allowed: `BullMQ`'s `attempts` counts the first run as well.
    pub max_attempts: u32,
    /// The delay that it was added with.
    pub delay_ms: u64,
    /// `None` for a job that a foreign client added.
    pub envelope: Option<Envelope>,
}

/// The `opts` JSON of a new job. `timestamp_ms` and `due_ms` are the record's.
pub fn options(job: &NewJob, timestamp_ms: i64, due_ms: Option<i64>) -> String {
    write_options(job, timestamp_ms, due_ms, false)
}

/// The same for a job that has children.
pub fn parent_options(job: &NewJob, timestamp_ms: i64) -> String {
    write_options(job, timestamp_ms, None, true)
}

fn write_options(job: &NewJob, timestamp_ms: i64, due_ms: Option<i64>, is_parent: bool) -> String {
    let envelope = Envelope {
        workspace_id: job.workspace_id,
        timeout_seconds: job.timeout_seconds,
        retry_delay_seconds: (job.retry_delay_seconds != backoff::RETRY_DELAY_SECONDS)
            .then_some(job.retry_delay_seconds),
        backoff: job.backoff.clone(),
        is_parent,
    };
    let options = WireOptions {
        attempts: job.max_attempts + 1,
        job_id: job.id,
        timestamp: timestamp_ms,
        delay: due_ms.map(|due| (due - timestamp_ms).max(0)),
        priority: job.priority.to_wire(),
        backoff: wire_backoff(job),
        remove_on_complete: WireKeep {
            count: KEEP_COMPLETED,
        },
        remove_on_fail: WireKeep { count: KEEP_FAILED },
        bullwark: &envelope,
    };
    serde_json::to_string(&options).unwrap_or_else(|_| "{}".to_owned())
}

fn wire_backoff(job: &NewJob) -> WireBackoff {
    let exponential = |delay, jitter| WireBackoff {
        r#type: "exponential",
        delay,
        jitter,
    };
    let fixed = |delay, jitter: f64| WireBackoff {
        r#type: "fixed",
        delay,
        jitter: (jitter > 0.0).then_some(jitter),
    };
    match &job.backoff {
        None => exponential(job.retry_delay_seconds.max(0) as u64 * 1000, None),
        Some(Backoff::None) => fixed(0, 0.0),
        Some(Backoff::Fixed { delay_ms, jitter }) => fixed(*delay_ms, *jitter),
        Some(Backoff::Exponential {
            delay_ms, jitter, ..
        }) => exponential(*delay_ms, (*jitter > 0.0).then_some(*jitter)),
        Some(Backoff::List { delays_ms }) => fixed(delays_ms.first().copied().unwrap_or(0), 0.0),
    }
}

/// Reads the `opts` of a claimed job; anything unreadable counts as absent.
pub fn read_options(opts: &str) -> ClaimedOptions {
    let foreign: Option<ForeignOptions> = serde_json::from_str(opts).ok();
    let attempts = foreign
        .as_ref()
        .and_then(|o| o.attempts)
        .unwrap_or(1.0)
        .clamp(1.0, 1e9);
    ClaimedOptions {
        max_attempts: attempts as u32 - 1,
        delay_ms: foreign
            .as_ref()
            .and_then(|o| o.delay.as_ref()?.as_f64())
            .map_or(0, |delay| delay.max(0.0) as u64),
        envelope: foreign.and_then(|o| o.bullwark),
    }
}

impl ClaimedOptions {
    /// The rule for the ending of an attempt; `attempts` are the failures counted so far.
    pub fn retry_rule(&self, attempts: u32) -> RetryRule {
        let envelope = self.envelope.as_ref();
        RetryRule {
            attempts,
            max_attempts: self.max_attempts,
            retry_delay_seconds: envelope
                .and_then(|e| e.retry_delay_seconds)
                .unwrap_or(backoff::RETRY_DELAY_SECONDS),
            backoff: envelope.and_then(|e| e.backoff.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Due, Priority, QueueName};

    fn job() -> NewJob {
        NewJob {
            id: Uuid::nil(),
            workspace_id: Some(Uuid::max()),
            job_type: "noop".into(),
            queue: QueueName::default(),
            payload: "{}".into(),
            priority: Priority::default(),
            due: Due::Now,
            max_attempts: 5,
            retry_delay_seconds: 60,
            backoff: None,
            timeout_seconds: None,
            idempotency_key: None,
            created_by: None,
        }
    }

    #[test]
    fn options_are_what_bullmq_s_workers_expect() {
        let text = options(&job(), 1_700_000_000_000, Some(1_700_000_005_000));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["attempts"], 6);
        assert_eq!(json["delay"], 5000);
        assert_eq!(json["priority"], 11);
        assert_eq!(json["backoff"]["type"], "exponential");
        assert_eq!(json["backoff"]["delay"], 60_000);
        assert_eq!(json["jobId"], Uuid::nil().to_string());
    }

    #[test]
    fn a_worker_reads_back_the_rule_that_the_enqueuer_wrote() {
        let mut job = job();
        job.backoff = Some(Backoff::List {
            delays_ms: vec![1, 2],
        });
        job.retry_delay_seconds = 7;
        job.max_attempts = 2;
        let rule = read_options(&options(&job, 0, None)).retry_rule(1);
        assert_eq!(
            (rule.attempts, rule.max_attempts, rule.retry_delay_seconds),
            (1, 2, 7)
        );
        assert_eq!(rule.backoff, job.backoff);
    }

    #[test]
    fn foreign_options_never_fail() {
        for opts in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"attempts":"x"}"#,
            r#"{"attempts":0}"#,
        ] {
            let read = read_options(opts);
            assert_eq!((read.max_attempts, read.envelope), (0, None), "{opts}");
        }
        assert_eq!(read_options(r#"{"attempts":3}"#).max_attempts, 2);
    }
}
