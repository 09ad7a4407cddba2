//! Sequences of mails and their steps: made and changed by people, each time with a row in the
//! audit.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{self, By};
use super::{Record, RecordError, View};

/// The most sequences of a workspace.
pub const SEQUENCES_MAX: i64 = 500;
/// The most steps of a sequence.
pub const STEPS_MAX: i32 = 100;

/// A sequence as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = Sequence))]
pub struct SequenceRow {
    pub id: Uuid,
    pub name: String,
    /// `marketing` or `transactional`.
    pub kind: String,
    /// False: its jobs wait.
    pub is_active: bool,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

const COLUMNS: &str = "id, name, kind, is_active, created_by, created_at, updated_at";

/// One mail of a sequence.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = SequenceStep))]
pub struct StepRow {
    pub id: Uuid,
    pub position: i32,
    pub connection_id: Uuid,
    pub provider: String,
    pub from_address: String,
    pub from_name: String,
    pub reply_to: Option<String>,
    pub subject: String,
    pub text_body: Option<String>,
    pub html_body: Option<String>,
    /// What stands in for fields that a contact has not.
    #[cfg_attr(feature = "server", schema(value_type = Object))]
    pub defaults: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

const STEP_COLUMNS: &str = "id, position, connection_id, provider, from_address, from_name,
  reply_to, subject, text_body, html_body, defaults, created_at, updated_at";

/// The sequences of a workspace, oldest first.
pub async fn list(view: &mut View, workspace_id: Uuid) -> Result<Vec<SequenceRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM sequences WHERE workspace_id = $1 ORDER BY id LIMIT $2"
    )))
    .bind(workspace_id)
    .bind(SEQUENCES_MAX)
    .fetch_all(view.connection())
    .await?)
}

/// One of them, with its steps in their order.
pub async fn get(
    view: &mut View,
    (workspace_id, id): (Uuid, Uuid),
) -> Result<Option<(SequenceRow, Vec<StepRow>)>, RecordError> {
    let sequence: Option<SequenceRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM sequences WHERE workspace_id = $1 AND id = $2"
    )))
    .bind(workspace_id)
    .bind(id)
    .fetch_optional(view.connection())
    .await?;
    let Some(sequence) = sequence else {
        return Ok(None);
    };
    let steps = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {STEP_COLUMNS} FROM sequence_steps WHERE workspace_id = $1 AND sequence_id = $2
         ORDER BY position LIMIT $3"
    )))
    .bind(workspace_id)
    .bind(id)
    .bind(STEPS_MAX)
    .fetch_all(view.connection())
    .await?;
    Ok(Some((sequence, steps)))
}

/// How making or changing one went.
#[derive(Debug, Clone, PartialEq)]
pub enum Made<T> {
    Done(Box<T>),
    /// There are as many as may be.
    TooMany,
    /// The name, or the position, is another's.
    Taken,
    /// There is no such sequence or step.
    Unknown,
}

/// What a new sequence is to be.
#[derive(Debug, Clone)]
pub struct NewSequence {
    pub workspace_id: Uuid,
    pub name: String,
    pub kind: String,
    pub created_by: Option<Uuid>,
}

/// Makes one.
pub async fn create(
    record: &Record,
    new: &NewSequence,
    by: &By<'_>,
) -> Result<Made<SequenceRow>, RecordError> {
    let mut tx = record.begin().await?;
    // One at a time in a workspace, so that the limit holds.
    sqlx::query("SELECT FROM workspaces WHERE id = $1 FOR NO KEY UPDATE")
        .bind(new.workspace_id)
        .execute(tx.connection())
        .await?;
    let (count, is_taken): (i64, bool) = sqlx::query_as(
        "SELECT count(*), coalesce(bool_or(name = $2), false) FROM sequences
         WHERE workspace_id = $1",
    )
    .bind(new.workspace_id)
    .bind(&new.name)
    .fetch_one(tx.connection())
    .await?;
    if is_taken {
        return Ok(Made::Taken);
    }
    if count >= SEQUENCES_MAX {
        return Ok(Made::TooMany);
    }
    let row: SequenceRow = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "INSERT INTO sequences (workspace_id, name, kind, created_by) VALUES ($1, $2, $3, $4)
         RETURNING {COLUMNS}"
    )))
    .bind(new.workspace_id)
    .bind(&new.name)
    .bind(&new.kind)
    .bind(new.created_by)
    .fetch_one(tx.connection())
    .await?;
    let target = (new.workspace_id, row.id, "sequence.create");
    let after = json!({ "name": row.name, "kind": row.kind });
    access::note_change(&mut tx, target, (None, Some(after)), by).await?;
    tx.commit().await?;
    Ok(Made::Done(Box::new(row)))
}

/// Lets the jobs of a sequence run, or wait.
pub async fn set_active(
    record: &Record,
    (workspace_id, id): (Uuid, Uuid),
    is_active: bool,
    by: &By<'_>,
) -> Result<Made<SequenceRow>, RecordError> {
    let mut tx = record.begin().await?;
    let row: Option<SequenceRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "UPDATE sequences SET is_active = $3, updated_at = now()
         WHERE workspace_id = $1 AND id = $2 RETURNING {COLUMNS}"
    )))
    .bind(workspace_id)
    .bind(id)
    .bind(is_active)
    .fetch_optional(tx.connection())
    .await?;
    let Some(row) = row else {
        return Ok(Made::Unknown);
    };
    let target = (workspace_id, id, "sequence.change");
    let after = json!({ "is_active": is_active });
    access::note_change(&mut tx, target, (None, Some(after)), by).await?;
    tx.commit().await?;
    Ok(Made::Done(Box::new(row)))
}

/// What a step is to be, whole.
#[derive(Debug, Clone)]
pub struct StepWish {
    /// None: behind the last one.
    pub position: Option<i32>,
    pub connection_id: Uuid,
    pub provider: String,
    pub from_address: String,
    pub from_name: String,
    pub reply_to: Option<String>,
    pub subject: String,
    pub text_body: Option<String>,
    pub html_body: Option<String>,
    pub defaults: Value,
}

/// Adds a step to a sequence, or puts another in its place: what was sent stays sent.
pub async fn put_step(
    record: &Record,
    (workspace_id, sequence_id): (Uuid, Uuid),
    step_id: Option<Uuid>,
    wish: &StepWish,
    by: &By<'_>,
) -> Result<Made<StepRow>, RecordError> {
    let mut tx = record.begin().await?;
    let held =
        sqlx::query("SELECT FROM sequences WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE")
            .bind(workspace_id)
            .bind(sequence_id)
            .execute(tx.connection())
            .await?;
    if held.rows_affected() == 0 {
        return Ok(Made::Unknown);
    }
    let there: Vec<(Uuid, i32)> =
        sqlx::query_as("SELECT id, position FROM sequence_steps WHERE sequence_id = $1")
            .bind(sequence_id)
            .fetch_all(tx.connection())
            .await?;
    let own = there.iter().find(|(id, _)| Some(*id) == step_id);
    if step_id.is_some() && own.is_none() {
        return Ok(Made::Unknown);
    }
    let last = there.iter().map(|(_, position)| *position).max();
    let position = wish.position.or(own.map(|(_, position)| *position));
    let position = position.unwrap_or(last.unwrap_or(0) + 1);
    if position > STEPS_MAX {
        return Ok(Made::TooMany);
    }
    if there
        .iter()
        .any(|(id, at)| *at == position && Some(*id) != step_id)
    {
        return Ok(Made::Taken);
    }
    let row: StepRow = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "INSERT INTO sequence_steps AS s (id, workspace_id, sequence_id, position, connection_id,
           provider, from_address, from_name, reply_to, subject, text_body, html_body, defaults)
         VALUES (coalesce($1, bullwark.uuid_v7()), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
           $13)
         ON CONFLICT (id) DO UPDATE SET position = excluded.position,
           connection_id = excluded.connection_id, provider = excluded.provider,
           from_address = excluded.from_address, from_name = excluded.from_name,
           reply_to = excluded.reply_to, subject = excluded.subject,
           text_body = excluded.text_body, html_body = excluded.html_body,
           defaults = excluded.defaults, updated_at = now()
         RETURNING {STEP_COLUMNS}"
    )))
    .bind(step_id)
    .bind(workspace_id)
    .bind(sequence_id)
    .bind(position)
    .bind(wish.connection_id)
    .bind(&wish.provider)
    .bind(&wish.from_address)
    .bind(&wish.from_name)
    .bind(&wish.reply_to)
    .bind(&wish.subject)
    .bind(&wish.text_body)
    .bind(&wish.html_body)
    .bind(&wish.defaults)
    .fetch_one(tx.connection())
    .await?;
    let action = match step_id {
        Some(_) => "sequence_step.change",
        None => "sequence_step.create",
    };
    let after = json!({
        "sequence_id": sequence_id, "position": position, "connection_id": wish.connection_id,
        "from_address": wish.from_address, "subject": wish.subject,
    });
    let target = (workspace_id, row.id, action);
    access::note_change(&mut tx, target, (None, Some(after)), by).await?;
    tx.commit().await?;
    Ok(Made::Done(Box::new(row)))
}

/// A step as who sends needs it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct SendableStep {
    #[sqlx(flatten)]
    pub step: StepRow,
    pub kind: String,
    pub is_active: bool,
}

/// The step of a sequence of the workspace.
pub async fn for_sending(
    record: &Record,
    workspace_id: Uuid,
    (sequence_id, step_id): (Uuid, Uuid),
) -> Result<Option<SendableStep>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT s.id, s.position, s.connection_id, s.provider, s.from_address, s.from_name,
           s.reply_to, s.subject, s.text_body, s.html_body, s.defaults, s.created_at, s.updated_at,
           q.kind, q.is_active
         FROM sequence_steps s JOIN sequences q ON q.id = s.sequence_id
         WHERE s.workspace_id = $1 AND s.sequence_id = $2 AND s.id = $3",
    )
    .bind(workspace_id)
    .bind(sequence_id)
    .bind(step_id)
    .fetch_optional(&record.pool)
    .await?)
}
