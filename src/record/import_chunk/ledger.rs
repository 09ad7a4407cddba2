//! The ledger of an import: the fate of each row, and the counters of the run.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::ChunkCounts;
use super::fate::Settled;
use crate::record::{RecordError, Tx};

/// Which of these rows have a fate already: those of a chunk that is repeated.
pub(super) async fn find_applied(
    tx: &mut Tx,
    import_id: Uuid,
    rows: &[i64],
) -> Result<HashSet<i64>, RecordError> {
    let (Some(first), Some(last)) = (rows.iter().min(), rows.iter().max()) else {
        return Ok(HashSet::new());
    };
    let found: Vec<i64> = sqlx::query_scalar(
        "SELECT row_no FROM import_rows WHERE import_id = $1 AND row_no BETWEEN $2 AND $3",
    )
    .bind(import_id)
    .bind(first)
    .bind(last)
    .fetch_all(tx.connection())
    .await?;
    Ok(found.into_iter().collect())
}

/// The rows of earlier chunks that have one of these keys.
pub(super) async fn find_keys(
    tx: &mut Tx,
    import_id: Uuid,
    keys: &[Uuid],
) -> Result<HashMap<Uuid, i64>, RecordError> {
    let scoped: Vec<Uuid> = keys.iter().map(|key| scope(import_id, *key)).collect();
    let found: Vec<Option<i64>> = sqlx::query_scalar(
        "SELECT (SELECT r.row_no FROM import_rows r WHERE r.row_key = k.row_key)
         FROM unnest($1::uuid[]) WITH ORDINALITY AS k (row_key, place)
         ORDER BY k.place",
    )
    .bind(&scoped)
    .fetch_all(tx.connection())
    .await?;
    let pairs = keys.iter().zip(found);
    Ok(pairs
        .filter_map(|(key, row_no)| Some((*key, row_no?)))
        .collect())
}

/// The key of a row among the rows of all imports. The import is part of the hash and not a column
/// of the index, so that no plan can read all rows of an import to find a few.
fn scope(import_id: Uuid, key: Uuid) -> Uuid {
    Uuid::new_v5(&import_id, key.as_bytes())
}

pub(super) async fn insert_fates(
    tx: &mut Tx,
    import_id: Uuid,
    settled: &[Settled<'_>],
    raw: &[u8],
) -> Result<(), RecordError> {
    let fates = || settled.iter().map(|row| &row.fate);
    let reported = |row: &Settled<'_>| row.fate.is_reported.then(|| row.place.clone());
    let raws: Vec<Option<&[u8]>> = settled
        .iter()
        .map(|row| reported(row).map(|place| &raw[place.raw]))
        .collect();
    let widths: Vec<Option<i32>> = settled
        .iter()
        .map(|row| reported(row).map(|place| place.columns))
        .collect();
    sqlx::query(
        "INSERT INTO import_rows (import_id, row_no, line_no, outcome, row_key, entity_id, code,
           column_name, message, suggestion, raw, raw_columns)
         SELECT $1, n.* FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::uuid[], $6::uuid[],
           $7::text[], $8::text[], $9::text[], $10::text[], $11::bytea[], $12::int[]) AS n",
    )
    .bind(import_id)
    .bind(
        settled
            .iter()
            .map(|row| row.place.row_no)
            .collect::<Vec<_>>(),
    )
    .bind(
        settled
            .iter()
            .map(|row| row.place.line_no)
            .collect::<Vec<_>>(),
    )
    .bind(
        fates()
            .map(|fate| fate.outcome.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        settled
            .iter()
            .map(|row| row.key.map(|key| scope(import_id, key)))
            .collect::<Vec<_>>(),
    )
    .bind(fates().map(|fate| fate.entity_id).collect::<Vec<_>>())
    .bind(fates().map(|fate| fate.code).collect::<Vec<_>>())
    .bind(
        fates()
            .map(|fate| fate.column.as_deref())
            .collect::<Vec<_>>(),
    )
    .bind(
        fates()
            .map(|fate| fate.message.as_deref())
            .collect::<Vec<_>>(),
    )
    .bind(
        fates()
            .map(|fate| fate.suggestion.as_deref())
            .collect::<Vec<_>>(),
    )
    .bind(raws)
    .bind(widths)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn add_counts(
    tx: &mut Tx,
    import_id: Uuid,
    counts: &ChunkCounts,
) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE imports
         SET processed = processed + $2, inserted = inserted + $3, updated = updated + $4,
           unchanged = unchanged + $5, skipped = skipped + $6, failed = failed + $7,
           by_code = CASE WHEN $8 = '{}'::jsonb THEN by_code ELSE (
             SELECT jsonb_object_agg(c.code, c.rows) FROM (
               SELECT key AS code, sum(value::bigint) AS rows
               FROM (SELECT * FROM jsonb_each_text(by_code)
                     UNION ALL SELECT * FROM jsonb_each_text($8)) AS both_sides
               GROUP BY key) AS c) END
         WHERE id = $1",
    )
    .bind(import_id)
    .bind(counts.processed())
    .bind(counts.inserted)
    .bind(counts.updated)
    .bind(counts.unchanged)
    .bind(counts.skipped)
    .bind(counts.failed)
    .bind(serde_json::json!(counts.by_code))
    .execute(tx.connection())
    .await?;
    Ok(())
}
