//! Providers of data about companies and people: what each is asked, and what its answers mean.
//!
//! | provider | asked | unknown | limits it is known for |
//! |---|---|---|---|
//! | Clearbit | `GET /v2/companies/find`, `/v2/combined/find` | 404 | 600 a minute |
//! | `ZoomInfo` | `/enrich/company`, `/enrich/contact` | `NO_MATCH` | 5 a second, 10,800 an hour |
//! | Apollo | `/api/v1/organizations/enrich`, `/people/match` | none in it | 1,000 a minute |
//!
//! Limits are what is believed until the provider says otherwise, or an administrator does. Here is
//! no state and no input or output: [`call`] says what to send, [`read`] what came back.

mod apollo;
mod apollo_many;
mod clearbit;
mod facts;
mod fields;
mod many;
mod person;
mod topic;
mod zoominfo;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::connection::Connection;
use crate::job::connection::Provider;
use crate::outbound::{Answer, Call};
use crate::quota::{Limits, QuotaWindow};
use crate::secret::Secret;
pub use facts::Facts;
pub use fields::{ContactField, EnrichField, Field};
pub(super) use many::{MANY_MAX, call_many, can_ask_many, reply_many};
pub use person::{Employer, Person, PersonKey};
pub use topic::Topic;

/// How long one call may take.
pub(super) const CALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// The largest answer about one record, in bytes; about several, so many times as much.
pub(super) const ANSWER_MAX_BYTES: usize = 512 * 1024;
/// How long a token may be used.
pub(super) const TOKEN_KEPT: std::time::Duration = zoominfo::TOKEN_KEPT;
const DAY_MS: u64 = 86_400_000;

/// Who knows companies and people.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DataSource {
    Clearbit,
    Zoominfo,
    Apollo,
}

impl DataSource {
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
    /// The company or the person, as the provider describes it.
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

/// The question. `token` is for those who need one.
pub(super) fn call(
    source: DataSource,
    connection: &Connection,
    topic: &Topic,
    token: Option<&Secret>,
) -> Result<Call, String> {
    let base = base_url(connection)?;
    let cannot = || format!("{} can not be asked for that", source.as_str());
    // A domain is ASCII letters, digits, `-` and `.`: nothing of it needs escaping.
    let (method, url, body) = match (source, topic) {
        (DataSource::Clearbit, Topic::Company(domain)) => {
            let url = format!("{base}{}{domain}", clearbit::PATH);
            (Method::GET, url, None)
        }
        (DataSource::Clearbit, Topic::Person(PersonKey::Email(email))) => {
            let url = format!("{}{}", clearbit::people_at(base), clearbit::PERSON);
            let url = Url::parse_with_params(&url, [("email", email)]);
            let url = url.map_err(|_| "its `baseUrl` is no address")?;
            (Method::GET, url.to_string(), None)
        }
        (DataSource::Clearbit, Topic::Person(_)) => return Err(cannot()),
        (DataSource::Apollo, Topic::Company(domain)) => {
            let url = format!("{base}{}{domain}", apollo::PATH);
            (Method::GET, url, None)
        }
        (DataSource::Apollo, Topic::Person(person)) => {
            let question = apollo::person_question(person);
            (
                Method::POST,
                format!("{base}{}", apollo::PERSON),
                Some(question),
            )
        }
        (DataSource::Zoominfo, Topic::Company(domain)) => {
            let question = zoominfo::question(domain);
            (
                Method::POST,
                format!("{base}{}", zoominfo::ENRICH),
                Some(question),
            )
        }
        (DataSource::Zoominfo, Topic::Person(person)) => {
            let question = zoominfo::person_question(person).ok_or_else(cannot)?;
            let url = format!("{base}{}", zoominfo::ENRICH_PERSON);
            (Method::POST, url, Some(question))
        }
    };
    let headers = headers(source, connection, token, body.is_some())?;
    let body = body.map_or_else(String::new, |body| body.to_string());
    Ok(sent(method, url, headers, body))
}

fn headers(
    source: DataSource,
    connection: &Connection,
    token: Option<&Secret>,
    has_body: bool,
) -> Result<HeaderMap, String> {
    let key = || {
        let key = connection.credential("api_key");
        key.ok_or("it has no `api_key`")
    };
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let (name, value) = match source {
        DataSource::Clearbit => (AUTHORIZATION, format!("Bearer {}", &*key()?)),
        DataSource::Apollo => (HeaderName::from_static("x-api-key"), key()?.to_string()),
        DataSource::Zoominfo => {
            let token = token.ok_or("there is no token")?;
            (AUTHORIZATION, format!("Bearer {}", &**token))
        }
    };
    headers.insert(name, sensitive(&value)?);
    Ok(headers)
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
pub(super) fn reply(source: DataSource, topic: &Topic, answer: &Answer) -> Reply {
    match answer.status {
        200 if !answer.is_whole => Reply::Unreadable,
        200 => match serde_json::from_slice::<Value>(&answer.bytes) {
            Ok(body) => said(source, topic, body),
            Err(_) => Reply::Unreadable,
        },
        _ => refusal(answer),
    }
}

/// What a body of 200 means.
pub(super) fn said(source: DataSource, topic: &Topic, body: Value) -> Reply {
    let is_found = match topic {
        Topic::Company(_) => read(source, &body).is_some(),
        Topic::Person(_) => read_person(source, &body).is_some(),
    };
    match body {
        body if is_found => Reply::Found(storable(body)),
        body if says_unknown(source, topic, &body) => Reply::Unknown,
        body if says_no_credits(source, &body) => Reply::NoCredits,
        _ => Reply::Unreadable,
    }
}

/// What an answer of another status than 200 means.
pub(super) fn refusal(answer: &Answer) -> Reply {
    match answer.status {
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
pub(super) fn read(source: DataSource, answer: &Value) -> Option<Facts<Field>> {
    match source {
        DataSource::Clearbit => clearbit::read(answer),
        DataSource::Zoominfo => zoominfo::read(answer),
        DataSource::Apollo => apollo::read(answer),
    }
}

/// What is known of the person, from an answer that was kept.
pub(super) fn read_person(source: DataSource, answer: &Value) -> Option<Person> {
    match source {
        DataSource::Clearbit => clearbit::read_person(answer),
        DataSource::Zoominfo => zoominfo::read_person(answer),
        DataSource::Apollo => apollo::read_person(answer),
    }
}

/// Whether it says that it knows nothing of that, in an answer that has nothing.
fn says_unknown(source: DataSource, topic: &Topic, answer: &Value) -> bool {
    match source {
        DataSource::Clearbit => {
            matches!(topic, Topic::Person(_)) && clearbit::says_no_person(answer)
        }
        DataSource::Zoominfo => zoominfo::says_unknown(answer),
        DataSource::Apollo => apollo::says_unknown(answer),
    }
}

/// Whether it says that its credits are used up, in an answer of 200.
fn says_no_credits(source: DataSource, answer: &Value) -> bool {
    source == DataSource::Zoominfo && zoominfo::says_no_credits(answer)
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
mod tests;
