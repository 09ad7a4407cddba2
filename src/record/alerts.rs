//! What a person must know.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{self, Audit, By};
use super::{Record, RecordError, View};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertKind {
    /// The record went back in time; what only Redis knew was written into it again.
    RecordLostItsTail,
}

impl AlertKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RecordLostItsTail => "record_lost_its_tail",
        }
    }
}

/// Writes an alert.
pub async fn raise(
    record: &Record,
    kind: AlertKind,
    message: &str,
    details: &Value,
) -> Result<(), RecordError> {
    sqlx::query("INSERT INTO bullwark.alerts (kind, message, details) VALUES ($1, $2, $3)")
        .bind(kind.as_str())
        .bind(message)
        .bind(details)
        .execute(&record.pool)
        .await?;
    Ok(())
}

/// An alert as people see it.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = Alert))]
pub struct AlertRow {
    pub id: Uuid,
    pub kind: String,
    pub message: String,
    pub details: Value,
    pub created_at: DateTime<Utc>,
    /// When a person had seen to it.
    pub resolved_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "id, kind, message, details, created_at, resolved_at";

/// Alerts, newest first, those before `before` only; only open or only resolved ones, if it is
/// said. There are few: each one is a loss that a person must know of.
pub async fn page(
    view: &mut View,
    is_open: Option<bool>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<AlertRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM bullwark.alerts
         WHERE ($1::bool IS NULL OR (resolved_at IS NULL) = $1) AND ($2::uuid IS NULL OR id < $2)
         ORDER BY id DESC LIMIT $3"
    )))
    .bind(is_open)
    .bind(before)
    .bind(limit)
    .fetch_all(view.connection())
    .await?)
}

/// A person has seen to an alert. None: there is none with this id. One that was resolved before
/// stays as it is, and nothing is noted.
pub async fn resolve(
    record: &Record,
    id: Uuid,
    (by, reason): (&By<'_>, Option<&str>),
) -> Result<Option<AlertRow>, RecordError> {
    let mut tx = record.begin().await?;
    let was: Option<AlertRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM bullwark.alerts WHERE id = $1 FOR NO KEY UPDATE"
    )))
    .bind(id)
    .fetch_optional(tx.connection())
    .await?;
    let was = match was {
        Some(was) if was.resolved_at.is_none() => was,
        known => return Ok(known),
    };
    let row: AlertRow = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "UPDATE bullwark.alerts SET resolved_at = now() WHERE id = $1 RETURNING {COLUMNS}"
    )))
    .bind(id)
    .fetch_one(tx.connection())
    .await?;
    let audit = Audit {
        workspace_id: by.workspace_id,
        actor: by.actor,
        action: "alert.resolve",
        target: ("alert", id.to_string()),
        reason,
        before: Some(json!({ "kind": was.kind, "resolved_at": null })),
        after: Some(json!({ "kind": row.kind, "resolved_at": row.resolved_at })),
        request_id: by.request_id,
    };
    access::note(tx.connection(), &audit).await?;
    tx.commit().await?;
    Ok(Some(row))
}
