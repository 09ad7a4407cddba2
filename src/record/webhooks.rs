//! Webhooks of workspaces: made, changed and deleted by people, each time with a row in the audit.
//!
//! Secrets come in sealed and leave sealed, for who delivers alone
//! ([`super::webhook_deliveries::for_delivery`]): roles that read for callers may not read them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{self, By};
use super::{Record, RecordError, Tx, View};

/// The most webhooks of a workspace.
pub const WEBHOOKS_MAX: i64 = 20;
/// How long the secret before the last rotation signs, too.
pub const PREVIOUS_SECRET_KEPT: Duration = Duration::from_secs(24 * 3600);

/// A webhook as people see it, without its secrets.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = Webhook))]
pub struct WebhookRow {
    pub id: Uuid,
    pub url: String,
    pub description: String,
    #[cfg_attr(
        feature = "server",
        schema(value_type = Vec<crate::job::webhook::WebhookEvent>)
    )]
    pub events: Vec<String>,
    /// Of which types of jobs; null: of all.
    pub job_types: Option<Vec<String>>,
    pub is_active: bool,
    /// Why it was taken out of service.
    pub disabled_reason: Option<String>,
    /// Since when every delivery has failed.
    pub failing_since: Option<DateTime<Utc>>,
    /// Events that were not delivered, because too many deliveries were waiting; counted until it
    /// is put back into service.
    pub dropped: i64,
    pub dropped_since: Option<DateTime<Utc>>,
    /// Until then the secret before the rotation signs, too.
    pub previous_secret_until: Option<DateTime<Utc>>,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl WebhookRow {
    /// For the audit, which keeps what a query string may hide for ever.
    fn audited(&self) -> Value {
        json!({
            "url": self.url.split('?').next(), "description": self.description,
            "events": self.events, "job_types": self.job_types, "is_active": self.is_active,
        })
    }
}

const COLUMNS: &str = "id, url, description, events, job_types, is_active, disabled_reason,
  failing_since, dropped, dropped_since,
  CASE WHEN previous_secret_until > now() THEN previous_secret_until END
    AS previous_secret_until, created_by, created_at, updated_at";

/// The webhooks of a workspace, oldest first.
pub async fn list(view: &mut View, workspace_id: Uuid) -> Result<Vec<WebhookRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM webhooks WHERE workspace_id = $1 ORDER BY id LIMIT $2"
    )))
    .bind(workspace_id)
    .bind(WEBHOOKS_MAX)
    .fetch_all(view.connection())
    .await?)
}

/// One of them.
pub async fn get(
    view: &mut View,
    workspace_id: Uuid,
    id: Uuid,
) -> Result<Option<WebhookRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM webhooks WHERE workspace_id = $1 AND id = $2"
    )))
    .bind(workspace_id)
    .bind(id)
    .fetch_optional(view.connection())
    .await?)
}

/// What a new webhook is to be. The id is made by the caller: the secret is sealed for it.
#[derive(Clone)]
pub struct NewWebhook {
    pub id: Uuid,
    pub workspace_id: Uuid,
    pub url: String,
    pub description: String,
    pub events: Vec<String>,
    pub job_types: Option<Vec<String>>,
    pub sealed_secret: String,
    pub created_by: Option<Uuid>,
}

impl std::fmt::Debug for NewWebhook {
    /// Not the address: its query may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewWebhook")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Makes one. None: the workspace has [`WEBHOOKS_MAX`] already.
pub async fn create(
    record: &Record,
    new: &NewWebhook,
    by: &By<'_>,
) -> Result<Option<WebhookRow>, RecordError> {
    let mut tx = record.begin().await?;
    // One at a time in a workspace, so that the limit holds.
    sqlx::query("SELECT FROM workspaces WHERE id = $1 FOR NO KEY UPDATE")
        .bind(new.workspace_id)
        .execute(tx.connection())
        .await?;
    let row: Option<WebhookRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "INSERT INTO webhooks (id, workspace_id, url, description, events, job_types, secret,
           created_by)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8
         WHERE (SELECT count(*) FROM webhooks WHERE workspace_id = $2) < $9
         RETURNING {COLUMNS}"
    )))
    .bind(new.id)
    .bind(new.workspace_id)
    .bind(&new.url)
    .bind(&new.description)
    .bind(&new.events)
    .bind(&new.job_types)
    .bind(&new.sealed_secret)
    .bind(new.created_by)
    .bind(WEBHOOKS_MAX)
    .fetch_optional(tx.connection())
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let told = (None, Some(row.audited()));
    let about = (new.workspace_id, row.id, "webhook.create");
    access::note_change(&mut tx, about, told, by).await?;
    tx.commit().await?;
    Ok(Some(row))
}

/// What is to be different; none: as it is.
#[derive(Clone, Default, PartialEq)]
pub struct WebhookChange {
    pub url: Option<String>,
    pub description: Option<String>,
    pub events: Option<Vec<String>>,
    pub job_types: Option<Option<Vec<String>>>,
    pub is_active: Option<bool>,
}

/// Changes one. Whoever puts it into service again clears why it was out of it. None: there is no
/// such webhook.
pub async fn change(
    record: &Record,
    (workspace_id, id): (Uuid, Uuid),
    change: &WebhookChange,
    by: &By<'_>,
) -> Result<Option<WebhookRow>, RecordError> {
    let mut tx = record.begin().await?;
    let Some(was) = held(&mut tx, workspace_id, id).await? else {
        return Ok(None);
    };
    if *change == WebhookChange::default() {
        return Ok(Some(was));
    }
    let row: WebhookRow = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "UPDATE webhooks SET url = coalesce($2, url), description = coalesce($3, description),
           events = coalesce($4, events), job_types = CASE WHEN $5 THEN $6 ELSE job_types END,
           is_active = coalesce($7, is_active),
           disabled_reason = CASE WHEN $7 THEN NULL ELSE disabled_reason END,
           -- Another receiver, or another try with this one, has not failed yet.
           failing_since = CASE WHEN ($7 AND NOT is_active) OR $2 <> url THEN NULL
                                ELSE failing_since END,
           failures = CASE WHEN ($7 AND NOT is_active) OR $2 <> url THEN 0 ELSE failures END,
           failure_counted_at = CASE WHEN ($7 AND NOT is_active) OR $2 <> url THEN NULL
                                     ELSE failure_counted_at END,
           dropped = CASE WHEN $7 THEN 0 ELSE dropped END,
           dropped_since = CASE WHEN $7 THEN NULL ELSE dropped_since END, updated_at = now()
         WHERE id = $1 RETURNING {COLUMNS}"
    )))
    .bind(id)
    .bind(&change.url)
    .bind(&change.description)
    .bind(&change.events)
    .bind(change.job_types.is_some())
    .bind(change.job_types.clone().flatten())
    .bind(change.is_active)
    .fetch_one(tx.connection())
    .await?;
    let told = (Some(was.audited()), Some(row.audited()));
    access::note_change(&mut tx, (workspace_id, id, "webhook.change"), told, by).await?;
    tx.commit().await?;
    Ok(Some(row))
}

/// Deletes one. Deliveries that are under way end without being sent; what was delivered stays
/// among the jobs. False: there is no such webhook.
pub async fn delete(
    record: &Record,
    (workspace_id, id): (Uuid, Uuid),
    by: &By<'_>,
) -> Result<bool, RecordError> {
    let mut tx = record.begin().await?;
    let Some(was) = held(&mut tx, workspace_id, id).await? else {
        return Ok(false);
    };
    sqlx::query("DELETE FROM webhooks WHERE id = $1")
        .bind(id)
        .execute(tx.connection())
        .await?;
    let told = (Some(was.audited()), None);
    access::note_change(&mut tx, (workspace_id, id, "webhook.delete"), told, by).await?;
    tx.commit().await?;
    Ok(true)
}

/// Gives one another secret. The one that it had signs beside it for [`PREVIOUS_SECRET_KEPT`]; one
/// before that signs no more. None: there is no such webhook.
pub async fn rotate(
    record: &Record,
    (workspace_id, id): (Uuid, Uuid),
    sealed_secret: &str,
    by: &By<'_>,
) -> Result<Option<WebhookRow>, RecordError> {
    let mut tx = record.begin().await?;
    if held(&mut tx, workspace_id, id).await?.is_none() {
        return Ok(None);
    }
    let row: WebhookRow = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "UPDATE webhooks SET secret = $2, previous_secret = secret,
           previous_secret_until = now() + make_interval(secs => $3), updated_at = now()
         WHERE id = $1 RETURNING {COLUMNS}"
    )))
    .bind(id)
    .bind(sealed_secret)
    .bind(PREVIOUS_SECRET_KEPT.as_secs_f64())
    .fetch_one(tx.connection())
    .await?;
    let until = json!({ "previous_secret_until": row.previous_secret_until });
    let told = (None, Some(until));
    access::note_change(&mut tx, (workspace_id, id, "webhook.rotate"), told, by).await?;
    tx.commit().await?;
    Ok(Some(row))
}

/// The row, which stays as it is until the transaction ends.
pub(super) async fn held(
    tx: &mut Tx,
    workspace_id: Uuid,
    id: Uuid,
) -> Result<Option<WebhookRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM webhooks WHERE workspace_id = $1 AND id = $2 FOR UPDATE"
    )))
    .bind(workspace_id)
    .bind(id)
    .fetch_optional(tx.connection())
    .await?)
}
