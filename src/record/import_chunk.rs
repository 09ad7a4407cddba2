//! One chunk of an import: its effects, the fate of each row and the counters, in one transaction.
//!
//! Repeating a chunk changes nothing: rows that have a fate already are left out first. Rows are
//! written in batches, each behind a savepoint; a batch that the schema refuses is halved until the
//! row at fault stands alone. Rows go in the order of their keys, so that two imports of one
//! workspace lock in the same order.
//!
//! Where it may die: anywhere before the commit, and the next attempt finds nothing of the chunk;
//! or after it, and finds all of it, the checkpoint included.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::ops::Range;

use uuid::Uuid;

use super::accounts::{self, AccountRow};
use super::contacts::{self, ContactRow};
use super::merge::Merge;
use super::{RecordError, Tx};

/// Most rows of one chunk.
pub const CHUNK_ROWS_MAX: usize = 2_000;
/// Times that rows which lost a race against another writer are looked up again.
const ROUNDS_MAX: usize = 3;
/// Codes of this module; the others come with the rejected rows.
const DUPLICATE_IN_FILE: &str = "DUPLICATE_IN_FILE";
const DUPLICATE_EXISTING: &str = "DUPLICATE_EXISTING";
const DATABASE_REJECTED: &str = "DATABASE_REJECTED";

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
    /// Write fates and counters, but no account and no contact.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Inserted,
    Updated,
    Unchanged,
    Skipped,
    Failed,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inserted => "inserted",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// What became of one row.
#[derive(Debug, Clone)]
struct Fate {
    outcome: Outcome,
    entity_id: Option<Uuid>,
    code: Option<&'static str>,
    column: Option<String>,
    message: Option<String>,
    suggestion: Option<String>,
    /// Whether the row goes into the error report, with its bytes.
    is_reported: bool,
}

impl Fate {
    fn done(outcome: Outcome, entity_id: Option<Uuid>) -> Self {
        Self {
            outcome,
            entity_id,
            code: None,
            column: None,
            message: None,
            suggestion: None,
            is_reported: false,
        }
    }

    fn coded(outcome: Outcome, code: &'static str, message: String) -> Self {
        let is_reported = true;
        Self {
            code: Some(code),
            message: Some(message),
            is_reported,
            ..Self::done(outcome, None)
        }
    }

    /// Another row of the file came first. It is lost work unless somebody hears of it, so it is
    /// reported in every mode; strict imports count it as a failure.
    fn duplicate_in_file(on_existing: &OnExisting, first_row: i64) -> Self {
        let outcome = match on_existing {
            OnExisting::Reject => Outcome::Failed,
            OnExisting::Update(_) | OnExisting::Skip => Outcome::Skipped,
        };
        Self::coded(
            outcome,
            DUPLICATE_IN_FILE,
            format!("the same record as row {first_row}"),
        )
    }
}

/// A row with its fate, ready to be written down.
struct Settled<'a> {
    place: &'a RowPlace,
    key: Option<Uuid>,
    fate: Fate,
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

/// Finds duplicates, then writes the rest batch by batch.
async fn settle_rows<'a, T: Entity>(
    tx: &mut Tx,
    options: &ChunkOptions,
    rows: &'a [ChunkRow<T>],
    on_batch: &mut (impl FnMut(usize) + Send),
) -> Result<Vec<Settled<'a>>, RecordError> {
    let numbers: Vec<_> = rows.iter().map(|row| row.place.row_no).collect();
    let applied = find_applied(tx, options.import_id, &numbers).await?;
    let keys: Vec<_> = rows.iter().map(|row| row.key).collect();
    let mut first_rows = find_keys(tx, options.import_id, &keys).await?;
    let mut settled = Vec::with_capacity(rows.len());
    let mut open = Vec::with_capacity(rows.len());
    for row in rows
        .iter()
        .filter(|row| !applied.contains(&row.place.row_no))
    {
        match first_rows.get(&row.key) {
            Some(first) => {
                let fate = Fate::duplicate_in_file(&options.on_existing, *first);
                settled.push(Settled {
                    place: &row.place,
                    key: None,
                    fate,
                });
            }
            None => {
                first_rows.insert(row.key, row.place.row_no);
                open.push(row);
            }
        }
    }
    open.sort_unstable_by_key(|row| row.key);
    for batch in open.chunks(options.batch_size.max(1)) {
        write_or_halve(tx, options, batch, &mut settled).await?;
        on_batch(batch.len());
    }
    Ok(settled)
}

/// Writes a batch; when the schema refuses it, halves it until the row at fault stands alone.
async fn write_or_halve<'a, T: Entity>(
    tx: &mut Tx,
    options: &ChunkOptions,
    batch: &[&'a ChunkRow<T>],
    settled: &mut Vec<Settled<'a>>,
) -> Result<(), RecordError> {
    let mut parts = vec![batch];
    while let Some(part) = parts.pop() {
        sqlx::raw_sql("SAVEPOINT batch")
            .execute(tx.connection())
            .await?;
        let fates = match write_batch(tx, options, part).await {
            Ok(fates) => {
                sqlx::raw_sql("RELEASE SAVEPOINT batch")
                    .execute(tx.connection())
                    .await?;
                fates
            }
            Err(RecordError::Refused {
                constraint,
                message,
            }) => {
                let undo = "ROLLBACK TO SAVEPOINT batch; RELEASE SAVEPOINT batch";
                sqlx::raw_sql(undo).execute(tx.connection()).await?;
                if part.len() > 1 {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.push(right);
                    parts.push(left);
                    continue;
                }
                vec![refused(constraint, message)]
            }
            Err(error) => return Err(error),
        };
        for (row, fate) in part.iter().zip(fates) {
            // Only a row that took effect claims its key; behind a failed one the next may try.
            let key = (fate.outcome != Outcome::Failed).then_some(row.key);
            settled.push(Settled {
                place: &row.place,
                key,
                fate,
            });
        }
    }
    Ok(())
}

fn refused(constraint: Option<String>, message: String) -> Fate {
    match constraint {
        Some(name) if name.ends_with("_unique") => {
            let message = format!("one of its keys belongs to another record ({name})");
            Fate::coded(Outcome::Failed, DUPLICATE_EXISTING, message)
        }
        _ => Fate::coded(Outcome::Failed, DATABASE_REJECTED, message),
    }
}

/// The fates of a batch, by position. All rows of a batch have different keys.
async fn write_batch<T: Entity>(
    tx: &mut Tx,
    options: &ChunkOptions,
    batch: &[&ChunkRow<T>],
) -> Result<Vec<Fate>, RecordError> {
    let mut fates: Vec<Option<Fate>> = vec![None; batch.len()];
    // Which row of this batch wrote or took a record: two rows may mean one by different keys.
    let mut taken: HashMap<Uuid, i64> = HashMap::new();
    for _ in 0..ROUNDS_MAX {
        let open: Vec<usize> = (0..batch.len()).filter(|at| fates[*at].is_none()).collect();
        if open.is_empty() {
            break;
        }
        let rows: Vec<&T> = open.iter().map(|at| &batch[*at].entity).collect();
        let same = T::find_same(tx, options.workspace_id, &rows).await?;
        let mut known = Vec::new();
        let mut new = Vec::new();
        for (at, same) in open.into_iter().zip(same) {
            let row_no = batch[at].place.row_no;
            let Some(id) = same else {
                new.push((Uuid::now_v7(), at));
                continue;
            };
            if let Some(first) = taken.get(&id) {
                fates[at] = Some(Fate::duplicate_in_file(&options.on_existing, *first));
                continue;
            }
            taken.insert(id, row_no);
            match &options.on_existing {
                OnExisting::Update(_) => known.push((id, at)),
                // The record is as the user wants it; no need to report the row.
                OnExisting::Skip => {
                    let message = "the record exists already".to_owned();
                    let mut fate = Fate::coded(Outcome::Skipped, DUPLICATE_EXISTING, message);
                    fate.entity_id = Some(id);
                    fate.is_reported = false;
                    fates[at] = Some(fate);
                }
                OnExisting::Reject => {
                    let message = format!("the record exists already as {id}");
                    let mut fate = Fate::coded(Outcome::Failed, DUPLICATE_EXISTING, message);
                    fate.entity_id = Some(id);
                    fates[at] = Some(fate);
                }
            }
        }
        if options.dry_run {
            known.iter().for_each(|(id, at)| {
                fates[*at] = Some(Fate::done(Outcome::Updated, Some(*id)));
            });
            new.iter()
                .for_each(|(_, at)| fates[*at] = Some(Fate::done(Outcome::Inserted, None)));
            break;
        }
        if let OnExisting::Update(merge) = &options.on_existing
            && !known.is_empty()
        {
            let rows: Vec<_> = known
                .iter()
                .map(|(id, at)| (*id, &batch[*at].entity))
                .collect();
            let changed = T::update_many(tx, options.workspace_id, merge, &rows).await?;
            let changed: HashSet<_> = changed.into_iter().collect();
            for (id, at) in known {
                let is_changed = changed.contains(&id);
                let outcome = if is_changed {
                    Outcome::Updated
                } else {
                    Outcome::Unchanged
                };
                fates[at] = Some(Fate::done(outcome, Some(id)));
            }
        }
        if !new.is_empty() {
            let rows: Vec<_> = new
                .iter()
                .map(|(id, at)| (*id, &batch[*at].entity))
                .collect();
            let inserted = T::insert_many(tx, options.workspace_id, &rows).await?;
            let inserted: HashSet<_> = inserted.into_iter().collect();
            for (id, at) in new {
                // A row that is not new after all is looked up again in the next round.
                if inserted.contains(&id) {
                    taken.insert(id, batch[at].place.row_no);
                    fates[at] = Some(Fate::done(Outcome::Inserted, Some(id)));
                }
            }
        }
    }
    let lost = || {
        let message = "other writers changed this record at the same time, again and again";
        Fate::coded(Outcome::Failed, DATABASE_REJECTED, message.to_owned())
    };
    Ok(fates
        .into_iter()
        .map(|fate| fate.unwrap_or_else(lost))
        .collect())
}

/// What accounts and contacts have in common for an import.
trait Entity: Sized + Sync {
    fn find_same(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        rows: &[&Self],
    ) -> impl Future<Output = Result<Vec<Option<Uuid>>, RecordError>> + Send;

    fn insert_many(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        new: &[(Uuid, &Self)],
    ) -> impl Future<Output = Result<Vec<Uuid>, RecordError>> + Send;

    fn update_many(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        merge: &Merge,
        known: &[(Uuid, &Self)],
    ) -> impl Future<Output = Result<Vec<Uuid>, RecordError>> + Send;
}

/// What `accounts.source` and `contacts.source` say of imported rows.
const SOURCE: &str = "import_csv";

impl Entity for AccountRow {
    async fn find_same(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        rows: &[&Self],
    ) -> Result<Vec<Option<Uuid>>, RecordError> {
        accounts::find_same(tx, workspace_id, rows).await
    }

    async fn insert_many(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        new: &[(Uuid, &Self)],
    ) -> Result<Vec<Uuid>, RecordError> {
        accounts::insert_many(tx, workspace_id, SOURCE, new).await
    }

    async fn update_many(
        tx: &mut Tx,
        _workspace_id: Option<Uuid>,
        merge: &Merge,
        known: &[(Uuid, &Self)],
    ) -> Result<Vec<Uuid>, RecordError> {
        accounts::update_many(tx, merge, known).await
    }
}

impl Entity for ContactRow {
    async fn find_same(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        rows: &[&Self],
    ) -> Result<Vec<Option<Uuid>>, RecordError> {
        contacts::find_same(tx, workspace_id, rows).await
    }

    async fn insert_many(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        new: &[(Uuid, &Self)],
    ) -> Result<Vec<Uuid>, RecordError> {
        contacts::insert_many(tx, workspace_id, SOURCE, new).await
    }

    async fn update_many(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        merge: &Merge,
        known: &[(Uuid, &Self)],
    ) -> Result<Vec<Uuid>, RecordError> {
        contacts::update_many(tx, workspace_id, merge, known).await
    }
}

/// Which of these rows have a fate already: those of a chunk that is repeated.
async fn find_applied(
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
async fn find_keys(
    tx: &mut Tx,
    import_id: Uuid,
    keys: &[Uuid],
) -> Result<HashMap<Uuid, i64>, RecordError> {
    let found: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT r.row_key, r.row_no
         FROM unnest($2::uuid[]) AS k (row_key)
         JOIN import_rows r ON r.import_id = $1 AND r.row_key = k.row_key",
    )
    .bind(import_id)
    .bind(keys)
    .fetch_all(tx.connection())
    .await?;
    Ok(found.into_iter().collect())
}

async fn insert_fates(
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
    .bind(settled.iter().map(|row| row.key).collect::<Vec<_>>())
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

async fn add_counts(tx: &mut Tx, import_id: Uuid, counts: &ChunkCounts) -> Result<(), RecordError> {
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
