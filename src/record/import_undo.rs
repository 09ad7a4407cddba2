//! Undoing an import: the records that it created, and that nobody has changed since, go.
//!
//! What the import created is in its ledger (`import_rows`), who changed it since in the lineage
//! (`bullwark.data_changes`). A record is locked before the lineage is asked: whoever changed it
//! meanwhile has committed by then, and whoever comes later finds it gone.
//!
//! Where it may die: anywhere. Deletions, counters and the place to go on from are one transaction.

use serde::Serialize;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::access::{self, Audit, By};
use super::{Record, RecordError, Tx};

/// Rows of the ledger that are dealt with at once.
const ROWS_MAX: i64 = 500;
/// How the ledger and the lineage call the two kinds of records.
const ACCOUNTS: &str = "accounts";
const CONTACTS: &str = "contacts";

/// What an admin's wish came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A job may do it now.
    Noted,
    /// This job does it.
    UnderWay(Uuid),
    /// It is done.
    Done,
    /// The import is not over.
    Open,
    /// It was a dry run, which created nothing.
    DryRun,
    /// There is no such import.
    Unknown,
}

#[derive(sqlx::FromRow)]
struct State {
    is_over: bool,
    dry_run: bool,
    is_undone: bool,
    undo_job_id: Option<Uuid>,
}

/// Notes that an admin wants an import undone, with a row in the audit. Safe to repeat.
pub async fn ask(
    record: &Record,
    (workspace_id, id): (Uuid, Uuid),
    by: &By<'_>,
) -> Result<Asked, RecordError> {
    let mut tx = record.begin().await?;
    let state: Option<State> = sqlx::query_as(
        "SELECT j.status IN ('completed', 'dead_letter', 'cancelled') AS is_over, i.dry_run,
           i.undone_at IS NOT NULL AS is_undone,
           (SELECT u.id FROM jobs u WHERE u.id = i.undo_job_id
              AND u.status IN ('pending', 'processing', 'failed')) AS undo_job_id
         FROM imports i JOIN jobs j ON j.id = i.id AND j.deleted_at IS NULL
         WHERE i.id = $1 AND i.workspace_id = $2 FOR UPDATE OF i",
    )
    .bind(id)
    .bind(workspace_id)
    .fetch_optional(tx.connection())
    .await?;
    match state {
        None => return Ok(Asked::Unknown),
        Some(state) if state.is_undone => return Ok(Asked::Done),
        Some(state) if state.dry_run => return Ok(Asked::DryRun),
        Some(state) if !state.is_over => return Ok(Asked::Open),
        Some(State {
            undo_job_id: Some(job),
            ..
        }) => return Ok(Asked::UnderWay(job)),
        Some(_) => {}
    }
    sqlx::query("UPDATE imports SET undo_asked_at = coalesce(undo_asked_at, now()) WHERE id = $1")
        .bind(id)
        .execute(tx.connection())
        .await?;
    let audit = Audit {
        workspace_id: Some(workspace_id),
        actor: by.actor,
        action: "import.undo",
        target: ("import", id.to_string()),
        reason: None,
        before: None,
        after: None,
        request_id: by.request_id,
    };
    access::note(tx.connection(), &audit).await?;
    tx.commit().await?;
    Ok(Asked::Noted)
}

/// What became of what an import created, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct SoFar {
    /// Records that are gone.
    pub removed: i64,
    /// Records that stay: somebody has changed them since.
    pub changed: i64,
    /// Records that stay: accounts that have contacts.
    pub in_use: i64,
}

impl SoFar {
    pub fn kept(&self) -> i64 {
        self.changed + self.in_use
    }
}

/// An import that a job is to undo.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Undo {
    pub entity_type: String,
    /// Records that it created.
    pub inserted: i64,
    #[sqlx(flatten)]
    pub so_far: SoFar,
    pub is_asked: bool,
    pub is_done: bool,
    /// The job that does it, if it is not over.
    pub job_id: Option<Uuid>,
}

/// Takes the undoing of an import over for a job, unless another one is at it.
///
/// None: there is no such import in the workspace.
pub async fn begin(
    tx: &mut Tx,
    (workspace_id, id): (Option<Uuid>, Uuid),
    job_id: Uuid,
) -> Result<Option<Undo>, RecordError> {
    let undo: Option<Undo> = sqlx::query_as(
        "SELECT i.entity_type, i.inserted, i.undo_removed AS removed, i.undo_changed AS changed,
           i.undo_in_use AS in_use,
           i.undo_asked_at IS NOT NULL AS is_asked, i.undone_at IS NOT NULL AS is_done,
           (SELECT u.id FROM jobs u WHERE u.id = i.undo_job_id
              AND u.status IN ('pending', 'processing', 'failed')) AS job_id
         FROM imports i WHERE i.id = $1 AND i.workspace_id IS NOT DISTINCT FROM $2
         FOR UPDATE OF i",
    )
    .bind(id)
    .bind(workspace_id)
    .fetch_optional(tx.connection())
    .await?;
    let is_free = |undo: &Undo| {
        undo.is_asked && !undo.is_done && undo.job_id.is_none_or(|other| other == job_id)
    };
    if undo.as_ref().is_some_and(is_free) {
        sqlx::query("UPDATE imports SET undo_job_id = $2 WHERE id = $1")
            .bind(id)
            .bind(job_id)
            .execute(tx.connection())
            .await?;
    }
    Ok(undo)
}

/// Removes the next of what the import created, as far as nobody has touched it: the sums so far,
/// and whether that was the last of it.
pub async fn step(
    tx: &mut Tx,
    (workspace_id, id): (Option<Uuid>, Uuid),
    entity_type: &str,
) -> Result<(SoFar, bool), RecordError> {
    let from: i64 = sqlx::query_scalar("SELECT undo_row FROM imports WHERE id = $1 FOR UPDATE")
        .bind(id)
        .fetch_one(tx.connection())
        .await?;
    let rows: Vec<(i64, Uuid)> = sqlx::query_as(
        "SELECT row_no, entity_id FROM import_rows
         WHERE import_id = $1 AND row_no > $2 AND outcome = 'inserted' AND entity_id IS NOT NULL
         ORDER BY row_no LIMIT $3",
    )
    .bind(id)
    .bind(from)
    .bind(ROWS_MAX)
    .fetch_all(tx.connection())
    .await?;
    let last = rows.last().map_or(from, |(row_no, _)| *row_no);
    let is_last = (rows.len() as i64) < ROWS_MAX;
    let ids: Vec<Uuid> = rows.into_iter().map(|(_, entity)| entity).collect();
    let held = hold(tx, entity_type, workspace_id, &ids).await?;
    let found = judge(tx, entity_type, id, &held).await?;
    let count = |wanted: &str| found.iter().filter(|(_, fate)| fate == wanted).count() as i64;
    let (removed, changed, in_use) = (count("removed"), count("changed"), count("in_use"));
    let free = found.iter().filter(|(_, fate)| fate == "removed");
    let free: Vec<Uuid> = free.map(|(entity, _)| *entity).collect();
    let table = table(entity_type);
    sqlx::query(AssertSqlSafe(format!(
        "DELETE FROM {table} WHERE id = ANY($1)"
    )))
    .bind(free)
    .execute(tx.connection())
    .await?;
    let so_far = sqlx::query_as(
        "UPDATE imports SET undo_row = $2, undo_removed = undo_removed + $3,
           undo_changed = undo_changed + $4, undo_in_use = undo_in_use + $5,
           undone_at = CASE WHEN $6 THEN now() END
         WHERE id = $1
         RETURNING undo_removed AS removed, undo_changed AS changed, undo_in_use AS in_use",
    )
    .bind(id)
    .bind(last)
    .bind(removed)
    .bind(changed)
    .bind(in_use)
    .bind(is_last)
    .fetch_one(tx.connection())
    .await?;
    Ok((so_far, is_last))
}

fn table(entity_type: &str) -> &'static str {
    match entity_type {
        CONTACTS => CONTACTS,
        _ => ACCOUNTS,
    }
}

/// Those that are still there, locked, in the order in which everybody locks.
async fn hold(
    tx: &mut Tx,
    entity_type: &str,
    workspace_id: Option<Uuid>,
    ids: &[Uuid],
) -> Result<Vec<Uuid>, RecordError> {
    let table = table(entity_type);
    Ok(sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT id FROM {table} WHERE id = ANY($1) AND workspace_id IS NOT DISTINCT FROM $2
         ORDER BY id FOR UPDATE"
    )))
    .bind(ids)
    .bind(workspace_id)
    .fetch_all(tx.connection())
    .await?)
}

/// What is to become of records that are locked: `removed`, or why not.
///
/// `changed` if anybody but the import has changed it, or if the lineage does not know that the
/// import created it; `in_use` if a contact or an opportunity is of this account,
/// which none can become any more.
async fn judge(
    tx: &mut Tx,
    entity_type: &str,
    import_id: Uuid,
    held: &[Uuid],
) -> Result<Vec<(Uuid, String)>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT e.id, CASE
             WHEN NOT EXISTS (SELECT FROM bullwark.data_changes c
               WHERE c.entity_id = e.id AND c.action = 'insert' AND c.job_id = $2) THEN 'changed'
             WHEN EXISTS (SELECT FROM bullwark.data_changes c
               WHERE c.entity_id = e.id AND c.job_id IS DISTINCT FROM $2) THEN 'changed'
             WHEN $3 = 'accounts' AND (
                 EXISTS (SELECT FROM contacts c WHERE c.account_id = e.id)
                 OR EXISTS (SELECT FROM opportunities o WHERE o.account_id = e.id))
               THEN 'in_use'
             ELSE 'removed' END
         FROM unnest($1::uuid[]) AS e (id)",
    )
    .bind(held)
    .bind(import_id)
    .bind(table(entity_type))
    .fetch_all(tx.connection())
    .await?)
}
