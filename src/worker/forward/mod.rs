//! Forwarding: jobs are delivered over HTTP, and workers in any language do the work.
//!
//! One request per attempt; the connection stays open while the job runs. Bullwark keeps the lease,
//! the heartbeats, the retries and the record. `docs/forward.md` has the protocol.
//!
//! It promises that a delivery ends when the job is not ours any more (the connection is closed),
//! that every delivery has an id of its own, and that whatever is answered ends the attempt in one
//! known way. It refuses answers that are too large, and follows no redirects.

mod answer;
mod request;
mod signature;
mod surrogates;

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;

pub use answer::ANSWER_MAX_BYTES;
pub use signature::{InvalidSecret, Secret};

use super::context::JobContext;
use super::events::Events;
use crate::clock;
use crate::job::JobError;

/// How long the receiver may take to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long a connection that carries nothing is used again. Servers in Node and Python close
/// theirs after five seconds: a delivery that is written as that happens fails, and is not sent
/// again, since it may have begun. A busy queue never comes near it.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// Where jobs are delivered to.
#[derive(Debug, Clone)]
pub struct Forward {
    client: reqwest::Client,
    url: reqwest::Url,
    secret: Option<Secret>,
    /// How long an attempt may take.
    pub(super) timeout: Duration,
    /// Told of answers that are not understood.
    events: Events,
}

/// An address that can not be delivered to.
#[derive(Debug, thiserror::Error)]
pub enum InvalidForward {
    #[error("`{url}` is no URL to deliver to: {why}; it looks like http://127.0.0.1:3000/work")]
    Url { url: String, why: String },
    #[error("no HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl Forward {
    /// With a secret, deliveries are signed.
    pub fn to(
        url: &str,
        secret: Option<Secret>,
        timeout: Duration,
    ) -> Result<Self, InvalidForward> {
        let refuse = |why: String| InvalidForward::Url {
            url: url.to_owned(),
            why,
        };
        let parsed = reqwest::Url::parse(url).map_err(|error| refuse(error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(refuse("its scheme is neither http nor https".to_owned()));
        }
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_PATIENCE)
            .tcp_keepalive(KEEPALIVE)
            .tcp_nodelay(true)
            .pool_idle_timeout(POOL_IDLE)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            client,
            url: parsed,
            secret,
            timeout,
            events: Events::default(),
        })
    }

    /// The same, telling these listeners what the outcome of an attempt does not say.
    #[must_use]
    pub fn telling(self, events: Events) -> Self {
        Self { events, ..self }
    }

    /// Delivers the job of this context and waits for the answer. Ends when the context is
    /// cancelled, which closes the connection.
    pub(super) async fn deliver(&self, ctx: &JobContext) -> Result<String, JobError> {
        tokio::select! {
            biased;
            () = ctx.cancelled().cancelled() => Err(JobError::retry("the delivery was cut off")),
            answered = self.exchange(ctx) => answered,
        }
    }

    async fn exchange(&self, ctx: &JobContext) -> Result<String, JobError> {
        let Some(job) = ctx.wire() else {
            return Err(JobError::permanent("the job was claimed without its hash"));
        };
        let body = request::body(ctx, job)?;
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json");
        if let Some(secret) = &self.secret {
            let id = format!("{}.{}", job.id, job.attempts_started);
            let timestamp = clock::now_ms() / 1000;
            for (name, value) in secret.sign(&id, timestamp, &body) {
                request = request.header(name, value);
            }
        }
        let response = request
            .body(body)
            .send()
            .await
            .map_err(|error| JobError::retry(plain(&error)))?;
        let (read, why_not) = answer::read(response).await;
        if let Some(why) = why_not {
            let message = format!("the answer for job {} is not understood: {why}", job.id);
            tracing::warn!(message);
            self.events.error(message);
        }
        read
    }
}

/// The causes of an error on one line, without the address, which may hold a secret.
fn plain(error: &reqwest::Error) -> String {
    let mut text = match error.is_timeout() {
        true => "time-out".to_owned(),
        false => "no answer".to_owned(),
    };
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
