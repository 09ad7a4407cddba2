//! Addresses and domains that nothing is sent to: a row for each reason, so that whoever takes a
//! bounce away does not forget that its owner unsubscribed.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::access::{self, Audit, By};
use super::{Record, RecordError, View};

/// The longest token of a link that is looked up, in bytes.
const TOKEN_MAX: usize = 100;

/// An address or a domain that nothing is sent to.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = Suppression))]
pub struct SuppressionRow {
    /// An address, or a domain for all of its addresses.
    pub target: String,
    /// `unsubscribed`, `bounced`, `complained` or `manual`.
    pub reason: String,
    /// Who says so, such as `api` or `link`.
    pub source: String,
    pub note: String,
    /// The mail that brought it.
    pub send_id: Option<Uuid>,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
}

const COLUMNS: &str = "target, reason, source, note, send_id, created_by, created_at";

/// A page of them, by name and reason, those behind `after` only.
pub async fn page(
    view: &mut View,
    workspace_id: Uuid,
    after: Option<(&str, &str)>,
    limit: i64,
) -> Result<Vec<SuppressionRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM email_suppressions
         WHERE workspace_id = $1 AND ($2::text IS NULL OR (target, reason) > ($2, $3))
         ORDER BY target, reason LIMIT $4"
    )))
    .bind(workspace_id)
    .bind(after.map(|(target, _)| target))
    .bind(after.map(|(_, reason)| reason))
    .bind(limit)
    .fetch_all(view.connection())
    .await?)
}

/// What a new one is to be.
#[derive(Debug, Clone)]
pub struct NewSuppression {
    pub workspace_id: Uuid,
    pub target: String,
    pub reason: String,
    pub note: String,
    pub created_by: Option<Uuid>,
}

/// Adds one; one that is there stays as it is. The row, and whether it is new.
pub async fn add(
    record: &Record,
    new: &NewSuppression,
    by: &By<'_>,
) -> Result<(SuppressionRow, bool), RecordError> {
    let mut tx = record.begin().await?;
    let added = sqlx::query(
        "INSERT INTO email_suppressions (workspace_id, target, reason, source, note, created_by)
         VALUES ($1, $2, $3, 'api', $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(new.workspace_id)
    .bind(&new.target)
    .bind(&new.reason)
    .bind(&new.note)
    .bind(new.created_by)
    .execute(tx.connection())
    .await?;
    let is_new = added.rows_affected() == 1;
    let row: SuppressionRow = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM email_suppressions
         WHERE workspace_id = $1 AND target = $2 AND reason = $3"
    )))
    .bind(new.workspace_id)
    .bind(&new.target)
    .bind(&new.reason)
    .fetch_one(tx.connection())
    .await?;
    if is_new {
        let audit = Audit {
            workspace_id: Some(new.workspace_id),
            actor: by.actor,
            action: "suppression.create",
            target: ("suppression", row.target.clone()),
            reason: None,
            before: None,
            after: Some(json!({ "reason": row.reason, "note": row.note })),
            request_id: by.request_id,
        };
        access::note(tx.connection(), &audit).await?;
    }
    tx.commit().await?;
    Ok((row, is_new))
}

/// Takes an address or a domain off the list: for one reason, or for all. False: it is not on it.
pub async fn remove(
    record: &Record,
    (workspace_id, target): (Uuid, &str),
    reason: Option<&str>,
    by: &By<'_>,
) -> Result<bool, RecordError> {
    let mut tx = record.begin().await?;
    let were: Vec<SuppressionRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "DELETE FROM email_suppressions WHERE workspace_id = $1 AND target = $2
           AND ($3::text IS NULL OR reason = $3) RETURNING {COLUMNS}"
    )))
    .bind(workspace_id)
    .bind(target)
    .bind(reason)
    .fetch_all(tx.connection())
    .await?;
    if were.is_empty() {
        return Ok(false);
    }
    // Whoever was stopped because of it may be sent to again, if nothing else is against it.
    sqlx::query(
        "UPDATE sequence_enrollments e SET state = 'active'
         FROM contacts c WHERE c.id = e.contact_id AND e.workspace_id = $1
           AND e.state = 'stopped' AND c.workspace_id = $1 AND lower(c.email) = $2
           AND NOT EXISTS (SELECT FROM email_suppressions x
             WHERE x.workspace_id = $1 AND x.target = $2)",
    )
    .bind(workspace_id)
    .bind(target)
    .execute(tx.connection())
    .await?;
    for was in were {
        let audit = Audit {
            workspace_id: Some(workspace_id),
            actor: by.actor,
            action: "suppression.delete",
            target: ("suppression", target.to_owned()),
            reason: None,
            before: Some(json!({ "reason": was.reason, "source": was.source, "note": was.note })),
            after: None,
            request_id: by.request_id,
        };
        access::note(tx.connection(), &audit).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// What is kept of the secret in a link to unsubscribe.
pub fn token_hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// The recipient whom a link is for. None: there is no such link.
pub async fn who_has(record: &Record, token: &str) -> Result<Option<String>, RecordError> {
    if token.len() > TOKEN_MAX {
        return Ok(None);
    }
    Ok(
        sqlx::query_scalar("SELECT recipient FROM email_sends WHERE unsubscribe_hash = $1")
            .bind(token_hash(token))
            .fetch_optional(&record.pool)
            .await?,
    )
}

/// Unsubscribes who has this link from all marketing of the workspace. False: there is no such
/// link. Safe to repeat.
pub async fn unsubscribe(record: &Record, token: &str) -> Result<bool, RecordError> {
    if token.len() > TOKEN_MAX {
        return Ok(false);
    }
    let found: i64 = sqlx::query_scalar(
        "WITH sent AS (
           SELECT id, workspace_id, contact_id, recipient FROM email_sends
           WHERE unsubscribe_hash = $1
         ), added AS (
           INSERT INTO email_suppressions (workspace_id, target, reason, source, send_id)
           SELECT workspace_id, recipient, 'unsubscribed', 'link', id FROM sent
           ON CONFLICT DO NOTHING
         ), stopped AS (
           UPDATE sequence_enrollments e SET state = 'stopped' FROM sent s, sequences q
           WHERE e.contact_id = s.contact_id AND e.workspace_id = s.workspace_id
             AND q.id = e.sequence_id AND q.kind = 'marketing' AND e.state = 'active'
         )
         SELECT count(*) FROM sent",
    )
    .bind(token_hash(token))
    .fetch_one(&record.pool)
    .await?;
    Ok(found > 0)
}
