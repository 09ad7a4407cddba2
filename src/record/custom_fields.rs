//! Custom fields of accounts and contacts that have a kind. One that is not declared takes any
//! text.
//!
//! Declared and forgotten by admins, each time with a row in the audit. Values that are there stay
//! as they are.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{self, By};
use super::{Record, RecordError, View};

/// The most declared fields of a workspace.
pub const FIELDS_MAX: i64 = 400;

/// A custom field.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = CustomField))]
pub struct FieldRow {
    pub id: Uuid,
    /// `accounts` or `contacts`.
    pub entity_type: String,
    /// Without the `custom.` of mappings.
    pub name: String,
    /// `text`, `number`, `boolean` or `date`.
    pub kind: String,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
}

const COLUMNS: &str = "id, entity_type, name, kind, created_by, created_at";

/// The declared fields of a workspace, oldest first.
pub async fn list(view: &mut View, workspace_id: Uuid) -> Result<Vec<FieldRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM custom_fields WHERE workspace_id = $1 ORDER BY id LIMIT $2"
    )))
    .bind(workspace_id)
    .bind(FIELDS_MAX)
    .fetch_all(view.connection())
    .await?)
}

/// Those of one kind of record, for an import that is about to look at its file.
pub async fn for_import(
    record: &Record,
    workspace_id: Uuid,
    entity_type: &str,
) -> Result<Vec<FieldRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM custom_fields WHERE workspace_id = $1 AND entity_type = $2
         ORDER BY id LIMIT $3"
    )))
    .bind(workspace_id)
    .bind(entity_type)
    .bind(FIELDS_MAX)
    .fetch_all(&record.pool)
    .await?)
}

/// What is to be declared.
#[derive(Debug, Clone)]
pub struct NewField {
    pub workspace_id: Uuid,
    pub entity_type: &'static str,
    pub name: String,
    pub kind: &'static str,
    pub created_by: Option<Uuid>,
}

/// How declaring one went.
#[derive(Debug, Clone, PartialEq)]
pub enum Declared {
    New(Box<FieldRow>),
    /// There was one of this name, which has this kind now.
    Changed(Box<FieldRow>),
    /// The workspace has [`FIELDS_MAX`] others.
    TooMany,
}

/// Declares a field, or gives it another kind.
pub async fn declare(
    record: &Record,
    new: &NewField,
    by: &By<'_>,
) -> Result<Declared, RecordError> {
    let mut tx = record.begin().await?;
    // One at a time in a workspace, so that the limit holds.
    sqlx::query("SELECT FROM workspaces WHERE id = $1 FOR NO KEY UPDATE")
        .bind(new.workspace_id)
        .execute(tx.connection())
        .await?;
    let was: Option<String> = sqlx::query_scalar(
        "SELECT kind FROM custom_fields
         WHERE workspace_id = $1 AND entity_type = $2 AND name = $3",
    )
    .bind(new.workspace_id)
    .bind(new.entity_type)
    .bind(&new.name)
    .fetch_optional(tx.connection())
    .await?;
    let row: Option<FieldRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "INSERT INTO custom_fields (workspace_id, entity_type, name, kind, created_by)
         SELECT $1, $2, $3, $4, $5
         WHERE $6 OR (SELECT count(*) FROM custom_fields WHERE workspace_id = $1) < $7
         ON CONFLICT ON CONSTRAINT custom_fields_once DO UPDATE SET kind = $4
         RETURNING {COLUMNS}"
    )))
    .bind(new.workspace_id)
    .bind(new.entity_type)
    .bind(&new.name)
    .bind(new.kind)
    .bind(new.created_by)
    .bind(was.is_some())
    .bind(FIELDS_MAX)
    .fetch_optional(tx.connection())
    .await?;
    let Some(row) = row else {
        return Ok(Declared::TooMany);
    };
    let before = was.as_ref().map(|kind| json!({ "kind": kind }));
    let about = (new.workspace_id, row.id, "custom_field.declare");
    access::note_change(&mut tx, about, (before, Some(audited(&row))), by).await?;
    tx.commit().await?;
    Ok(match was {
        None => Declared::New(Box::new(row)),
        Some(_) => Declared::Changed(Box::new(row)),
    })
}

/// Forgets the kind of a field. False: there is no such declaration.
pub async fn delete(
    record: &Record,
    (workspace_id, id): (Uuid, Uuid),
    by: &By<'_>,
) -> Result<bool, RecordError> {
    let mut tx = record.begin().await?;
    let was: Option<FieldRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "DELETE FROM custom_fields WHERE workspace_id = $1 AND id = $2 RETURNING {COLUMNS}"
    )))
    .bind(workspace_id)
    .bind(id)
    .fetch_optional(tx.connection())
    .await?;
    let Some(was) = was else {
        return Ok(false);
    };
    let about = (workspace_id, id, "custom_field.delete");
    access::note_change(&mut tx, about, (Some(audited(&was)), None), by).await?;
    tx.commit().await?;
    Ok(true)
}

fn audited(row: &FieldRow) -> Value {
    json!({ "entity_type": row.entity_type, "name": row.name, "kind": row.kind })
}
