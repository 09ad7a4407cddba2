//! `deliver_webhook`: tells a receiver outside of something that happened to a job.
//!
//! Signed and named as Standard Webhooks has it (<https://www.standardwebhooks.com>). What is sent
//! was decided when the event happened; where it goes and what signs it is looked up at each
//! attempt. Only jobs that the record vouches for are sent: whoever enqueues one of this type by
//! hand has nothing signed.
//!
//! An attempt may be made twice, when its worker dies between the answer and the commit of the
//! outcome: the message id is the same then, as in every retry and replay.

mod at_once;

use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::job::webhook::{DELIVER, retry_delay};
use crate::job::{Backoff, JobError};
use crate::outbound::{Answer, CALL_TIMEOUT, CallFailure, Caller, Post};
use crate::record::logs::LogLevel;
use crate::record::webhook_deliveries::{self, Attempt, Errand, Receiver};
use crate::sealed::{Place, Sealer};
use crate::secret::Secret;
use crate::worker::{Handler, JobContext, forward};
use at_once::AtOnce;

/// What secrets of webhooks are sealed as.
pub const SEALED_AS: &str = "webhook";
/// Deliveries of one webhook at once in one process: a receiver that hangs keeps no more slots.
const AT_ONCE_MAX: usize = 8;
/// How long one waits that found all of them taken, at least; and the random part.
const BUSY_WAIT: Duration = Duration::from_secs(3);
const BUSY_JITTER: Duration = Duration::from_secs(4);
/// What an error tells of an answer, in characters.
const ANSWER_TOLD_MAX: usize = 200;

/// Delivers.
#[derive(Debug, Clone)]
pub struct DeliverWebhook {
    caller: Caller,
    sealer: Sealer,
    at_once: AtOnce,
}

/// Made by Bullwark, not by people.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Whom to tell.
    webhook_id: Uuid,
    /// What is sent, as it is.
    message: Value,
}

/// How a delivery ended.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Delivered {
    Sent {
        sent: bool,
        status: u16,
        ms: u64,
        /// The beginning of what the receiver said.
        answer: String,
    },
    NotSent {
        sent: bool,
        reason: &'static str,
    },
}

impl DeliverWebhook {
    pub fn new(caller: Caller, sealer: Sealer) -> Self {
        Self {
            caller,
            sealer,
            at_once: AtOnce::new(AT_ONCE_MAX),
        }
    }
}

impl Handler for DeliverWebhook {
    const TYPE: &'static str = DELIVER;
    type Payload = Payload;
    type Output = Delivered;

    fn timeout(&self) -> Duration {
        CALL_TIMEOUT * 2
    }

    fn backoff(&self) -> Option<Backoff> {
        let delays_ms = crate::job::webhook::RETRY_DELAYS.map(|seconds| u64::from(seconds) * 1000);
        Some(Backoff::List {
            delays_ms: delays_ms.to_vec(),
        })
    }

    async fn run(&self, ctx: JobContext, payload: Payload) -> Result<Delivered, JobError> {
        let workspace_id = ctx.workspace_id().unwrap_or_default();
        let webhook_id = payload.webhook_id;
        let errand =
            webhook_deliveries::for_delivery(ctx.record(), ctx.job_id(), webhook_id, workspace_id);
        let errand = errand.await.map_err(JobError::retry)?.ok_or_else(|| {
            count("refused");
            JobError::permanent(
                "nobody vouches for this delivery: deliveries are made by Bullwark when something \
                 happens; to see one, use POST /api/webhooks/ID/test",
            )
        })?;
        let receiver = match &errand.webhook {
            None => return Ok(not_sent(&ctx, "the webhook was deleted")),
            Some(receiver) if !receiver.is_active => {
                return Ok(not_sent(&ctx, "the webhook is out of service"));
            }
            Some(receiver) => receiver,
        };
        let Some(_turn) = self.at_once.enter(webhook_id) else {
            let wait = BUSY_WAIT + BUSY_JITTER.mul_f64(rand::random());
            let why = format!("{AT_ONCE_MAX} deliveries of this webhook are under way here");
            return Err(JobError::Snooze(wait, why));
        };
        let post = self.post(&errand, receiver, (workspace_id, webhook_id), &payload)?;
        let answered = tokio::select! {
            answered = self.caller.post(&post) => answered,
            () = ctx.cancelled().cancelled() => {
                return Err(JobError::Retry("told to stop".to_owned()));
            }
        };
        judge(&ctx, webhook_id, answered).await
    }
}

impl DeliverWebhook {
    fn post(
        &self,
        errand: &Errand,
        receiver: &Receiver,
        (workspace_id, id): (Uuid, Uuid),
        payload: &Payload,
    ) -> Result<Post, JobError> {
        let place = Place {
            kind: SEALED_AS,
            workspace_id,
            id,
        };
        let body = payload.message.to_string();
        let sealed = [
            Some(&receiver.sealed_secret),
            receiver.sealed_previous.as_ref(),
        ];
        let mut signatures = Vec::new();
        for sealed in sealed.into_iter().flatten() {
            // Whoever runs the installation can help: it is tried again.
            let secret = self.sealer.open(&place, sealed).map_err(JobError::retry)?;
            let signature = sign(&secret, errand, &body)?;
            signatures.push(signature);
        }
        let mut headers = Vec::new();
        for (name, value) in [
            ("webhook-id", errand.message_id.clone()),
            ("webhook-timestamp", errand.now_s.to_string()),
            ("webhook-signature", signatures.join(" ")),
        ] {
            let value = HeaderValue::try_from(value).map_err(JobError::permanent)?;
            headers.push((HeaderName::from_static(name), value));
        }
        Ok(Post {
            url: receiver.url.clone(),
            headers,
            body,
        })
    }
}

fn sign(secret: &Secret, errand: &Errand, body: &str) -> Result<String, JobError> {
    let key = forward::Secret::new(secret).map_err(JobError::permanent)?;
    Ok(key.signature(&errand.message_id, errand.now_s, body.as_bytes()))
}

/// What an answer, or none, means for the delivery and for its webhook.
async fn judge(
    ctx: &JobContext,
    webhook_id: Uuid,
    answered: Result<Answer, CallFailure>,
) -> Result<Delivered, JobError> {
    let answer = match answered {
        Ok(answer) => answer,
        Err(failure) => {
            note(ctx, webhook_id, Attempt::Failed, None).await;
            return Err(JobError::retry(failure));
        }
    };
    let status = answer.status;
    let told = || {
        let text: String = answer.text.chars().take(ANSWER_TOLD_MAX).collect();
        match text.trim() {
            "" => format!("the receiver answered {status}"),
            text => format!("the receiver answered {status}: {text}"),
        }
    };
    match status {
        200..300 => {
            note(ctx, webhook_id, Attempt::Delivered, Some(&answer)).await;
            Ok(Delivered::Sent {
                sent: true,
                status,
                ms: answer.took.as_millis() as u64,
                answer: answer.text,
            })
        }
        410 => {
            note(ctx, webhook_id, Attempt::Gone, Some(&answer)).await;
            let why = "the receiver answered 410: it wants no more, so the webhook is out of \
                service";
            Err(JobError::permanent(why))
        }
        300..400 => {
            note(ctx, webhook_id, Attempt::Failed, Some(&answer)).await;
            let why = "and redirects are not followed: change the address of the webhook";
            Err(JobError::Retry(format!(
                "the receiver answered {status}, {why}"
            )))
        }
        _ => {
            note(ctx, webhook_id, Attempt::Failed, Some(&answer)).await;
            let is_busy = matches!(status, 408 | 425 | 429 | 503);
            match answer.retry_after.filter(|_| is_busy) {
                // Not sooner than it would be without it: the tries are to last a day.
                Some(after) => {
                    let delay = after.max(retry_delay(ctx.failures()));
                    Err(JobError::RetryAfter(delay, told()))
                }
                None => Err(JobError::Retry(told())),
            }
        }
    }
}

/// Notes how it went. That it is not noted changes nothing for the job: its outcome stands in its
/// own row.
async fn note(ctx: &JobContext, webhook_id: Uuid, attempt: Attempt, answer: Option<&Answer>) {
    count(match attempt {
        Attempt::Delivered => "delivered",
        Attempt::Failed => "failed",
        Attempt::Gone => "gone",
    });
    let answer = answer.map(|answer| (answer.status, answer.took));
    let job_id = ctx.job_id();
    let noted =
        webhook_deliveries::note_attempt(ctx.record(), job_id, webhook_id, attempt, answer).await;
    match noted {
        Ok(false) => {}
        Ok(true) => {
            tracing::warn!(webhook.id = %webhook_id, job.id = %job_id, "webhook out of service");
            let why = "the webhook is out of service from now on";
            ctx.log(LogLevel::Warn, why, None);
        }
        Err(error) => tracing::warn!(%error, job.id = %job_id, "attempt of a delivery not noted"),
    }
}

fn not_sent(ctx: &JobContext, reason: &'static str) -> Delivered {
    count("not_sent");
    ctx.log(LogLevel::Info, &format!("not sent: {reason}"), None);
    Delivered::NotSent {
        sent: false,
        reason,
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("bullwark_webhook_deliveries_total", "outcome" => outcome).increment(1);
}
