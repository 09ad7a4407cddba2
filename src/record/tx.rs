//! A transaction on the record.

use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use super::{RecordError, Trouble};

/// A transaction; dropping it rolls back.
#[derive(Debug)]
pub struct Tx(Transaction<'static, Postgres>);

impl Tx {
    /// Begins a transaction that may do everything.
    pub(super) async fn begin(pool: PgPool) -> Result<Self, RecordError> {
        Self::begin_with(pool, "BEGIN").await
    }

    /// `BEGIN` runs in a task of its own: a caller that is dropped in the middle (a closed HTTP
    /// connection, a timeout) would otherwise leave a connection with an open transaction in the
    /// pool, and the next borrower would run inside it (sqlx issue 4385, not yet released).
    ///
    /// A server that ended takes the pooled connections with it. Nothing is lost with a `BEGIN`, so
    /// it is sent again over the next one, until none of them is left that was there before.
    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself; must outlive its caller"
    )]
    pub(super) async fn begin_with(
        pool: PgPool,
        statement: &'static str,
    ) -> Result<Self, RecordError> {
        let begun = tokio::spawn(async move {
            let mut tries = 1;
            loop {
                let error = match pool.begin_with(statement).await {
                    Ok(transaction) => return Ok(transaction),
                    Err(error) => RecordError::from(error),
                };
                if error.trouble() != Some(Trouble::Lost) || tries > pool.size() {
                    return Err(error);
                }
                tries += 1;
            }
        });
        match begun.await {
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

    /// Whether the transaction of this number, which is over, was committed.
    pub(crate) async fn has_committed(&mut self, number: &str) -> Result<bool, RecordError> {
        let status: Option<String> = sqlx::query_scalar("SELECT pg_xact_status($1::text::xid8)")
            .bind(number)
            .fetch_one(self.connection())
            .await?;
        Ok(status.as_deref() == Some("committed"))
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
