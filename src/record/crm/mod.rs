//! What a sync with a CRM keeps: which record here is which there, how far it is, what both sides
//! changed, and what was not taken. One file per table; records of all entities in [`locals`].
//!
//! Every function here names the workspace or a connection, which belongs to one.

pub mod conflicts;
pub mod cursors;
pub mod errors;
pub mod links;
pub mod locals;
pub mod runs;

use uuid::Uuid;

use super::{RecordError, Tx};

/// Whose records of what, over which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    pub workspace_id: Uuid,
    pub connection_id: Uuid,
    /// `accounts`, `contacts` or `opportunities`.
    pub entity: &'static str,
}

/// Begins what may be undone without the rest of the transaction.
pub async fn try_begin(tx: &mut Tx) -> Result<(), RecordError> {
    say(tx, "SAVEPOINT one_record").await
}

pub async fn try_keep(tx: &mut Tx) -> Result<(), RecordError> {
    say(tx, "RELEASE SAVEPOINT one_record").await
}

pub async fn try_undo(tx: &mut Tx) -> Result<(), RecordError> {
    say(tx, "ROLLBACK TO SAVEPOINT one_record").await?;
    try_keep(tx).await
}

/// Begins what a dry run only looks at.
pub async fn dry_begin(tx: &mut Tx) -> Result<(), RecordError> {
    say(tx, "SAVEPOINT dry_run").await
}

pub async fn dry_undo(tx: &mut Tx) -> Result<(), RecordError> {
    say(tx, "ROLLBACK TO SAVEPOINT dry_run").await
}

async fn say(tx: &mut Tx, statement: &'static str) -> Result<(), RecordError> {
    sqlx::query(statement).execute(tx.connection()).await?;
    Ok(())
}
