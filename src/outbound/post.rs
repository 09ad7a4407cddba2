//! The client of calls to addresses of users: a body goes there, the beginning of an answer comes
//! back.
//!
//! Promises: each call ends within [`CALL_TIMEOUT`], follows no redirect, keeps
//! [`ANSWER_MAX_BYTES`] of the answer, and goes past the guard of addresses, whatever the name
//! resolves to this time. It knows nothing of what is sent, nor what an answer means.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;

use super::url::check_target;
use super::{Failure, Forbidden, GuardedResolver, explain, retry_after};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take, its answer included.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// What is kept of an answer.
pub const ANSWER_MAX_BYTES: usize = 1024;
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
pub struct Post {
    pub url: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// JSON text.
    pub body: String,
}

impl std::fmt::Debug for Post {
    /// Neither the address nor the headers: both may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Post").finish_non_exhaustive()
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// When the receiver wants to be asked again, bounded.
    pub retry_after: Option<Duration>,
    /// The beginning of it, as text.
    pub text: String,
    pub took: Duration,
}

/// Why nothing came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// It is not allowed, now and later.
    #[error("the address {0}")]
    Forbidden(String),
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

    /// Sends it once. Dropping this ends the call.
    pub async fn post(&self, post: &Post) -> Result<Answer, CallFailure> {
        let url = check_target(&post.url, self.allow_private);
        let url = url.map_err(|Forbidden(why)| CallFailure::Forbidden(why))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(post.headers.iter().cloned());
        let began = Instant::now();
        let client = self.client.get_or_init(|| client(self.allow_private));
        let client = client.as_ref().map_err(|why| {
            CallFailure::Unavailable(format!("this machine can not make connections: {why}"))
        })?;
        let sent = client.post(url).headers(headers);
        let mut response = sent.body(post.body.clone()).send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let mut bytes = Vec::new();
        // An answer that breaks off has been given all the same: its status counts.
        while bytes.len() < ANSWER_MAX_BYTES
            && let Ok(Some(part)) = response.chunk().await
        {
            bytes.extend_from_slice(&part);
        }
        bytes.truncate(ANSWER_MAX_BYTES);
        Ok(Answer {
            status,
            retry_after,
            text: String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}"),
            took: began.elapsed(),
        })
    }
}

fn client(allow_private: bool) -> Result<reqwest::Client, String> {
    // The program installs it first thing; other users of the library may not have.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .redirect(Policy::none())
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

fn failed(error: reqwest::Error) -> CallFailure {
    if error.is_timeout() && !error.is_connect() {
        let why = format!("nothing came within {} s", CALL_TIMEOUT.as_secs());
        return CallFailure::Unavailable(why);
    }
    match explain(error) {
        Failure::Forbidden(Forbidden(why)) => CallFailure::Forbidden(format!("is refused: {why}")),
        Failure::Redirect(why) | Failure::Unavailable(why) => CallFailure::Unavailable(why),
    }
}

#[cfg(test)]
mod tests;
