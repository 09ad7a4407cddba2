//! Deliveries of webhooks: jobs that a row of `bullwark.webhook_deliveries` vouches for.
//!
//! Only what has such a row is signed and sent ([`for_delivery`]). Rows are written by the duty
//! that makes deliveries of events, and here: for a test, and for a replay.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::By;
use super::enqueue::insert_in;
use super::{Record, RecordError, Tx, View, webhooks};
use crate::job::Status;
use crate::job::webhook::{self, Delivery, delivery_job, message_id, test_message};

/// A webhook that has failed for so long is taken out of service.
pub const FAILING_MAX: Duration = Duration::from_secs(5 * 24 * 3600);

/// What vouches for a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    pub job_id: Uuid,
    pub webhook_id: Uuid,
    pub workspace_id: Uuid,
    pub message_id: String,
    pub event: String,
    pub about_job_id: Option<Uuid>,
    pub replay_of: Option<Uuid>,
}

pub(super) async fn insert_many(tx: &mut Tx, new: &[NewDelivery]) -> Result<(), RecordError> {
    sqlx::query(
        "INSERT INTO bullwark.webhook_deliveries (job_id, webhook_id, workspace_id, message_id,
           event, about_job_id, replay_of)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[],
           $6::uuid[], $7::uuid[])",
    )
    .bind(new.iter().map(|d| d.job_id).collect::<Vec<_>>())
    .bind(new.iter().map(|d| d.webhook_id).collect::<Vec<_>>())
    .bind(new.iter().map(|d| d.workspace_id).collect::<Vec<_>>())
    .bind(
        new.iter()
            .map(|d| d.message_id.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(new.iter().map(|d| d.event.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|d| d.about_job_id).collect::<Vec<_>>())
    .bind(new.iter().map(|d| d.replay_of).collect::<Vec<_>>())
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// What an attempt needs to know. `webhook` is none when it was deleted.
#[derive(Debug, Clone)]
pub struct Errand {
    pub message_id: String,
    /// The record's clock, in seconds since 1970.
    pub now_s: i64,
    pub webhook: Option<Receiver>,
}

/// Where it goes, and what signs it.
#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    pub sealed_secret: String,
    pub sealed_previous: Option<String>,
    pub is_active: bool,
}

impl std::fmt::Debug for Receiver {
    /// Not the address: its query may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

#[derive(sqlx::FromRow)]
struct ErrandRow {
    message_id: String,
    now_s: i64,
    url: Option<String>,
    secret: Option<String>,
    previous_secret: Option<String>,
    is_active: Option<bool>,
}

/// What this job has to deliver. None: it is no delivery of this webhook in this workspace.
pub async fn for_delivery(
    record: &Record,
    job_id: Uuid,
    webhook_id: Uuid,
    workspace_id: Uuid,
) -> Result<Option<Errand>, RecordError> {
    let row: Option<ErrandRow> = sqlx::query_as(
        "SELECT d.message_id, floor(extract(epoch FROM clock_timestamp()))::bigint AS now_s, w.url,
           w.secret, CASE WHEN w.previous_secret_until > now() THEN w.previous_secret END
             AS previous_secret, w.is_active
         FROM bullwark.webhook_deliveries d
         LEFT JOIN webhooks w ON w.id = d.webhook_id AND w.workspace_id = d.workspace_id
         WHERE d.job_id = $1 AND d.webhook_id = $2 AND d.workspace_id = $3",
    )
    .bind(job_id)
    .bind(webhook_id)
    .bind(workspace_id)
    .fetch_optional(&record.pool)
    .await?;
    Ok(row.map(|row| Errand {
        message_id: row.message_id,
        now_s: row.now_s,
        webhook: row
            .url
            .zip(row.secret)
            .map(|(url, sealed_secret)| Receiver {
                url,
                sealed_secret,
                sealed_previous: row.previous_secret,
                is_active: row.is_active.unwrap_or(false),
            }),
    }))
}

/// How an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    Delivered,
    Failed,
    /// The receiver wants no more of this.
    Gone,
}

/// Notes an attempt: for people, and for the webhook, which is taken out of service when its
/// receiver wants no more, or has failed for [`FAILING_MAX`]. True: that was now. Doing it again
/// changes nothing.
pub async fn note_attempt(
    record: &Record,
    job_id: Uuid,
    webhook_id: Uuid,
    attempt: Attempt,
    answer: Option<(u16, Duration)>,
) -> Result<bool, RecordError> {
    let (is_delivered, is_gone) = (attempt == Attempt::Delivered, attempt == Attempt::Gone);
    let disabled: i64 = sqlx::query_scalar(
        "WITH noted AS (
           UPDATE bullwark.webhook_deliveries
           SET last_status = $3, last_ms = $4, last_at = now() WHERE job_id = $1
         ), changed AS (
           UPDATE webhooks w SET
             failing_since = CASE WHEN $5 THEN NULL ELSE coalesce(w.failing_since, now()) END,
             is_active = NOT s.is_over,
             disabled_reason = CASE
               WHEN NOT s.is_over THEN w.disabled_reason
               WHEN $6 THEN 'the receiver answered 410 Gone'
               ELSE 'every delivery since ' || to_char(w.failing_since AT TIME ZONE 'UTC',
                 'YYYY-MM-DD HH24:MI') || ' UTC has failed' END,
             updated_at = CASE WHEN s.is_over THEN now() ELSE w.updated_at END
           FROM (
             SELECT id, NOT $5 AND ($6 OR coalesce(
               failing_since < now() - make_interval(secs => $7), false)) AS is_over
             FROM webhooks WHERE id = $2) s
           -- Usually nothing: a row that works goes on working.
           WHERE w.id = s.id AND w.is_active
             AND (s.is_over OR $5 = (w.failing_since IS NOT NULL))
           RETURNING w.is_active
         )
         SELECT count(*) FROM changed WHERE NOT is_active",
    )
    .bind(job_id)
    .bind(webhook_id)
    .bind(answer.map(|(status, _)| i32::from(status)))
    .bind(answer.map(|(_, took)| took.as_millis() as i32))
    .bind(is_delivered)
    .bind(is_gone)
    .bind(FAILING_MAX.as_secs_f64())
    .fetch_one(&record.pool)
    .await?;
    Ok(disabled > 0)
}

/// A delivery as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = WebhookDelivery))]
pub struct DeliveryRow {
    /// Of its job, which has a log and all the rest.
    pub id: Uuid,
    /// What receivers know it by.
    pub message_id: String,
    pub event: String,
    /// The job that it tells of.
    pub job_id: Option<Uuid>,
    pub replay_of: Option<Uuid>,
    #[cfg_attr(feature = "server", schema(value_type = Status))]
    pub status: String,
    /// Failures so far.
    pub attempts: i32,
    /// What the receiver answered last; null: nothing.
    pub last_status: Option<i32>,
    pub last_ms: Option<i32>,
    pub last_at: Option<DateTime<Utc>>,
    pub error_message: Option<String>,
    pub next_retry_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

const COLUMNS: &str =
    "d.job_id AS id, d.message_id, d.event, d.about_job_id AS job_id, d.replay_of,
  j.status, j.attempts, d.last_status, d.last_ms, d.last_at, j.error_message, j.next_retry_at,
  j.created_at";

/// Deliveries of a webhook, newest first, those before `before` only.
pub async fn page(
    view: &mut View,
    (workspace_id, webhook_id): (Uuid, Uuid),
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<DeliveryRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM bullwark.webhook_deliveries d JOIN jobs j ON j.id = d.job_id
         WHERE d.webhook_id = $1 AND d.workspace_id = $2 AND j.deleted_at IS NULL
           AND ($3::uuid IS NULL OR d.job_id < $3)
         ORDER BY d.job_id DESC LIMIT $4"
    )))
    .bind(webhook_id)
    .bind(workspace_id)
    .bind(before)
    .bind(limit)
    .fetch_all(view.connection())
    .await?)
}

/// What became of a request to send something.
#[derive(Debug, Clone, PartialEq)]
pub enum Sending {
    NoWebhook,
    /// It is out of service.
    Inactive,
    NoDelivery,
    /// It is under way still.
    Open(String),
    Made(Box<DeliveryRow>),
}

/// Makes a delivery that tells of nothing, to see whether one arrives.
pub async fn test(
    record: &Record,
    (workspace_id, webhook_id): (Uuid, Uuid),
    by: &By<'_>,
) -> Result<Sending, RecordError> {
    let mut tx = record.begin().await?;
    if let Some(refused) = refused(&mut tx, workspace_id, webhook_id).await? {
        return Ok(refused);
    }
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT now()")
        .fetch_one(tx.connection())
        .await?;
    let id = Uuid::now_v7();
    let new = NewDelivery {
        job_id: id,
        webhook_id,
        workspace_id,
        message_id: message_id(id),
        event: webhook::TEST.to_owned(),
        about_job_id: None,
        replay_of: None,
    };
    send(tx, new, test_message(webhook_id, now), "webhook.test", by).await
}

/// Delivers once more what was delivered, or was not, under the same message id: a receiver that
/// has had it knows it.
pub async fn replay(
    record: &Record,
    (workspace_id, webhook_id): (Uuid, Uuid),
    delivery_id: Uuid,
    by: &By<'_>,
) -> Result<Sending, RecordError> {
    type Was = (String, String, Option<Uuid>, String, Value);
    let mut tx = record.begin().await?;
    if let Some(refused) = refused(&mut tx, workspace_id, webhook_id).await? {
        return Ok(refused);
    }
    let was: Option<Was> = sqlx::query_as(
        "SELECT d.message_id, d.event, d.about_job_id, j.status, j.payload -> 'message'
         FROM bullwark.webhook_deliveries d JOIN jobs j ON j.id = d.job_id
         WHERE d.job_id = $1 AND d.webhook_id = $2 AND d.workspace_id = $3
           AND j.deleted_at IS NULL",
    )
    .bind(delivery_id)
    .bind(webhook_id)
    .bind(workspace_id)
    .fetch_optional(tx.connection())
    .await?;
    let Some((message_id, event, about_job_id, status, message)) = was else {
        return Ok(Sending::NoDelivery);
    };
    if !status.parse::<Status>().is_ok_and(Status::is_final) {
        return Ok(Sending::Open(status));
    }
    let new = NewDelivery {
        job_id: Uuid::now_v7(),
        webhook_id,
        workspace_id,
        message_id,
        event,
        about_job_id,
        replay_of: Some(delivery_id),
    };
    send(tx, new, message, "webhook.replay", by).await
}

/// Why nothing can be sent, if so. The webhook stays as it is until the transaction ends.
async fn refused(
    tx: &mut Tx,
    workspace_id: Uuid,
    webhook_id: Uuid,
) -> Result<Option<Sending>, RecordError> {
    let webhook = webhooks::held(tx, workspace_id, webhook_id).await?;
    Ok(match webhook {
        None => Some(Sending::NoWebhook),
        Some(webhook) if !webhook.is_active => Some(Sending::Inactive),
        Some(_) => None,
    })
}

async fn send(
    mut tx: Tx,
    new: NewDelivery,
    message: Value,
    action: &str,
    by: &By<'_>,
) -> Result<Sending, RecordError> {
    let delivery = Delivery {
        id: new.job_id,
        workspace_id: new.workspace_id,
        webhook_id: new.webhook_id,
        message,
    };
    insert_in(&mut tx, &[delivery_job(&delivery, rand::random())]).await?;
    insert_many(&mut tx, std::slice::from_ref(&new)).await?;
    let told = json!({
        "delivery": new.job_id, "message_id": new.message_id, "replay_of": new.replay_of,
    });
    let about = (new.workspace_id, new.webhook_id);
    webhooks::note(&mut tx, about.0, about.1, action, (None, Some(told)), by).await?;
    let row: DeliveryRow = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM bullwark.webhook_deliveries d JOIN jobs j ON j.id = d.job_id
         WHERE d.job_id = $1"
    )))
    .bind(new.job_id)
    .fetch_one(tx.connection())
    .await?;
    tx.commit().await?;
    Ok(Sending::Made(Box::new(row)))
}
