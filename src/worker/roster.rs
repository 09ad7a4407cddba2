//! Says of this worker what it is, again and again while it lives: see `record::roster`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Steering;
use crate::record::Record;
use crate::record::roster::{Announcement, announce, leave};

/// Between two times: several make up the time after which it counts as gone.
const ROUND: Duration = Duration::from_secs(15);
/// How long a word may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is said, and to whom.
pub(super) struct Roster {
    pub(super) record: Record,
    pub(super) steering: Steering,
    pub(super) announcement: Announcement,
}

impl Roster {
    /// Runs until `stop`, then says that the worker takes no more jobs.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let worker_id = self.announcement.worker_id.clone();
        loop {
            self.announcement.slots = i32::try_from(self.steering.size()).unwrap_or(i32::MAX);
            self.announcement.is_paused = self.steering.is_paused();
            // To its end, or its row could come after the one that takes it away.
            let said = tokio::time::timeout(PATIENCE, announce(&self.record, &self.announcement));
            match said.await {
                Ok(Ok(())) => {}
                failed => tracing::debug!(?failed, "the worker is not announced"),
            }
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                () = stop.cancelled() => break,
            }
        }
        let left = tokio::time::timeout(PATIENCE, leave(&self.record, &worker_id)).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::debug!(?left, "it counts as working for a while");
        }
    }
}
