//! `crm_conflicts`: fields that both sides have changed and that a person decides.
//!
//! A decision writes the record here, and notes that of the decided fields theirs is agreed on: if
//! another value was chosen, the next run finds that only we have changed it, and sends it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::super::access::{self, By};
use super::super::{Record, RecordError, Tx, View, data_changes};
use super::{Scope, locals};

/// A conflict.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = CrmConflict))]
pub struct ConflictRow {
    pub id: Uuid,
    pub connection_id: Uuid,
    /// `accounts`, `contacts` or `opportunities`.
    pub entity_type: String,
    pub local_id: Uuid,
    /// Its id in the CRM.
    pub remote_id: String,
    /// By field: `agreed` (if there ever was), `ours` and `theirs`.
    pub fields: Value,
    /// `open`, `resolved`, or `gone`: both sides are the same again.
    pub state: String,
    /// By field, what it came to.
    pub resolution: Option<Value>,
    /// The run that saw it first.
    pub job_id: Uuid,
    pub resolved_by: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub resolved_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "id, connection_id, entity_type, local_id, remote_id, fields, state,
    resolution, job_id, resolved_by, created_at, updated_at, resolved_at";

/// Opens a conflict, or says anew what an open one is about.
pub async fn open(
    tx: &mut Tx,
    scope: Scope,
    (local_id, remote_id): (Uuid, &str),
    fields: &Value,
    job_id: Uuid,
) -> Result<(), RecordError> {
    sqlx::query(
        "INSERT INTO crm_conflicts (workspace_id, connection_id, entity_type, local_id, remote_id,
           fields, job_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (connection_id, entity_type, local_id) WHERE state = 'open' DO UPDATE
           SET fields = excluded.fields, remote_id = excluded.remote_id, updated_at = now()
           WHERE crm_conflicts.fields <> excluded.fields",
    )
    .bind(scope.workspace_id)
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(local_id)
    .bind(remote_id)
    .bind(fields)
    .bind(job_id)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The open conflict of a record, if there is one, is none any more.
pub async fn close(tx: &mut Tx, scope: Scope, local_id: Uuid) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE crm_conflicts SET state = 'gone', resolved_at = now(), updated_at = now()
         WHERE connection_id = $1 AND entity_type = $2 AND local_id = $3 AND state = 'open'",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(local_id)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Conflicts of a workspace, newest first.
pub async fn list(
    view: &mut View,
    workspace_id: Uuid,
    (state, connection_id): (Option<&str>, Option<Uuid>),
    (before, limit): (Option<Uuid>, i64),
) -> Result<Vec<ConflictRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM crm_conflicts
         WHERE workspace_id = $1 AND ($2::text IS NULL OR state = $2)
           AND ($3::uuid IS NULL OR connection_id = $3) AND ($4::uuid IS NULL OR id < $4)
         ORDER BY id DESC LIMIT $5"
    )))
    .bind(workspace_id)
    .bind(state)
    .bind(connection_id)
    .bind(before)
    .bind(limit)
    .fetch_all(view.connection())
    .await?)
}

/// How a conflict is decided: of each of its fields the value.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    Ours,
    Theirs,
    /// By field, each of them.
    Values(Map<String, Value>),
}

/// How deciding went.
#[derive(Debug, Clone, PartialEq)]
pub enum Decided {
    Done(Box<ConflictRow>),
    Unknown,
    /// It was decided before, or has gone by itself.
    Over(Box<ConflictRow>),
    /// The record is no more.
    NoRecord,
    /// Of these fields the decision has no value, or has one too many.
    Fields(Vec<String>),
    /// The table does not take a value.
    Refused(String),
}

/// Decides an open conflict: writes the record here, the link and the audit, together.
/// `split` tells columns from what goes into `custom`; `hash` hashes what is agreed on.
pub async fn decide(
    record: &Record,
    (workspace_id, id): (Uuid, Uuid),
    decision: &Decision,
    by: &By<'_>,
    (split, hash): (
        impl Fn(&Map<String, Value>) -> (Map<String, Value>, Map<String, Value>),
        impl Fn(&Value) -> String,
    ),
) -> Result<Decided, RecordError> {
    let mut tx = record.begin().await?;
    let about = (workspace_id, id);
    let Some(seen) = get(&mut tx, about, "").await? else {
        return Ok(Decided::Unknown);
    };
    let Some(entity) = ["accounts", "contacts", "opportunities"]
        .into_iter()
        .find(|entity| *entity == seen.entity_type)
    else {
        return Err(RecordError::Corrupt("an entity of no table".to_owned()));
    };
    let scope = Scope {
        workspace_id,
        connection_id: seen.connection_id,
        entity,
    };
    // The record before the conflict, as a run does it: the two never wait for each other.
    let local = locals::hold(&mut tx, scope, &[seen.local_id]).await?.pop();
    let Some(conflict) = get(&mut tx, about, "FOR UPDATE").await? else {
        return Ok(Decided::Unknown);
    };
    if conflict.state != "open" {
        return Ok(Decided::Over(Box::new(conflict)));
    }
    let values = match chosen(&conflict, decision) {
        Ok(values) => values,
        Err(fields) => return Ok(Decided::Fields(fields)),
    };
    let Some(local) = local else {
        return Ok(Decided::NoRecord);
    };
    let (mut columns, custom) = split(&values);
    // The parent is not of the row: theirs is taken by the next run, ours is there.
    columns.retain(|name, _| !name.starts_with('@'));
    let write = locals::Write {
        columns,
        custom,
        ..locals::Write::default()
    };
    data_changes::speak_for(&mut tx, by.actor).await?;
    match locals::update(&mut tx, scope, conflict.local_id, &write).await {
        Ok(()) => {}
        Err(RecordError::Refused { message, .. }) => return Ok(Decided::Refused(message)),
        Err(error) => return Err(error),
    }
    let mut agreed = local.agreed.unwrap_or_else(|| Value::Object(Map::new()));
    if let (Some(agreed), Some(fields)) = (agreed.as_object_mut(), conflict.fields.as_object()) {
        for (field, sides) in fields {
            let theirs = sides.get("theirs").cloned().unwrap_or_default();
            agreed.insert(field.clone(), theirs);
        }
    }
    sqlx::query(
        "UPDATE crm_links SET agreed = $4, hash = $5
         WHERE connection_id = $1 AND entity_type = $2 AND local_id = $3",
    )
    .bind(scope.connection_id)
    .bind(scope.entity)
    .bind(conflict.local_id)
    .bind(&agreed)
    .bind(hash(&agreed))
    .execute(tx.connection())
    .await?;
    let done: ConflictRow = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "UPDATE crm_conflicts SET state = 'resolved', resolution = $2, resolved_at = now(),
           updated_at = now(), resolved_by = $3
         WHERE id = $1 RETURNING {COLUMNS}"
    )))
    .bind(id)
    .bind(Value::Object(values.clone()))
    .bind(who(by))
    .fetch_one(tx.connection())
    .await?;
    let about = (workspace_id, id, "crm_conflict.resolve");
    let change = (Some(conflict.fields), Some(Value::Object(values)));
    access::note_change(&mut tx, about, change, by).await?;
    tx.commit().await?;
    Ok(Decided::Done(Box::new(done)))
}

async fn get(
    tx: &mut Tx,
    (workspace_id, id): (Uuid, Uuid),
    lock: &'static str,
) -> Result<Option<ConflictRow>, RecordError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM crm_conflicts WHERE workspace_id = $1 AND id = $2 {lock}"
    )))
    .bind(workspace_id)
    .bind(id)
    .fetch_optional(tx.connection())
    .await?)
}

fn who(by: &By<'_>) -> String {
    let (kind, id) = by.actor.parts();
    match id {
        Some(id) => format!("{kind} {id}"),
        None => kind.to_owned(),
    }
}

/// Of each field the value; or those that are missing or too many.
fn chosen(conflict: &ConflictRow, decision: &Decision) -> Result<Map<String, Value>, Vec<String>> {
    let Some(fields) = conflict.fields.as_object() else {
        return Ok(Map::new());
    };
    let side = |name: &str| {
        let pairs = fields
            .iter()
            .map(|(field, sides)| (field.clone(), sides.get(name).cloned().unwrap_or_default()));
        Ok(pairs.collect())
    };
    match decision {
        Decision::Ours => side("ours"),
        Decision::Theirs => side("theirs"),
        Decision::Values(values) => {
            let missing = fields.keys().filter(|field| !values.contains_key(*field));
            let strange = values.keys().filter(|field| !fields.contains_key(*field));
            let wrong: Vec<String> = missing.chain(strange).cloned().collect();
            match wrong.is_empty() {
                true => Ok(values.clone()),
                false => Err(wrong),
            }
        }
    }
}
