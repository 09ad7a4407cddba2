//! Which server answers: another one may lack what the last one had.
//!
//! Each new connection is asked who it leads to. A pool that grows, as it does when the record gets
//! slow, is no reason to look at everything again; a restart, a failover, a promotion and a
//! database that was made anew are. A database that is put back in place, table by table, on a
//! server that goes on is not noticed here; the growing mark tells of it ([`super::mark`]).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::{RecordError, Trouble};

/// The start of the server, so every restart and every failover makes another one; whether it is a
/// standby, for its promotion ends no connection; and the database, which may be dropped and made
/// anew while the server goes on.
const IDENTITY: &str = "SELECT concat_ws('/', extract(epoch FROM pg_postmaster_start_time()),
  pg_is_in_recovery(), (SELECT oid FROM pg_database WHERE datname = current_database()))";

/// Counts how often another server answered. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(super) struct Answering(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    last: Mutex<Option<Last>>,
    changes: AtomicU64,
    checked: AtomicU64,
    is_awaited: AtomicBool,
}

#[derive(Debug)]
struct Last {
    identity: String,
    since: Instant,
}

impl Answering {
    /// Asks a new connection.
    pub(super) async fn ask(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let identity = sqlx::query_scalar(IDENTITY).fetch_one(connection).await?;
        self.heard(identity);
        Ok(())
    }

    fn heard(&self, identity: String) {
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|last| last.identity != identity) {
            let since = Instant::now();
            *last = Some(Last { identity, since });
            self.0.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a connection of this age was made before the server that answers now did. It may
    /// lead to the one before, which is not the one to be looked at, let alone to be written to.
    pub(super) fn is_outdated(&self, age: Duration) -> bool {
        let last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().is_some_and(|last| last.since.elapsed() < age)
    }

    /// How many changes there were; 0: nobody has answered yet.
    pub(super) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Relaxed)
    }

    /// The number of the last change, if it was not looked at yet.
    pub(super) fn unchecked(&self) -> Option<u64> {
        let changes = self.changes();
        (changes != self.0.checked.load(Ordering::Relaxed)).then_some(changes)
    }

    /// Never takes back what a later look has seen.
    pub(super) fn set_checked(&self, change: u64) {
        self.0.checked.fetch_max(change, Ordering::Relaxed);
        self.await_check();
    }

    /// Somebody looks here at every server that answers. Where nobody does, any may be written to.
    pub(super) fn await_check(&self) {
        self.0.is_awaited.store(true, Ordering::Relaxed);
    }

    /// An error when a connection may lead to a server that nobody has looked at; for the look
    /// itself, when it may lead to another one than that of this change. Holds for every connection
    /// that was acquired before: it was asked when it was made.
    pub(super) fn check(&self, looked_at: Option<u64>) -> Result<(), RecordError> {
        let is_another = match looked_at {
            Some(change) => change != self.changes(),
            None => self.0.is_awaited.load(Ordering::Relaxed) && self.unchecked().is_some(),
        };
        match is_another {
            true => Err(RecordError::Unavailable(
                Trouble::Comparing,
                "another server answers, and was not compared with Redis yet".to_owned(),
            )),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_server_is_a_change_and_each_one_is_looked_at() {
        let answering = Answering::default();
        assert_eq!(answering.unchecked(), None);
        for _ in 0..3 {
            answering.heard("1/f/5".into());
        }
        assert_eq!(answering.unchecked(), Some(1));
        // It changes to and fro while somebody looks.
        answering.heard("2/f/5".into());
        answering.heard("1/f/5".into());
        assert!(answering.check(None).is_ok(), "nobody compares");
        answering.set_checked(1);
        assert!(answering.check(None).is_err());
        assert!(answering.check(Some(1)).is_err(), "it looks at another one");
        assert!(answering.check(Some(3)).is_ok());
        assert_eq!(answering.unchecked(), Some(3));
        answering.set_checked(3);
        answering.heard("1/f/5".into());
        assert_eq!(answering.unchecked(), None);
        assert!(answering.check(None).is_ok());
        answering.set_checked(2);
        assert_eq!(answering.unchecked(), None, "not taken back");
        assert!(answering.is_outdated(Duration::from_secs(60)));
        assert!(!answering.is_outdated(Duration::ZERO));
    }
}
