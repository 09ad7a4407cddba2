//! `crm_errors`: records that were not taken, kept until they are.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::super::{Record, RecordError, Tx, View};
use super::Scope;

/// The longest code and message that are kept, in characters.
const CODE_MAX: usize = 100;
const MESSAGE_MAX: usize = 1000;

/// A record that was not taken.
#[derive(Debug, Clone)]
pub struct NewError<'a> {
    pub direction: &'static str,
    pub record_id: &'a str,
    /// `retryable` or `permanent`.
    pub class: &'static str,
    pub code: &'a str,
    pub message: &'a str,
    pub fields: &'a [String],
    pub job_id: Uuid,
}

pub async fn put(tx: &mut Tx, scope: Scope, new: &NewError<'_>) -> Result<(), RecordError> {
    let cut = |text: &str, max| -> String {
        let text = text.replace('\0', "\u{fffd}");
        text.chars().take(max).collect()
    };
    sqlx::query(
        "INSERT INTO crm_errors (connection_id, entity_type, direction, record_id, workspace_id,
           class, code, message, fields, job_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (connection_id, entity_type, direction, record_id) DO UPDATE
           SET class = excluded.class, code = excluded.code, message = excluded.message,
             fields = excluded.fields, job_id = excluded.job_id, last_at = now(),
             times = crm_errors.times + (crm_errors.job_id <> excluded.job_id)::int",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(new.direction)
    .bind(new.record_id)
    .bind(scope.workspace_id)
    .bind(new.class)
    .bind(cut(new.code, CODE_MAX))
    .bind(cut(new.message, MESSAGE_MAX))
    .bind(new.fields)
    .bind(new.job_id)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// They were taken after all, or are no more.
pub async fn clear(
    tx: &mut Tx,
    scope: Scope,
    direction: &'static str,
    record_ids: &[String],
) -> Result<(), RecordError> {
    sqlx::query(
        "DELETE FROM crm_errors
         WHERE connection_id = $1 AND entity_type = $2 AND direction = $3
           AND record_id = ANY($4)",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(direction)
    .bind(record_ids)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// A run has looked at all there is: what it did not meet again is no error any more.
pub async fn clear_older(
    tx: &mut Tx,
    scope: Scope,
    direction: &'static str,
    job_id: Uuid,
) -> Result<(), RecordError> {
    sqlx::query(
        "DELETE FROM crm_errors
         WHERE connection_id = $1 AND entity_type = $2 AND direction = $3 AND job_id <> $4",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(direction)
    .bind(job_id)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Those of earlier runs that are to be tried again, by id.
pub async fn due(
    record: &Record,
    scope: Scope,
    direction: &'static str,
    (after, job_id): (&str, Uuid),
    limit: i64,
) -> Result<Vec<String>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT record_id FROM crm_errors
         WHERE connection_id = $1 AND entity_type = $2 AND direction = $3
           AND record_id COLLATE \"C\" > $4 AND job_id <> $5
         ORDER BY record_id COLLATE \"C\" LIMIT $6",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(direction)
    .bind(after)
    .bind(job_id)
    .bind(limit)
    .fetch_all(&record.pool)
    .await?)
}

/// An error, for people.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = CrmError))]
pub struct ErrorRow {
    pub connection_id: Uuid,
    /// `accounts`, `contacts` or `opportunities`.
    pub entity_type: String,
    /// `push` or `pull`.
    pub direction: String,
    /// Of a push the id here, of a pull the one in the CRM.
    pub record_id: String,
    /// `retryable`: it may go by itself; `permanent`: somebody has to change something.
    pub class: String,
    pub code: String,
    pub message: String,
    pub fields: Vec<String>,
    /// In so many runs.
    pub times: i32,
    /// The newest of them.
    pub job_id: Uuid,
    pub first_at: DateTime<Utc>,
    pub last_at: DateTime<Utc>,
}

/// Errors of a workspace, newest first.
pub async fn list(
    view: &mut View,
    workspace_id: Uuid,
    (connection_id, job_id): (Option<Uuid>, Option<Uuid>),
    (offset, limit): (i64, i64),
) -> Result<Vec<ErrorRow>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT connection_id, entity_type, direction, record_id, class, code, message, fields,
           times, job_id, first_at, last_at
         FROM crm_errors
         WHERE workspace_id = $1 AND ($2::uuid IS NULL OR connection_id = $2)
           AND ($3::uuid IS NULL OR job_id = $3)
         ORDER BY last_at DESC, connection_id, entity_type, direction, record_id
         OFFSET $4 LIMIT $5",
    )
    .bind(workspace_id)
    .bind(connection_id)
    .bind(job_id)
    .bind(offset)
    .bind(limit)
    .fetch_all(view.connection())
    .await?)
}
