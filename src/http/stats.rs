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
use crate::record::View;
use crate::record::access::Permission;
use crate::record::latencies::Quantiles;
use crate::record::list;
use crate::record::rollups::{self, Ended, Lately, Rollup};
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

async fn count_open(view: &mut View, workspace_id: Uuid) -> Result<Open, Problem> {
    let counts = stats::count_open(view, workspace_id).await?;
    let dead_letter = stats::count_dead(view, workspace_id).await?;
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
            throughput_per_minute: rounded(ended.completed as f64 / minutes, 4),
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

/// Sums of what ended, one per period.
struct Sums([Ended; 3]);

impl Sums {
    fn none() -> Self {
        Self(std::array::from_fn(|_| Ended::default()))
    }

    fn add(&mut self, now: DateTime<Utc>, rollup: &Rollup) {
        for ((_, since), sum) in periods(now).into_iter().zip(&mut self.0) {
            if rollup.at >= since {
                sum.add(&rollup.ended);
            }
        }
    }

    fn shown(&self, now: DateTime<Utc>) -> BTreeMap<&'static str, Period> {
        let periods = periods(now).into_iter().zip(&self.0);
        let period = |((name, since), sum)| (name, Period::new(since, now, sum));
        periods.map(period).collect()
    }
}

/// Sums of all, and by queue and type.
struct Figures<'a> {
    all: Sums,
    queues: BTreeMap<&'a str, Sums>,
    types: BTreeMap<&'a str, Sums>,
}

impl<'a> Figures<'a> {
    fn of(lately: &'a Lately) -> Self {
        let mut figures = Self {
            all: Sums::none(),
            queues: BTreeMap::new(),
            types: BTreeMap::new(),
        };
        for rollup in &lately.rollups {
            let queue = figures.queues.entry(&rollup.job_queue);
            queue.or_insert_with(Sums::none).add(lately.now, rollup);
            let job_type = figures.types.entry(&rollup.job_type);
            job_type.or_insert_with(Sums::none).add(lately.now, rollup);
            figures.all.add(lately.now, rollup);
        }
        figures
    }
}

async fn lately(view: &mut View, workspace_id: Uuid) -> Result<Lately, Problem> {
    let day = TimeDelta::hours(24);
    Ok(rollups::lately(view, workspace_id, day).await?)
}

/// For how many seconds there is work, at the rate of a period; none while nothing completes.
fn eta_seconds(
    depth: i64,
    completed: i64,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<f64> {
    let seconds = (now - since).num_milliseconds() as f64 / 1000.0;
    (completed > 0).then(|| (depth as f64 * seconds / completed as f64).ceil())
}

/// The specification's figures, and by period, queue and type.
pub(super) async fn stats(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Value>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let mut view = state.view(caller).await?;
    let open = count_open(&mut view, caller.workspace_id).await?;
    let lately = lately(&mut view, caller.workspace_id).await?;
    let now = lately.now;

    let figures = Figures::of(&lately);
    let all = figures.all.shown(now);
    let [(_, five_minutes_ago), ..] = periods(now);
    let [in_five_minutes, in_an_hour, _] = &figures.all.0;
    let completed = in_five_minutes.completed;
    let mut queues: BTreeMap<&str, Value> = BTreeMap::new();
    for (queue, depth) in &open.queues {
        queues.insert(queue, json!(depth));
    }
    for (queue, sums) in &figures.queues {
        let shown = queues
            .entry(queue)
            .or_insert_with(|| json!(Depth::default()));
        shown["periods"] = json!(sums.shown(now));
    }
    let types = figures.types.iter();
    let types: BTreeMap<&str, Value> = types
        .map(|(name, sums)| (*name, json!({ "periods": sums.shown(now) })))
        .collect();
    Ok(Json(json!({
        "queue_depth": open.all.depth,
        "processing": open.all.processing,
        "completed_last_hour": in_an_hour.completed,
        "failed_last_hour": in_an_hour.failed + in_an_hour.dead,
        "average_duration_ms": all.get("1h").and_then(|period| period.average_run_ms),
        "throughput_per_minute": all.get("1h").map(|period| period.throughput_per_minute),
        "drain_eta_seconds": eta_seconds(open.all.depth, completed, five_minutes_ago, now),
        "by_status": open.by_status,
        "is_exact": open.is_exact,
        "periods": all,
        "queues": queues,
        "types": types,
    })))
}

/// Minute by minute, also those in which nothing ended.
fn series(lately: &Lately) -> Vec<Value> {
    let now = lately.now;
    let this = now.duration_trunc(TimeDelta::minutes(1)).unwrap_or(now);
    let mut minutes: BTreeMap<DateTime<Utc>, Ended> = (0..SERIES_MINUTES)
        .map(|back| (this - TimeDelta::minutes(back), Ended::default()))
        .collect();
    for rollup in &lately.rollups {
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
    let mut view = state.view(caller).await?;
    let open = count_open(&mut view, caller.workspace_id).await?;
    let lately = lately(&mut view, caller.workspace_id).await?;
    let failures = list::recent_failures(&mut view, caller.workspace_id, FAILURES).await?;
    Ok(Json(json!({
        "queues": open.queues,
        "by_status": open.by_status,
        "is_exact": open.is_exact,
        "recent_failures": failures,
        "performance_metrics": {
            "periods": Figures::of(&lately).all.shown(lately.now),
            "minutes": series(&lately),
        },
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> DateTime<Utc> {
        time.parse().unwrap()
    }

    fn rollup(time: &str, completed: i64) -> Rollup {
        let ended = Ended {
            completed,
            run_ms: 100.0 * completed as f64,
            ..Ended::default()
        };
        Rollup {
            at: at(time),
            job_queue: "default".to_owned(),
            job_type: "noop".to_owned(),
            ended,
        }
    }

    fn lately() -> Lately {
        Lately {
            now: at("2026-03-02T12:34:30Z"),
            rollups: vec![
                rollup("2026-03-01T11:00:00Z", 1000), // an hour too early
                rollup("2026-03-01T12:00:00Z", 500),
                rollup("2026-03-02T11:33:00Z", 60), // a minute before the hour
                rollup("2026-03-02T11:34:00Z", 40),
                rollup("2026-03-02T12:28:00Z", 7), // before the five minutes
                rollup("2026-03-02T12:29:00Z", 4),
                rollup("2026-03-02T12:34:00Z", 1),
            ],
        }
    }

    #[test]
    fn periods_begin_with_whole_minutes_and_hours_and_end_now() {
        let lately = lately();
        let shown = Figures::of(&lately).all.shown(lately.now);
        let told = |name: &str| (shown[name].completed, shown[name].throughput_per_minute);
        assert_eq!(told("5m"), (5, 0.9091), "of 5.5 minutes");
        assert_eq!(told("1h"), (52, 0.8595), "of 60.5 minutes");
        assert_eq!(told("24h").0, 612);
        assert_eq!(shown["24h"].average_run_ms, Some(100.0));
        assert_eq!(shown["24h"].since, at("2026-03-01T12:00:00Z"));
    }

    #[test]
    fn the_last_hour_has_sixty_minutes_and_the_eta_is_that_of_the_rate() {
        let lately = lately();
        let minutes = series(&lately);
        let first = (&minutes[0]["at"], &minutes[0]["completed"]);
        assert_eq!(first, (&json!("2026-03-02T11:35:00Z"), &json!(0)));
        let last = (&minutes[59]["at"], &minutes[59]["completed"]);
        assert_eq!(last, (&json!("2026-03-02T12:34:00Z"), &json!(1)));
        let [(_, since), ..] = periods(lately.now);
        assert_eq!(eta_seconds(10, 5, since, lately.now), Some(660.0));
        assert_eq!(eta_seconds(10, 0, since, lately.now), None);
    }
}
