//! Lineage: what changed in accounts, contacts and opportunities, where that came from, and which
//! job or user did it.
//!
//! Written by triggers (migrations 0029, 0060) in the statements that make the changes; read here.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::access::Actor;
use super::{Record, RecordError, Tx, View};

/// How long changes are kept: two years.
const KEPT_DAYS: i32 = 730;
/// Seals whose changes are forgotten at once.
const FORGET_SEALS_MAX: i32 = 4;

/// A change of one record.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct DataChange {
    pub id: i64,
    /// `accounts`, `contacts` or `opportunities`.
    pub entity_type: String,
    pub entity_id: Uuid,
    /// `insert`, `update` or `delete`.
    pub action: String,
    /// The job that did it; none: it was no job.
    pub job_id: Option<Uuid>,
    /// None: it was no job, or that job is gone.
    pub job_type: Option<String>,
    /// The user of the database who did it, if it was one.
    pub user_id: Option<Uuid>,
    /// Where it came from: the type of the job, with the provider where it has one
    /// (`enrich_contact:apollo`); `api`, or `sql`. None: it was before this was written down.
    pub source: Option<String>,
    /// For whom: `user:ID` (of a job: who enqueued it), `api_key:ID`, `service` or `operator`.
    pub actor: Option<String>,
    /// The fields that changed, as they were; none: the record is new.
    pub before: Option<Value>,
    /// As they are since then; none: the record is gone.
    pub after: Option<Value>,
    pub created_at: DateTime<Utc>,
}

/// Whose changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangesOf {
    /// Of a record.
    Entity(Uuid),
    /// By a job.
    Job(Uuid),
}

/// Changes in a workspace, newest first, those before `before` only.
pub async fn page(
    view: &mut View,
    workspace_id: Uuid,
    of: ChangesOf,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<DataChange>, RecordError> {
    // One statement each: each has one index, and no condition that a plan could begin with.
    let (sql, id) = match of {
        ChangesOf::Entity(id) => (
            "SELECT c.*, j.job_type FROM bullwark.data_changes c LEFT JOIN jobs j ON j.id = c.job_id
             WHERE c.entity_id = $1 AND c.workspace_id = $2 AND ($3::bigint IS NULL OR c.id < $3)
             ORDER BY c.id DESC LIMIT $4",
            id,
        ),
        ChangesOf::Job(id) => (
            "SELECT c.*, j.job_type FROM bullwark.data_changes c LEFT JOIN jobs j ON j.id = c.job_id
             WHERE c.job_id = $1 AND c.workspace_id = $2 AND ($3::bigint IS NULL OR c.id < $3)
             ORDER BY c.id DESC LIMIT $4",
            id,
        ),
    };
    Ok(sqlx::query_as(sql)
        .bind(id)
        .bind(workspace_id)
        .bind(before)
        .bind(limit)
        .fetch_all(view.connection())
        .await?)
}

/// Says in a transaction of the API who changes what it changes.
pub async fn speak_for(tx: &mut Tx, actor: Actor) -> Result<(), RecordError> {
    let text = match actor.parts() {
        (kind, Some(id)) => format!("{kind}:{id}"),
        (kind, None) => kind.to_owned(),
    };
    sqlx::query(
        "SELECT set_config('bullwark.source', 'api', true), set_config('bullwark.actor', $1, true)",
    )
    .bind(text)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Forgets what is older than it is kept, seal by seal; whether there may be more. Safe to repeat.
pub async fn forget_old(record: &Record) -> Result<bool, RecordError> {
    let gone: i64 = sqlx::query_scalar("SELECT bullwark.forget_old_changes($1, $2)")
        .bind(KEPT_DAYS)
        .bind(FORGET_SEALS_MAX)
        .fetch_one(&record.pool)
        .await?;
    Ok(gone > 0)
}
