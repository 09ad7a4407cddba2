//! What an `http_call` is asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// How long a call may take, in milliseconds: unless it is said, and at most.
const TIMEOUT_MS: u32 = 30_000;
pub(super) const TIMEOUT_MAX_MS: u32 = 300_000;
/// Headers of one call, and the longest value, in bytes.
const HEADERS_MAX: usize = 32;
const HEADER_MAX_BYTES: usize = 4096;
/// Belong to the connection, or are set here.
const OURS: [&str; 16] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "expect",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

/// A call that is wished for.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Where it goes: `https://`, to an address of the public internet; with a connection, to its
    /// address or below it, or a path there.
    #[schemars(length(min = 1, max = 2048))]
    pub(super) url: String,
    #[serde(default)]
    method: Verb,
    /// No credentials: they belong into a connection.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Sent as JSON; a text as it stands, if a header `content-type` says that it is something
    /// else.
    #[serde(default)]
    body: Option<Value>,
    /// What it is signed and authorised with: a connection of the provider `http`.
    #[serde(default, alias = "connectionId")]
    pub(super) connection_id: Option<Uuid>,
    /// How long the call may take, its answer included, in milliseconds.
    #[serde(default, alias = "timeoutMs")]
    #[schemars(range(min = 1000, max = 300_000))]
    timeout_ms: Option<u32>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize, Serialize, JsonSchema)]
enum Verb {
    #[serde(rename = "GET")]
    Get,
    #[default]
    #[serde(rename = "POST")]
    Post,
    #[serde(rename = "PUT")]
    Put,
    #[serde(rename = "PATCH")]
    Patch,
    #[serde(rename = "DELETE")]
    Delete,
}

impl Payload {
    pub(super) fn method(&self) -> Method {
        match self.method {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Patch => Method::PATCH,
            Verb::Delete => Method::DELETE,
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        let ms = self.timeout_ms.unwrap_or(TIMEOUT_MS);
        Duration::from_millis(u64::from(ms.clamp(1000, TIMEOUT_MAX_MS)))
    }

    /// The headers, or why they can not be sent.
    pub(super) fn headers(&self) -> Result<HeaderMap, String> {
        if self.headers.len() > HEADERS_MAX {
            return Err(format!("`headers` has more than {HEADERS_MAX}"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let known = HeaderName::try_from(name.as_str());
            let known = known.map_err(|_| format!("`headers` has `{name}`, which is no name"))?;
            if OURS.contains(&known.as_str()) {
                return Err(format!(
                    "`headers` may not have `{known}`: credentials belong into a connection, and \
                     the others are set by whoever sends"
                ));
            }
            if value.len() > HEADER_MAX_BYTES {
                return Err(format!(
                    "`headers`: `{known}` has more than {HEADER_MAX_BYTES} bytes"
                ));
            }
            let value = HeaderValue::try_from(value.as_str());
            let value = value.map_err(|_| format!("`headers`: `{known}` has no value of HTTP"))?;
            headers.insert(known, value);
        }
        Ok(headers)
    }

    /// The body, and what kind it is if nothing else says so.
    pub(super) fn body(&self) -> Result<(String, Option<HeaderValue>), String> {
        let Some(body) = &self.body else {
            return Ok((String::new(), None));
        };
        if matches!(self.method, Verb::Get) {
            return Err("a GET has no `body`".to_owned());
        }
        let kind = self
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
            .map(|(_, kind)| kind.to_ascii_lowercase());
        let is_json = kind.as_deref().is_none_or(|kind| kind.contains("json"));
        let json = HeaderValue::from_static("application/json");
        match body {
            Value::String(text) if !is_json => Ok((text.clone(), None)),
            _ if !is_json => Err(
                "`body` must be a text: the header `content-type` says that it is no JSON"
                    .to_owned(),
            ),
            body => Ok((body.to_string(), Some(json))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn payload(more: Value) -> Payload {
        let mut all = json!({ "url": "https://example.com/" });
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn credentials_and_what_the_sender_sets_are_no_headers_of_a_payload() {
        for name in [
            "Authorization",
            "cookie",
            "X-Api-Key",
            "Host",
            "webhook-signature",
        ] {
            let refused = payload(json!({ "headers": { name: "hush" } })).headers();
            let why = refused.unwrap_err();
            assert!(why.contains("connection") && !why.contains("hush"), "{why}");
        }
        for (name, value) in [("a b", "x"), ("", "x"), ("x", "a\r\nb: c")] {
            let refused = payload(json!({ "headers": { name: value } })).headers();
            assert!(refused.is_err(), "{name}");
        }
        let headers = payload(json!({ "headers": { "X-Trace": "1" } })).headers();
        assert_eq!(headers.unwrap()["x-trace"], "1");
    }

    #[test]
    fn a_body_is_json_unless_a_header_says_that_it_is_a_text() {
        let (text, kind) = payload(json!({ "body": { "a": 1 } })).body().unwrap();
        assert_eq!(
            (&*text, kind.unwrap()),
            (r#"{"a":1}"#, "application/json".parse().unwrap())
        );
        let (text, _) = payload(json!({ "body": "a" })).body().unwrap();
        assert_eq!(text, r#""a""#);
        let csv = json!({ "headers": { "Content-Type": "text/csv" } });
        let mut with_text = csv.clone();
        with_text["body"] = json!("a,b");
        assert_eq!(payload(with_text).body().unwrap(), ("a,b".to_owned(), None));
        let mut with_object = csv;
        with_object["body"] = json!({});
        assert!(payload(with_object).body().is_err());
        assert_eq!(payload(json!({})).body().unwrap(), (String::new(), None));
        assert!(
            payload(json!({ "method": "GET", "body": 1 }))
                .body()
                .is_err()
        );
    }
}
