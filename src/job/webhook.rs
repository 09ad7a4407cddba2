//! Webhooks: which events there are, what is told of them, and the job that delivers one.
//!
//! A message is thin: which job, and how it stands. Payload, result and stack stay here; who wants
//! them asks for the job.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Backoff, Due, NewJob, Priority, QueueName};

/// The type of jobs that deliver. What becomes of them is no event.
pub const DELIVER: &str = "deliver_webhook";
/// Their queue, which workers serve unless told otherwise.
pub const QUEUE: &str = "webhooks";
/// What is sent when somebody tries a webhook.
pub const TEST: &str = "webhook.test";
/// How long after each failure it is tried again, in seconds: more than a day in all.
pub const RETRY_DELAYS: [u32; 7] = [5, 300, 1800, 7200, 18_000, 36_000, 36_000];
/// All of them together, without jitter.
pub const RETRIED_FOR: Duration = Duration::from_secs(99_305);
/// The share by which delays differ, so that a receiver that comes back is not met by all at once.
const JITTER: f64 = 0.1;
/// What is told of an error, in characters.
const ERROR_TOLD_MAX: usize = 1000;

/// What a webhook may hear of a job. `job.failed`: an attempt failed, another one follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum WebhookEvent {
    #[serde(rename = "job.completed")]
    Completed,
    #[serde(rename = "job.failed")]
    Failed,
    #[serde(rename = "job.dead_letter")]
    DeadLetter,
    #[serde(rename = "job.cancelled")]
    Cancelled,
}

impl WebhookEvent {
    pub const ALL: [Self; 4] = [
        Self::Completed,
        Self::Failed,
        Self::DeadLetter,
        Self::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "job.completed",
            Self::Failed => "job.failed",
            Self::DeadLetter => "job.dead_letter",
            Self::Cancelled => "job.cancelled",
        }
    }
}

impl std::str::FromStr for WebhookEvent {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|event| event.as_str() == text).ok_or(())
    }
}

/// A job as a receiver is told of it: as it was when the event happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub id: Uuid,
    pub job_type: String,
    pub queue: String,
    pub status: String,
    /// Failures so far.
    pub attempts: i32,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: DateTime<Utc>,
    pub error_message: Option<String>,
}

/// The body of a message about a job.
pub fn message(event: &str, at: DateTime<Utc>, told: &Told) -> Value {
    let cut = |text: &String| text.chars().take(ERROR_TOLD_MAX).collect::<String>();
    let job = json!({
        "id": told.id,
        "type": told.job_type,
        "queue": told.queue,
        "status": told.status,
        "attempts": told.attempts,
        "created_at": written(told.created_at),
        "started_at": told.started_at.map(written),
        "ended_at": written(told.ended_at),
        "error_message": told.error_message.as_ref().map(cut),
    });
    json!({ "type": event, "timestamp": written(at), "data": { "job": job } })
}

/// The body of a message that tells of nothing.
pub fn test_message(webhook_id: Uuid, at: DateTime<Utc>) -> Value {
    json!({ "type": TEST, "timestamp": written(at), "data": { "webhook_id": webhook_id } })
}

fn written(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The id of a delivery, made of what it delivers: made again it is the same. It begins with the
/// time and says version 7, as the ids of all jobs of ours do: any other is taken for a client's.
pub fn delivery_id(event_id: i64, webhook_id: Uuid, job_id: Uuid, at: DateTime<Utc>) -> Uuid {
    let name = format!("{event_id}:{job_id}:{}", at.timestamp_micros());
    let mut bytes = Uuid::new_v5(&webhook_id, name.as_bytes()).into_bytes();
    let ms = at.timestamp_millis().clamp(0, (1 << 48) - 1).to_be_bytes();
    bytes[..6].copy_from_slice(&ms[2..]);
    bytes[6] = bytes[6] & 0x0f | 0x70;
    Uuid::from_bytes(bytes)
}

/// What a message is known by, in every attempt and replay.
pub fn message_id(delivery_id: Uuid) -> String {
    format!("msg_{}", delivery_id.simple())
}

/// What is to be delivered, and whither.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    pub id: Uuid,
    pub workspace_id: Uuid,
    pub webhook_id: Uuid,
    pub message: Value,
}

/// The job that delivers. `random` is in `0.0..1.0` and made by the caller.
pub fn delivery_job(delivery: &Delivery, random: f64) -> NewJob {
    let factor = 1.0 + JITTER * (2.0 * random - 1.0);
    let delays = RETRY_DELAYS.map(|seconds| (f64::from(seconds) * 1000.0 * factor) as u64);
    let payload = json!({ "webhook_id": delivery.webhook_id, "message": delivery.message });
    NewJob {
        id: delivery.id,
        workspace_id: Some(delivery.workspace_id),
        job_type: DELIVER.to_owned(),
        queue: queue(),
        payload: payload.to_string(),
        priority: Priority::default(),
        due: Due::Now,
        max_attempts: RETRY_DELAYS.len() as u32,
        retry_delay_seconds: super::backoff::RETRY_DELAY_SECONDS,
        backoff: Some(Backoff::List {
            delays_ms: delays.to_vec(),
        }),
        timeout_seconds: None,
        idempotency_key: None,
        created_by: None,
    }
}

fn queue() -> QueueName {
    QUEUE.parse().unwrap_or_default()
}

/// When the next attempt is due, without jitter, after so many failures.
pub fn retry_delay(failures: u32) -> Duration {
    let nth = RETRY_DELAYS.get(failures as usize);
    Duration::from_secs(u64::from(*nth.unwrap_or(&RETRY_DELAYS[6])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(ms).unwrap()
    }

    #[test]
    fn an_event_reads_back() {
        for event in WebhookEvent::ALL {
            assert_eq!(event.as_str().parse(), Ok(event));
            assert_eq!(
                serde_json::from_value(json!(event.as_str())).ok(),
                Some(event)
            );
        }
        assert_eq!(TEST.parse::<WebhookEvent>(), Err(()));
    }

    #[test]
    fn a_delivery_has_one_id_whoever_makes_it_and_it_is_in_the_order_of_time() {
        let (webhook, job) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let id = delivery_id(7, webhook, job, at(1_700_000_000_000));
        assert_eq!(id, delivery_id(7, webhook, job, at(1_700_000_000_000)));
        assert_eq!(id.get_version_num(), 7);
        for other in [
            delivery_id(8, webhook, job, at(1_700_000_000_000)),
            delivery_id(7, job, job, at(1_700_000_000_000)),
            delivery_id(7, webhook, webhook, at(1_700_000_000_000)),
        ] {
            assert_ne!(other, id);
        }
        assert!(delivery_id(7, webhook, job, at(1_700_000_000_001)) > id);
        assert_eq!(message_id(id).len(), 36);
    }

    #[test]
    fn a_message_is_thin_and_a_long_error_is_cut() {
        let told = Told {
            id: Uuid::from_u128(2),
            job_type: "noop".into(),
            queue: "default".into(),
            status: "dead_letter".into(),
            attempts: 5,
            created_at: at(0),
            started_at: None,
            ended_at: at(1000),
            error_message: Some("é".repeat(5000)),
        };
        let message = message("job.dead_letter", at(1500), &told);
        assert_eq!(message["timestamp"], "1970-01-01T00:00:01.500Z");
        let job = &message["data"]["job"];
        assert_eq!(job["started_at"], Value::Null);
        let error = job["error_message"].as_str().unwrap();
        assert_eq!(error.chars().count(), ERROR_TOLD_MAX);
    }

    #[test]
    fn a_delivery_is_tried_for_more_than_a_day() {
        let delivery = Delivery {
            id: Uuid::from_u128(1),
            workspace_id: Uuid::from_u128(2),
            webhook_id: Uuid::from_u128(3),
            message: json!({}),
        };
        for random in [0.0, 0.999] {
            let job = delivery_job(&delivery, random);
            assert_eq!(job.queue.as_str(), QUEUE);
            assert_eq!(job.max_attempts, 7);
            let Some(Backoff::List { delays_ms }) = job.backoff else {
                panic!("a list of delays");
            };
            let all: u64 = delays_ms.iter().sum();
            assert!(all > 24 * 3_600_000, "{all}");
            let usual: u32 = RETRY_DELAYS.iter().sum();
            assert_eq!(u64::from(usual), RETRIED_FOR.as_secs());
            assert!((4500..=5500).contains(&delays_ms[0]), "{delays_ms:?}");
        }
        assert_eq!(retry_delay(1), Duration::from_secs(300));
        assert_eq!(retry_delay(99), Duration::from_secs(36_000));
    }
}
