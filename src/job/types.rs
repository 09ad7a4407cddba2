//! The known job types and the check that every request passes before it is written anywhere.
//!
//! Refuses unknown types (with the list of known ones), payloads that break the type's JSON Schema
//! (each error with its JSON pointer), payloads too large or not storable, and numbers out of
//! range. Checks everything it can before it answers, so that a caller repairs all at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::request::{
    DELAY_MAX_MS, IDEMPOTENCY_KEY_MAX, MAX_ATTEMPTS, MAX_ATTEMPTS_LIMIT, PAYLOAD_MAX_BYTES,
    TIMEOUT_MAX_SECONDS,
};
use super::{Backoff, Due, JobRequest, NewJob, Priority, QueueName, backoff};

/// How long an attempt may run when nothing else is said; the specification's 15 minutes.
pub const TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The longest name of a job type: the width of `jobs.job_type`.
pub(crate) const JOB_TYPE_MAX: usize = 100;
/// How many errors of one payload are reported.
const PROBLEMS_MAX: usize = 20;

/// One job type.
#[derive(Debug, Clone)]
pub struct JobType {
    pub name: String,
    /// JSON Schema of the payload; `true` accepts anything.
    pub schema: serde_json::Value,
    pub timeout: Duration,
    pub backoff: Option<Backoff>,
    pub max_attempts: u32,
    validator: Arc<jsonschema::Validator>,
}

impl JobType {
    /// A type with the specification's defaults. Fails when `schema` is no JSON Schema.
    pub fn new(name: impl Into<String>, schema: serde_json::Value) -> Result<Self, InvalidType> {
        let name = name.into();
        if name.is_empty() || name.len() > JOB_TYPE_MAX || name.chars().any(char::is_control) {
            return Err(InvalidType::Name(name));
        }
        let validator =
            jsonschema::validator_for(&schema).map_err(|error| InvalidType::Schema {
                name: name.clone(),
                why: error.to_string(),
            })?;
        let validator = Arc::new(validator);
        let (timeout, max_attempts) = (TIMEOUT, MAX_ATTEMPTS);
        Ok(Self {
            name,
            schema,
            timeout,
            backoff: None,
            max_attempts,
            validator,
        })
    }

    fn problems(&self, payload: &serde_json::Value) -> Vec<Problem> {
        let errors = self.validator.iter_errors(payload).take(PROBLEMS_MAX);
        errors
            .map(|error| Problem {
                pointer: format!("/payload{}", error.instance_path()),
                message: error.to_string(),
            })
            .collect()
    }
}

/// A job type that can not be registered.
#[derive(Debug, thiserror::Error)]
pub enum InvalidType {
    #[error("job type name `{0}` must have 1 to {JOB_TYPE_MAX} bytes and no control characters")]
    Name(String),
    #[error("schema of job type `{name}`: {why}")]
    Schema { name: String, why: String },
}

/// One thing that is wrong with a request, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = Mistake))]
pub struct Problem {
    /// JSON pointer into the request.
    pub pointer: String,
    pub message: String,
}

/// Why a request is refused. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("unknown job type `{given}`; known types: {}", known.join(", "))]
    UnknownType { given: String, known: Vec<String> },
    #[error("payload has {bytes} bytes, at most {PAYLOAD_MAX_BYTES} are allowed")]
    PayloadTooLarge { bytes: usize },
    #[error("the request is invalid: {}", list(problems))]
    Invalid { problems: Vec<Problem> },
}

fn list(problems: &[Problem]) -> String {
    let texts: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.pointer, problem.message))
        .collect();
    texts.join("; ")
}

impl Refused {
    /// Stable name of the reason, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownType { .. } => "unknown_job_type",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::Invalid { .. } => "invalid_request",
        }
    }
}

/// All types that this process accepts.
#[derive(Debug, Clone, Default)]
pub struct JobTypes {
    types: BTreeMap<String, JobType>,
}

impl JobTypes {
    /// Adds a type; a second one of the same name replaces the first.
    pub fn add(&mut self, job_type: JobType) {
        self.types.insert(job_type.name.clone(), job_type);
    }

    pub fn get(&self, name: &str) -> Option<&JobType> {
        self.types.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &JobType> {
        self.types.values()
    }

    pub fn names(&self) -> Vec<String> {
        self.types.keys().cloned().collect()
    }

    /// Turns a request into a job with a fresh id, or says all that is wrong with it.
    pub fn check(&self, request: JobRequest) -> Result<NewJob, Refused> {
        let Some(job_type) = self.get(&request.job_type) else {
            return Err(Refused::UnknownType {
                given: request.job_type,
                known: self.names(),
            });
        };
        let payload = request.payload.to_string();
        if payload.len() > PAYLOAD_MAX_BYTES {
            return Err(Refused::PayloadTooLarge {
                bytes: payload.len(),
            });
        }

        let mut problems = job_type.problems(&request.payload);
        let mut wrong = |pointer: &str, message: String| {
            problems.push(Problem {
                pointer: pointer.to_owned(),
                message,
            });
        };
        if payload.contains("\\u0000") && has_nul(&request.payload) {
            wrong(
                "/payload",
                "contains the character U+0000, which can not be stored".to_owned(),
            );
        }
        let queue = match request.queue.as_deref().map(str::parse::<QueueName>) {
            None => QueueName::default(),
            Some(Ok(queue)) => queue,
            Some(Err(error)) => {
                wrong("/queue", error.to_string());
                QueueName::default()
            }
        };
        let priority = Priority::try_from(request.priority.unwrap_or(0)).unwrap_or_else(|error| {
            wrong("/priority", error.to_string());
            Priority::default()
        });
        let due = match (request.scheduled_for, request.delay_ms) {
            (Some(_), Some(_)) => {
                wrong(
                    "/delayMs",
                    "give delayMs or scheduledFor, not both".to_owned(),
                );
                Due::Now
            }
            (None, Some(ms)) if ms > DELAY_MAX_MS => {
                wrong(
                    "/delayMs",
                    format!("is {ms}, at most {DELAY_MAX_MS} is allowed"),
                );
                Due::Now
            }
            (None, None | Some(0)) => Due::Now,
            (None, Some(ms)) => Due::In(Duration::from_millis(ms)),
            (Some(time), None) => Due::At(time),
        };
        let max_attempts = request.max_attempts.unwrap_or(job_type.max_attempts);
        if max_attempts > MAX_ATTEMPTS_LIMIT {
            let text = format!("is {max_attempts}, at most {MAX_ATTEMPTS_LIMIT} is allowed");
            wrong("/maxAttempts", text);
        }
        let retry_delay = request
            .retry_delay_seconds
            .map_or(Ok(backoff::RETRY_DELAY_SECONDS), i32::try_from);
        let retry_delay_seconds = retry_delay.unwrap_or_else(|_| {
            wrong("/retryDelaySeconds", "is too large".to_owned());
            0
        });
        if let Some(Err(error)) = request.backoff.as_ref().map(Backoff::validate) {
            wrong("/backoff", error.to_string());
        }
        if let Some(seconds) = request.timeout_seconds
            && !(1..=TIMEOUT_MAX_SECONDS).contains(&seconds)
        {
            let text = format!("is {seconds}, it must be between 1 and {TIMEOUT_MAX_SECONDS}");
            wrong("/timeoutSeconds", text);
        }
        if let Some(key) = &request.idempotency_key
            && (key.is_empty() || key.len() > IDEMPOTENCY_KEY_MAX || key.contains('\0'))
        {
            let text = format!("must have 1 to {IDEMPOTENCY_KEY_MAX} bytes and no U+0000");
            wrong("/idempotencyKey", text);
        }
        if !problems.is_empty() {
            return Err(Refused::Invalid { problems });
        }

        Ok(NewJob {
            id: Uuid::now_v7(),
            workspace_id: request.workspace_id,
            job_type: request.job_type,
            queue,
            payload,
            priority,
            due,
            max_attempts,
            retry_delay_seconds,
            backoff: request.backoff.or_else(|| job_type.backoff.clone()),
            timeout_seconds: request.timeout_seconds,
            idempotency_key: request.idempotency_key,
            created_by: request.created_by,
        })
    }
}

fn has_nul(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map
            .iter()
            .any(|(key, item)| key.contains('\0') || has_nul(item)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn types() -> JobTypes {
        let mut types = JobTypes::default();
        let schema = json!({
            "type": "object",
            "properties": {"ms": {"type": "integer", "minimum": 0}},
            "required": ["ms"],
        });
        types.add(JobType::new("sleep", schema).unwrap());
        types
    }

    fn pointers(request: JobRequest) -> Vec<String> {
        match types().check(request) {
            Err(Refused::Invalid { problems }) => problems
                .into_iter()
                .map(|problem| problem.pointer)
                .collect(),
            other => panic!("expected problems, got {other:?}"),
        }
    }

    #[test]
    fn an_unknown_type_is_refused_with_the_known_ones() {
        let refused = types()
            .check(JobRequest::new("slep", json!({})))
            .unwrap_err();
        assert_eq!(
            refused.to_string(),
            "unknown job type `slep`; known types: sleep"
        );
    }

    #[test]
    fn each_error_of_a_payload_has_its_pointer() {
        assert_eq!(
            pointers(JobRequest::new("sleep", json!({"ms": -1}))),
            ["/payload/ms"]
        );
        assert_eq!(pointers(JobRequest::new("sleep", json!({}))), ["/payload"]);
    }

    #[test]
    fn everything_wrong_is_reported_at_once() {
        let mut request = JobRequest::new("sleep", json!({"ms": 1}));
        request.priority = Some(11);
        request.queue = Some("a:b".into());
        request.timeout_seconds = Some(0);
        request.idempotency_key = Some(String::new());
        let expected = ["/queue", "/priority", "/timeoutSeconds", "/idempotencyKey"];
        assert_eq!(pointers(request), expected);
    }

    #[test]
    fn a_payload_that_the_record_can_not_hold_is_refused() {
        let payload = json!({"ms": 1, "note": ["a\0b"]});
        assert_eq!(pointers(JobRequest::new("sleep", payload)), ["/payload"]);
        let payload = json!({"ms": 1, "note": "\\u0000 as text is fine"});
        assert!(types().check(JobRequest::new("sleep", payload)).is_ok());
        let payload = json!({"ms": 1, "note": "x".repeat(PAYLOAD_MAX_BYTES)});
        let refused = types()
            .check(JobRequest::new("sleep", payload))
            .unwrap_err();
        assert_eq!(refused.code(), "payload_too_large");
    }

    #[test]
    fn defaults_are_the_specification_s() {
        let job = types()
            .check(JobRequest::new("sleep", json!({"ms": 1})))
            .unwrap();
        assert_eq!((job.max_attempts, job.retry_delay_seconds), (5, 60));
        assert_eq!(
            (job.priority.get(), job.queue.as_str(), job.due),
            (0, "default", Due::Now)
        );
    }
}
