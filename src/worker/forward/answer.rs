//! What an answer makes of the attempt. The table is in `docs/forward.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::DateTime;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::surrogates::mended;
use crate::clock;
use crate::job::{JobError, Report, RetryWish};

/// The largest answer.
pub const ANSWER_MAX_BYTES: usize = 5_000_000;
/// `BullMQ`'s error text for a rate limit, by which its clients know it.
const RATE_LIMITED: &str = "bullmq:rateLimitExceeded";

#[derive(Deserialize)]
struct Failure {
    error: Described,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    stack: Option<String>,
    #[serde(default)]
    retry_in_ms: Option<f64>,
}

/// What an answer makes of the attempt: the JSON text that the job returns, or why it ended
/// otherwise. With it, for people, why a body that claims to describe a failure does not.
type Read = (Result<String, JobError>, Option<String>);

/// Reads an answer.
pub(super) async fn read(mut response: Response) -> Read {
    let status = response.status();
    let headers = response.headers().clone();
    match whole_body(&mut response).await {
        Ok(body) => judge(status, &headers, &body),
        Err(error) => (Err(error), None),
    }
}

async fn whole_body(response: &mut Response) -> Result<Vec<u8>, JobError> {
    let mut body = Vec::new();
    loop {
        let chunk = response
            .chunk()
            .await
            .map_err(|error| JobError::retry(super::plain(&error)))?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() + chunk.len() > ANSWER_MAX_BYTES {
            return Err(JobError::Retry(format!(
                "answer is larger than {ANSWER_MAX_BYTES} bytes"
            )));
        }
        body.extend_from_slice(&chunk);
    }
}

fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Read {
    if status.is_success() {
        return (value(body), None);
    }
    // As clients in JavaScript read it: what is no UTF-8, and half a surrogate pair, is replaced.
    let text = String::from_utf8_lossy(body);
    let parsed = serde_json::from_str::<Failure>(&mended(&text));
    let why_not = match &parsed {
        Err(error) if claims_json(headers) => Some(format!("HTTP {}: {error}", status.as_u16())),
        _ => None,
    };
    (failure(parsed.ok(), status, headers), why_not)
}

fn claims_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().contains("json"))
}

fn failure(
    described_as: Option<Failure>,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<String, JobError> {
    match described_as.ok_or(()) {
        Ok(failure) => Err(described(failure.error, status, headers)),
        Err(()) if status == StatusCode::TOO_MANY_REQUESTS => {
            Err(JobError::RateLimited(retry_after(headers)))
        }
        Err(()) if status == StatusCode::GONE => {
            Err(JobError::Permanent(format!("HTTP {}", status.as_u16())))
        }
        Err(()) => Err(JobError::Retry(format!("HTTP {}", status.as_u16()))),
    }
}

fn value(body: &[u8]) -> Result<String, JobError> {
    if body.is_empty() {
        return Ok("null".to_owned());
    }
    let no_json = || JobError::retry("answer is not JSON");
    let text = std::str::from_utf8(body).map_err(|_| no_json())?;
    if let Ok(mut object) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(text)
        && let Some(returned) = object.remove("returnvalue")
    {
        return Ok(returned.get().to_owned());
    }
    let whole: &RawValue = serde_json::from_str(text).map_err(|_| no_json())?;
    Ok(whole.get().to_owned())
}

fn described(error: Described, status: StatusCode, headers: &HeaderMap) -> JobError {
    let name = error.name.unwrap_or_default();
    if matches!(
        name.as_str(),
        "DelayedError" | "WaitingError" | "WaitingChildrenError"
    ) {
        return JobError::Moved;
    }
    let is_limit = error.message.as_deref() == Some(RATE_LIMITED);
    if is_limit || status == StatusCode::TOO_MANY_REQUESTS {
        return JobError::RateLimited(retry_after(headers));
    }
    let retry = match error.retry_in_ms {
        _ if name == "UnrecoverableError" => RetryWish::Never,
        Some(ms) if ms < 0.0 => RetryWish::Never,
        Some(ms) => RetryWish::After(Duration::from_millis(ms as u64)),
        None => RetryWish::Backoff,
    };
    let message = error
        .message
        .unwrap_or_else(|| format!("HTTP {}", status.as_u16()));
    JobError::Reported(Box::new(Report {
        message,
        stack: error.stack,
        retry,
    }))
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    let wait_ms = date.timestamp_millis() - clock::now_ms();
    Some(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(
        status: u16,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Result<String, JobError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        judge(StatusCode::from_u16(status).unwrap(), &map, body.as_bytes()).0
    }

    #[test]
    fn a_success_returns_the_value_or_the_whole_body() {
        for (body, value) in [
            (r#"{"returnvalue":{"a":1.50},"x":1}"#, r#"{"a":1.50}"#),
            (r#"{"returnvalue":null}"#, "null"),
            (r#"{"other":1}"#, r#"{"other":1}"#),
            ("[1, 2]", "[1, 2]"),
            ("", "null"),
        ] {
            assert_eq!(answer(200, &[], body), Ok(value.to_owned()), "{body}");
        }
        let no_json = Err(JobError::retry("answer is not JSON"));
        assert_eq!(answer(204, &[], "ok"), no_json);
    }

    #[test]
    fn a_failure_is_told_apart_by_its_name_and_status() {
        let reported = |message: &str, stack: Option<&str>, retry| {
            Err(JobError::Reported(Box::new(Report {
                message: message.to_owned(),
                stack: stack.map(str::to_owned),
                retry,
            })))
        };
        let error = |inner: &str| format!(r#"{{"error":{{{inner}}}}}"#);
        assert_eq!(
            answer(
                500,
                &[],
                &error(r#""name":"Error","message":"m","stack":"s""#)
            ),
            reported("m", Some("s"), RetryWish::Backoff)
        );
        assert_eq!(
            answer(500, &[], &error(r#""message":"m","retryInMs":1500"#)),
            reported("m", None, RetryWish::After(Duration::from_millis(1500)))
        );
        for inner in [
            r#""message":"m","retryInMs":-1"#,
            r#""name":"UnrecoverableError","message":"m","retryInMs":5"#,
        ] {
            assert_eq!(
                answer(500, &[], &error(inner)),
                reported("m", None, RetryWish::Never)
            );
        }
        for name in ["DelayedError", "WaitingError", "WaitingChildrenError"] {
            let body = error(&format!(r#""name":"{name}","message":"m""#));
            assert_eq!(answer(500, &[], &body), Err(JobError::Moved), "{name}");
        }
        assert_eq!(answer(503, &[], "busy"), Err(JobError::retry("HTTP 503")));
        assert_eq!(answer(302, &[], ""), Err(JobError::retry("HTTP 302")));
        assert_eq!(answer(410, &[], ""), Err(JobError::permanent("HTTP 410")));
    }

    #[test]
    fn a_failure_in_a_broken_text_is_read_as_far_as_javascript_would() {
        let read = |body: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(
                CONTENT_TYPE,
                "application/json; charset=utf-8".parse().unwrap(),
            );
            judge(StatusCode::INTERNAL_SERVER_ERROR, &headers, body)
        };
        for body in [
            &br#"{"error":{"message":"half \ud83d a pair"}}"#[..],
            b"{\"error\":{\"message\":\"half \xff a pair\"}}",
        ] {
            let (Err(JobError::Reported(report)), None) = read(body) else {
                panic!("{:?}", read(body));
            };
            assert_eq!(report.message, "half \u{fffd} a pair");
        }
        // No text at all: the protocol's message, and a word to those who listen.
        for body in [&br#"{"error":{"message":"\x"}}"#[..], b"{}", b"<html>"] {
            let (read, why_not) = read(body);
            assert_eq!(read, Err(JobError::retry("HTTP 500")));
            assert!(why_not.is_some_and(|why| why.starts_with("HTTP 500: ")));
        }
        let plain = judge(
            StatusCode::INTERNAL_SERVER_ERROR,
            &HeaderMap::new(),
            b"busy",
        );
        assert_eq!(plain, (Err(JobError::retry("HTTP 500")), None));
    }

    #[test]
    fn a_rate_limit_closes_the_queue_for_as_long_as_it_says() {
        let limited =
            |seconds: Option<u64>| Err(JobError::RateLimited(seconds.map(Duration::from_secs)));
        assert_eq!(answer(429, &[], ""), limited(None));
        assert_eq!(
            answer(429, &[("retry-after", "7")], "slow"),
            limited(Some(7))
        );
        let body = r#"{"error":{"name":"Error","message":"bullmq:rateLimitExceeded"}}"#;
        assert_eq!(answer(500, &[("retry-after", "2")], body), limited(Some(2)));
        let past = [("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")];
        assert_eq!(answer(429, &past, ""), limited(Some(0)));
    }
}
