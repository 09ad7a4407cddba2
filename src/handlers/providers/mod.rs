//! Providers of data about companies: what each is asked, and what its answers mean.
//!
//! | provider | asked | unknown | limits it is known for |
//! |---|---|---|---|
//! | Clearbit | `GET /v2/companies/find` | 404 | 600 a minute |
//! | `ZoomInfo` | `POST /enrich/company` | `NO_MATCH` | 5 a second, 10,800 an hour, 129,600 a day |
//! | Apollo | `GET /api/v1/organizations/enrich` | no organization | 1,000 a minute and its own |
//!
//! Limits are what is believed until the provider says otherwise, or an administrator does. Here is
//! no state and no input or output: [`call`] says what to send, [`read`] what came back.

mod apollo;
mod clearbit;
mod facts;
mod zoominfo;

use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::connection::Connection;
use crate::job::connection::Provider;
use crate::outbound::{Answer, Call};
use crate::quota::{Limits, QuotaWindow};
use crate::secret::Secret;
pub use facts::{Facts, Field};

/// How long one call may take.
pub(super) const CALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// The largest answer, in bytes.
pub(super) const ANSWER_MAX_BYTES: usize = 512 * 1024;
/// How long a token may be used.
pub(super) const TOKEN_KEPT: std::time::Duration = zoominfo::TOKEN_KEPT;
const DAY_MS: u64 = 86_400_000;

/// Who knows companies.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CompanySource {
    Clearbit,
    Zoominfo,
    Apollo,
}

impl CompanySource {
    pub const ALL: [Self; 3] = [Self::Clearbit, Self::Zoominfo, Self::Apollo];

    pub fn provider(self) -> Provider {
        match self {
            Self::Clearbit => Provider::Clearbit,
            Self::Zoominfo => Provider::Zoominfo,
            Self::Apollo => Provider::Apollo,
        }
    }

    pub fn as_str(self) -> &'static str {
        self.provider().as_str()
    }

    /// Whether calls need a token that is asked for first.
    pub(super) fn needs_token(self) -> bool {
        self == Self::Zoominfo
    }

    /// What it is known to allow.
    pub fn limits(self) -> Limits {
        let fixed = |max, per_ms| QuotaWindow::Fixed { max, per_ms };
        let sliding = |max, per_ms| QuotaWindow::Sliding { max, per_ms };
        match self {
            Self::Clearbit => Limits::of([fixed(600, 60_000)]),
            Self::Zoominfo => Limits::of([
                sliding(5, 1000),
                sliding(10_800, DAY_MS / 24),
                sliding(129_600, DAY_MS),
            ]),
            Self::Apollo => Limits::of([fixed(1000, 60_000)]),
        }
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    /// The company, as the provider describes it.
    Found(Value),
    Unknown,
    /// It is being looked for: ask again later.
    StillLooking,
    /// The credits are used up.
    NoCredits,
    /// The credentials are refused, or what they may do.
    Refused,
    /// It may work later.
    Failed,
    /// Asked again, it would be answered the same.
    Rejected,
    /// 200, and not what it is documented to be.
    Unreadable,
}

/// The question about a company. `token` is for those who need one.
pub(super) fn call(
    source: CompanySource,
    connection: &Connection,
    domain: &str,
    token: Option<&Secret>,
) -> Result<Call, String> {
    let base = base_url(connection)?;
    let key = || {
        connection
            .credential("api_key")
            .ok_or("it has no `api_key`")
    };
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    // A domain is ASCII letters, digits, `-` and `.`: nothing of it needs escaping.
    let (method, path, body) = match source {
        CompanySource::Clearbit => {
            headers.insert(AUTHORIZATION, sensitive(&format!("Bearer {}", &*key()?))?);
            (
                Method::GET,
                format!("{}{domain}", clearbit::PATH),
                String::new(),
            )
        }
        CompanySource::Apollo => {
            headers.insert(HeaderName::from_static("x-api-key"), sensitive(&key()?)?);
            (
                Method::GET,
                format!("{}{domain}", apollo::PATH),
                String::new(),
            )
        }
        CompanySource::Zoominfo => {
            let token = token.ok_or("there is no token")?;
            headers.insert(AUTHORIZATION, sensitive(&format!("Bearer {}", &**token))?);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let question = zoominfo::question(domain).to_string();
            (Method::POST, zoominfo::ENRICH.to_owned(), question)
        }
    };
    Ok(sent(method, format!("{base}{path}"), headers, body))
}

/// The question for a token.
pub(super) fn token_call(connection: &Connection) -> Result<Call, String> {
    let base = base_url(connection)?;
    let credential = |name: &str| {
        let found = connection.credential(name);
        found.ok_or_else(|| format!("it has no `{name}`"))
    };
    let username = credential("username")?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = match connection.credential("password") {
        Some(password) => {
            serde_json::json!({ "username": &*username, "password": &*password }).to_string()
        }
        None => {
            let (client_id, key) = (credential("client_id")?, credential("private_key")?);
            let assertion = zoominfo::assertion(&username, &client_id, &key)?;
            headers.insert(
                AUTHORIZATION,
                sensitive(&format!("Bearer {}", &*assertion))?,
            );
            "{}".to_owned()
        }
    };
    let url = format!("{base}{}", zoominfo::AUTHENTICATE);
    Ok(sent(Method::POST, url, headers, body))
}

/// The token of an answer.
pub(super) fn token(answer: &Answer) -> Option<Secret> {
    zoominfo::token(&answer.bytes)
}

/// What an answer means.
pub(super) fn reply(source: CompanySource, answer: &Answer) -> Reply {
    match answer.status {
        200 if !answer.is_whole => Reply::Unreadable,
        200 => match serde_json::from_slice::<Value>(&answer.bytes) {
            Ok(body) if read(source, &body).is_some() => Reply::Found(storable(body)),
            Ok(body) if says_unknown(source, &body) => Reply::Unknown,
            Ok(body) if says_no_credits(source, &body) => Reply::NoCredits,
            Ok(_) | Err(_) => Reply::Unreadable,
        },
        202 => Reply::StillLooking,
        402 => Reply::NoCredits,
        403 | 422 if apollo::says_no_credits(&answer.bytes) => Reply::NoCredits,
        401 | 403 => Reply::Refused,
        // Only in the provider's own words: a wrong address is no unknown company.
        404 => match serde_json::from_slice::<Value>(&answer.bytes) {
            Ok(Value::Object(body)) if !clearbit::is_unknown_route(&body) => Reply::Unknown,
            _ => Reply::Rejected,
        },
        408 | 425 | 429 | 500.. => Reply::Failed,
        _ => Reply::Rejected,
    }
}

/// What is known of the company, from an answer that was kept.
pub(super) fn read(source: CompanySource, answer: &Value) -> Option<Facts> {
    match source {
        CompanySource::Clearbit => clearbit::read(answer),
        CompanySource::Zoominfo => zoominfo::read(answer),
        CompanySource::Apollo => apollo::read(answer),
    }
}

/// Whether it says that it knows no such company, in an answer that has none.
fn says_unknown(source: CompanySource, answer: &Value) -> bool {
    match source {
        CompanySource::Clearbit => false,
        CompanySource::Zoominfo => zoominfo::says_unknown(answer),
        CompanySource::Apollo => apollo::says_unknown(answer),
    }
}

/// Whether it says that its credits are used up, in an answer of 200.
fn says_no_credits(source: CompanySource, answer: &Value) -> bool {
    source == CompanySource::Zoominfo && zoominfo::says_no_credits(answer)
}

/// Without the one character that PostgreSQL's JSON can not hold.
fn storable(value: Value) -> Value {
    let text = |text: String| match text.contains('\0') {
        true => text.replace('\0', ""),
        false => text,
    };
    match value {
        Value::String(given) => Value::String(text(given)),
        Value::Array(items) => items.into_iter().map(storable).collect(),
        Value::Object(members) => {
            let member = |(name, value)| (text(name), storable(value));
            Value::Object(members.into_iter().map(member).collect())
        }
        other => other,
    }
}

fn base_url(connection: &Connection) -> Result<&str, String> {
    let base = connection.base_url.as_deref();
    Ok(base.ok_or("it has no `baseUrl`")?.trim_end_matches('/'))
}

fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::try_from(text);
    let mut value = value.map_err(|_| "a credential has characters that no header may have")?;
    value.set_sensitive(true);
    Ok(value)
}

fn sent(method: Method, url: String, headers: HeaderMap, body: String) -> Call {
    Call {
        method,
        url,
        headers,
        body: body.into(),
        timeout: CALL_TIMEOUT,
        answer_max_bytes: ANSWER_MAX_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn said(source: CompanySource, status: u16, body: &str) -> Reply {
        let answer = Answer {
            status,
            headers: HeaderMap::new(),
            retry_after: None,
            bytes: body.as_bytes().to_vec(),
            is_whole: true,
            took: Duration::ZERO,
        };
        reply(source, &answer)
    }

    #[test]
    fn what_is_no_answer_is_never_taken_for_an_unknown_company() {
        use CompanySource::{Apollo, Clearbit, Zoominfo};
        for source in [Clearbit, Apollo, Zoominfo] {
            for text in ["<html>", "", "[]", "null", "{\"organization\": {"] {
                assert_eq!(
                    said(source, 200, text),
                    Reply::Unreadable,
                    "{source:?}: {text}"
                );
            }
            assert_eq!(said(source, 404, "{}"), Reply::Unknown);
            assert_eq!(said(source, 404, "<html>"), Reply::Rejected);
            let wrong_address = r#"{"error": {"type": "unknown_route", "message": "x"}}"#;
            assert_eq!(said(source, 404, wrong_address), Reply::Rejected);
            for refused in [401, 403] {
                assert_eq!(said(source, refused, "{}"), Reply::Refused);
            }
            let poor = r#"{"error": "You have insufficient credits to do this."}"#;
            assert_eq!(said(source, 422, poor), Reply::NoCredits);
            assert_eq!(said(source, 422, "{}"), Reply::Rejected);
            assert_eq!(said(source, 402, "{}"), Reply::NoCredits);
            assert_eq!(said(source, 302, ""), Reply::Rejected);
        }
        assert_eq!(said(Apollo, 200, "{}"), Reply::Unknown);
        assert_eq!(said(Apollo, 200, r#"{"error":"x"}"#), Reply::Unreadable);
        assert_eq!(
            said(Zoominfo, 200, r#"{"success":false}"#),
            Reply::Unreadable
        );
        let used_up = r#"{"success":true,"data":{"result":[{"matchStatus":"LIMIT_EXCEEDED"}]}}"#;
        assert_eq!(said(Zoominfo, 200, used_up), Reply::NoCredits);
        let with_nul = r#"{"domain":"a.com","x":["\u0000b"]}"#;
        let kept = serde_json::json!({ "domain": "a.com", "x": ["b"] });
        assert_eq!(said(Clearbit, 200, with_nul), Reply::Found(kept));
        assert_eq!(said(Clearbit, 202, "{}"), Reply::StillLooking);
        assert!(matches!(
            said(Clearbit, 200, r#"{"domain":"a.com"}"#),
            Reply::Found(_)
        ));
    }
}
