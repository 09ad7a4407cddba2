//! One chunk of an import: its effects, the fate of each row and the counters, in one transaction.
//!
//! Repeating a chunk changes nothing: rows that have a fate already are left out first. Rows are
//! written in batches, each behind a savepoint; a batch that the schema refuses is halved until the
//! row at fault stands alone. Rows go in the order of their keys, so that two imports of one
//! workspace lock in the same order.
//!
//! Where it may die: anywhere before the commit, and the next attempt finds nothing of the chunk;
//! or after it, and finds all of it, the checkpoint included.

mod entity;
mod fate;
mod ledger;
mod write;

use std::collections::BTreeMap;
use std::ops::Range;

use uuid::Uuid;

use super::accounts::AccountRow;
use super::contacts::ContactRow;
use super::merge::Merge;
use super::{RecordError, Tx};
use fate::{Fate, Outcome, Settled};
use ledger::{add_counts, find_applied, insert_fates};
use write::settle_rows;

/// Most rows of one chunk.
pub const CHUNK_ROWS_MAX: usize = 2_000;

/// What happens to a row whose record exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnExisting {
    Update(Merge),
    Skip,
    Reject,
}

/// What stays the same for all chunks of a run.
#[derive(Debug, Clone)]
pub struct ChunkOptions {
    pub import_id: Uuid,
    pub workspace_id: Option<Uuid>,
    pub on_existing: OnExisting,
    /// Rows per insert statement.
    pub batch_size: usize,
    /// Write fates and counters; accounts and contacts are written and taken back.
    pub dry_run: bool,
}

/// Where a row stands in the file.
#[derive(Debug, Clone)]
pub struct RowPlace {
    pub row_no: i64,
    pub line_no: i64,
    /// The row's bytes in [`Chunk::raw`], and how many columns they are.
    pub raw: Range<usize>,
    pub columns: i32,
}

/// A row that can be written. `key` is the same for two rows that mean the same record.
#[derive(Debug, Clone)]
pub struct ChunkRow<T> {
    pub place: RowPlace,
    pub key: Uuid,
    pub entity: T,
}

/// A row that failed its validation.
#[derive(Debug, Clone)]
pub struct RejectedRow {
    pub place: RowPlace,
    pub code: &'static str,
    pub column: Option<String>,
    pub message: String,
    pub suggestion: Option<String>,
}

#[derive(Debug, Clone)]
pub enum Entities {
    Accounts(Vec<ChunkRow<AccountRow>>),
    Contacts(Vec<ChunkRow<ContactRow>>),
}

/// Rows of a file, in its order.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub entities: Entities,
    pub rejected: Vec<RejectedRow>,
    /// The bytes of all rows, one behind the other.
    pub raw: Vec<u8>,
}

/// How many rows had which fate. Rows of a repeated chunk are not counted again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChunkCounts {
    pub inserted: i64,
    pub updated: i64,
    pub unchanged: i64,
    pub skipped: i64,
    pub failed: i64,
    pub by_code: BTreeMap<&'static str, i64>,
}

impl ChunkCounts {
    pub fn processed(&self) -> i64 {
        self.inserted + self.updated + self.unchanged + self.skipped + self.failed
    }
}

/// Applies a chunk inside the caller's transaction. At most [`CHUNK_ROWS_MAX`] rows.
///
/// `on_batch` hears how many rows each batch had, before the commit.
pub async fn apply(
    tx: &mut Tx,
    options: &ChunkOptions,
    chunk: &Chunk,
    mut on_batch: impl FnMut(usize) + Send,
) -> Result<ChunkCounts, RecordError> {
    // The statements below look rows up by key; on stale statistics the planner may prefer to read
    // whole tables. Taking the alternatives away leaves one plan.
    let settings = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
         SET LOCAL enable_mergejoin = off; SET LOCAL jit = off";
    sqlx::raw_sql(settings).execute(tx.connection()).await?;
    let mut settled = match &chunk.entities {
        Entities::Accounts(rows) => settle_rows(tx, options, rows, &mut on_batch).await?,
        Entities::Contacts(rows) => settle_rows(tx, options, rows, &mut on_batch).await?,
    };
    let rejected: Vec<_> = chunk.rejected.iter().map(|row| row.place.row_no).collect();
    let applied = find_applied(tx, options.import_id, &rejected).await?;
    for row in chunk
        .rejected
        .iter()
        .filter(|row| !applied.contains(&row.place.row_no))
    {
        let mut fate = Fate::coded(Outcome::Failed, row.code, row.message.clone());
        fate.column.clone_from(&row.column);
        fate.suggestion.clone_from(&row.suggestion);
        settled.push(Settled {
            place: &row.place,
            key: None,
            fate,
        });
    }
    let counts = count(&settled);
    if !settled.is_empty() {
        settled.sort_unstable_by_key(|row| row.place.row_no);
        insert_fates(tx, options.import_id, &settled, &chunk.raw).await?;
        add_counts(tx, options.import_id, &counts).await?;
    }
    Ok(counts)
}

fn count(settled: &[Settled<'_>]) -> ChunkCounts {
    let mut counts = ChunkCounts::default();
    for row in settled {
        *match row.fate.outcome {
            Outcome::Inserted => &mut counts.inserted,
            Outcome::Updated => &mut counts.updated,
            Outcome::Unchanged => &mut counts.unchanged,
            Outcome::Skipped => &mut counts.skipped,
            Outcome::Failed => &mut counts.failed,
        } += 1;
        if let Some(code) = row.fate.code {
            *counts.by_code.entry(code).or_default() += 1;
        }
    }
    counts
}
