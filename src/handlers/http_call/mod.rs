//! `http_call`: delivers a payload to a URL, and has the answer as its result.
//!
//! Every attempt carries the same `Idempotency-Key` and `webhook-id`, the id of the job: a worker
//! may die between the answer and the commit of the outcome, and then the call is made again. With
//! a connection that has a `signing_secret` it is signed as Standard Webhooks has it
//! (<https://www.standardwebhooks.com>).
//!
//! Promises: credentials come from a connection and go nowhere outside of its address; no redirect
//! is followed; no address inside of this network is called, unless the installation allows it;
//! no call above a quota that an admin set or the receiver told of: until there is some, the job
//! waits without spending an attempt. So it does while the receiver's host fails again and again.
//! Refuses headers that carry credentials: payloads are read by many.

mod answer;
mod payload;
mod standing;

use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use reqwest::{Method, Url};
use serde_json::Value;

use super::connection::{Connection, Connections};
use crate::clock;
use crate::job::JobError;
use crate::job::connection::Provider;
use crate::outbound::{Answer, Call, CallFailure, Caller};
use crate::quota::{Ask, Permit, learn};
use crate::secret::Secret;
use crate::worker::{Handler, JobContext, forward};
use answer::judge;
pub use payload::Payload;
use payload::TIMEOUT_MAX_MS;
use standing::Standing;

/// What is read of an answer; a longer one is cut.
const ANSWER_MAX_BYTES: usize = 512 * 1024;
/// What a call may take beside its own time, from the permit to its end.
const AROUND: Duration = Duration::from_secs(15);
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Calls.
#[derive(Debug, Clone)]
pub struct HttpCall {
    caller: Caller,
    connections: Connections,
}

impl HttpCall {
    pub fn new(caller: Caller, connections: Connections) -> Self {
        Self {
            caller,
            connections,
        }
    }
}

impl Handler for HttpCall {
    const TYPE: &'static str = "http_call";
    type Payload = Payload;
    type Output = Value;

    fn timeout(&self) -> Duration {
        Duration::from_millis(u64::from(TIMEOUT_MAX_MS)) + Duration::from_secs(30)
    }

    async fn run(&self, ctx: JobContext, payload: Payload) -> Result<Value, JobError> {
        let connection = match payload.connection_id {
            None => None,
            id => Some(self.connections.open(&ctx, Provider::Http, id).await?),
        };
        let call = call(&ctx, &payload, connection.as_ref())?;
        let workspace_id = ctx.workspace_id().unwrap_or_default();
        let standing = Standing::of(workspace_id, &call.url, connection.as_ref())?;
        let ask = Ask::new(&standing.key, &standing.limits)
            .host(&standing.breaker)
            .lease(call.timeout + AROUND);
        let permit = ctx.permit(ask).await?;
        let answered = tokio::select! {
            answered = self.caller.call(&call) => answered,
            // Dropped, the permit's place is free; the call may have been made.
            () = ctx.cancelled().cancelled() => {
                return Err(JobError::Retry("told to stop".to_owned()));
            }
        };
        tell(permit, &answered).await?;
        judge(&ctx, connection.as_ref(), answered).await
    }
}

/// Says how the call went. A receiver that refused it for its quota (429) is called by nobody until
/// it may be; then the job comes back.
async fn tell(permit: Permit, answered: &Result<Answer, CallFailure>) -> Result<(), JobError> {
    let answer = match answered {
        Ok(answer) => answer,
        Err(CallFailure::Forbidden(_)) => {
            permit.ended().await;
            return Ok(());
        }
        Err(_) => {
            permit.failed().await;
            return Ok(());
        }
    };
    let headers = answer.headers.iter();
    let headers = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let learned = learn(answer.status, headers, clock::now());
    match permit.answered(&learned).await {
        Some(wait) => Err(JobError::Snooze(wait.time, answer.told())),
        None => Ok(()),
    }
}

/// What is sent.
fn call(
    ctx: &JobContext,
    payload: &Payload,
    connection: Option<&Connection>,
) -> Result<Call, JobError> {
    let base = connection.and_then(|connection| connection.base_url.as_deref());
    let url = target(&payload.url, base).map_err(JobError::Permanent)?;
    let (body, kind) = payload.body().map_err(JobError::Permanent)?;
    let id = ctx.job_id().to_string();
    let mut headers = payload.headers().map_err(JobError::Permanent)?;
    if let Some(kind) = kind {
        headers.entry(CONTENT_TYPE).or_insert(kind);
    }
    // Not said by itself; without it, a server may wait for a body (RFC 9110, 8.6).
    if body.is_empty() && !matches!(payload.method(), Method::GET | Method::DELETE) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let value = |text: &str| HeaderValue::try_from(text).map_err(JobError::permanent);
    headers.entry(IDEMPOTENCY_KEY).or_insert(value(&id)?);
    let now_s = clock::now().timestamp();
    let credential = |name: &str| connection.and_then(|connection| connection.credential(name));
    if let Some(secret) = credential("signing_secret") {
        sign(&mut headers, &secret, (&id, now_s), &body)?;
    }
    if let Some(authorization) = credential("authorization") {
        let mut authorization = value(&authorization)?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
    }
    Ok(Call {
        method: payload.method(),
        url,
        headers,
        body: body.into(),
        timeout: payload.timeout(),
        answer_max_bytes: ANSWER_MAX_BYTES,
    })
}

/// Signs a body as Standard Webhooks has it.
pub(super) fn sign(
    headers: &mut HeaderMap,
    secret: &Secret,
    (id, now_s): (&str, i64),
    body: &str,
) -> Result<(), JobError> {
    let key = forward::Secret::new(secret).map_err(JobError::permanent)?;
    let signature = key.signature(id, now_s, body.as_bytes());
    for (name, value) in [
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", now_s.to_string()),
        ("webhook-signature", signature),
    ] {
        let value = HeaderValue::try_from(value).map_err(JobError::permanent)?;
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(())
}

/// Where it goes: with a connection, to its address or below it, so that whoever enqueues a job
/// does not send its credentials elsewhere. A path alone is one below it.
fn target(url: &str, base: Option<&str>) -> Result<String, String> {
    let Some(base) = base else {
        return match url.starts_with('/') {
            true => Err("`url` is a path: only a call with a connection may have one".to_owned()),
            false => Ok(url.to_owned()),
        };
    };
    let whole = match url.starts_with('/') {
        true => format!("{base}{url}"),
        false => url.to_owned(),
    };
    // Parsed, a path has no `..` left.
    let parsed = Url::parse(&whole).map_err(|_| "`url` is no URL".to_owned())?;
    let within = Url::parse(base).map_err(|_| "the connection has no URL".to_owned())?;
    let folder = within.path().trim_end_matches('/');
    let rest = parsed.path().strip_prefix(folder);
    let is_below = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if parsed.origin() != within.origin() || !is_below {
        return Err(format!(
            "`url` is outside of {base}, the address of the connection: its credentials go there \
             and nowhere else"
        ));
    }
    match hides_a_way_out(&whole).filter(|_| !folder.is_empty()) {
        None => Ok(whole),
        Some(found) => Err(format!(
            "the path of `url` has `{found}`, which the receiver may read as a way out of {base}, \
             the address of the connection: write the path without it, or make the connection one \
             to the whole host"
        )),
    }
}

/// What stands in the path that a server may take for a separator or for dots: many decode a path
/// before they look for `..`, or take `\` for `/` and `..;` for `..`.
fn hides_a_way_out(url: &str) -> Option<&'static str> {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let path = url[..end].to_ascii_lowercase();
    let signs = ["%2f", "%5c", "%2e", "\\", ".."];
    signs.into_iter().find(|sign| path.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_with_a_connection_goes_to_its_address_and_nowhere_else() {
        let base = "https://api.example.com/v1";
        for (url, expected) in [
            ("/things?x=1", Some("https://api.example.com/v1/things?x=1")),
            (
                "https://api.example.com/v1",
                Some("https://api.example.com/v1"),
            ),
            (
                "https://api.example.com:443/v1/a",
                Some("https://api.example.com:443/v1/a"),
            ),
            ("https://api.example.com/v1/../v2", None),
            ("/../v2", None),
            ("/%2e%2e/v2", None),
            ("https://api.example.com/v10", None),
            ("https://api.example.com.evil.example/v1/", None),
            ("https://evil.example/v1/", None),
            ("http://api.example.com/v1/", None),
            ("https://api.example.com:8443/v1/", None),
            (
                "//evil.example/v1/x",
                Some("https://api.example.com/v1//evil.example/v1/x"),
            ),
            (
                "/things?next=..%2F..%5C%2e",
                Some("https://api.example.com/v1/things?next=..%2F..%5C%2e"),
            ),
            (
                "/a.b/c%20d#%2F",
                Some("https://api.example.com/v1/a.b/c%20d#%2F"),
            ),
        ] {
            let found = target(url, Some(base));
            assert_eq!(found.as_deref().ok(), expected, "{url}: {found:?}");
        }
        for way in [
            "..%2Fv2",
            "x/..%2fv2",
            "%2e%2E%2f",
            "x%5Cv2",
            "x%5cv2",
            ".%2E/v2",
            "x\\v2",
        ] {
            for url in [format!("/{way}"), format!("{base}/{way}")] {
                assert!(target(&url, Some(base)).is_err(), "{url}");
            }
        }
        for way in [
            "/..;/v2",
            "/x/..%3b/v2",
            "/x/..\\..\\v2",
            "/x/%252e%2e%2fv2",
        ] {
            let told = target(way, Some(base)).unwrap_err();
            assert!(
                told.contains("the path of `url` has") || told.contains("outside"),
                "{told}"
            );
        }
        // There is nothing to get out of: an encoded `/` is a part of a name.
        let whole = "https://git.example.com";
        let project = "/api/v4/projects/group%2Fname";
        let found = target(project, Some(whole)).unwrap();
        assert_eq!(found, format!("{whole}{project}"));
        assert!(target("/x", None).is_err());
        assert!(target("/x", Some("https://api.example.com")).is_ok());
    }
}
