//! One call: with a permit, with a token, and with all that is learned from how it ended.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::super::client::CrmError;
use super::Hubspot;
use crate::clock;
use crate::job::JobError;
use crate::outbound::{Answer, Call, CallFailure};
use crate::quota::{Ask, Learned, Limits, QuotaKey, QuotaWindow, learn};
use crate::record::logs::LogLevel;
use crate::secret::Secret;

/// How long one call may take, unless the connection says so.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer, in bytes: 200 records with long texts.
const ANSWER_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Until the budget of a day is asked for again: nobody says in whose zone its midnight is.
const DAILY_WAIT: Duration = Duration::from_secs(3600);

/// The account is moved to another place, which may take a day ("Error handling").
const MIGRATING: u16 = 477;

/// Which limit a call is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Objects,
    /// Search has a limit of its own, and tells nothing of it.
    Search,
}

impl Class {
    fn service(self) -> &'static str {
        match self {
            Self::Objects => "hubspot",
            Self::Search => "hubspot.search",
        }
    }

    /// What is believed until the headers say otherwise.
    fn limits(self) -> Limits {
        let sliding = |max, per_ms| QuotaWindow::Sliding { max, per_ms };
        match self {
            Self::Objects => Limits::of([sliding(100, 10_000)]),
            Self::Search => Limits::of([sliding(4, 1000)]),
        }
    }
}

impl Hubspot {
    /// The JSON of a call that must succeed.
    pub(super) async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        class: Class,
    ) -> Result<Value, CrmError> {
        let answer = self.call(method, path, body, class).await?;
        match answer.status {
            200..=299 => parsed(&answer),
            _ => Err(failed(&answer)),
        }
    }

    /// The answer to a call, unless the connection, a limit or their health is what stands in the
    /// way. A token that is refused is renewed once.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        class: Class,
    ) -> Result<Answer, CrmError> {
        let token = self.token(None).await?;
        let answer = self
            .sent(&method, path, body.as_ref(), class, &token)
            .await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        if self.connection.credential("refresh_token").is_none() {
            return Err(CrmError::Auth("it answered 401".to_owned()));
        }
        let token = self.token(Some(&token)).await?;
        let answer = self
            .sent(&method, path, body.as_ref(), class, &token)
            .await?;
        match answer.status {
            401 => Err(CrmError::Auth(
                "it answers 401 to a new token, too".to_owned(),
            )),
            _ => Ok(answer),
        }
    }

    async fn sent(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        class: Class,
        token: &Secret,
    ) -> Result<Answer, CrmError> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", &**token))
            .map_err(|_| CrmError::Auth("its token has strange characters".to_owned()))?;
        bearer.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let body = body
            .map(|body| Bytes::from(body.to_string()))
            .unwrap_or_default();
        self.exchange(method.clone(), path, headers, body, class)
            .await
    }

    /// One exchange, when it may be made.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        class: Class,
    ) -> Result<Answer, CrmError> {
        if self.ctx.cancelled().is_cancelled() {
            return Err(JobError::Retry("told to stop".to_owned()).into());
        }
        let timeout = self.connection.call_timeout(CALL_TIMEOUT);
        let base = self.connection.base_url.as_deref().unwrap_or_default();
        let call = Call {
            method,
            url: format!("{}{path}", base.trim_end_matches('/')),
            headers,
            body,
            timeout,
            answer_max_bytes: ANSWER_MAX_BYTES,
        };
        let workspace_id = self.ctx.workspace_id().unwrap_or_default();
        let key = QuotaKey::new(class.service(), workspace_id).map_err(JobError::permanent)?;
        let (limits, host) = (class.limits(), self.host());
        let ask = Ask::new(&key, &limits).lease(timeout * 2).host(&host);
        let permit = self.patience.permit(&self.ctx, ask).await?;
        let answer = match self.outside.caller.call(&call).await {
            Ok(answer) => answer,
            Err(CallFailure::Forbidden(why)) => {
                permit.ended().await;
                let id = self.connection.id;
                let why = format!("connection {id} can not be used: its `baseUrl` {why}");
                return Err(CrmError::PermanentRun(why));
            }
            Err(CallFailure::NotConnected(why)) => {
                permit.failed().await;
                return Err(CrmError::Retryable(None, format!("HubSpot: {why}")));
            }
            Err(CallFailure::Unavailable(why)) => {
                permit.failed().await;
                return Err(CrmError::Ambiguous(format!("HubSpot: {why}")));
            }
        };
        let metadata = json!({
            "provider": "hubspot", "method": call.method.as_str(), "status": answer.status,
            "ms": answer.took.as_millis() as u64,
        });
        self.ctx
            .log(LogLevel::Debug, "the CRM answered", Some(metadata));
        let pairs = answer.headers.iter();
        let pairs = pairs.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let learned = limited(learn(answer.status, pairs, clock::now()), &answer);
        match permit.answered(&learned).await {
            Some(wait) => Err(CrmError::Job(wait.into())),
            None => match answer.status {
                408 | 425 | 423 | 500.. => Err(failed(&answer)),
                _ => Ok(answer),
            },
        }
    }

    /// Whose breaker it is: of the provider, or of an address that a user gave.
    fn host(&self) -> String {
        let public = self.connection.provider.base_url();
        match public.filter(|public| self.connection.base_url.as_deref() == Some(*public)) {
            Some(public) => public.trim_start_matches("https://").to_owned(),
            None => format!("connection.{}", self.connection.id),
        }
    }

    /// The token of a private app, or one for the refresh token; another than `refused`.
    async fn token(&self, refused: Option<&Secret>) -> Result<Secret, CrmError> {
        let credential = |name: &str| self.connection.credential(name);
        let Some(refresh) = credential("refresh_token") else {
            let token = credential("access_token");
            return token.ok_or_else(|| CrmError::Auth("it has no `access_token`".to_owned()));
        };
        let mut known = self.token.lock().await;
        if let Some(token) = known.as_ref().filter(|token| Some(*token) != refused) {
            return Ok(token.clone());
        }
        let missing = |name: &str| CrmError::Auth(format!("it has no `{name}`"));
        let id = credential("client_id").ok_or_else(|| missing("client_id"))?;
        let secret = credential("client_secret").ok_or_else(|| missing("client_secret"))?;
        let pairs = [
            ("grant_type", "refresh_token"),
            ("client_id", &id),
            ("client_secret", &secret),
            ("refresh_token", &refresh),
        ];
        let body = form(&pairs);
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, kind);
        let path = "/oauth/v1/token";
        let asked = self.exchange(Method::POST, path, headers, body.into(), Class::Objects);
        let answer = asked.await?;
        let token = serde_json::from_slice::<Value>(&answer.bytes).ok();
        let token = token.and_then(|body| Some(body.get("access_token")?.as_str()?.to_owned()));
        match (answer.status, token) {
            (200, Some(token)) => {
                let token = Secret(token);
                *known = Some(token.clone());
                Ok(token)
            }
            (400 | 401 | 403, _) => {
                let why = format!("its log-in answered {}", answer.status);
                Err(CrmError::Auth(why))
            }
            // Its body may hold what is secret.
            (status, _) => {
                let why = format!("the log-in to HubSpot answered {status} and no token");
                Err(CrmError::Retryable(None, why))
            }
        }
    }
}

fn form(pairs: &[(&str, &str)]) -> String {
    // The parser of addresses is what escapes here.
    let Ok(mut url) = reqwest::Url::parse("http://localhost/") else {
        return String::new();
    };
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

pub(super) fn parsed(answer: &Answer) -> Result<Value, CrmError> {
    if answer.bytes.is_empty() {
        return Ok(Value::Null);
    }
    let body = serde_json::from_slice(&answer.bytes)
        .ok()
        .filter(|_| answer.is_whole);
    body.ok_or_else(|| {
        let why = "HubSpot's answer broke off, or is no JSON";
        CrmError::Retryable(None, why.to_owned())
    })
}

/// Why a call as a whole came to nothing.
pub(super) fn failed(answer: &Answer) -> CrmError {
    let why = format!("HubSpot: {}", answer.told());
    match answer.status {
        // The rights of the app: people change them.
        403 => CrmError::PermanentRun(format!("{why}. The app of the connection needs the scope")),
        MIGRATING => CrmError::Budget(answer.retry_after.unwrap_or(DAILY_WAIT), why),
        408 | 423 | 425 | 500.. => CrmError::Retryable(answer.retry_after, why),
        _ => CrmError::PermanentRun(why),
    }
}

/// A 429 without a time to wait says which limit it was.
fn limited(mut learned: Learned, answer: &Answer) -> Learned {
    if answer.status != 429 || learned.closed_for.is_some() {
        return learned;
    }
    let body: Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
    let wait = match body.get("policyName").and_then(Value::as_str) {
        Some("DAILY") => DAILY_WAIT,
        Some("SECONDLY") => Duration::from_secs(1),
        _ => Duration::from_secs(10),
    };
    learned.closed_for = Some(wait);
    learned
}
