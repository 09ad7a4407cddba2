//! The job types that the record knows: built-in ones and those that a person declared.

use serde::Serialize;

use super::access::{self, Audit, By};
use super::{Record, RecordError};

/// A known type.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = JobType))]
pub struct TypeRow {
    pub name: String,
    /// The JSON schema of its payloads.
    pub schema: serde_json::Value,
    /// It came with Bullwark, and can not be declared.
    pub builtin: bool,
}

/// Declares a type, or changes the schema of a declared one, and notes who did. False when the name
/// is a built-in one.
pub async fn declare(
    record: &Record,
    name: &str,
    schema: &serde_json::Value,
    by: &By<'_>,
) -> Result<bool, RecordError> {
    let mut tx = record.begin().await?;
    let before: Option<serde_json::Value> =
        sqlx::query_scalar("SELECT schema FROM bullwark.job_types WHERE name = $1 FOR UPDATE")
            .bind(name)
            .fetch_optional(tx.connection())
            .await?;
    let done = sqlx::query(
        "INSERT INTO bullwark.job_types (name, schema) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET schema = excluded.schema
         WHERE NOT bullwark.job_types.builtin",
    )
    .bind(name)
    .bind(schema)
    .execute(tx.connection())
    .await?;
    if done.rows_affected() != 1 {
        return Ok(false);
    }
    let shown = |schema: &serde_json::Value| serde_json::json!({ "schema": schema });
    let audit = Audit {
        workspace_id: by.workspace_id,
        actor: by.actor,
        action: "job_type.declare",
        target: ("job_type", name.to_owned()),
        reason: None,
        before: before.as_ref().map(shown),
        after: Some(shown(schema)),
        request_id: by.request_id,
    };
    access::note(tx.connection(), &audit).await?;
    tx.commit().await?;
    Ok(true)
}

/// Writes down the built-in types of this program, so that SQL knows them too.
pub async fn publish_builtin(
    record: &Record,
    types: &[(String, serde_json::Value)],
) -> Result<(), RecordError> {
    sqlx::query(
        "INSERT INTO bullwark.job_types (name, schema, builtin)
         SELECT u.name, u.schema, true FROM unnest($1::text[], $2::jsonb[]) AS u (name, schema)
         ORDER BY u.name
         ON CONFLICT (name) DO UPDATE SET schema = excluded.schema, builtin = true
         WHERE (bullwark.job_types.schema, bullwark.job_types.builtin)
           IS DISTINCT FROM (excluded.schema, true)",
    )
    .bind(
        types
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        types
            .iter()
            .map(|(_, schema)| schema.clone())
            .collect::<Vec<_>>(),
    )
    .execute(&record.pool)
    .await?;
    Ok(())
}

/// All known types, by name.
pub async fn list(record: &Record) -> Result<Vec<TypeRow>, RecordError> {
    Ok(
        sqlx::query_as("SELECT name, schema, builtin FROM bullwark.job_types ORDER BY name")
            .fetch_all(&record.pool)
            .await?,
    )
}
