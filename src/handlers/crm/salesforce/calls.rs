//! One call to Salesforce: with a permit and a session, and with what its answer means for the run.
//!
//! Source: REST API Developer Guide, "Status Codes and Error Responses": an error is a list of
//! `{message, errorCode, fields}`; 401 `INVALID_SESSION_ID` is a session that ended; 403
//! `REQUEST_LIMIT_EXCEEDED` is the budget of 24 hours, or too many long calls at a time; 503
//! `SERVER_UNAVAILABLE` is too much load.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::client::CrmError;
use super::Salesforce;
use super::session::Session;
use crate::clock;
use crate::job::JobError;
use crate::outbound::{Answer, Call, CallFailure};
use crate::quota::{Ask, Limits, QuotaKey, QuotaWindow, learn};
use crate::record::logs::LogLevel;

/// Until somebody asks again whether the budget of 24 hours has something left: it fills up little
/// by little.
const BUDGET_WAIT: Duration = Duration::from_secs(900);
/// Until then long calls of others have ended.
const BUSY_WAIT: Duration = Duration::from_secs(10);
/// Calls at a time and per second: Salesforce bounds long calls only (25 at a time), and people use
/// the same organization.
const AT_ONCE: u32 = 10;
const PER_SECOND: u32 = 50;
/// Percent of the budget of 24 hours that are left to others.
const RESERVE: u8 = 10;
/// What is told of an answer, in characters.
const WORDS_MAX: usize = 300;
const STOP_WAIT: Duration = Duration::from_secs(1);

/// Whether a call that ended without an answer may have changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Writes,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Behind the address of the organization.
    pub(super) path: String,
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
    pub(super) effect: Effect,
    /// None: that of the connection.
    pub(super) timeout: Option<Duration>,
    pub(super) answer_max: usize,
}

/// How long a call may take, unless the connection says so.
const TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_MAX: usize = 8 * 1024 * 1024;

impl Request {
    pub(super) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            content_type: "application/json",
            body: Bytes::new(),
            effect: Effect::Reads,
            timeout: None,
            answer_max: ANSWER_MAX,
        }
    }

    pub(super) fn write(method: Method, path: String, body: Bytes) -> Self {
        Self {
            method,
            body,
            effect: Effect::Writes,
            ..Self::get(path)
        }
    }
}

/// One of the errors of an answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ApiError {
    pub(super) error_code: String,
    pub(super) message: String,
}

pub(super) fn api_error(answer: &Answer) -> ApiError {
    let all: Vec<ApiError> = serde_json::from_slice(&answer.bytes).unwrap_or_default();
    let first = all.into_iter().next().unwrap_or_default();
    ApiError {
        message: first.message.chars().take(WORDS_MAX).collect(),
        ..first
    }
}

impl Salesforce {
    /// Sends it with a session, which is renewed once. What comes back is good (2xx), or it is 400
    /// or 404, which mean different things to who asks.
    pub(super) async fn call(&self, request: &Request) -> Result<Answer, CrmError> {
        let mut renewed = false;
        loop {
            let session = self.session().await?;
            let call = self.prepared(request, &session)?;
            let answer = self.send(&call, request.effect).await?;
            match answer.status {
                401 if !renewed => {
                    self.forget(&session).await;
                    renewed = true;
                }
                401 => {
                    self.forget(&session).await;
                    let error = api_error(&answer);
                    let why = "it refuses a session that it has just given";
                    return Err(CrmError::Auth(format!("{why} ({})", error.error_code)));
                }
                _ => return self.judged(answer, request),
            }
        }
    }

    /// The same, where 400 and 404 are the end.
    pub(super) async fn must(&self, request: &Request) -> Result<Answer, CrmError> {
        let answer = self.call(request).await?;
        match answer.status {
            200..300 => Ok(answer),
            _ => Err(refused(&answer)),
        }
    }

    fn prepared(&self, request: &Request, session: &Session) -> Result<Call, CrmError> {
        let bearer = HeaderValue::try_from(format!("Bearer {}", session.token.as_str()));
        let mut bearer = bearer.map_err(|_| self.unusable("its token can not be sent"))?;
        bearer.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, bearer);
        let kind = HeaderValue::from_static(request.content_type);
        headers.insert(CONTENT_TYPE, kind);
        Ok(Call {
            method: request.method.clone(),
            url: format!("{}{}", session.instance_url, request.path),
            headers,
            body: request.body.clone(),
            timeout: request
                .timeout
                .unwrap_or_else(|| self.connection.call_timeout(TIMEOUT)),
            answer_max_bytes: request.answer_max,
        })
    }

    /// Sends it when it may be sent; until then the job waits.
    pub(super) async fn send(&self, call: &Call, effect: Effect) -> Result<Answer, CrmError> {
        if self.ctx.cancelled().is_cancelled() {
            return Err(JobError::Snooze(STOP_WAIT, "told to stop".to_owned()).into());
        }
        let workspace_id = self.ctx.workspace_id().unwrap_or_default();
        let key = QuotaKey::new("salesforce", workspace_id).map_err(JobError::permanent)?;
        let window = QuotaWindow::Sliding {
            max: PER_SECOND,
            per_ms: 1000,
        };
        let limits = Limits::of([window]).at_once(AT_ONCE).reserve(RESERVE);
        // Each organization has an address of its own, which may be one that a user gave.
        let host = format!("connection.{}", self.connection.id);
        let ask = Ask::new(&key, &limits).lease(call.timeout * 2).host(&host);
        let permit = self.patience.permit(&self.ctx, ask).await?;
        let answer = match self.outside.caller.call(call).await {
            Ok(answer) => answer,
            Err(CallFailure::Forbidden(why)) => {
                permit.ended().await;
                return Err(self.unusable(&format!("its address {why}")));
            }
            Err(CallFailure::NotConnected(why)) => {
                permit.failed().await;
                return Err(CrmError::Retryable(None, format!("salesforce: {why}")));
            }
            Err(CallFailure::Unavailable(why)) => {
                permit.failed().await;
                return Err(lost(effect, format!("salesforce did not answer: {why}")));
            }
        };
        let ms = answer.took.as_millis() as u64;
        let metadata = json!({ "provider": "salesforce", "status": answer.status, "ms": ms });
        self.ctx
            .log(LogLevel::Info, "the CRM answered", Some(metadata));
        let headers = answer.headers.iter();
        let headers =
            headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let mut learned = learn(answer.status, headers, clock::now());
        let error = match answer.status {
            403 => api_error(&answer),
            _ => ApiError::default(),
        };
        if error.error_code == "REQUEST_LIMIT_EXCEEDED" {
            learned.is_limited = true;
            learned.closed_for = Some(match error.message.contains("Concurrent") {
                true => BUSY_WAIT,
                false => BUDGET_WAIT,
            });
        }
        match permit.answered(&learned).await {
            Some(wait) => Err(CrmError::Budget(
                wait.time,
                format!("salesforce takes no more calls now: {}", error.message),
            )),
            None => Ok(answer),
        }
    }

    fn judged(&self, answer: Answer, request: &Request) -> Result<Answer, CrmError> {
        if !answer.is_whole {
            let why = match answer.bytes.len() >= request.answer_max {
                true => format!("its answer has more than {} bytes", request.answer_max),
                false => "its answer broke off".to_owned(),
            };
            return Err(lost(request.effect, format!("salesforce: {why}")));
        }
        let status = answer.status;
        match status {
            200..300 | 400 | 404 => Ok(answer),
            408 | 425 | 429 | 502..=504 => {
                Err(CrmError::Retryable(answer.retry_after, told(&answer)))
            }
            500.. => Err(match request.effect {
                Effect::Reads => CrmError::Retryable(answer.retry_after, told(&answer)),
                Effect::Writes => CrmError::Ambiguous(told(&answer)),
            }),
            _ => Err(refused(&answer)),
        }
    }

    pub(super) fn unusable(&self, why: &str) -> CrmError {
        let id = self.connection.id;
        CrmError::PermanentRun(format!("connection {id} can not be used: {why}"))
    }
}

fn lost(effect: Effect, why: String) -> CrmError {
    match effect {
        Effect::Reads => CrmError::Retryable(None, why),
        Effect::Writes => CrmError::Ambiguous(why),
    }
}

fn told(answer: &Answer) -> String {
    let error = api_error(answer);
    let (code, message) = (error.error_code, error.message);
    format!("salesforce answered {}: {code} {message}", answer.status)
        .trim_end_matches([' ', ':'])
        .to_owned()
}

/// What people have to mend; but a question that took too long, or met a lock, may do better later.
pub(super) fn refused(answer: &Answer) -> CrmError {
    let passing = [
        "QUERY_TIMEOUT",
        "REQUEST_RUNNING_TOO_LONG",
        "SERVER_UNAVAILABLE",
        "UNABLE_TO_LOCK_ROW",
    ];
    match passing.contains(&api_error(answer).error_code.as_str()) {
        true => CrmError::Retryable(answer.retry_after, told(answer)),
        false => CrmError::PermanentRun(told(answer)),
    }
}

/// JSON of an answer to a question.
pub(super) fn body(answer: &Answer) -> Result<Value, CrmError> {
    serde_json::from_slice(&answer.bytes).map_err(|_| unreadable("no JSON"))
}

/// The answer to a question is none. It may come from a proxy on the way, so the next one may be
/// good.
pub(super) fn unreadable(what: &str) -> CrmError {
    CrmError::Retryable(None, strange(what))
}

/// The same of the answer to a write: as little is known as if none had come.
pub(super) fn unconfirmed(what: &str) -> CrmError {
    CrmError::Ambiguous(strange(what))
}

fn strange(what: &str) -> String {
    format!("salesforce answered with something unreadable: {what}")
}
