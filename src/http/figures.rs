//! What figures look like: those of `GET /api/jobs/stats` and of `GET /api/jobs/dashboard`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::record::latencies::Quantiles;
use crate::record::list::JobHead;
use crate::record::rollups::Ended;

/// Jobs of a queue, or of all.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Depth {
    /// Waiting to run: new, delayed, or between two attempts.
    pub(super) depth: i64,
    pub(super) processing: i64,
}

/// What ended in a period, as people read it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Period {
    /// Its beginning. It ends now.
    pub(super) since: DateTime<Utc>,
    pub(super) completed: i64,
    /// Attempts that failed, after which others follow.
    pub(super) failed: i64,
    pub(super) dead_letter: i64,
    pub(super) cancelled: i64,
    pub(super) throughput_per_minute: f64,
    /// Of all attempts that ended; none of none.
    pub(super) success_rate: Option<f64>,
    pub(super) average_run_ms: Option<f64>,
    pub(super) run_ms: Option<Quantiles>,
    /// Of first attempts, from when they could have started.
    pub(super) wait_ms: Option<Quantiles>,
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

impl Period {
    pub(super) fn new(since: DateTime<Utc>, now: DateTime<Utc>, ended: &Ended) -> Self {
        let minutes = ((now - since).num_milliseconds() as f64 / 60_000.0).max(0.1);
        let attempts = (ended.completed + ended.failed + ended.dead) as f64;
        Self {
            since,
            completed: ended.completed,
            failed: ended.failed,
            dead_letter: ended.dead,
            cancelled: ended.cancelled,
            throughput_per_minute: rounded(ended.completed as f64 / minutes, 4),
            success_rate: (attempts > 0.0).then(|| rounded(ended.completed as f64 / attempts, 4)),
            average_run_ms: (attempts > 0.0).then(|| rounded(ended.run_ms / attempts, 1)),
            run_ms: ended.runs.quantiles(),
            wait_ms: ended.waits.quantiles(),
        }
    }
}

/// The periods by name: `5m`, `1h` and `24h`.
pub(super) type Periods = BTreeMap<&'static str, Period>;

/// How much there is to do, and how it goes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stats)]
pub(super) struct Shown {
    /// Jobs that wait to run: new, delayed, or between two attempts.
    pub(super) queue_depth: i64,
    pub(super) processing: i64,
    pub(super) completed_last_hour: i64,
    pub(super) failed_last_hour: i64,
    pub(super) average_duration_ms: Option<f64>,
    pub(super) throughput_per_minute: Option<f64>,
    /// For how long there is work at the present rate; none while nothing completes.
    pub(super) drain_eta_seconds: Option<f64>,
    pub(super) by_status: BTreeMap<String, i64>,
    /// Otherwise there are so many open jobs that not all were counted.
    pub(super) is_exact: bool,
    #[schema(value_type = BTreeMap<String, Period>)]
    pub(super) periods: Periods,
    pub(super) queues: BTreeMap<String, OfQueue>,
    pub(super) types: BTreeMap<String, OfType>,
}

/// A queue: what is open in it, and what ended.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = QueueStats)]
pub(super) struct OfQueue {
    /// Waiting to run: new, delayed, or between two attempts.
    pub(super) depth: i64,
    pub(super) processing: i64,
    /// Only if something ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Period>>, nullable = false)]
    pub(super) periods: Option<Periods>,
}

/// What ended of a type.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TypeStats)]
pub(super) struct OfType {
    #[schema(value_type = BTreeMap<String, Period>)]
    pub(super) periods: Periods,
}

/// What ended in a minute.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Minute {
    /// Its beginning.
    pub(super) at: DateTime<Utc>,
    pub(super) completed: i64,
    /// Attempts that failed, after which others follow.
    pub(super) failed: i64,
    pub(super) dead_letter: i64,
    pub(super) cancelled: i64,
    pub(super) run_ms: Option<Quantiles>,
    pub(super) wait_ms: Option<Quantiles>,
}

/// What a dashboard shows at first sight.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Dashboard {
    pub(super) queues: BTreeMap<String, Depth>,
    pub(super) by_status: BTreeMap<String, i64>,
    /// Otherwise there are so many open jobs that not all were counted.
    pub(super) is_exact: bool,
    /// The last jobs that failed, newest first.
    #[schema(max_items = 20)]
    pub(super) recent_failures: Vec<JobHead>,
    pub(super) performance_metrics: Performance,
}

/// How it went.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Performance {
    #[schema(value_type = BTreeMap<String, Period>)]
    pub(super) periods: Periods,
    /// The last hour, minute by minute.
    #[schema(min_items = 60, max_items = 60)]
    pub(super) minutes: Vec<Minute>,
}
