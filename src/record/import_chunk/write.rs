//! Writes the rows of a chunk: duplicates out, then batch by batch, each behind a savepoint.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::entity::Entity;
use super::fate::{DUPLICATE_EXISTING, Fate, Outcome, Settled, is_taken, refused};
use super::ledger::{find_applied, find_keys};
use super::{ChunkOptions, ChunkRow, OnExisting};
use crate::record::merge::IfTaken;
use crate::record::{RecordError, Tx};

/// Times that rows which lost a race against another writer are looked up again.
const ROUNDS_MAX: usize = 3;

/// What may be done to the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    Everything,
    /// Records that exist are not touched, and nothing is said of them.
    NewRows,
}

/// Finds duplicates, then writes the rest batch by batch. `None`: there is more to do than is
/// allowed.
pub(super) async fn settle_rows<'a, T: Entity>(
    tx: &mut Tx,
    options: &ChunkOptions,
    rows: &'a [ChunkRow<T>],
    allowed: Allowed,
    on_batch: &mut (impl FnMut(usize) + Send),
) -> Result<Option<Vec<Settled<'a>>>, RecordError> {
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
    // A dry run does it all, and takes it back: so it counts what the import itself would count,
    // and the schema has its say.
    if options.dry_run {
        run(tx, "SAVEPOINT dry_run").await?;
    }
    for batch in open.chunks(options.batch_size.max(1)) {
        if !write_or_halve(tx, options, batch, allowed, &mut settled).await? {
            return Ok(None);
        }
        on_batch(batch.len());
    }
    if options.dry_run {
        run(
            tx,
            "ROLLBACK TO SAVEPOINT dry_run; RELEASE SAVEPOINT dry_run",
        )
        .await?;
        for row in &mut settled {
            if row.fate.outcome == Outcome::Inserted {
                row.fate.entity_id = None;
            }
        }
    }
    Ok(Some(settled))
}

async fn run(tx: &mut Tx, statements: &'static str) -> Result<(), RecordError> {
    sqlx::raw_sql(statements).execute(tx.connection()).await?;
    Ok(())
}

/// Writes a batch; when the schema refuses it, halves it until the row at fault stands alone.
/// `false`: there is more to do than is allowed.
///
/// Nothing is expected to be in the way of what was looked for and not found. If something is, the
/// batch is written once more, and takes care.
async fn write_or_halve<'a, T: Entity>(
    tx: &mut Tx,
    options: &ChunkOptions,
    batch: &[&'a ChunkRow<T>],
    allowed: Allowed,
    settled: &mut Vec<Settled<'a>>,
) -> Result<bool, RecordError> {
    let mut parts = vec![(batch, IfTaken::Refuse)];
    while let Some((part, if_taken)) = parts.pop() {
        run(tx, "SAVEPOINT batch").await?;
        let fates = match write_batch(tx, options, part, (allowed, if_taken)).await {
            Ok(Some(fates)) => {
                run(tx, "RELEASE SAVEPOINT batch").await?;
                fates
            }
            Ok(None) => return Ok(false),
            Err(RecordError::Refused {
                constraint,
                message,
            }) => {
                run(tx, "ROLLBACK TO SAVEPOINT batch; RELEASE SAVEPOINT batch").await?;
                if if_taken == IfTaken::Refuse && is_taken(constraint.as_deref()) {
                    parts.push((part, IfTaken::LeaveOut));
                    continue;
                }
                if part.len() > 1 {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([(right, if_taken), (left, if_taken)]);
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
    Ok(true)
}

/// The fates of a batch, by position. All rows of a batch have different keys. `None`: there is
/// more to do than is allowed.
async fn write_batch<T: Entity>(
    tx: &mut Tx,
    options: &ChunkOptions,
    batch: &[&ChunkRow<T>],
    (allowed, if_taken): (Allowed, IfTaken),
) -> Result<Option<Vec<Fate>>, RecordError> {
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
                match options.create_missing {
                    true => new.push((Uuid::now_v7(), at)),
                    false => fates[at] = Some(Fate::missing()),
                }
                continue;
            };
            if allowed == Allowed::NewRows {
                return Ok(None);
            }
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
            let inserted = T::insert_many(tx, options.workspace_id, &rows, if_taken).await?;
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
    let fates = fates.into_iter();
    Ok(Some(
        fates
            .map(|fate| fate.unwrap_or_else(Fate::lost_race))
            .collect(),
    ))
}
