//! Actions: what people do to all jobs that match a filter.
//!
//! A row says what is to be done, to which jobs, how far it has come, and what was done. It is
//! carried out in bounded batches by whoever finds it running (`batch`), and a cancel can be taken
//! back for a while (`undo`). `preview` says beforehand what an action would do.

mod batch;
mod preview;
mod undo;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::access::{self, Audit, By};
use super::filter::JobFilter;
use super::{Record, RecordError, Tx, View};
use crate::job::Change;
pub use batch::{Step, TRIES_MAX, running, step};
pub use preview::{Bounds, Counted, Preview, Sampled, preview};
pub use undo::{UNDO_WINDOW, Undo, prune, undo};

/// The most actions of a workspace that run at once. An undo is never kept waiting.
pub const RUNNING_MAX: i64 = 3;

/// An action and how far it has come.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = Action))]
pub struct ActionRow {
    pub id: Uuid,
    /// A change, or `undo`.
    pub action: String,
    /// `running`, `done` or `stopped`.
    pub state: String,
    pub filter: Value,
    pub reason: String,
    pub limit: Option<i64>,
    /// How many jobs matched when it began, as far as they were counted.
    pub expected: Option<i64>,
    pub expected_is_exact: Option<bool>,
    /// So far: those that are done, skipped and failed.
    pub matched: i64,
    pub done: i64,
    /// The change did not fit them.
    pub skipped: i64,
    /// The record refused the change, or something else held them for too long.
    pub failed: i64,
    /// Those that failed first.
    #[sqlx(json)]
    pub failures: Vec<Failure>,
    /// The action that this one takes back, or the one that takes this one back.
    pub undoes: Option<Uuid>,
    pub undone_by: Option<Uuid>,
    pub actor_kind: String,
    pub actor_id: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    /// Of a cancel that has ended.
    pub undoable_until: Option<DateTime<Utc>>,
}

/// A job that an action could not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = ActionFailure))]
pub struct Failure {
    pub job_id: Uuid,
    pub reason: String,
}

const COLUMNS: &str = "a.id, a.action, a.state, a.filter, a.reason, a.max_jobs AS \"limit\",
  a.expected, a.is_exact AS expected_is_exact, a.matched, a.done, a.skipped, a.failed,
  a.failures, a.undoes,
  (SELECT u.id FROM bullwark.actions u WHERE u.undoes = a.id) AS undone_by, a.actor_kind,
  a.actor_id, a.created_at, a.updated_at, a.ended_at, a.undoable_until";

/// What a new action is to be.
#[derive(Debug, Clone)]
pub struct NewAction<'a> {
    pub workspace_id: Uuid,
    pub change: Change,
    pub filter: &'a JobFilter,
    pub reason: &'a str,
    pub limit: Option<i64>,
    /// How many jobs match now, and whether those are all.
    pub expected: Option<(i64, bool)>,
    /// The key of the request, and a hash of it: see [`Created::Known`].
    pub key: Option<(&'a str, &'a [u8])>,
}

/// What became of a request for an action.
#[derive(Debug, Clone, PartialEq)]
pub enum Created {
    New(Box<ActionRow>),
    /// The same request with the same key was made before: that action, as it is now.
    Known(Box<ActionRow>),
    /// Another request was made with this key.
    KeyReused(Uuid),
    /// The workspace has [`RUNNING_MAX`] running ones.
    TooMany,
}

/// Writes an action down, with a row in the audit. From here on somebody carries it out.
pub async fn create(
    record: &Record,
    new: &NewAction<'_>,
    by: &By<'_>,
) -> Result<Created, RecordError> {
    let mut tx = record.begin().await?;
    // One after the other in a workspace. Those who only refer to it are not held up.
    sqlx::query("SELECT FROM workspaces WHERE id = $1 FOR NO KEY UPDATE")
        .bind(new.workspace_id)
        .execute(tx.connection())
        .await?;
    if let Some((key, fingerprint)) = new.key
        && let Some((id, is_same)) = with_key(&mut tx, new.workspace_id, key, fingerprint).await?
    {
        let row = in_tx(&mut tx, new.workspace_id, id).await?;
        return Ok(match row {
            Some(row) if is_same => Created::Known(Box::new(row)),
            _ => Created::KeyReused(id),
        });
    }
    let running: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM bullwark.actions
         WHERE workspace_id = $1 AND state = 'running' AND action <> 'undo'",
    )
    .bind(new.workspace_id)
    .fetch_one(tx.connection())
    .await?;
    if running >= RUNNING_MAX {
        return Ok(Created::TooMany);
    }
    let (actor_kind, actor_id) = by.actor.parts();
    let id: Uuid = sqlx::query_scalar(
        "INSERT INTO bullwark.actions (workspace_id, action, filter, reason, max_jobs, expected,
           is_exact, actor_kind, actor_id, request_id, idempotency_key, fingerprint, remembers)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $2 = 'cancel') RETURNING id",
    )
    .bind(new.workspace_id)
    .bind(new.change.as_str())
    .bind(sqlx::types::Json(new.filter))
    .bind(new.reason)
    .bind(new.limit)
    .bind(new.expected.map(|(count, _)| count))
    .bind(new.expected.map(|(_, is_exact)| is_exact))
    .bind(actor_kind)
    .bind(actor_id)
    .bind(by.request_id)
    .bind(new.key.map(|(key, _)| key))
    .bind(new.key.map(|(_, fingerprint)| fingerprint))
    .fetch_one(tx.connection())
    .await?;
    // Not what its caller is not shown: that is the same for each of them.
    let mut filter = json!(new.filter);
    filter.as_object_mut().map(|filter| filter.remove("hidden"));
    let after = json!({ "action": new.change, "filter": filter, "limit": new.limit });
    note(
        &mut tx,
        ("action.start", id),
        (new.workspace_id, by),
        Some(new.reason),
        after,
    )
    .await?;
    let row = in_tx(&mut tx, new.workspace_id, id).await?;
    tx.commit().await?;
    row.map(|row| Created::New(Box::new(row)))
        .ok_or_else(|| RecordError::Corrupt(format!("action {id} is not there")))
}

async fn with_key(
    tx: &mut Tx,
    workspace_id: Uuid,
    key: &str,
    fingerprint: &[u8],
) -> Result<Option<(Uuid, bool)>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT id, fingerprint = $3 FROM bullwark.actions
         WHERE workspace_id = $1 AND idempotency_key = $2",
    )
    .bind(workspace_id)
    .bind(key)
    .bind(fingerprint)
    .fetch_optional(tx.connection())
    .await?)
}

async fn note(
    tx: &mut Tx,
    (action, id): (&str, Uuid),
    (workspace_id, by): (Uuid, &By<'_>),
    reason: Option<&str>,
    after: Value,
) -> Result<(), RecordError> {
    let audit = Audit {
        workspace_id: Some(workspace_id),
        actor: by.actor,
        action,
        target: ("action", id.to_string()),
        reason,
        before: None,
        after: Some(after),
        request_id: by.request_id,
    };
    access::note(tx.connection(), &audit).await
}

/// An action of this workspace.
pub async fn get(
    view: &mut View,
    workspace_id: Uuid,
    id: Uuid,
) -> Result<Option<ActionRow>, RecordError> {
    let query = one().bind(workspace_id).bind(id);
    Ok(query.fetch_optional(view.connection()).await?)
}

async fn in_tx(
    tx: &mut Tx,
    workspace_id: Uuid,
    id: Uuid,
) -> Result<Option<ActionRow>, RecordError> {
    let query = one().bind(workspace_id).bind(id);
    Ok(query.fetch_optional(tx.connection()).await?)
}

type One = sqlx::query::QueryAs<'static, sqlx::Postgres, ActionRow, sqlx::postgres::PgArguments>;

fn one() -> One {
    sqlx::query_as(AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM bullwark.actions a WHERE a.workspace_id = $1 AND a.id = $2"
    )))
}

/// Actions of a workspace, newest first, those before `before` only.
pub async fn list(
    view: &mut View,
    workspace_id: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ActionRow>, RecordError> {
    Ok(sqlx::query_as(AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM bullwark.actions a
         WHERE a.workspace_id = $1 AND ($2::uuid IS NULL OR a.id < $2)
         ORDER BY a.id DESC LIMIT $3"
    )))
    .bind(workspace_id)
    .bind(before)
    .bind(limit)
    .fetch_all(view.connection())
    .await?)
}

/// Ends an action before its end: what is done stays done. Returns it as it is now; one that was
/// over stays as it is. None: there is no such action.
pub async fn stop(
    record: &Record,
    workspace_id: Uuid,
    id: Uuid,
    by: &By<'_>,
) -> Result<Option<ActionRow>, RecordError> {
    let mut tx = record.begin().await?;
    if end(&mut tx, workspace_id, id).await? {
        note(
            &mut tx,
            ("action.stop", id),
            (workspace_id, by),
            None,
            json!({}),
        )
        .await?;
    }
    let row = in_tx(&mut tx, workspace_id, id).await?;
    tx.commit().await?;
    Ok(row)
}

/// Waits for the batch that is under way. False: it does not run.
async fn end(tx: &mut Tx, workspace_id: Uuid, id: Uuid) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "UPDATE bullwark.actions
         SET state = 'stopped', ended_at = clock_timestamp(), updated_at = clock_timestamp(),
           undoable_until = CASE action WHEN 'cancel'
             THEN clock_timestamp() + make_interval(secs => $3) END
         WHERE workspace_id = $1 AND id = $2 AND state = 'running'",
    )
    .bind(workspace_id)
    .bind(id)
    .bind(UNDO_WINDOW.as_secs_f64())
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}
