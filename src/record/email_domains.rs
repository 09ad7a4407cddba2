//! The warm-up of sending domains (`migrations/0042`): reserved before a mail is handed over, given
//! back when it certainly was not sent.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::access::{self, Audit, By};
use super::{Record, RecordError, Tx, View};

/// The most domains of a workspace that are listed, and that people may name in advance.
pub const DOMAINS_MAX: i64 = 500;

/// What was reserved.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Reserved {
    pub granted: i32,
    pub on_day: NaiveDate,
    /// When the next day begins.
    pub next_at: DateTime<Utc>,
    /// Why nothing is sent from the domain.
    pub paused: Option<String>,
    /// The caps of the days that come; none: it has no cap.
    pub later: Option<Vec<i32>>,
}

/// Reserves up to `wanted` mails of today, until the transaction is rolled back or they are
/// released. Locks the domain until the transaction ends.
pub async fn reserve(
    tx: &mut Tx,
    (workspace_id, domain): (Uuid, &str),
    wanted: usize,
) -> Result<Reserved, RecordError> {
    Ok(
        sqlx::query_as("SELECT * FROM bullwark.reserve_email($1, $2, $3)")
            .bind(workspace_id)
            .bind(domain)
            .bind(i32::try_from(wanted).unwrap_or(i32::MAX))
            .fetch_one(tx.connection())
            .await?,
    )
}

/// Gives back mails of a day.
pub(super) async fn release(
    tx: &mut Tx,
    (workspace_id, domain, day): (Uuid, &str, NaiveDate),
    mails: usize,
) -> Result<(), RecordError> {
    if mails > 0 {
        sqlx::query("SELECT bullwark.release_email($1, $2, $3, $4)")
            .bind(workspace_id)
            .bind(domain)
            .bind(day)
            .bind(i32::try_from(mails).unwrap_or(i32::MAX))
            .execute(tx.connection())
            .await?;
    }
    Ok(())
}

/// Counts bounces and complaints of a day; too many of them pause a domain that warms up.
pub(super) async fn count(
    tx: &mut Tx,
    (workspace_id, domain, day): (Uuid, &str, NaiveDate),
    (bounces, complaints): (usize, usize),
) -> Result<(), RecordError> {
    sqlx::query("SELECT bullwark.count_email($1, $2, $3, $4, $5)")
        .bind(workspace_id)
        .bind(domain)
        .bind(day)
        .bind(i32::try_from(bounces).unwrap_or(i32::MAX))
        .bind(i32::try_from(complaints).unwrap_or(i32::MAX))
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// A sending domain as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = EmailDomain))]
pub struct DomainRow {
    pub domain: String,
    /// Whose midnight begins a day.
    pub zone: String,
    /// It has no cap.
    pub is_warm: bool,
    /// Why nothing is sent from it; null: it is.
    pub paused_reason: Option<String>,
    /// Why the last day did not move it on.
    pub held_reason: Option<String>,
    /// The cap of each day of warming.
    pub curve: Vec<i32>,
    /// Where in it the day stands, from 1.
    pub step: i32,
    /// The day that is counted; null: nothing was sent yet.
    pub day: Option<NaiveDate>,
    pub day_ends_at: Option<DateTime<Utc>>,
    /// Mails of that day.
    pub used: i32,
    pub updated_at: DateTime<Utc>,
}

const COLUMNS: &str = "domain, zone, is_warm, paused_reason, held_reason, curve, step, day,
  day_ends_at, used, updated_at";

/// The sending domains of a workspace, by name.
pub async fn list(view: &mut View, workspace_id: Uuid) -> Result<Vec<DomainRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM email_domains WHERE workspace_id = $1 ORDER BY domain LIMIT $2"
    )))
    .bind(workspace_id)
    .bind(DOMAINS_MAX)
    .fetch_all(view.connection())
    .await?)
}

/// What is to be different; none: as it is.
#[derive(Debug, Clone, Default)]
pub struct DomainChange {
    pub zone: Option<String>,
    pub is_warm: Option<bool>,
    pub step: Option<i32>,
    pub curve: Option<Vec<i32>>,
    /// True: it is in service again; false: it is not.
    pub is_active: Option<bool>,
}

/// Changes a domain, or says in advance how it begins. A zone holds from its next day on. None: it
/// is a new one, and there are as many as may be.
pub async fn change(
    record: &Record,
    (workspace_id, domain): (Uuid, &str),
    change: &DomainChange,
    by: &By<'_>,
) -> Result<Option<DomainRow>, RecordError> {
    let mut tx = record.begin().await?;
    sqlx::query(
        "INSERT INTO email_domains (workspace_id, domain) SELECT $1, $2
         WHERE (SELECT count(*) FROM email_domains WHERE workspace_id = $1) < $3
         ON CONFLICT DO NOTHING",
    )
    .bind(workspace_id)
    .bind(domain)
    .bind(DOMAINS_MAX)
    .execute(tx.connection())
    .await?;
    let row: Option<DomainRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "UPDATE email_domains SET zone = coalesce($3, zone), is_warm = coalesce($4, is_warm),
           step = coalesce($5, step), curve = coalesce($6::int[], curve),
           paused_reason = CASE WHEN $7 THEN NULL WHEN NOT $7 THEN 'an admin paused it'
             ELSE paused_reason END, updated_at = now()
         WHERE workspace_id = $1 AND domain = $2 RETURNING {COLUMNS}"
    )))
    .bind(workspace_id)
    .bind(domain)
    .bind(&change.zone)
    .bind(change.is_warm)
    .bind(change.step)
    .bind(&change.curve)
    .bind(change.is_active)
    .fetch_optional(tx.connection())
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let audit = Audit {
        workspace_id: Some(workspace_id),
        actor: by.actor,
        action: "email_domain.change",
        target: ("email_domain", domain.to_owned()),
        reason: None,
        before: None,
        after: Some(json!({
            "zone": row.zone, "is_warm": row.is_warm, "step": row.step, "curve": row.curve,
            "paused_reason": row.paused_reason,
        })),
        request_id: by.request_id,
    };
    access::note(tx.connection(), &audit).await?;
    tx.commit().await?;
    Ok(Some(row))
}
