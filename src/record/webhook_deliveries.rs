//! Deliveries of webhooks: jobs that a row of `bullwark.webhook_deliveries` vouches for.
//!
//! Only what has such a row is signed and sent ([`super::webhook_attempts`]). Rows are
//! written by the duty that makes deliveries of events, and here: for a test, and for a replay.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{self, By};
use super::enqueue::insert_in;
use super::{Record, RecordError, Tx, View, webhooks};
use crate::job::Status;
use crate::job::webhook::{self, Delivery, delivery_job, message_id, test_message};

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
    /// Whether it was sent, once it has ended well: not, if there was nobody to send it to.
    pub sent: Option<bool>,
    /// Why it was not.
    pub not_sent_reason: Option<String>,
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
  j.status, j.attempts, CASE WHEN j.status = 'completed' THEN j.result ->> 'sent' END::boolean
    AS sent, CASE WHEN j.status = 'completed' THEN j.result ->> 'reason' END AS not_sent_reason,
  d.last_status, d.last_ms, d.last_at, j.error_message, j.next_retry_at,
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
    access::note_change(&mut tx, (about.0, about.1, action), (None, Some(told)), by).await?;
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
