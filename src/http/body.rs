//! Reading bodies: always with a limit, and with words for whatever is wrong with them.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, HeaderValue};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Error, Map, Value};
use uuid::Uuid;

use super::auth::Caller;
use super::bounds::Turn;
use super::problem::{Code, Problem};
use super::state::State;
use crate::job;

/// What is read of a body that is refused, so that the client gets the answer and no broken
/// connection.
const DRAIN_MAX: usize = 64 * 1024 * 1024;
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// Wrong fields that are named; a body may have a million of them.
const MISTAKES_MAX: usize = 100;
/// Room that a body has before any of it has come.
const FIRST_ROOM_BYTES: usize = 16 * 1024;

/// How far a body grows before it takes all the room that it may need.
const GROWING_MAX_BYTES: usize = 1024 * 1024;

/// A whole body; its room in memory is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    _room: Turn,
}

/// Reads a body of at most `max` bytes.
pub(super) async fn read(
    state: &State,
    caller: Caller,
    headers: &HeaderMap,
    body: Body,
    max: usize,
) -> Result<Whole, Problem> {
    read_of(state, caller.workspace_id, headers, body, max).await
}

/// The same at the cost of a workspace, where nobody calls.
pub(super) async fn read_of(
    state: &State,
    workspace_id: Uuid,
    headers: &HeaderMap,
    body: Body,
    max: usize,
) -> Result<Whole, Problem> {
    let announced = announced(headers);
    if announced.is_some_and(|bytes| bytes > max as u64) {
        return Err(refuse(headers, body, too_large(max as u64)).await);
    }
    let expected = announced.map_or(max, |bytes| bytes as usize);
    // Room is taken for what has come, not for what was announced: who announces much and sends
    // nothing keeps nobody out.
    let mut held = expected.min(FIRST_ROOM_BYTES);
    let mut room = state.bounds.room(workspace_id, held).await?;
    let mut bytes = Vec::with_capacity(held);
    let mut chunks = body.into_data_stream();
    let pause_max = state.options.body_pause_max;
    loop {
        let chunk = match tokio::time::timeout(pause_max, chunks.next()).await {
            Ok(None) => break,
            Ok(Some(chunk)) => chunk.map_err(|_| broken())?,
            Err(_) => {
                let detail = format!("nothing of the body came for {pause_max:?}");
                let problem = Problem::new(Code::BodyTimeout, detail);
                // What may still come would be taken for the next request.
                return Err(problem.with_header(CONNECTION, HeaderValue::from_static("close")));
            }
        };
        let length = bytes.len() + chunk.len();
        if length > max {
            drain(chunks).await;
            return Err(too_large(max as u64));
        }
        if length > held {
            // As the buffer grows, by doubling; beyond a size all that was announced, or bodies
            // that have half of what they need would wait for each other.
            let whole = match announced {
                Some(_) if held >= GROWING_MAX_BYTES => expected,
                _ => 2 * held,
            };
            let more = length.max(whole).min(max.max(length)) - held;
            room.merge(state.bounds.room(workspace_id, more).await?);
            held += more;
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Whole {
        bytes: bytes.into(),
        _room: room,
    })
}

/// The problem, after the body that nobody wants was read far enough for the client to see it.
pub(super) async fn refuse(headers: &HeaderMap, body: Body, problem: Problem) -> Problem {
    // A client that asks before it sends gets its answer and keeps the body.
    if !headers.contains_key(EXPECT) {
        drain(body.into_data_stream()).await;
    }
    problem
}

async fn drain(mut chunks: axum::body::BodyDataStream) {
    let reading = async {
        let mut read = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            read += chunk.len();
            if read > DRAIN_MAX {
                break;
            }
        }
    };
    tokio::time::timeout(DRAIN_PATIENCE, reading).await.ok();
}

pub(super) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(super) fn too_large(max: u64) -> Problem {
    let detail = format!("the body is too large: at most {max} bytes are allowed here");
    Problem::new(Code::BodyTooLarge, detail)
}

pub(super) fn broken() -> Problem {
    let detail = "the body ended early or was not sent as HTTP says";
    Problem::new(Code::MalformedBody, detail)
}

/// The media type without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let value = value.unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// Refuses a body that does not call itself JSON.
pub(super) fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type = media_type(headers);
    if media_type == "application/json" || media_type.ends_with("+json") {
        return Ok(());
    }
    let given = match media_type.as_str() {
        "" => "none was given".to_owned(),
        other => format!("`{other}` was given"),
    };
    let detail = format!("send the header `Content-Type: application/json`; {given}");
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

/// JSON, or where it stops being JSON, or every field that is not what it should be.
///
/// `minimal` holds the fields that are needed, in a form that is right.
pub(super) fn object<T: DeserializeOwned>(bytes: &[u8], minimal: &Value) -> Result<T, Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        let detail = "the body is empty; a JSON object is expected";
        return Err(Problem::new(Code::MalformedJson, detail));
    }
    if !bytes.trim_ascii_start().starts_with(b"{") {
        // An array would pass for an object: its members as the fields in their order.
        return Err(match serde_json::from_slice(bytes) {
            Ok(value) => no_object(&value),
            Err(error) => malformed(&error),
        });
    }
    match serde_json::from_slice(bytes) {
        Ok(object) => Ok(object),
        Err(error) if error.is_data() => Err(match serde_json::from_slice(bytes) {
            Ok(value) => misfit::<T>(&value, minimal, &error),
            // The wrong field came before the place where it stops being JSON.
            Err(error) => malformed(&error),
        }),
        Err(error) => Err(malformed(&error)),
    }
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(Code::MalformedJson, format!("this is not JSON: {error}"))
        .with_member("line", error.line())
        .with_member("column", error.column())
}

fn no_object(value: &Value) -> Problem {
    let detail = format!("expected a JSON object, found {}", kind(value));
    Problem::new(Code::InvalidRequest, detail.clone()).with_error("", detail)
}

/// Whether there is no body where none is needed: nothing, or `null`.
pub(super) fn is_absent(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii(), b"" | b"null")
}

/// Tries each given field alone beside the minimal ones, which finds all wrong ones and not only
/// the first.
fn misfit<T: DeserializeOwned>(value: &Value, minimal: &Value, whole: &Error) -> Problem {
    let Value::Object(given) = value else {
        return no_object(value);
    };
    let alone = |key: &String, value: &Value| {
        let mut fields = minimal.as_object().cloned().unwrap_or_default();
        fields.insert(key.clone(), value.clone());
        let error = T::deserialize(Value::Object(fields)).err()?.to_string();
        if !error.starts_with("duplicate field") {
            return Some(error);
        }
        // The second name of a minimal field, which it stands for then.
        let field = Map::from_iter([(key.clone(), value.clone())]);
        let error = T::deserialize(Value::Object(field)).err();
        error.map(|error| error.to_string())
    };
    let mut errors = Vec::new();
    for (key, value) in given {
        if errors.len() == MISTAKES_MAX {
            break;
        }
        if let Some(message) = alone(key, value) {
            let pointer = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
            errors.push(job::Problem { pointer, message });
        }
    }
    if errors.is_empty() {
        errors.push(job::Problem {
            pointer: String::new(),
            message: whole.to_string(),
        });
    }
    Problem::of_fields(errors)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::JobRequest;

    fn refused(text: &str) -> Value {
        let minimal = json!({"jobType": ""});
        let problem = object::<JobRequest>(text.as_bytes(), &minimal).unwrap_err();
        problem.document()
    }

    #[test]
    fn an_array_is_no_object_whatever_its_members_would_fit() {
        #[derive(Debug, serde::Deserialize)]
        struct Free {
            #[serde(default)]
            _name: Option<String>,
        }
        for text in ["[null]", "[]", " [\"x\"]", "null", "7"] {
            let problem = object::<Free>(text.as_bytes(), &json!({})).unwrap_err();
            let document = problem.document();
            assert_eq!(document["code"], "invalid_request", "{text}");
        }
        let broken = object::<Free>(b"[1,", &json!({})).unwrap_err();
        assert_eq!(broken.document()["code"], "malformed_json");
        assert!(is_absent(b" ") && is_absent(b"null\n") && !is_absent(b"{}"));
    }

    #[test]
    fn of_very_many_wrong_fields_the_first_are_named() {
        let fields: Vec<String> = (0..100_000).map(|n| format!("\"f{n}\":0")).collect();
        let document = refused(&format!("{{{}}}", fields.join(",")));
        assert_eq!(document["errors"].as_array().unwrap().len(), MISTAKES_MAX);
        assert!(document.to_string().len() < 200_000);
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let document = refused(r#"{"jobType":"x","priority":"high","delayMs":-1,"colour":"red"}"#);
        let errors = document["errors"].as_array().unwrap();
        let pointers: Vec<_> = errors
            .iter()
            .map(|e| e["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(pointers, ["/colour", "/delayMs", "/priority"]);
        assert_eq!(document["status"], 422);
        assert_eq!(refused(r#"{"job_type":"x","job_type":5}"#)["status"], 422);
        assert_eq!(
            refused(r#"{"job_type":5}"#)["errors"][0]["pointer"],
            "/job_type"
        );
    }

    #[test]
    fn a_missing_type_and_a_wrong_shape_are_named() {
        let document = refused("{}");
        assert!(
            document["detail"]
                .as_str()
                .unwrap()
                .contains("missing field `jobType`")
        );
        let detail = "expected a JSON object, found an array";
        assert_eq!(refused("[]")["detail"], detail);
    }

    #[test]
    fn broken_json_is_located() {
        let document = refused("{\"jobType\": \"x\",\n  \"payload\": }");
        assert_eq!(document["code"], "malformed_json");
        assert_eq!(
            (&document["line"], &document["column"]),
            (&json!(2), &json!(14))
        );
        // Also behind a field that is wrong.
        assert_eq!(refused(r#"{"jobType":5,]"#)["code"], "malformed_json");
        assert_eq!(refused("  ")["code"], "malformed_json");
    }
}
