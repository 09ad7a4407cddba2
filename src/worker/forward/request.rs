//! What is delivered: the job as a `BullMQ` client would see it, and its raw Redis hash.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::context::JobContext;
use crate::broker::ClaimedJob;
use crate::job::JobError;

#[derive(Serialize)]
struct Delivery<'a> {
    queue: &'a str,
    prefix: &'a str,
    token: &'a str,
    attempt: u32,
    worker: &'a str,
    job: Job<'a>,
    raw: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Job<'a> {
    id: &'a str,
    name: &'a str,
    data: Box<RawValue>,
    opts: Value,
    timestamp: i64,
    priority: i64,
    delay: i64,
    attempts_made: u32,
    attempts_started: u32,
    stalled_counter: u32,
    processed_on: i64,
    progress: Box<RawValue>,
    parent: Option<Box<RawValue>>,
    parent_key: Option<&'a str>,
    repeat_job_key: Option<&'a str>,
    deduplication_id: Option<&'a str>,
}

/// The body of a delivery.
pub(super) fn body(ctx: &JobContext, job: &ClaimedJob) -> Result<Vec<u8>, JobError> {
    let raw: BTreeMap<&str, &str> = job
        .hash
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let number = |field: &str| {
        raw.get(field)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    };
    let delivery = Delivery {
        queue: ctx.queue().as_str(),
        prefix: ctx.prefix(),
        token: ctx.token(),
        attempt: job.attempts_started,
        worker: ctx.worker_id(),
        job: Job {
            id: &job.id,
            name: &job.name,
            data: json_or_text(&job.data),
            opts: long_names(&job.opts),
            timestamp: job.timestamp_ms,
            priority: number("priority"),
            delay: number("delay"),
            attempts_made: job.attempts_made,
            attempts_started: job.attempts_started,
            stalled_counter: job.stalled_count,
            processed_on: number("processedOn"),
            progress: json_or_text(raw.get("progress").unwrap_or(&"0")),
            parent: job.parent.as_deref().map(json_or_text),
            parent_key: job.parent_key.as_deref(),
            repeat_job_key: job.repeat_job_key.as_deref(),
            deduplication_id: job.dedup_id.as_deref(),
        },
        raw,
    };
    serde_json::to_vec(&delivery).map_err(JobError::permanent)
}

/// A text that should be JSON and is not is delivered as a JSON string.
fn json_or_text(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned())
        .or_else(|_| serde_json::value::to_raw_value(text))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The options with the names that users of `BullMQ` know; on the wire some are short.
fn long_names(opts: &str) -> Value {
    let short: Map<String, Value> = serde_json::from_str(opts).unwrap_or_default();
    let mut long = Map::new();
    let mut telemetry = Map::new();
    for (name, value) in short {
        match name.as_str() {
            "de" => long.insert("deduplication".to_owned(), value),
            "fpof" => long.insert("failParentOnFailure".to_owned(), value),
            "cpof" => long.insert("continueParentOnFailure".to_owned(), value),
            "idof" => long.insert("ignoreDependencyOnFailure".to_owned(), value),
            "rdof" => long.insert("removeDependencyOnFailure".to_owned(), value),
            "kl" => long.insert("keepLogs".to_owned(), value),
            "tm" => telemetry.insert("metadata".to_owned(), value),
            "omc" => telemetry.insert("omitContext".to_owned(), value),
            _ => long.insert(name, value),
        };
    }
    if !telemetry.is_empty() {
        long.insert("telemetry".to_owned(), Value::Object(telemetry));
    }
    Value::Object(long)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_get_the_names_that_users_know() {
        assert_eq!(
            long_names(r#"{"attempts":3,"de":{"id":"a"},"kl":5,"tm":"m","omc":true,"fpof":true}"#),
            json!({
                "attempts": 3, "deduplication": { "id": "a" }, "keepLogs": 5,
                "telemetry": { "metadata": "m", "omitContext": true }, "failParentOnFailure": true
            })
        );
        assert_eq!(long_names("no json"), json!({}));
    }

    #[test]
    fn data_is_delivered_as_it_stands() {
        assert_eq!(json_or_text(r#"{"n":1.50}"#).get(), r#"{"n":1.50}"#);
        assert_eq!(json_or_text("not json").get(), r#""not json""#);
    }
}
