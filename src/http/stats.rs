//! `GET /api/jobs/stats` and `GET /api/jobs/dashboard`: how much there is to do, and how it goes.
//!
//! Open jobs are counted in the record: Redis does not tell workspaces apart, and may be away. What
//! ended is read from sums that are kept as jobs end, so neither costs more with a longer history.

use std::collections::BTreeMap;

use axum::{Json, extract};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::Caller;
use super::problem::Problem;
use super::state::State;
use crate::clock;
use crate::record::access::Permission;
use crate::record::latencies::Quantiles;
use crate::record::list;
use crate::record::rollups::{self, Ended, Rollup};
use crate::record::stats::{self, OPEN_MAX};

/// Failures that the dashboard shows.
const FAILURES: i64 = 20;
/// Minutes that the dashboard shows one by one.
const SERIES_MINUTES: i64 = 60;

/// Jobs of a queue, or of all.
#[derive(Debug, Default, Serialize)]
struct Depth {
    /// Waiting to run: new, delayed, or between two attempts.
    depth: i64,
    processing: i64,
}

struct Open {
    queues: BTreeMap<String, Depth>,
    by_status: BTreeMap<String, i64>,
    all: Depth,
    is_exact: bool,
}

async fn count_open(state: &State, workspace_id: Uuid) -> Result<Open, Problem> {
    let record = &state.services.record;
    let counts = stats::count_open(record, workspace_id).await?;
    let dead_letter = stats::count_dead(record, workspace_id).await?;
    let mut queues: BTreeMap<String, Depth> = BTreeMap::new();
    let mut by_status: BTreeMap<String, i64> = BTreeMap::new();
    let mut all = Depth::default();
    for count in counts {
        let queue = queues.entry(count.job_queue).or_default();
        for depth in [queue, &mut all] {
            match count.status.as_str() {
                "processing" => depth.processing += count.jobs,
                _ => depth.depth += count.jobs,
            }
        }
        *by_status.entry(count.status).or_default() += count.jobs;
    }
    by_status.insert("dead_letter".to_owned(), dead_letter);
    let is_exact = all.depth + all.processing < OPEN_MAX && dead_letter < OPEN_MAX;
    Ok(Open {
        queues,
        by_status,
        all,
        is_exact,
    })
}

/// What ended in a period, as people read it.
#[derive(Debug, Serialize)]
struct Period {
    /// Its beginning. It ends now.
    since: DateTime<Utc>,
    completed: i64,
    /// Attempts that failed, after which others follow.
    failed: i64,
    dead_letter: i64,
    cancelled: i64,
    throughput_per_minute: f64,
    /// Of all attempts that ended; none of none.
    success_rate: Option<f64>,
    average_run_ms: Option<f64>,
    run_ms: Option<Quantiles>,
    /// Of first attempts, from when they could have started.
    wait_ms: Option<Quantiles>,
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

impl Period {
    fn new(since: DateTime<Utc>, now: DateTime<Utc>, ended: &Ended) -> Self {
        let minutes = ((now - since).num_milliseconds() as f64 / 60_000.0).max(0.1);
        let attempts = (ended.completed + ended.failed + ended.dead) as f64;
        Self {
            since,
            completed: ended.completed,
            failed: ended.failed,
            dead_letter: ended.dead,
            cancelled: ended.cancelled,
            throughput_per_minute: rounded(ended.completed as f64 / minutes, 1),
            success_rate: (attempts > 0.0).then(|| rounded(ended.completed as f64 / attempts, 4)),
            average_run_ms: (attempts > 0.0).then(|| rounded(ended.run_ms / attempts, 1)),
            run_ms: ended.runs.quantiles(),
            wait_ms: ended.waits.quantiles(),
        }
    }
}

/// The periods, by name, with their beginnings: whole minutes, and for the day whole hours.
fn periods(now: DateTime<Utc>) -> [(&'static str, DateTime<Utc>); 3] {
    let whole = |back: TimeDelta, step: TimeDelta| (now - back).duration_trunc(step).unwrap_or(now);
    let minute = TimeDelta::minutes(1);
    [
        ("5m", whole(TimeDelta::minutes(5), minute)),
        ("1h", whole(TimeDelta::minutes(60), minute)),
        ("24h", whole(TimeDelta::hours(24), TimeDelta::hours(1))),
    ]
}

/// What ended by period, of those that are wanted.
fn by_period<'a>(
    now: DateTime<Utc>,
    rollups: impl Iterator<Item = &'a Rollup>,
) -> BTreeMap<&'static str, Period> {
    let mut sums = periods(now).map(|(name, since)| (name, since, Ended::default()));
    for rollup in rollups {
        for (_, since, sum) in &mut sums {
            if rollup.at >= *since {
                sum.add(&rollup.ended);
            }
        }
    }
    let period = |(name, since, sum)| (name, Period::new(since, now, &sum));
    sums.into_iter().map(period).collect()
}

async fn ended(
    state: &State,
    workspace_id: Uuid,
    now: DateTime<Utc>,
) -> Result<Vec<Rollup>, Problem> {
    let [.., (_, since)] = periods(now);
    Ok(rollups::since(&state.services.record, workspace_id, since).await?)
}

/// The specification's figures, and by period, queue and type.
pub(super) async fn stats(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Value>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let _turn = state.read_turn().await?;
    let now = clock::now();
    let open = count_open(&state, caller.workspace_id).await?;
    let ended = ended(&state, caller.workspace_id, now).await?;

    let all = by_period(now, ended.iter());
    let of = |name: &str| {
        all.get(name).map_or((0, 0, 0.0), |period| {
            let failed = period.failed + period.dead_letter;
            (period.completed, failed, period.throughput_per_minute)
        })
    };
    let (completed, failed, per_minute) = of("1h");
    let (.., lately) = of("5m");
    let eta = (lately > 0.0).then(|| (open.all.depth as f64 / lately * 60.0).ceil());
    let mut queues: BTreeMap<&str, Value> = BTreeMap::new();
    for (queue, depth) in &open.queues {
        queues.insert(queue, json!(depth));
    }
    for rollup in &ended {
        let none = || json!(Depth::default());
        let queue = queues.entry(&rollup.job_queue).or_insert_with(none);
        if queue.get("periods").is_none() {
            let of_queue = ended.iter().filter(|r| r.job_queue == rollup.job_queue);
            queue["periods"] = json!(by_period(now, of_queue));
        }
    }
    let mut types: BTreeMap<&str, Value> = BTreeMap::new();
    for rollup in &ended {
        types.entry(&rollup.job_type).or_insert_with(|| {
            let of_type = ended.iter().filter(|r| r.job_type == rollup.job_type);
            json!({ "periods": by_period(now, of_type) })
        });
    }
    Ok(Json(json!({
        "queue_depth": open.all.depth,
        "processing": open.all.processing,
        "completed_last_hour": completed,
        "failed_last_hour": failed,
        "average_duration_ms": all.get("1h").and_then(|period| period.average_run_ms),
        "throughput_per_minute": per_minute,
        "drain_eta_seconds": eta,
        "by_status": open.by_status,
        "is_exact": open.is_exact,
        "periods": all,
        "queues": queues,
        "types": types,
    })))
}

/// Minute by minute, also those in which nothing ended.
fn series(now: DateTime<Utc>, ended: &[Rollup]) -> Vec<Value> {
    let this = now.duration_trunc(TimeDelta::minutes(1)).unwrap_or(now);
    let mut minutes: BTreeMap<DateTime<Utc>, Ended> = (0..SERIES_MINUTES)
        .map(|back| (this - TimeDelta::minutes(back), Ended::default()))
        .collect();
    for rollup in ended {
        if let Some(minute) = minutes.get_mut(&rollup.at) {
            minute.add(&rollup.ended);
        }
    }
    let point = |(at, ended): (DateTime<Utc>, Ended)| {
        json!({
            "at": at,
            "completed": ended.completed,
            "failed": ended.failed,
            "dead_letter": ended.dead,
            "cancelled": ended.cancelled,
            "run_ms": ended.runs.quantiles(),
            "wait_ms": ended.waits.quantiles(),
        })
    };
    minutes.into_iter().map(point).collect()
}

/// What a dashboard shows at first sight.
pub(super) async fn dashboard(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Value>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let _turn = state.read_turn().await?;
    let now = clock::now();
    let open = count_open(&state, caller.workspace_id).await?;
    let ended = ended(&state, caller.workspace_id, now).await?;
    let record = &state.services.record;
    let failures = list::recent_failures(record, caller.workspace_id, FAILURES).await?;
    Ok(Json(json!({
        "queues": open.queues,
        "by_status": open.by_status,
        "is_exact": open.is_exact,
        "recent_failures": failures,
        "performance_metrics": {
            "periods": by_period(now, ended.iter()),
            "minutes": series(now, &ended),
        },
    })))
}
