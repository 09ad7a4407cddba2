//! Templates of mappings: how a workspace maps files with certain headers.
//!
//! One for each kind of file; saving another one for the same headers replaces it. Saved and
//! deleted by people, each time with a row in the audit.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{self, By};
use super::{Record, RecordError, View};

/// The most templates of a workspace.
pub const TEMPLATES_MAX: i64 = 200;

/// A template.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = ImportTemplate))]
pub struct TemplateRow {
    pub id: Uuid,
    /// `accounts` or `contacts`.
    pub entity_type: String,
    pub name: String,
    /// Of the headers, in any order and spelling: which files it is for.
    pub fingerprint: String,
    pub headers: Vec<String>,
    /// Header and field, as in the payload of an import.
    #[cfg_attr(feature = "server", schema(value_type = std::collections::HashMap<String, String>))]
    pub mapping: Value,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

const COLUMNS: &str = "id, entity_type, name, fingerprint, headers, mapping, created_by,
  created_at, updated_at";

/// The templates of a workspace, oldest first.
pub async fn list(view: &mut View, workspace_id: Uuid) -> Result<Vec<TemplateRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM import_templates WHERE workspace_id = $1 ORDER BY id LIMIT $2"
    )))
    .bind(workspace_id)
    .bind(TEMPLATES_MAX)
    .fetch_all(view.connection())
    .await?)
}

/// Those for one kind of record, for an import that is about to look at its file.
pub async fn for_import(
    record: &Record,
    workspace_id: Uuid,
    entity_type: &str,
) -> Result<Vec<TemplateRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM import_templates WHERE workspace_id = $1 AND entity_type = $2
         ORDER BY id LIMIT $3"
    )))
    .bind(workspace_id)
    .bind(entity_type)
    .bind(TEMPLATES_MAX)
    .fetch_all(&record.pool)
    .await?)
}

/// What is to be saved.
#[derive(Debug, Clone)]
pub struct NewTemplate {
    pub workspace_id: Uuid,
    pub entity_type: &'static str,
    pub name: String,
    pub fingerprint: String,
    pub headers: Vec<String>,
    pub mapping: Value,
    pub created_by: Option<Uuid>,
}

/// How saving one went.
#[derive(Debug, Clone, PartialEq)]
pub enum Saved {
    New(Box<TemplateRow>),
    /// There was one for these headers, which is this one now.
    Replaced(Box<TemplateRow>),
    /// The workspace has [`TEMPLATES_MAX`] others.
    TooMany,
}

/// Saves one, in place of what there is for these headers.
pub async fn save(record: &Record, new: &NewTemplate, by: &By<'_>) -> Result<Saved, RecordError> {
    let mut tx = record.begin().await?;
    // One at a time in a workspace, so that the limit holds.
    sqlx::query("SELECT FROM workspaces WHERE id = $1 FOR NO KEY UPDATE")
        .bind(new.workspace_id)
        .execute(tx.connection())
        .await?;
    let was: Option<TemplateRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM import_templates
         WHERE workspace_id = $1 AND entity_type = $2 AND fingerprint = $3"
    )))
    .bind(new.workspace_id)
    .bind(new.entity_type)
    .bind(&new.fingerprint)
    .fetch_optional(tx.connection())
    .await?;
    let row: Option<TemplateRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "INSERT INTO import_templates (workspace_id, entity_type, name, fingerprint, headers,
           mapping, created_by)
         SELECT $1, $2, $3, $4, $5, $6, $7
         WHERE $8 OR (SELECT count(*) FROM import_templates WHERE workspace_id = $1) < $9
         ON CONFLICT ON CONSTRAINT import_templates_once DO UPDATE
         SET name = $3, headers = $5, mapping = $6, updated_at = now()
         RETURNING {COLUMNS}"
    )))
    .bind(new.workspace_id)
    .bind(new.entity_type)
    .bind(&new.name)
    .bind(&new.fingerprint)
    .bind(&new.headers)
    .bind(&new.mapping)
    .bind(new.created_by)
    .bind(was.is_some())
    .bind(TEMPLATES_MAX)
    .fetch_optional(tx.connection())
    .await?;
    let Some(row) = row else {
        return Ok(Saved::TooMany);
    };
    let about = (new.workspace_id, row.id, "import_template.save");
    let states = (was.as_ref().map(audited), Some(audited(&row)));
    access::note_change(&mut tx, about, states, by).await?;
    tx.commit().await?;
    Ok(match was {
        None => Saved::New(Box::new(row)),
        Some(_) => Saved::Replaced(Box::new(row)),
    })
}

/// Deletes one; imports that began with it go on with it. False: there is no such template.
pub async fn delete(
    record: &Record,
    (workspace_id, id): (Uuid, Uuid),
    by: &By<'_>,
) -> Result<bool, RecordError> {
    let mut tx = record.begin().await?;
    let was: Option<TemplateRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "DELETE FROM import_templates WHERE workspace_id = $1 AND id = $2 RETURNING {COLUMNS}"
    )))
    .bind(workspace_id)
    .bind(id)
    .fetch_optional(tx.connection())
    .await?;
    let Some(was) = was else {
        return Ok(false);
    };
    let about = (workspace_id, id, "import_template.delete");
    access::note_change(&mut tx, about, (Some(audited(&was)), None), by).await?;
    tx.commit().await?;
    Ok(true)
}

fn audited(row: &TemplateRow) -> Value {
    json!({ "name": row.name, "entity_type": row.entity_type, "mapping": row.mapping })
}
