//! Connections of workspaces to providers outside: made, changed and deleted by people, each time
//! with a row in the audit.
//!
//! Credentials come in sealed and leave sealed, for who calls alone ([`for_use`]): roles that read
//! for callers may not read them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{self, Actor, By};
use super::{Record, RecordError, Tx, View};
use crate::job::connection::Provider;

/// The most connections of a workspace.
pub const CONNECTIONS_MAX: i64 = 100;
/// What is kept of the reason why one is paused, in characters.
const REASON_MAX: usize = 500;

/// A connection as people see it, without its credentials.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = Connection))]
pub struct ConnectionRow {
    pub id: Uuid,
    #[cfg_attr(feature = "server", schema(value_type = Provider))]
    pub provider: String,
    pub name: String,
    /// Where it is called; null: where the provider is for everybody.
    pub base_url: Option<String>,
    #[cfg_attr(feature = "server", schema(value_type = Object))]
    pub settings: Value,
    /// Which credentials it has.
    pub credential_names: Vec<String>,
    pub is_active: bool,
    /// Why it is out of service: the provider takes its credentials no more.
    pub paused_reason: Option<String>,
    pub paused_at: Option<DateTime<Utc>>,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl ConnectionRow {
    fn audited(&self) -> Value {
        json!({
            "provider": self.provider, "name": self.name, "base_url": self.base_url,
            "settings": self.settings, "credential_names": self.credential_names,
            "is_active": self.is_active,
        })
    }
}

const COLUMNS: &str = "id, provider, name, base_url, settings, credential_names, is_active,
  paused_reason, paused_at, created_by, created_at, updated_at";

/// The connections of a workspace, oldest first.
pub async fn list(view: &mut View, workspace_id: Uuid) -> Result<Vec<ConnectionRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM connections WHERE workspace_id = $1 ORDER BY id LIMIT $2"
    )))
    .bind(workspace_id)
    .bind(CONNECTIONS_MAX)
    .fetch_all(view.connection())
    .await?)
}

/// One of them.
pub async fn get(
    view: &mut View,
    (workspace_id, id): (Uuid, Uuid),
) -> Result<Option<ConnectionRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM connections WHERE workspace_id = $1 AND id = $2"
    )))
    .bind(workspace_id)
    .bind(id)
    .fetch_optional(view.connection())
    .await?)
}

/// Credentials as they are stored.
#[derive(Clone, PartialEq)]
pub struct Sealed {
    pub names: Vec<String>,
    pub text: String,
}

/// What a new connection is to be. The id is made by the caller: the credentials are sealed for it.
#[derive(Clone)]
pub struct NewConnection {
    pub id: Uuid,
    pub workspace_id: Uuid,
    pub provider: Provider,
    pub name: String,
    pub base_url: Option<String>,
    pub settings: Value,
    pub credentials: Sealed,
    pub created_by: Option<Uuid>,
}

/// How making or changing one went.
#[derive(Debug, Clone, PartialEq)]
pub enum Made {
    Done(Box<ConnectionRow>),
    /// The workspace has [`CONNECTIONS_MAX`] already.
    TooMany,
    /// The workspace has another one of this name.
    NameTaken,
    /// It would go to another server with the credentials that were given for this one.
    WouldLeak,
    /// There is no such connection.
    Unknown,
}

/// Makes one.
pub async fn create(
    record: &Record,
    new: &NewConnection,
    by: &By<'_>,
) -> Result<Made, RecordError> {
    let mut tx = record.begin().await?;
    // One at a time in a workspace, so that the limit holds and names are taken once.
    sqlx::query("SELECT FROM workspaces WHERE id = $1 FOR NO KEY UPDATE")
        .bind(new.workspace_id)
        .execute(tx.connection())
        .await?;
    if is_taken(&mut tx, new.workspace_id, &new.name, new.id).await? {
        return Ok(Made::NameTaken);
    }
    let row: Option<ConnectionRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "INSERT INTO connections (id, workspace_id, provider, name, base_url, settings,
           credential_names, credentials, created_by)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
         WHERE (SELECT count(*) FROM connections WHERE workspace_id = $2) < $10
         RETURNING {COLUMNS}"
    )))
    .bind(new.id)
    .bind(new.workspace_id)
    .bind(new.provider.as_str())
    .bind(&new.name)
    .bind(&new.base_url)
    .bind(&new.settings)
    .bind(&new.credentials.names)
    .bind(&new.credentials.text)
    .bind(new.created_by)
    .bind(CONNECTIONS_MAX)
    .fetch_optional(tx.connection())
    .await?;
    let Some(row) = row else {
        return Ok(Made::TooMany);
    };
    let about = (new.workspace_id, row.id, "connection.create");
    access::note_change(&mut tx, about, (None, Some(row.audited())), by).await?;
    tx.commit().await?;
    Ok(Made::Done(Box::new(row)))
}

/// What is to be different; none: as it is.
#[derive(Clone, Default, PartialEq)]
pub struct ConnectionChange {
    pub name: Option<String>,
    pub base_url: Option<Option<String>>,
    pub settings: Option<Value>,
    pub credentials: Option<Sealed>,
    pub is_active: Option<bool>,
}

impl ConnectionChange {
    /// Whether another server would be called.
    fn moves(&self, was: &ConnectionRow) -> bool {
        let goes_elsewhere = |url: &Option<String>| *url != was.base_url;
        let host = |settings: &Value| settings.get("host").cloned();
        let has_other_host = |settings: &Value| host(settings) != host(&was.settings);
        self.base_url.as_ref().is_some_and(goes_elsewhere)
            || self.settings.as_ref().is_some_and(has_other_host)
    }
}

/// Changes one. New credentials, and whoever puts it into service, clear why it was paused.
///
/// Credentials go where they were given for: another address, or another `host` in the settings,
/// needs them anew. That is judged of the row as it is when it is changed, or two changes at once
/// could bring them elsewhere.
pub async fn change(
    record: &Record,
    (workspace_id, id): (Uuid, Uuid),
    change: &ConnectionChange,
    by: &By<'_>,
) -> Result<Made, RecordError> {
    let mut tx = record.begin().await?;
    sqlx::query("SELECT FROM workspaces WHERE id = $1 FOR NO KEY UPDATE")
        .bind(workspace_id)
        .execute(tx.connection())
        .await?;
    let Some(was) = held(&mut tx, workspace_id, id).await? else {
        return Ok(Made::Unknown);
    };
    if *change == ConnectionChange::default() {
        return Ok(Made::Done(Box::new(was)));
    }
    if let Some(name) = &change.name
        && is_taken(&mut tx, workspace_id, name, id).await?
    {
        return Ok(Made::NameTaken);
    }
    if change.credentials.is_none() && change.moves(&was) {
        return Ok(Made::WouldLeak);
    }
    // Paused by the provider's word: other credentials have not been refused yet.
    let is_renewed = change.credentials.is_some() && was.paused_reason.is_some();
    let is_active = change.is_active.or(is_renewed.then_some(true));
    let row: ConnectionRow = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "UPDATE connections SET name = coalesce($2, name),
           base_url = CASE WHEN $3 THEN $4 ELSE base_url END,
           settings = coalesce($5, settings),
           credential_names = coalesce($6, credential_names),
           credentials = coalesce($7, credentials),
           version = version + CASE WHEN $7 IS NULL THEN 0 ELSE 1 END,
           is_active = coalesce($8, is_active),
           paused_reason = CASE WHEN $8 IS NULL THEN paused_reason END,
           paused_at = CASE WHEN $8 IS NULL THEN paused_at END, updated_at = now()
         WHERE id = $1 RETURNING {COLUMNS}"
    )))
    .bind(id)
    .bind(&change.name)
    .bind(change.base_url.is_some())
    .bind(change.base_url.clone().flatten())
    .bind(&change.settings)
    .bind(change.credentials.as_ref().map(|sealed| &sealed.names))
    .bind(change.credentials.as_ref().map(|sealed| &sealed.text))
    .bind(is_active)
    .fetch_one(tx.connection())
    .await?;
    let mut after = row.audited();
    after["has_new_credentials"] = json!(change.credentials.is_some());
    let about = (workspace_id, id, "connection.change");
    access::note_change(&mut tx, about, (Some(was.audited()), Some(after)), by).await?;
    tx.commit().await?;
    Ok(Made::Done(Box::new(row)))
}

/// Deletes one. Jobs that name it fail for good. False: there is no such connection.
pub async fn delete(
    record: &Record,
    (workspace_id, id): (Uuid, Uuid),
    by: &By<'_>,
) -> Result<bool, RecordError> {
    let mut tx = record.begin().await?;
    let Some(was) = held(&mut tx, workspace_id, id).await? else {
        return Ok(false);
    };
    sqlx::query("DELETE FROM connections WHERE id = $1")
        .bind(id)
        .execute(tx.connection())
        .await?;
    let about = (workspace_id, id, "connection.delete");
    access::note_change(&mut tx, about, (Some(was.audited()), None), by).await?;
    tx.commit().await?;
    Ok(true)
}

/// A connection as who calls needs it.
#[derive(Clone, sqlx::FromRow)]
pub struct UsableRow {
    pub id: Uuid,
    pub provider: String,
    pub base_url: Option<String>,
    pub settings: Value,
    /// Sealed.
    pub credentials: String,
    pub version: i32,
    pub is_active: bool,
    pub paused_reason: Option<String>,
}

/// The named connection of a workspace, or else its oldest one of the provider, one in service
/// before one that is not.
pub async fn for_use(
    record: &Record,
    workspace_id: Uuid,
    provider: Provider,
    id: Option<Uuid>,
) -> Result<Option<UsableRow>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT id, provider, base_url, settings, credentials, version, is_active, paused_reason
         FROM connections
         WHERE workspace_id = $1 AND CASE WHEN $3::uuid IS NULL THEN provider = $2 ELSE id = $3 END
         ORDER BY is_active DESC, id LIMIT 1",
    )
    .bind(workspace_id)
    .bind(provider.as_str())
    .bind(id)
    .fetch_optional(&record.pool)
    .await?)
}

/// The named connection, or else the oldest one that sends mails.
pub async fn for_mail(
    record: &Record,
    workspace_id: Uuid,
    id: Option<Uuid>,
) -> Result<Option<UsableRow>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT id, provider, base_url, settings, credentials, version, is_active, paused_reason
         FROM connections
         WHERE workspace_id = $1 AND provider IN ('smtp', 'sendgrid', 'ses')
           AND ($2::uuid IS NULL OR id = $2)
         ORDER BY is_active DESC, id LIMIT 1",
    )
    .bind(workspace_id)
    .bind(id)
    .fetch_optional(&record.pool)
    .await?)
}

/// Replaces credentials that were refreshed, if nobody has changed them since they were read: the
/// next who needs them reads what another has stored. Returns whether they were replaced.
pub async fn refresh(
    record: &Record,
    (id, version): (Uuid, i32),
    credentials: &Sealed,
) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "UPDATE connections SET credentials = $3, credential_names = $4, version = version + 1
         WHERE id = $1 AND version = $2",
    )
    .bind(id)
    .bind(version)
    .bind(&credentials.text)
    .bind(&credentials.names)
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes a connection out of service, because the provider refuses its credentials, unless they
/// have been changed since they were read. Returns whether it was in service until now.
pub async fn pause(
    record: &Record,
    (id, version): (Uuid, i32),
    reason: &str,
) -> Result<bool, RecordError> {
    let mut tx = record.begin().await?;
    let reason: String = reason.chars().take(REASON_MAX).collect();
    let paused: Option<(Uuid,)> = sqlx::query_as(
        "UPDATE connections SET is_active = false, paused_reason = $3, paused_at = now()
         WHERE id = $1 AND version = $2 AND is_active RETURNING workspace_id",
    )
    .bind(id)
    .bind(version)
    .bind(&reason)
    .fetch_optional(tx.connection())
    .await?;
    let Some((workspace_id,)) = paused else {
        return Ok(false);
    };
    let after = json!({ "is_active": false, "paused_reason": reason });
    let about = (workspace_id, id, "connection.pause");
    let by = By {
        actor: Actor::Service,
        workspace_id: None,
        request_id: None,
    };
    access::note_change(&mut tx, about, (None, Some(after)), &by).await?;
    tx.commit().await?;
    Ok(true)
}

async fn is_taken(
    tx: &mut Tx,
    workspace_id: Uuid,
    name: &str,
    but: Uuid,
) -> Result<bool, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM connections
           WHERE workspace_id = $1 AND name = $2 AND id <> $3)",
    )
    .bind(workspace_id)
    .bind(name)
    .bind(but)
    .fetch_one(tx.connection())
    .await?)
}

/// The row, which stays as it is until the transaction ends.
async fn held(
    tx: &mut Tx,
    workspace_id: Uuid,
    id: Uuid,
) -> Result<Option<ConnectionRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM connections WHERE workspace_id = $1 AND id = $2 FOR UPDATE"
    )))
    .bind(workspace_id)
    .bind(id)
    .fetch_optional(tx.connection())
    .await?)
}
