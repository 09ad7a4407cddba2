//! One chunk of an import: its effects, the fate of each row and the counters, in one transaction.
//!
//! Repeating a chunk changes nothing: rows that have a fate already are left out first. Rows are
//! written in batches, each behind a savepoint; a batch that the schema refuses is halved until the
//! row at fault stands alone. Rows go in the order of their keys, so that two imports of one
//! workspace lock in the same order.
//!
//! A chunk may be written before the one before it is committed, as long as neither makes a
//! difference to the other: no row of the two can mean the same record ([`Keys::may_meet`]), and
//! all of its records are new ([`write_ahead`]). What is in the record afterwards is then the same
//! as if it had waited. It is noted, and committed, in its turn.
//!
//! Where it may die: anywhere before the commit, and the next attempt finds nothing of the chunk;
//! or after it, and finds all of it, the checkpoint included.

mod entity;
mod fate;
mod keys;
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
pub use keys::Keys;
use ledger::{add_counts, find_applied, insert_fates};
use write::{Allowed, settle_rows};

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
    /// Rows without a record make one; else they are skipped.
    pub create_missing: bool,
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

/// Rows that were written, and nothing says so yet.
#[derive(Debug)]
#[must_use]
pub struct Written<'a> {
    settled: Vec<Settled<'a>>,
    raw: &'a [u8],
}

/// Applies a chunk inside the caller's transaction. At most [`CHUNK_ROWS_MAX`] rows.
///
/// `on_batch` hears how many rows each batch had, before the commit.
pub async fn apply(
    tx: &mut Tx,
    options: &ChunkOptions,
    chunk: &Chunk,
    on_batch: impl FnMut(usize) + Send,
) -> Result<ChunkCounts, RecordError> {
    match write(tx, options, chunk, Allowed::Everything, on_batch).await? {
        Some(written) => written.note(tx, options).await,
        // Only a chunk that is ahead of its turn is left; to say nothing here would lose rows.
        None => Err(RecordError::Corrupt("a chunk was not written".to_owned())),
    }
}

/// Writes the rows of a chunk whose turn has not come yet; in its turn [`Written::note`] completes
/// it.
///
/// `None`: not all of them are new, or it is a dry run. The transaction is then to be rolled back,
/// and the chunk to be applied in its turn.
pub async fn write_ahead<'a>(
    tx: &mut Tx,
    options: &ChunkOptions,
    chunk: &'a Chunk,
    on_batch: impl FnMut(usize) + Send,
) -> Result<Option<Written<'a>>, RecordError> {
    if options.dry_run {
        return Ok(None);
    }
    write(tx, options, chunk, Allowed::NewRows, on_batch).await
}

async fn write<'a>(
    tx: &mut Tx,
    options: &ChunkOptions,
    chunk: &'a Chunk,
    allowed: Allowed,
    mut on_batch: impl FnMut(usize) + Send,
) -> Result<Option<Written<'a>>, RecordError> {
    // The statements below look rows up by key; on stale statistics the planner may prefer to read
    // whole tables. Taking the alternatives away leaves one plan.
    let settings = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
         SET LOCAL enable_mergejoin = off; SET LOCAL jit = off";
    sqlx::raw_sql(settings).execute(tx.connection()).await?;
    let settled = match &chunk.entities {
        Entities::Accounts(rows) => settle_rows(tx, options, rows, allowed, &mut on_batch).await?,
        Entities::Contacts(rows) => settle_rows(tx, options, rows, allowed, &mut on_batch).await?,
    };
    let Some(mut settled) = settled else {
        return Ok(None);
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
    settled.sort_unstable_by_key(|row| row.place.row_no);
    let raw = &chunk.raw;
    Ok(Some(Written { settled, raw }))
}

impl Written<'_> {
    /// Writes the fates and adds to the counters. Needs the chunk before to be committed: there is
    /// one row of counters, and who has it keeps the others waiting.
    pub async fn note(
        self,
        tx: &mut Tx,
        options: &ChunkOptions,
    ) -> Result<ChunkCounts, RecordError> {
        let counts = count(&self.settled);
        if !self.settled.is_empty() {
            insert_fates(tx, options.import_id, &self.settled, self.raw).await?;
            add_counts(tx, options.import_id, &counts).await?;
        }
        Ok(counts)
    }
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
