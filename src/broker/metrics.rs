//! How many jobs of a queue ended, per minute.

use super::job_data::signed;
use super::{Broker, BrokerError, FinishedState, LIST_MAX};
use crate::job::QueueName;

/// The metrics of a finished state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Jobs that ended since the metrics began.
    pub count: u64,
    /// When the newest point was written; 0: never.
    pub prev_ms: i64,
    /// `count` at that time.
    pub prev_count: u64,
    /// Jobs per minute, newest first.
    pub points: Vec<u64>,
    /// How many points there are.
    pub points_total: u64,
}

impl Broker {
    /// The metrics of a finished state with its points from `offset` on, newest first, at most
    /// [`LIST_MAX`] of them. Empty where no worker keeps metrics.
    pub async fn metrics(
        &self,
        queue: &QueueName,
        state: FinishedState,
        offset: usize,
        limit: usize,
    ) -> Result<Metrics, BrokerError> {
        let [hash, points] = self.keys(queue).metrics(state.name());
        let last = offset.saturating_add(limit.clamp(1, LIST_MAX) - 1);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline
            .cmd("HMGET")
            .arg(&hash)
            .arg("count")
            .arg("prevTS")
            .arg("prevCount");
        pipeline
            .cmd("LRANGE")
            .arg(&points)
            .arg(signed(offset))
            .arg(signed(last));
        pipeline.cmd("LLEN").arg(&points);
        type Answer = ((Option<u64>, Option<i64>, Option<u64>), Vec<u64>, u64);
        let ((count, prev_ms, prev_count), points, points_total): Answer =
            self.connections.pipeline("metrics", &pipeline).await?;
        Ok(Metrics {
            count: count.unwrap_or_default(),
            prev_ms: prev_ms.unwrap_or_default(),
            prev_count: prev_count.unwrap_or_default(),
            points,
            points_total,
        })
    }
}
