//! Addresses of contacts, and what their verification came to.

use serde_json::Value;
use uuid::Uuid;

use super::{Record, RecordError, Tx};

/// A contact whose address is to be verified.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ToVerify {
    pub id: Uuid,
    pub email: Option<String>,
    /// It was verified not long ago.
    pub is_fresh: bool,
}

/// What an address is.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    pub id: Uuid,
    /// The address that was looked at.
    pub email: String,
    pub status: &'static str,
    /// A list of codes.
    pub reasons: Value,
}

/// How many rows were written, and how many stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Written {
    pub written: i64,
    pub kept: i64,
}

/// Those of these contacts that the workspace has.
pub async fn to_verify(
    record: &Record,
    workspace_id: Uuid,
    ids: &[Uuid],
    fresh_days: i32,
) -> Result<Vec<ToVerify>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT id, email, coalesce(email_status <> 'unknown'
             AND email_checked_at > now() - make_interval(days => $3), false) AS is_fresh
         FROM contacts WHERE id = ANY ($2) AND workspace_id = $1 ORDER BY id",
    )
    .bind(workspace_id)
    .bind(ids)
    .bind(fresh_days)
    .fetch_all(&record.pool)
    .await?)
}

/// Those of these contacts that have an address which was never verified. A contact that gets
/// another address is one of them again (migration 0045).
pub async fn never_verified(
    tx: &mut Tx,
    workspace_id: Uuid,
    ids: &[Uuid],
) -> Result<Vec<Uuid>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT id FROM contacts
         WHERE id = ANY ($2) AND workspace_id = $1 AND email IS NOT NULL
           AND email_checked_at IS NULL ORDER BY id",
    )
    .bind(workspace_id)
    .bind(ids)
    .fetch_all(tx.connection())
    .await?)
}

/// Writes what was found, where the contact has that address still. What is unknown now replaces
/// nothing that is known, and a mail server that says nothing now nothing that one once said.
pub async fn write(
    tx: &mut Tx,
    workspace_id: Uuid,
    rows: &[Verified],
) -> Result<Written, RecordError> {
    Ok(sqlx::query_as(
        "WITH found AS (
           SELECT * FROM unnest($2::uuid[], $3::text[], $4::text[], $5::jsonb[])
             AS f (id, email, status, reasons)
         ), held AS (
           SELECT c.id, f.status, f.reasons, f.status = 'unknown'
               AND coalesce(c.email_status, 'unknown') <> 'unknown'
             OR f.reasons ?| '{probe_unclear,not_probed}' AND coalesce(c.email_reasons ?|
               '{catch_all,mailbox_confirmed,mailbox_full,no_such_mailbox}', false) AS is_kept
           FROM contacts c JOIN found f ON f.id = c.id
           WHERE c.workspace_id = $1 AND c.email = f.email
           ORDER BY c.id FOR UPDATE OF c
         ), written AS (
           UPDATE contacts c SET email_status = h.status, email_checked_at = now(),
             email_reasons = h.reasons
           FROM held h WHERE h.id = c.id AND NOT h.is_kept
           RETURNING c.id
         )
         SELECT (SELECT count(*) FROM written) AS written,
           (SELECT count(*) FROM held WHERE is_kept) AS kept",
    )
    .bind(workspace_id)
    .bind(rows.iter().map(|row| row.id).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| &*row.email).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.status).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| &row.reasons).collect::<Vec<_>>())
    .fetch_one(tx.connection())
    .await?)
}
