//! Mails as people look at them, and what people say of those in doubt.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::access::{self, Audit, By};
use super::{Record, RecordError, View, email_sends};

/// Claims that are looked at in one go.
const CLAIMS_MAX: i64 = 500;
/// A claim of a job that is over is in doubt after this time, in seconds: its worker may still be
/// about to say how it went.
const CLAIM_GRACE_S: i64 = 120;

/// A mail.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = EmailSend))]
pub struct SendRow {
    pub id: Uuid,
    pub sequence_id: Uuid,
    pub step_id: Uuid,
    pub contact_id: Uuid,
    pub job_id: Uuid,
    pub recipient: String,
    /// `planned`, `claimed`, `handed_over`, `delivered`, `bounced`, `complained`, `suppressed`,
    /// `failed` or `unknown`.
    pub state: String,
    /// How often it was handed over and certainly not taken.
    pub tries: i32,
    pub provider: Option<String>,
    /// What the provider calls it.
    pub provider_id: Option<String>,
    /// Why it is as it is.
    pub code: Option<String>,
    pub message: Option<String>,
    pub claimed_at: Option<DateTime<Utc>>,
    pub handed_over_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

const COLUMNS: &str = "id, sequence_id, step_id, contact_id, job_id, recipient, state, tries,
  provider, provider_id, code, message, claimed_at, handed_over_at, created_at, updated_at";

/// Which mails; what is none does not matter.
#[derive(Debug, Clone, Default)]
pub struct SendFilter {
    pub job_id: Option<Uuid>,
    pub sequence_id: Option<Uuid>,
    pub contact_id: Option<Uuid>,
    pub state: Option<String>,
    pub before: Option<Uuid>,
}

/// A page of mails, newest first.
pub async fn page(
    view: &mut View,
    workspace_id: Uuid,
    filter: &SendFilter,
    limit: i64,
) -> Result<Vec<SendRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM email_sends
         WHERE workspace_id = $1 AND ($2::uuid IS NULL OR job_id = $2)
           AND ($3::uuid IS NULL OR sequence_id = $3) AND ($4::uuid IS NULL OR contact_id = $4)
           AND ($5::text IS NULL OR state = $5) AND ($6::uuid IS NULL OR id < $6)
         ORDER BY id DESC LIMIT $7"
    )))
    .bind(workspace_id)
    .bind(filter.job_id)
    .bind(filter.sequence_id)
    .bind(filter.contact_id)
    .bind(&filter.state)
    .bind(filter.before)
    .bind(limit)
    .fetch_all(view.connection())
    .await?)
}

/// What somebody knows of a mail in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It was sent.
    Sent,
    /// It was not: the next job that names its contact sends it.
    NotSent,
}

/// What became of that.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolved {
    Done(Box<SendRow>),
    /// It is not in doubt; its state.
    NotInDoubt(String),
    Unknown,
}

/// Says what became of a mail in doubt.
pub async fn resolve(
    record: &Record,
    (workspace_id, id): (Uuid, Uuid),
    known: Known,
    by: &By<'_>,
) -> Result<Resolved, RecordError> {
    let mut tx = record.begin().await?;
    let state: Option<String> = sqlx::query_scalar(
        "SELECT state FROM email_sends WHERE workspace_id = $1 AND id = $2 FOR UPDATE",
    )
    .bind(workspace_id)
    .bind(id)
    .fetch_optional(tx.connection())
    .await?;
    match state.as_deref() {
        None => return Ok(Resolved::Unknown),
        Some("unknown") => {}
        Some(other) => return Ok(Resolved::NotInDoubt(other.to_owned())),
    }
    let (state, code) = match known {
        Known::Sent => ("handed_over", "resolved_sent"),
        Known::NotSent => ("failed", "resolved_not_sent"),
    };
    let row: SendRow = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "UPDATE email_sends SET state = $2, code = $3, message = NULL, updated_at = now(),
           handed_over_at = CASE WHEN $2 = 'handed_over' THEN claimed_at END
         WHERE id = $1 RETURNING {COLUMNS}"
    )))
    .bind(id)
    .bind(state)
    .bind(code)
    .fetch_one(tx.connection())
    .await?;
    if known == Known::Sent {
        email_sends::enroll(&mut tx, &[id]).await?;
    }
    let audit = Audit {
        workspace_id: Some(workspace_id),
        actor: by.actor,
        action: "email_send.resolve",
        target: ("email_send", id.to_string()),
        reason: None,
        before: Some(json!({ "state": "unknown" })),
        after: Some(json!({ "state": state })),
        request_id: by.request_id,
    };
    access::note(tx.connection(), &audit).await?;
    tx.commit().await?;
    Ok(Resolved::Done(Box::new(row)))
}

/// Mails that were claimed by jobs that are over: nobody will say any more how it went. How many
/// there were. Bounded, safe to repeat.
pub async fn close_claims(record: &Record) -> Result<u64, RecordError> {
    let done = sqlx::query(
        "UPDATE email_sends SET state = 'unknown', code = 'interrupted', updated_at = now(),
           message = 'the job ended while it was handed over'
         WHERE state = 'claimed' AND id IN (SELECT s.id FROM email_sends s
           WHERE s.state = 'claimed' AND s.claimed_at < now() - $1 * interval '1 second'
             AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = s.job_id
               AND j.status IN ('pending', 'processing', 'failed'))
           ORDER BY s.claimed_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(CLAIM_GRACE_S as f64)
    .bind(CLAIMS_MAX)
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected())
}
