//! What an answer means for the job.
//!
//! | answer | the job |
//! |---|---|
//! | 2xx | is completed, with the body as its result |
//! | 429 | comes back when the receiver may be called, see `tell` |
//! | 408, 425, 5xx, none | is tried again, not before `Retry-After` |
//! | 401 to the credentials of a connection | waits until somebody has renewed them |
//! | 410, 3xx, any other 4xx | is a dead letter: asked again, it would be answered the same |

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::super::connection::Connection;
use crate::job::JobError;
use crate::outbound::{Answer, CallFailure};
use crate::record::logs::LogLevel;
use crate::worker::{JobContext, RESULT_MAX_BYTES};

/// Who says "at once" is asked again after this.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// What is kept of an answer that is too large for a result, in bytes. Written as JSON it may
/// become six times as long.
const CUT_BYTES: usize = 64 * 1024;

pub(super) async fn judge(
    ctx: &JobContext,
    connection: Option<&Connection>,
    answered: Result<Answer, CallFailure>,
) -> Result<Value, JobError> {
    let answer = match answered {
        Ok(answer) => answer,
        Err(CallFailure::Forbidden(why)) => {
            return Err(JobError::Permanent(format!("`url` {why}")));
        }
        Err(unavailable) => return Err(JobError::retry(unavailable)),
    };
    let metadata = json!({ "status": answer.status, "ms": answer.took.as_millis() as u64 });
    ctx.log(LogLevel::Info, "the receiver answered", Some(metadata));
    let has_credentials = |connection: &&Connection| {
        let names = connection.credentials();
        names.contains_key("authorization")
    };
    match answer.status {
        200..300 => Ok(result(&answer)),
        300..=399 => Err(JobError::Permanent(format!(
            "the receiver answered {}, and redirects are not followed: call where it leads to",
            answer.status
        ))),
        401 if let Some(connection) = connection.filter(has_credentials) => {
            Err(connection.refused(ctx, &answer.told()).await)
        }
        408 | 425 | 429 | 500.. => Err(match answer.retry_after {
            Some(after) => JobError::RetryAfter(after.max(RETRY_MIN), answer.told()),
            None => JobError::Retry(answer.told()),
        }),
        _ => Err(JobError::Permanent(answer.told())),
    }
}

/// The body: JSON as what it is, everything else as text, nothing as null.
///
/// What was done was done, so a body that is too large does not fail the job: then the result says
/// so, and has the beginning.
fn result(answer: &Answer) -> Value {
    if answer.is_whole {
        if answer.bytes.is_empty() {
            return Value::Null;
        }
        let kind = answer.headers.get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_json = kind.to_ascii_lowercase().contains("json");
        let parsed = is_json.then(|| serde_json::from_slice::<Value>(&answer.bytes).ok());
        let body = parsed
            .flatten()
            .filter(|body| !has_nul(body))
            .unwrap_or_else(|| Value::String(answer.text()));
        if body.to_string().len() <= RESULT_MAX_BYTES {
            return body;
        }
    }
    let text = answer.text();
    let mut end = text.len().min(CUT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    json!({ "is_truncated": true, "status": answer.status, "text": &text[..end] })
}

/// The record can not hold U+0000 in JSON.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::*;

    fn of(kind: &'static str, bytes: impl Into<Vec<u8>>, is_whole: bool) -> Value {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        result(&Answer {
            status: 200,
            headers,
            retry_after: None,
            bytes: bytes.into(),
            is_whole,
            took: Duration::ZERO,
        })
    }

    #[test]
    fn the_body_is_the_result_as_what_it_says_it_is() {
        let json = "application/json; charset=utf-8";
        assert_eq!(of(json, r#"{"a":[1]}"#, true), json!({ "a": [1] }));
        assert_eq!(of(json, "{oops", true), "{oops");
        assert_eq!(of("text/plain", "{}", true), "{}");
        assert_eq!(of(json, "", true), Value::Null);
        assert_eq!(of(json, r#"["\u0000"]"#, true), r#"["\u0000"]"#);
        assert_eq!(
            of("text/plain", b"a\0\xff".to_vec(), true),
            "a\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn a_body_that_is_too_large_or_breaks_off_is_told_to_be_no_whole_one() {
        let cut = of("text/plain", "é".repeat(40_000), false);
        assert_eq!(
            (&cut["is_truncated"], &cut["status"]),
            (&json!(true), &json!(200))
        );
        assert_eq!(cut["text"].as_str().unwrap().len(), CUT_BYTES);
        // Written out, each of these has six bytes.
        let control = of("text/plain", vec![1; 300_000], true);
        assert_eq!(control["is_truncated"], true);
        assert!(control.to_string().len() <= RESULT_MAX_BYTES);
        let kept = of("application/json", r#"{"a":1}"#, false);
        assert_eq!(kept["text"], r#"{"a":1}"#);
    }
}
