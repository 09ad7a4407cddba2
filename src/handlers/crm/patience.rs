//! Permits for the calls of an attempt.
//!
//! An attempt that has begun to call waits a little for its next permit: were it to come back, the
//! step under way would begin anew, and one with more calls than a window has (a batch that is cut
//! in halves, a long list that is searched in groups) would never come to its end. One that has not
//! called yet comes back, and holds no slot meanwhile; so does one that would wait for long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::client::CrmError;
use crate::job::JobError;
use crate::quota::{Ask, Permit};
use crate::worker::JobContext;

/// The longest wait in place: a rolling window of ten seconds, and a little.
const WAIT_MAX: Duration = Duration::from_secs(12);
/// All waits of an attempt.
const WAITS_MAX: Duration = Duration::from_secs(10 * 60);

/// What an attempt may still wait; it has none before its first call.
#[derive(Debug, Default)]
pub(super) struct Patience {
    left_ms: AtomicU64,
    calls: AtomicU64,
}

impl Patience {
    pub(super) async fn permit(&self, ctx: &JobContext, ask: Ask<'_>) -> Result<Permit, CrmError> {
        loop {
            let (wait, why) = match ctx.permit(ask.clone()).await {
                Ok(permit) => {
                    if self.calls.fetch_add(1, Ordering::Relaxed) == 0 {
                        let left_ms = WAITS_MAX.as_millis() as u64;
                        self.left_ms.store(left_ms, Ordering::Relaxed);
                    }
                    return Ok(permit);
                }
                Err(JobError::Snooze(wait, why)) => (wait, why),
                Err(error) => return Err(error.into()),
            };
            let wait_ms = wait.as_millis() as u64 + 1;
            let left_ms = self.left_ms.load(Ordering::Relaxed);
            if wait > WAIT_MAX || wait_ms > left_ms {
                return Err(JobError::Snooze(wait, why).into());
            }
            self.left_ms.store(left_ms - wait_ms, Ordering::Relaxed);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = ctx.cancelled().cancelled() => {
                    return Err(JobError::Snooze(wait, why).into());
                }
            }
        }
    }
}
