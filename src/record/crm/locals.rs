//! Accounts, contacts and opportunities as a sync reads and writes them.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::super::{Record, RecordError, Tx};
use super::Scope;

/// A record here, with what is known of it there.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Local {
    pub id: Uuid,
    pub row: sqlx::types::Json<Map<String, Value>>,
    pub updated_at: DateTime<Utc>,
    /// None: it is not linked.
    pub remote_id: Option<String>,
    /// `linked`, `gone` or `leaving`.
    pub state: Option<String>,
    pub agreed: Option<Value>,
    pub hash: Option<String>,
    pub remote_modified_at: Option<DateTime<Utc>>,
    /// Its account; and that account there, if it is linked.
    pub account_id: Option<Uuid>,
    pub parent_remote_id: Option<String>,
    /// Of an open conflict, by field.
    pub disputed: Option<Value>,
}

/// Columns of an entity that a sync may write, and whether it has an account.
fn shape(entity: &'static str) -> (&'static [&'static str], bool) {
    match entity {
        "accounts" => (
            &[
                "name",
                "domain",
                "website",
                "industry",
                "employee_count",
                "annual_revenue",
                "country",
                "city",
                "phone",
                "linkedin_url",
                "description",
            ],
            false,
        ),
        "contacts" => (
            &[
                "email",
                "first_name",
                "last_name",
                "title",
                "phone",
                "linkedin_url",
                "company",
                "country",
                "city",
            ],
            true,
        ),
        _ => (
            &[
                "name",
                "stage",
                "amount",
                "currency",
                "probability",
                "close_date",
                "description",
            ],
            true,
        ),
    }
}

/// The query of [`Local`]s; `$1` the workspace, `$2` the connection, `$3` the entity.
fn select(entity: &'static str, condition: &str) -> String {
    let (account, parent) = match shape(entity).1 {
        true => ("t.account_id", "t.account_id"),
        false => ("NULL::uuid", "NULL::uuid"),
    };
    format!(
        "SELECT t.id, to_jsonb(t) AS row, t.updated_at, l.remote_id, l.state, l.agreed, l.hash,
           l.remote_modified_at, {account} AS account_id, p.remote_id AS parent_remote_id,
           c.fields AS disputed
         FROM {entity} t
           LEFT JOIN crm_links l ON l.connection_id = $2 AND l.entity_type = $3
             AND l.local_id = t.id
           LEFT JOIN crm_links p ON p.connection_id = $2 AND p.entity_type = 'accounts'
             AND p.local_id = {parent} AND p.state = 'linked'
           LEFT JOIN crm_conflicts c ON c.connection_id = $2 AND c.entity_type = $3
             AND c.local_id = t.id AND c.state = 'open'
         WHERE t.workspace_id = $1 AND {condition}"
    )
}

/// The next records of a workspace, by id.
pub async fn page(
    record: &Record,
    scope: Scope,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Local>, RecordError> {
    let sql = select(scope.entity, "t.id > $4 ORDER BY t.id LIMIT $5");
    Ok(sqlx::query_as(AssertSqlSafe(sql))
        .bind(scope.workspace_id)
        .bind(scope.connection_id)
        .bind(scope.entity)
        .bind(after)
        .bind(limit)
        .fetch_all(&record.pool)
        .await?)
}

/// Records of these ids; they stay as they are until the transaction ends.
pub async fn hold(tx: &mut Tx, scope: Scope, ids: &[Uuid]) -> Result<Vec<Local>, RecordError> {
    let sql = select(scope.entity, "t.id = ANY($4) ORDER BY t.id FOR UPDATE OF t");
    Ok(sqlx::query_as(AssertSqlSafe(sql))
        .bind(scope.workspace_id)
        .bind(scope.connection_id)
        .bind(scope.entity)
        .bind(ids)
        .fetch_all(tx.connection())
        .await?)
}

/// What a record is found again by.
#[derive(Debug, Clone, Copy)]
pub enum Key<'a> {
    Id(Uuid),
    Domain(&'a str),
    Email(&'a str),
    /// Of an account without a domain and an external id.
    Name(&'a str),
}

/// The record of a workspace that has a key.
pub async fn find(tx: &mut Tx, scope: Scope, key: Key<'_>) -> Result<Option<Uuid>, RecordError> {
    const NIL: &str = "COALESCE(workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) = $1";
    let entity = scope.entity;
    let (condition, text) = match key {
        Key::Id(id) => ("id = $2::uuid", id.to_string()),
        Key::Domain(domain) => ("domain = $2", domain.to_owned()),
        Key::Email(email) => ("lower(email) = lower($2)", email.to_owned()),
        Key::Name(name) => (
            "name_key = lower(left($2, 200)) AND domain IS NULL AND external_id IS NULL",
            name.to_owned(),
        ),
    };
    let sql = format!("SELECT id FROM {entity} WHERE {NIL} AND {condition} LIMIT 1");
    Ok(sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(scope.workspace_id)
        .bind(text)
        .fetch_optional(tx.connection())
        .await?)
}

/// What is to be written.
#[derive(Debug, Clone, Default)]
pub struct Write {
    /// By column; what is not named stays.
    pub columns: Map<String, Value>,
    /// Into `custom`; null takes it out.
    pub custom: Map<String, Value>,
    /// `Some(None)`: it has no account any more.
    pub account_id: Option<Option<Uuid>>,
    /// Of a new record that nothing else would be found by.
    pub external_id: Option<String>,
}

/// Makes a record.
pub async fn insert(tx: &mut Tx, scope: Scope, id: Uuid, write: &Write) -> Result<(), RecordError> {
    let (names, has_account) = shape(scope.entity);
    let columns = names.join(", ");
    let values: Vec<String> = names.iter().map(|name| format!("r.{name}")).collect();
    let values = values.join(", ");
    let sql = match has_account {
        true => format!(
            "INSERT INTO {} (id, workspace_id, source, custom, external_id, account_id, {columns})
             SELECT $1, $2, 'sync_crm', jsonb_strip_nulls($4), $6, $5::uuid, {values}
             FROM jsonb_populate_record(NULL::{}, $3) r",
            scope.entity, scope.entity
        ),
        false => format!(
            "INSERT INTO {} (id, workspace_id, source, custom, external_id, {columns})
             SELECT $1, $2, 'sync_crm', jsonb_strip_nulls($4), $6, {values}
             FROM jsonb_populate_record(NULL::{}, $3) r WHERE $5::uuid IS NULL",
            scope.entity, scope.entity
        ),
    };
    sqlx::query(AssertSqlSafe(sql))
        .bind(id)
        .bind(scope.workspace_id)
        .bind(Value::Object(write.columns.clone()))
        .bind(Value::Object(write.custom.clone()))
        .bind(write.account_id.flatten())
        .bind(&write.external_id)
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// Changes a record.
pub async fn update(tx: &mut Tx, scope: Scope, id: Uuid, write: &Write) -> Result<(), RecordError> {
    let (names, has_account) = shape(scope.entity);
    let sets: Vec<String> = names
        .iter()
        .map(|name| format!("{name} = r.{name}"))
        .collect();
    let sets = sets.join(", ");
    let account = match has_account {
        true => ", account_id = CASE WHEN $5 THEN $6::uuid ELSE t.account_id END",
        false => "",
    };
    let table = scope.entity;
    let sql = format!(
        "UPDATE {table} t SET {sets}{account}, updated_at = now(),
           custom = jsonb_strip_nulls(t.custom || $4)
         FROM {table} o CROSS JOIN LATERAL jsonb_populate_record(o, $3) r
         WHERE t.id = $1 AND t.workspace_id = $2 AND o.id = t.id
           AND ($5 OR $6::uuid IS NULL)"
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(id)
        .bind(scope.workspace_id)
        .bind(Value::Object(write.columns.clone()))
        .bind(Value::Object(write.custom.clone()))
        .bind(write.account_id.is_some())
        .bind(write.account_id.flatten())
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// Deletes records: how many there were.
pub async fn delete(tx: &mut Tx, scope: Scope, ids: &[Uuid]) -> Result<u64, RecordError> {
    let table = scope.entity;
    let sql = format!("DELETE FROM {table} WHERE workspace_id = $1 AND id = ANY($2)");
    let done = sqlx::query(AssertSqlSafe(sql))
        .bind(scope.workspace_id)
        .bind(ids)
        .execute(tx.connection())
        .await?;
    Ok(done.rows_affected())
}

/// When a column of a record was last changed, by its lineage; none: it is not known.
pub async fn changed_at(
    tx: &mut Tx,
    id: Uuid,
    column: &str,
) -> Result<Option<DateTime<Utc>>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT created_at FROM (
           SELECT created_at, after FROM bullwark.data_changes
           WHERE entity_id = $1 ORDER BY id DESC LIMIT 200
         ) c WHERE after ? $2 LIMIT 1",
    )
    .bind(id)
    .bind(column)
    .fetch_optional(tx.connection())
    .await?)
}
