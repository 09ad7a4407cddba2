//! The server's clock, as far as this process knows it without asking again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Broker, BrokerError};

/// After so long it is asked again: clocks drift, and after a failover another one counts.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// What the server said, and when the answer came.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerClock(Arc<Mutex<Option<(Instant, i64)>>>);

impl Broker {
    /// What the server's clock showed at that moment of this process. Never too late, and too early
    /// by no more than an answer took: so a deadline that is reckoned from it comes early.
    pub async fn server_ms_at(&self, moment: Instant) -> Result<i64, BrokerError> {
        let known = self.known().filter(|(at, _)| at.elapsed() < GOOD_FOR);
        let (at, ms) = match known {
            Some(known) => known,
            None => {
                let ms = self.now_ms().await?;
                let fresh = (Instant::now(), ms);
                *self.lock() = Some(fresh);
                fresh
            }
        };
        let since = moment.saturating_duration_since(at).as_millis() as i64;
        let before = at
            .saturating_duration_since(moment)
            .as_micros()
            .div_ceil(1000) as i64;
        Ok(ms + since - before)
    }

    fn known(&self) -> Option<(Instant, i64)> {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, i64)>> {
        self.server_clock
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
