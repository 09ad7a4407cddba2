//! Whether the record can be worked with right now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use super::{Record, RecordError, Trouble};

/// How long one connection may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// A server without room counts as full for so long after it last said so. Then somebody must try
/// again: whoever is sent no jobs because of it would never learn that there is room.
const FULL_FOR: Duration = Duration::from_secs(10);
/// Alerts beyond it are not counted.
const ALERTS_MAX: i64 = 1000;

/// What the record looks like from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Why it takes no jobs, though it answers.
    pub trouble: Option<Trouble>,
    /// Alerts that no person has seen to.
    pub open_alerts: i64,
}

/// When a group commit met a server without room, unless one has succeeded since.
#[derive(Debug, Clone, Default)]
pub(super) struct Fullness(Arc<Mutex<Option<Instant>>>);

impl Fullness {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes on how a group commit went, and learns from it.
    pub(super) fn learn<T>(&self, written: Result<T, RecordError>) -> Result<T, RecordError> {
        match &written {
            Ok(_) => *self.lock() = None,
            Err(error) if error.trouble() == Some(Trouble::Full) => {
                *self.lock() = Some(Instant::now());
            }
            Err(_) => {}
        }
        written
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.lock().is_some_and(|seen| now - seen < FULL_FOR)
    }
}

/// How many connections of a pool are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    pub name: &'static str,
    pub idle: u32,
    pub busy: u32,
}

impl Record {
    /// The pools of this process: `shared`, and the `writers` of starts and outcomes.
    pub fn pools(&self) -> [PoolUse; 2] {
        [("shared", &self.pool), ("writers", &self.writers)].map(|(name, pool)| {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            PoolUse {
                name,
                idle,
                busy: pool.size().saturating_sub(idle),
            }
        })
    }

    /// Connects once, beside the pools, which only say that a connection took too long: this says
    /// why there is none.
    pub async fn probe(&self) -> Result<(), RecordError> {
        let connecting = PgConnection::connect_with(&self.connect);
        let connected = tokio::time::timeout(PROBE_TIMEOUT, connecting).await;
        let place = format!("{}:{}", self.connect.get_host(), self.connect.get_port());
        match connected {
            Ok(Ok(connection)) => Ok(connection.close().await?),
            Ok(Err(error)) => Err(match RecordError::from(error) {
                RecordError::Unavailable(trouble, why) => {
                    RecordError::Unavailable(trouble, format!("{place}: {why}"))
                }
                other => other,
            }),
            Err(_) => Err(RecordError::Unavailable(
                Trouble::Away,
                format!("{place}: no connection within {PROBE_TIMEOUT:?}"),
            )),
        }
    }

    /// One round trip, which writes nothing; an error means that the record is away.
    ///
    /// That a server has no room is known from the group commits of this process only.
    pub async fn look(&self) -> Result<Look, RecordError> {
        let (is_read_only, open_alerts): (bool, i64) = sqlx::query_as(
            "SELECT current_setting('transaction_read_only')::bool OR pg_is_in_recovery(),
               (SELECT count(*) FROM
                  (SELECT FROM bullwark.alerts WHERE resolved_at IS NULL LIMIT $1) AS open)",
        )
        .bind(ALERTS_MAX)
        .fetch_one(&self.pool)
        .await?;
        let trouble = match (is_read_only, self.fullness.is_recent(Instant::now())) {
            (true, _) => Some(Trouble::ReadOnly),
            (false, true) => Some(Trouble::Full),
            (false, false) => None,
        };
        Ok(Look {
            trouble,
            open_alerts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_record_is_full_until_it_took_something_or_should_be_tried_again() {
        let fullness = Fullness::default();
        let is_full = || fullness.is_recent(Instant::now());
        let error = |trouble| Err::<(), _>(RecordError::Unavailable(trouble, String::new()));
        assert!(fullness.learn(Ok(())).is_ok() && !is_full());
        assert!(fullness.learn(error(Trouble::Full)).is_err() && is_full());
        assert!(fullness.learn(error(Trouble::Away)).is_err() && is_full());
        assert!(fullness.learn(Ok(())).is_ok() && !is_full());

        assert!(fullness.learn(error(Trouble::Full)).is_err() && is_full());
        assert!(!fullness.is_recent(Instant::now() + FULL_FOR));
    }
}
