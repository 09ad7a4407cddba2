//! A transaction on the record.

use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use super::RecordError;

/// A transaction; dropping it rolls back.
#[derive(Debug)]
pub struct Tx(Transaction<'static, Postgres>);

impl Tx {
    /// `BEGIN` runs in a task of its own: a caller that is dropped in the middle (a closed HTTP
    /// connection, a timeout) would otherwise leave a connection with an open transaction in the
    /// pool, and the next borrower would run inside it (sqlx issue 4385, not yet released).
    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself; must outlive its caller"
    )]
    pub(super) async fn begin(pool: PgPool) -> Result<Self, RecordError> {
        let begun = tokio::spawn(async move { pool.begin().await }).await;
        match begun {
            Ok(transaction) => Ok(Self(transaction?)),
            Err(error) => Err(RecordError::Corrupt(format!("begin: {error}"))),
        }
    }

    /// Wraps a transaction that the application itself began.
    pub fn from_sqlx(transaction: Transaction<'static, Postgres>) -> Self {
        Self(transaction)
    }

    /// Commits. An error here means that the outcome is unknown: the caller must read, or repeat a
    /// repeatable write.
    pub async fn commit(self) -> Result<(), RecordError> {
        Ok(self.0.commit().await?)
    }

    /// Rolls back and waits for it.
    pub async fn rollback(self) -> Result<(), RecordError> {
        Ok(self.0.rollback().await?)
    }

    /// The connection, for statements of the application and of the record.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}
