//! `bullwark.enrichment_items`: what became of each record of an enrichment of many. A page that
//! was interrupted finds there what is done; the sums are the result of the whole.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Record, RecordError, Tx, View};

/// Lines are kept for so many days.
const KEPT_DAYS: u64 = 30;

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub record_id: Uuid,
    pub outcome: &'static str,
    /// What each provider said.
    pub said: Value,
    pub written: Vec<&'static str>,
    /// Why it failed, or whose answer could not be read.
    pub message: Option<String>,
}

/// What became of all of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = EnrichmentSums))]
pub struct Sums {
    /// Records that matched when it began.
    pub matched: u64,
    /// Got a value, at least one.
    pub enriched: u64,
    /// Are known, and have all of it.
    pub nothing_new: u64,
    /// Nobody knows them.
    pub no_match: u64,
    /// Nothing of them could be written, or nobody can be asked by what they have.
    pub nothing_to_ask: u64,
    /// The person does not want it.
    pub objected: u64,
    /// Something is wrong with the record, or with what was answered about it.
    pub failed: u64,
    /// Not done: yet, or at all if it is over.
    pub not_done: u64,
    /// Records for which somebody was paid.
    pub credits: u64,
    /// Answers that were there before.
    pub from_cache: u64,
    pub providers: BTreeMap<String, ProviderSums>,
    /// By field, how many records got a value.
    pub fields: BTreeMap<String, u64>,
    /// Why records failed, the most frequent.
    pub failures: BTreeMap<String, u64>,
}

/// What one provider came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = EnrichmentProviderSums))]
pub struct ProviderSums {
    /// Records that it was asked about.
    pub asked: u64,
    /// Of which it knew something.
    pub matched: u64,
    /// Its share, from 0 to 1.
    pub match_rate: f64,
    pub credits: u64,
    pub from_cache: u64,
}

/// When the whole began, and whether it was cancelled; none: it is gone.
pub async fn whole(
    record: &Record,
    workspace_id: Uuid,
    run_id: Uuid,
) -> Result<Option<(DateTime<Utc>, bool)>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT created_at, status = 'cancelled' FROM jobs
         WHERE id = $1 AND workspace_id = $2 AND deleted_at IS NULL",
    )
    .bind(run_id)
    .bind(workspace_id)
    .fetch_optional(&record.pool)
    .await?)
}

/// Those of these records that are done.
pub async fn done(record: &Record, run_id: Uuid, ids: &[Uuid]) -> Result<Vec<Uuid>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT record_id FROM bullwark.enrichment_items
         WHERE run_id = $1 AND record_id = ANY ($2)",
    )
    .bind(run_id)
    .bind(ids)
    .fetch_all(&record.pool)
    .await?)
}

/// Those of them whom a provider knows.
pub async fn known(record: &Record, run_id: Uuid, ids: &[Uuid]) -> Result<Vec<Uuid>, RecordError> {
    Ok(sqlx::query_scalar(
        "SELECT record_id FROM bullwark.enrichment_items
         WHERE run_id = $1 AND record_id = ANY ($2) AND outcome IN ('enriched', 'nothing_new')",
    )
    .bind(run_id)
    .bind(ids)
    .fetch_all(&record.pool)
    .await?)
}

/// Notes what became of a record.
pub async fn add(
    tx: &mut Tx,
    (workspace_id, run_id): (Uuid, Uuid),
    item: &Item,
) -> Result<(), RecordError> {
    sqlx::query(
        "INSERT INTO bullwark.enrichment_items
           (run_id, record_id, workspace_id, outcome, said, written, message)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(run_id)
    .bind(item.record_id)
    .bind(workspace_id)
    .bind(item.outcome)
    .bind(&item.said)
    .bind(&item.written)
    .bind(&item.message)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// What became of them so far, as the caller may see it.
pub async fn seen(view: &mut View, run_id: Uuid, matched: u64) -> Result<Sums, RecordError> {
    sums(view.connection(), run_id, matched).await
}

/// What became of them so far.
pub async fn sums(
    connection: &mut PgConnection,
    run_id: Uuid,
    matched: u64,
) -> Result<Sums, RecordError> {
    let outcomes = counts(
        connection,
        "SELECT outcome, count(*) FROM bullwark.enrichment_items WHERE run_id = $1 GROUP BY 1",
        run_id,
    );
    let outcomes = outcomes.await?;
    let fields = counts(
        connection,
        "SELECT field, count(*) FROM bullwark.enrichment_items, unnest(written) AS field
         WHERE run_id = $1 GROUP BY 1",
        run_id,
    );
    let fields = fields.await?;
    let failures = counts(
        connection,
        "SELECT message, count(*) FROM bullwark.enrichment_items
         WHERE run_id = $1 AND outcome = 'failed' GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20",
        run_id,
    );
    let failures = failures.await?;
    let said: Vec<(String, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT s.one ->> 'provider', count(*),
           count(*) FILTER (WHERE s.one ->> 'said' = 'known'),
           count(*) FILTER (WHERE s.one ->> 'said' IN ('known', 'unreadable')
             AND s.one ->> 'from_cache' = 'false'),
           count(*) FILTER (WHERE s.one ->> 'from_cache' = 'true')
         FROM bullwark.enrichment_items, jsonb_array_elements(said) AS s (one)
         WHERE run_id = $1 AND (s.one ->> 'said' IN ('known', 'unknown')
           OR s.one ->> 'said' = 'unreadable' AND s.one ->> 'from_cache' = 'false') GROUP BY 1",
    )
    .bind(run_id)
    .fetch_all(&mut *connection)
    .await?;
    let providers = said
        .into_iter()
        .map(|(name, asked, matched, credits, from_cache)| {
            let sums = ProviderSums {
                asked: number(asked),
                matched: number(matched),
                match_rate: (matched as f64 / asked.max(1) as f64 * 1000.0).round() / 1000.0,
                credits: number(credits),
                from_cache: number(from_cache),
            };
            (name, sums)
        });
    let providers: BTreeMap<String, ProviderSums> = providers.collect();
    let outcome = |name: &str| outcomes.get(name).copied().unwrap_or_default();
    let done: u64 = outcomes.values().sum();
    Ok(Sums {
        matched,
        enriched: outcome("enriched"),
        nothing_new: outcome("nothing_new"),
        no_match: outcome("no_match"),
        nothing_to_ask: outcome("nothing_to_ask"),
        objected: outcome("objected"),
        failed: outcome("failed"),
        not_done: matched.saturating_sub(done),
        credits: providers.values().map(|sums| sums.credits).sum(),
        from_cache: providers.values().map(|sums| sums.from_cache).sum(),
        providers,
        fields,
        failures,
    })
}

async fn counts(
    connection: &mut PgConnection,
    sql: &'static str,
    run_id: Uuid,
) -> Result<BTreeMap<String, u64>, RecordError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(sql)
        .bind(run_id)
        .fetch_all(connection)
        .await?;
    let rows = rows.into_iter().map(|(name, count)| (name, number(count)));
    Ok(rows.collect())
}

fn number(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

/// Forgets a page of lines of old ones. True: there may be more.
pub async fn forget_old(record: &Record, most: i64) -> Result<bool, RecordError> {
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT now()")
        .fetch_one(&record.pool)
        .await?;
    let oldest = super::open::first_id_at(now - chrono::Days::new(KEPT_DAYS));
    let gone = sqlx::query(
        "DELETE FROM bullwark.enrichment_items i USING (
           SELECT run_id, record_id FROM bullwark.enrichment_items WHERE run_id < $1
           ORDER BY run_id, record_id LIMIT $2) old
         WHERE i.run_id = old.run_id AND i.record_id = old.record_id",
    )
    .bind(oldest)
    .bind(most)
    .execute(&record.pool)
    .await?;
    Ok(gone.rows_affected() == most as u64)
}

/// How many of these records have an answer of each provider, for the estimate of what an
/// enrichment may cost. Contacts are counted by what they are asked by first.
pub async fn kept_answers(
    view: &Record,
    workspace_id: Uuid,
    (is_people, ids): (bool, &[Uuid]),
    (providers, max_age_days): (&[&str], Option<i32>),
) -> Result<BTreeMap<String, u64>, RecordError> {
    let sql = match is_people {
        true => {
            "SELECT l.provider, count(*) FROM contacts c
               JOIN bullwark.enrichment_lookups l ON l.workspace_id = $1 AND l.kind = 'person'
                 AND l.provider = ANY ($3)
                 AND l.key = coalesce('email:' || lower(c.email), 'linkedin:' || c.linkedin_url)
             WHERE c.id = ANY ($2) AND c.workspace_id = $1 AND l.expires_at > now()
               AND l.fetched_at > now() - make_interval(days => $4) GROUP BY 1"
        }
        false => {
            "SELECT l.provider, count(*) FROM accounts a
               JOIN bullwark.enrichment_lookups l ON l.workspace_id = $1 AND l.kind = 'company'
                 AND l.provider = ANY ($3) AND l.key = a.domain
             WHERE a.id = ANY ($2) AND a.workspace_id = $1 AND l.expires_at > now()
               AND l.fetched_at > now() - make_interval(days => $4) GROUP BY 1"
        }
    };
    let rows: Vec<(String, i64)> = sqlx::query_as(sql)
        .bind(workspace_id)
        .bind(ids)
        .bind(providers)
        .bind(max_age_days.unwrap_or(36_500))
        .fetch_all(&view.pool)
        .await?;
    let rows = rows.into_iter().map(|(name, count)| (name, number(count)));
    Ok(rows.collect())
}
