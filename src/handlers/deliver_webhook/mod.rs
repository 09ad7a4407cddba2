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

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::job::webhook::{DELIVER, RETRIED_FOR, retry_delay};
use crate::job::{Backoff, JobError};
use crate::outbound::{Answer, CALL_TIMEOUT, Call, CallFailure, Caller};
use crate::record::logs::LogLevel;
use crate::record::webhook_attempts::{self, Attempt, Errand, Receiver, Went};
use crate::sealed::{Place, SealError, Sealer};
use crate::secret::Secret;
use crate::worker::{Handler, JobContext, forward};
use at_once::{AtOnce, Turn, WORKSPACE_MAX};

/// What secrets of webhooks are sealed as.
pub const SEALED_AS: &str = "webhook";
/// Between two looks whether a webhook is in service again, at least; and the random part. After
/// the time that all tries would have taken nobody looks any more.
const INACTIVE_WAIT: Duration = Duration::from_secs(300);
const INACTIVE_JITTER: Duration = Duration::from_secs(300);

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
    /// What is sent; signed is what the record has.
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
            at_once: AtOnce::default(),
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
        let turn = self
            .at_once
            .enter((workspace_id, webhook_id), rand::random());
        // Before anything is looked up: those that wait cost as little as can be.
        let turn = turn.map_err(|wait| {
            let why = format!(
                "as many deliveries of this webhook are under way here as may be, or \
                 {WORKSPACE_MAX} of its workspace"
            );
            JobError::Snooze(wait, why)
        })?;
        let errand =
            webhook_attempts::for_delivery(ctx.record(), ctx.job_id(), webhook_id, workspace_id);
        let errand = errand.await.map_err(JobError::retry)?.ok_or_else(|| {
            count("refused");
            JobError::permanent(
                "nobody vouches for this delivery: deliveries are made by Bullwark when something \
                 happens; to see one, use POST /api/webhooks/ID/test",
            )
        })?;
        let receiver = match &errand.webhook {
            None => return Ok(not_sent(&ctx, "the webhook was deleted")),
            Some(receiver) if !receiver.is_active && errand.age < RETRIED_FOR => {
                // The longer it lasts, the less often is looked.
                let wait = INACTIVE_WAIT.max(errand.age / 4);
                let wait = wait + INACTIVE_JITTER.mul_f64(rand::random());
                let why = "the webhook is out of service: sent when it is back within a day";
                return Err(JobError::Snooze(wait, why.to_owned()));
            }
            Some(receiver) if !receiver.is_active => {
                return Ok(not_sent(&ctx, "the webhook is out of service"));
            }
            Some(receiver) => receiver,
        };
        if errand.message != payload.message {
            tracing::warn!(job.id = %ctx.job_id(), "redis has another message than the record");
        }
        let call = self.message(&errand, receiver, (workspace_id, webhook_id))?;
        let answered = tokio::select! {
            answered = self.caller.call(&call) => answered,
            () = ctx.cancelled().cancelled() => {
                return Err(JobError::Retry("told to stop".to_owned()));
            }
        };
        let called = Called {
            ctx: &ctx,
            webhook_id,
            url: &receiver.url,
            turn: &turn,
        };
        called.judge(answered).await
    }
}

impl DeliverWebhook {
    fn message(
        &self,
        errand: &Errand,
        receiver: &Receiver,
        (workspace_id, id): (Uuid, Uuid),
    ) -> Result<Call, JobError> {
        let place = Place {
            kind: SEALED_AS,
            workspace_id,
            id,
        };
        let body = errand.message.to_string();
        // Whoever runs the installation can help: it is tried again.
        let secret = self.sealer.open(&place, &receiver.sealed_secret);
        let secret = secret.map_err(|error| not_opened(id, &error))?;
        let mut signatures = vec![sign(&secret, errand, &body)?];
        // The one before the rotation only helps receivers that have not learned the new one: where
        // its key is gone, they have to.
        let previous = receiver.sealed_previous.as_ref();
        match previous.map(|sealed| self.sealer.open(&place, sealed)) {
            Some(Ok(previous)) => signatures.push(sign(&previous, errand, &body)?),
            Some(Err(error)) => {
                tracing::warn!(%error, webhook.id = %id, "previous secret signs no more");
            }
            None => {}
        }
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("webhook-id", errand.message_id.clone()),
            ("webhook-timestamp", errand.now_s.to_string()),
            ("webhook-signature", signatures.join(" ")),
        ] {
            let value = HeaderValue::try_from(value).map_err(JobError::permanent)?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(Call::post(receiver.url.clone(), headers, body))
    }
}

/// What members of the workspace are told; paths and the like are for whoever reads the log.
fn not_opened(webhook_id: Uuid, error: &SealError) -> JobError {
    tracing::error!(%error, webhook.id = %webhook_id, "secret of a webhook does not open");
    JobError::Retry(match error {
        SealError::OtherKey { .. } | SealError::Damaged | SealError::KeyMissing => {
            error.to_string()
        }
        SealError::File { .. } | SealError::Unreadable { .. } => {
            "the encryption key of this process can not be read: see its log".to_owned()
        }
    })
}

fn sign(secret: &Secret, errand: &Errand, body: &str) -> Result<String, JobError> {
    let key = forward::Secret::new(secret).map_err(JobError::permanent)?;
    Ok(key.signature(&errand.message_id, errand.now_s, body.as_bytes()))
}

/// A call that was made.
struct Called<'a> {
    ctx: &'a JobContext,
    webhook_id: Uuid,
    url: &'a str,
    turn: &'a Turn,
}

impl Called<'_> {
    /// What an answer, or none, means for the delivery and for its webhook.
    async fn judge(&self, answered: Result<Answer, CallFailure>) -> Result<Delivered, JobError> {
        let answer = match answered {
            Ok(answer) => answer,
            Err(failure) => {
                self.note(Went::Failed, None).await;
                return Err(JobError::retry(failure));
            }
        };
        let status = answer.status;
        let went = match status {
            200..300 => Went::Delivered,
            410 => Went::Gone,
            _ => Went::Failed,
        };
        self.note(went, Some(&answer)).await;
        match status {
            200..300 => Ok(Delivered::Sent {
                sent: true,
                status,
                ms: answer.took.as_millis() as u64,
                answer: answer.text(),
            }),
            410 => {
                let why = "the receiver answered 410: it wants no more, so the webhook is out of \
                    service";
                Err(JobError::permanent(why))
            }
            300..400 => {
                let why = "and redirects are not followed: change the address of the webhook";
                Err(JobError::Retry(format!(
                    "the receiver answered {status}, {why}"
                )))
            }
            _ => {
                let is_busy = matches!(status, 408 | 425 | 429 | 503);
                match answer.retry_after.filter(|_| is_busy) {
                    // Not sooner than it would be without it: the tries are to last a day.
                    Some(after) => {
                        let delay = after.max(retry_delay(self.ctx.failures()));
                        Err(JobError::RetryAfter(delay, answer.told()))
                    }
                    None => Err(JobError::Retry(answer.told())),
                }
            }
        }
    }

    /// Notes how it went. That it is not noted changes nothing for the job: its outcome stands in
    /// its own row.
    async fn note(&self, went: Went, answer: Option<&Answer>) {
        self.turn.called(went == Went::Delivered);
        count(match went {
            Went::Delivered => "delivered",
            Went::Failed => "failed",
            Went::Gone => "gone",
        });
        let (ctx, webhook_id) = (self.ctx, self.webhook_id);
        let job_id = ctx.job_id();
        let attempt = Attempt {
            job_id,
            webhook_id,
            number: ctx.attempt(),
            url: self.url,
            went,
            answer: answer.map(|answer| (answer.status, answer.took)),
        };
        match webhook_attempts::note(ctx.record(), &attempt).await {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!(webhook.id = %webhook_id, job.id = %job_id, "webhook is disabled");
                let why = "the webhook is out of service from now on";
                ctx.log(LogLevel::Warn, why, None);
            }
            Err(error) => {
                tracing::warn!(%error, job.id = %job_id, "attempt of a delivery not noted");
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_of_no_path_of_this_machine() {
        let unreadable = SealError::File {
            path: "/var/lib/hush/encryption.key".into(),
            error: std::io::ErrorKind::PermissionDenied.into(),
        };
        for error in [unreadable, SealError::Damaged] {
            let JobError::Retry(told) = not_opened(Uuid::nil(), &error) else {
                panic!("it is tried again");
            };
            assert!(!told.is_empty() && !told.contains("hush"), "{told}");
        }
    }
}
