//! The client of calls to addresses of users: a body goes there, an answer comes back.
//!
//! Promises: each call ends within its time, follows no redirect, keeps so much of the answer as
//! it says, and goes past the guard of addresses, whatever the name resolves to this time. It knows
//! nothing of what is sent, nor what an answer means.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;

use super::url::check_target;
use super::{Failure, Forbidden, GuardedResolver, explain, retry_after};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take unless it says otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// What is kept of an answer unless a call says otherwise.
pub const ANSWER_MAX_BYTES: usize = 1024;
/// What an error tells of an answer, in characters.
const ANSWER_TOLD_MAX: usize = 200;
/// Connections to a receiver that are kept for the next call, and for how long.
const IDLE_MAX: usize = 4;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Calls addresses that users gave. A cheap handle; clones share connections.
#[derive(Debug, Clone)]
pub struct Caller {
    allow_private: bool,
    /// Made when it is first needed: a machine without certificates can do all the rest.
    client: Arc<OnceLock<Result<reqwest::Client, String>>>,
}

/// What is sent.
#[derive(Clone)]
pub struct Call {
    pub method: Method,
    pub url: String,
    /// `Content-Type` is one of them.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// How long it may take, its answer included.
    pub timeout: Duration,
    /// What is kept of the answer.
    pub answer_max_bytes: usize,
}

impl Call {
    /// Sends JSON text, and wants to hear little.
    pub fn post(url: String, headers: HeaderMap, json: String) -> Self {
        let mut all = HeaderMap::new();
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        all.extend(headers);
        Self {
            method: Method::POST,
            url,
            headers: all,
            body: json.into(),
            timeout: CALL_TIMEOUT,
            answer_max_bytes: ANSWER_MAX_BYTES,
        }
    }
}

impl std::fmt::Debug for Call {
    /// Neither the address nor the headers: both may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// What came back.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// When the receiver wants to be asked again, bounded.
    pub retry_after: Option<Duration>,
    /// The beginning of it, or all.
    pub bytes: Vec<u8>,
    /// Whether that is all: it was shorter than what is kept, and did not break off.
    pub is_whole: bool,
    pub took: Duration,
}

impl Answer {
    /// What was kept, as text that the record can hold.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).replace('\0', "\u{fffd}")
    }

    /// How it is told to people: the status, and the first words.
    pub fn told(&self) -> String {
        let text: String = self.text().chars().take(ANSWER_TOLD_MAX).collect();
        match text.trim() {
            "" => format!("the receiver answered {}", self.status),
            text => format!("the receiver answered {}: {text}", self.status),
        }
    }
}

impl std::fmt::Debug for Answer {
    /// Not its headers, which may set cookies, nor all of its text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// Why nothing came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// It is not allowed, now and later.
    #[error("the address {0}")]
    Forbidden(String),
    /// There was no connection: nothing was sent.
    #[error("the receiver can not be reached: {0}")]
    NotConnected(String),
    /// It may have been sent.
    #[error("the receiver did not answer: {0}")]
    Unavailable(String),
}

impl Caller {
    pub fn new(allow_private: bool) -> Self {
        Self {
            allow_private,
            client: Arc::default(),
        }
    }

    /// Whether addresses inside of this network may be called.
    pub fn allows_private(&self) -> bool {
        self.allow_private
    }

    /// Sends it once. Dropping this ends the call.
    pub async fn call(&self, call: &Call) -> Result<Answer, CallFailure> {
        let url = check_target(&call.url, self.allow_private);
        let url = url.map_err(|Forbidden(why)| CallFailure::Forbidden(why))?;
        let began = Instant::now();
        let client = self.client.get_or_init(|| client(self.allow_private));
        let client = client.as_ref().map_err(|why| {
            CallFailure::NotConnected(format!("this machine can not make connections: {why}"))
        })?;
        let request = client
            .request(call.method.clone(), url)
            .headers(call.headers.clone())
            .timeout(call.timeout)
            .body(call.body.clone());
        let sent = request.send().await;
        let mut response = sent.map_err(|error| failed(error, call.timeout))?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut bytes = Vec::new();
        // An answer that breaks off has been given all the same: its status counts.
        let is_whole = loop {
            match response.chunk().await {
                Ok(None) => break true,
                Err(_) => break false,
                Ok(Some(part)) => bytes.extend_from_slice(&part),
            }
            if bytes.len() >= call.answer_max_bytes {
                bytes.truncate(call.answer_max_bytes);
                break false;
            }
        };
        Ok(Answer {
            status,
            retry_after: retry_after(&headers),
            headers,
            bytes,
            is_whole,
            took: began.elapsed(),
        })
    }
}

fn client(allow_private: bool) -> Result<reqwest::Client, String> {
    // The program installs it first thing; other users of the library may not have.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(Policy::none())
        // A receiver that ends a connection of HTTP/2 would end all calls on it.
        .http1_only()
        // A proxy would resolve the name itself, behind the guard.
        .no_proxy()
        // A little that unpacks into much is not asked for.
        .no_gzip()
        .dns_resolver(GuardedResolver { allow_private })
        .pool_max_idle_per_host(IDLE_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .user_agent(concat!("Bullwark/", env!("CARGO_PKG_VERSION")))
        .build();
    client.map_err(|error| error.to_string())
}

fn failed(error: reqwest::Error, timeout: Duration) -> CallFailure {
    if error.is_timeout() && !error.is_connect() {
        let why = format!("nothing came within {timeout:?}");
        return CallFailure::Unavailable(why);
    }
    let is_connect = error.is_connect();
    match explain(error) {
        Failure::Forbidden(Forbidden(why)) => CallFailure::Forbidden(format!("is refused: {why}")),
        Failure::Redirect(why) => CallFailure::Unavailable(why),
        Failure::Unavailable(why) if is_connect => CallFailure::NotConnected(why),
        Failure::Unavailable(why) => CallFailure::Unavailable(why),
    }
}

#[cfg(test)]
mod tests;
