//! Accounts and contacts as enrichment reads and writes them: their values, who wrote each of them
//! last, where it came from, and the versions that they have been in.
//!
//! Who wrote a value last is told by the lineage (migration 0029). What no job wrote, a person did,
//! and what a synchronization brought, a person did in the CRM, as far as anybody can tell.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{Record, RecordError, Tx};

/// Versions of a record that are kept, the newest.
pub const VERSIONS_MAX: i32 = 50;
/// Changes of one record that are looked through for who wrote a value. What was written before
/// them counts as a person's.
const CHANGES_MAX: i64 = 2000;
/// Jobs of this type bring what people wrote in a CRM.
const CRM_JOB: &str = "sync_crm";

/// What is enriched. The tables of its sources, versions and activities have its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entity {
    Account,
    Contact,
}

impl Entity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Contact => "contact",
        }
    }

    /// A statement about its tables: `{e}` is its name.
    fn sql(self, template: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(template.replace("{e}", self.as_str()))
    }

    fn update(self) -> &'static str {
        match self {
            Self::Account => include_str!("sql/accounts_enrich.sql"),
            Self::Contact => include_str!("sql/contacts_enrich.sql"),
        }
    }
}

/// A record, with all that decides what may be written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecordState {
    /// The row.
    pub values: Map<String, Value>,
    /// By field: who wrote it last.
    pub writers: BTreeMap<String, Writer>,
    /// By field: what enrichment wrote last.
    pub sources: BTreeMap<String, Source>,
}

/// Who wrote a value last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    pub who: Who,
    pub at: DateTime<Utc>,
}

/// What kind of writer it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Person,
    /// Somebody in the CRM: a synchronization brought it.
    InCrm,
    /// An import, an enrichment, or another job.
    Job,
}

/// What enrichment has written.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    pub value: Value,
    pub fetched_at: DateTime<Utc>,
}

/// A value that is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewValue {
    pub field: &'static str,
    pub value: Value,
    pub source: &'static str,
    pub confidence: f32,
    pub fetched_at: DateTime<Utc>,
}

/// The accounts of these domains that were never enriched.
pub async fn never_enriched(
    record: &Record,
    workspace_id: Uuid,
    domains: &[String],
) -> Result<Vec<Uuid>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT id FROM accounts
         WHERE domain = ANY($2) AND enriched_at IS NULL
           AND COALESCE(workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) = $1
         ORDER BY id",
    )
    .bind(workspace_id)
    .bind(domains)
    .fetch_all(&record.pool)
    .await?)
}

/// The record, if it is one of the workspace.
pub async fn read(
    record: &Record,
    entity: Entity,
    about: (Uuid, Uuid),
) -> Result<Option<RecordState>, RecordError> {
    let mut tx = record.begin().await?;
    let state = state(&mut tx, entity, about, false).await;
    tx.rollback().await?;
    state
}

/// The same; it stays as it is until the transaction ends.
pub async fn hold(
    tx: &mut Tx,
    entity: Entity,
    about: (Uuid, Uuid),
) -> Result<Option<RecordState>, RecordError> {
    state(tx, entity, about, true).await
}

async fn state(
    tx: &mut Tx,
    entity: Entity,
    (workspace_id, id): (Uuid, Uuid),
    is_held: bool,
) -> Result<Option<RecordState>, RecordError> {
    let sql = match is_held {
        true => "SELECT to_jsonb(a) FROM {e}s a WHERE id = $1 AND workspace_id = $2 FOR UPDATE",
        false => "SELECT to_jsonb(a) FROM {e}s a WHERE id = $1 AND workspace_id = $2",
    };
    let row: Option<Value> = sqlx::query_scalar(entity.sql(sql))
        .bind(id)
        .bind(workspace_id)
        .fetch_optional(tx.connection())
        .await?;
    let Some(Value::Object(values)) = row else {
        return Ok(None);
    };
    // The job is looked for behind the newest change of each field: a sub-select of one row by its
    // key, which no plan can make a scan of all jobs of.
    let writers: Vec<(String, bool, bool, DateTime<Utc>)> = sqlx::query_as(
        "SELECT n.field, n.job_id IS NOT NULL, coalesce(
           (SELECT j.job_type = $4 FROM jobs j WHERE j.id = n.job_id), false), n.created_at
         FROM (
           SELECT DISTINCT ON (f.field) f.field, c.job_id, c.created_at
           FROM (SELECT id, job_id, created_at, after FROM bullwark.data_changes
                 WHERE entity_id = $1 AND workspace_id = $2 AND after IS NOT NULL
                 ORDER BY id DESC LIMIT $3) c
             CROSS JOIN LATERAL jsonb_object_keys(c.after) AS f (field)
           ORDER BY f.field, c.id DESC
           OFFSET 0
         ) n",
    )
    .bind(id)
    .bind(workspace_id)
    .bind(CHANGES_MAX)
    .bind(CRM_JOB)
    .fetch_all(tx.connection())
    .await?;
    let sources: Vec<(String, Value, DateTime<Utc>)> = sqlx::query_as(
        entity.sql("SELECT field, value, fetched_at FROM {e}_sources WHERE {e}_id = $1"),
    )
    .bind(id)
    .fetch_all(tx.connection())
    .await?;
    let writer = |(field, is_job, is_crm, at)| {
        let who = match (is_job, is_crm) {
            (_, true) => Who::InCrm,
            (true, false) => Who::Job,
            (false, false) => Who::Person,
        };
        (field, Writer { who, at })
    };
    let source = |(field, value, fetched_at)| (field, Source { value, fetched_at });
    Ok(Some(RecordState {
        values,
        writers: writers.into_iter().map(writer).collect(),
        sources: sources.into_iter().map(source).collect(),
    }))
}

/// Writes values, notes where they come from, and keeps the version that the record is in now. The
/// record is held.
pub async fn write(
    tx: &mut Tx,
    entity: Entity,
    (workspace_id, id, job_id): (Uuid, Uuid, Uuid),
    before: &RecordState,
    values: &[NewValue],
) -> Result<(), RecordError> {
    let pairs = values
        .iter()
        .map(|new| (new.field.to_owned(), new.value.clone()));
    let providers: BTreeSet<&str> = values.iter().map(|new| new.source).collect();
    let providers: Vec<&str> = providers.into_iter().collect();
    let after: Value = sqlx::query_scalar(entity.update())
        .bind(id)
        .bind(Value::Object(pairs.collect()))
        .bind(providers.join("+"))
        .fetch_one(tx.connection())
        .await?;
    let fields: Vec<&str> = values.iter().map(|new| new.field).collect();
    note_sources(tx, entity, (workspace_id, id, job_id), values).await?;
    let was = Value::Object(before.values.clone());
    sqlx::query(entity.sql(
        "WITH newest AS (
           SELECT max(number) AS number FROM {e}_versions WHERE {e}_id = $1
         ), gone AS (
           DELETE FROM {e}_versions v USING newest
           WHERE v.{e}_id = $1 AND v.number <= newest.number + 1 - $7
         )
         INSERT INTO {e}_versions
           ({e}_id, number, workspace_id, snapshot, changed, job_id)
         SELECT $1, 1, $2, bullwark.content($3), '{}', NULL FROM newest WHERE number IS NULL
         UNION ALL
         SELECT $1, coalesce(number, 1) + 1, $2, bullwark.content($4), $5, $6 FROM newest",
    ))
    .bind(id)
    .bind(workspace_id)
    .bind(was)
    .bind(after)
    .bind(fields)
    .bind(job_id)
    .bind(VERSIONS_MAX)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Notes where values come from that the record has.
pub async fn note_sources(
    tx: &mut Tx,
    entity: Entity,
    (workspace_id, id, job_id): (Uuid, Uuid, Uuid),
    values: &[NewValue],
) -> Result<(), RecordError> {
    sqlx::query(entity.sql(
        "INSERT INTO {e}_sources
           ({e}_id, field, workspace_id, value, source, confidence, fetched_at, job_id)
         SELECT $1, n.field, $2, n.value, n.source, n.confidence, n.fetched_at, $3
         FROM unnest($4::text[], $5::jsonb[], $6::text[], $7::real[], $8::timestamptz[])
           AS n (field, value, source, confidence, fetched_at)
         ON CONFLICT ({e}_id, field) DO UPDATE
           SET value = excluded.value, source = excluded.source,
             confidence = excluded.confidence, fetched_at = excluded.fetched_at,
             job_id = excluded.job_id, workspace_id = excluded.workspace_id",
    ))
    .bind(id)
    .bind(workspace_id)
    .bind(job_id)
    .bind(values.iter().map(|new| new.field).collect::<Vec<_>>())
    .bind(
        values
            .iter()
            .map(|new| new.value.clone())
            .collect::<Vec<_>>(),
    )
    .bind(values.iter().map(|new| new.source).collect::<Vec<_>>())
    .bind(values.iter().map(|new| new.confidence).collect::<Vec<_>>())
    .bind(values.iter().map(|new| new.fetched_at).collect::<Vec<_>>())
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Logs what was done for a record.
pub async fn note_activity(
    tx: &mut Tx,
    entity: Entity,
    (workspace_id, id, job_id): (Uuid, Uuid, Uuid),
    (kind, details): (&str, &Value),
) -> Result<(), RecordError> {
    sqlx::query(entity.sql(
        "INSERT INTO {e}_activities ({e}_id, workspace_id, kind, job_id, details)
         VALUES ($1, $2, $3, $4, $5)",
    ))
    .bind(id)
    .bind(workspace_id)
    .bind(kind)
    .bind(job_id)
    .bind(details)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Which of these addresses and pages other contacts of the workspace have: they are unique.
pub async fn taken(
    tx: &mut Tx,
    (workspace_id, id): (Uuid, Uuid),
    values: &[NewValue],
) -> Result<Vec<&'static str>, RecordError> {
    let mut taken = Vec::new();
    for new in values {
        let sql = match new.field {
            "email" => {
                "SELECT EXISTS (SELECT FROM contacts WHERE lower(email) = lower($1)
                   AND email IS NOT NULL AND id <> $3
                   AND coalesce(workspace_id, '00000000-0000-0000-0000-000000000000') = $2)"
            }
            "linkedin_url" => {
                "SELECT EXISTS (SELECT FROM contacts WHERE linkedin_url = $1
                   AND linkedin_url IS NOT NULL AND id <> $3
                   AND coalesce(workspace_id, '00000000-0000-0000-0000-000000000000') = $2)"
            }
            _ => continue,
        };
        let is_taken: bool = sqlx::query_scalar(sql)
            .bind(new.value.as_str())
            .bind(workspace_id)
            .bind(id)
            .fetch_one(tx.connection())
            .await?;
        if is_taken {
            taken.push(new.field);
        }
    }
    Ok(taken)
}

/// Who may not be asked about: the person, or their employer, does not want to hear from the
/// workspace. A bounce is no such wish.
pub async fn objections(
    record: &Record,
    workspace_id: Uuid,
    addresses: &[String],
) -> Result<Vec<String>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT reason FROM email_suppressions
         WHERE workspace_id = $1 AND target = ANY ($2)
           AND reason IN ('unsubscribed', 'complained', 'manual') ORDER BY reason",
    )
    .bind(workspace_id)
    .bind(addresses)
    .fetch_all(&record.pool)
    .await?)
}

/// The domain of the account that a contact belongs to.
pub async fn domain_of(
    record: &Record,
    workspace_id: Uuid,
    account_id: Uuid,
) -> Result<Option<String>, RecordError> {
    let domain: Option<Option<String>> =
        sqlx::query_scalar("SELECT domain FROM accounts WHERE id = $1 AND workspace_id = $2")
            .bind(account_id)
            .bind(workspace_id)
            .fetch_optional(&record.pool)
            .await?;
    Ok(domain.flatten())
}
