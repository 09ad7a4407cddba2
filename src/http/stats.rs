//! `GET /api/jobs/stats` and `GET /api/jobs/dashboard`: how much there is to do, and how it goes.
//!
//! Open jobs are counted in the record: Redis does not tell workspaces apart, and may be away. What
//! ended is read from sums that are kept as jobs end, so neither costs more with a longer history.

use std::collections::BTreeMap;

use axum::{Json, extract};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use uuid::Uuid;

use super::auth::Caller;
use super::figures::{
    Dashboard, Depth, Minute, OfQueue, OfType, Performance, Period, Periods, Shown,
};
use super::problem::Problem;
use super::state::State;
use crate::record::View;
use crate::record::access::Permission;
use crate::record::list;
use crate::record::rollups::{self, Ended, Lately, Rollup};
use crate::record::stats::{self, OPEN_MAX};

/// Failures that the dashboard shows.
const FAILURES: i64 = 20;
/// Minutes that the dashboard shows one by one.
const SERIES_MINUTES: i64 = 60;

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

    fn shown(&self, now: DateTime<Utc>) -> Periods {
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

/// Show figures
///
/// What is open, and what ended in the last five minutes, hour and day; of all, by queue and by
/// type.
#[utoipa::path(get, path = "/api/jobs/stats", operation_id = "getStats", tag = "figures",
    responses((status = 200, description = "Figures of the workspace", body = Shown)))]
pub(super) async fn stats(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Shown>, Problem> {
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
    let mut queues: BTreeMap<String, OfQueue> = BTreeMap::new();
    for (queue, Depth { depth, processing }) in open.queues {
        let periods = None;
        let of_queue = OfQueue {
            depth,
            processing,
            periods,
        };
        queues.insert(queue, of_queue);
    }
    for (queue, sums) in &figures.queues {
        let of_queue = queues.entry((*queue).to_owned()).or_default();
        of_queue.periods = Some(sums.shown(now));
    }
    let types = figures.types.iter().map(|(name, sums)| {
        let periods = sums.shown(now);
        ((*name).to_owned(), OfType { periods })
    });
    Ok(Json(Shown {
        queue_depth: open.all.depth,
        processing: open.all.processing,
        completed_last_hour: in_an_hour.completed,
        failed_last_hour: in_an_hour.failed + in_an_hour.dead,
        average_duration_ms: all.get("1h").and_then(|period| period.average_run_ms),
        throughput_per_minute: all.get("1h").map(|period| period.throughput_per_minute),
        drain_eta_seconds: eta_seconds(open.all.depth, completed, five_minutes_ago, now),
        by_status: open.by_status,
        is_exact: open.is_exact,
        periods: all,
        queues,
        types: types.collect(),
    }))
}

/// Minute by minute, also those in which nothing ended.
fn series(lately: &Lately) -> Vec<Minute> {
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
    let point = |(at, ended): (DateTime<Utc>, Ended)| Minute {
        at,
        completed: ended.completed,
        failed: ended.failed,
        dead_letter: ended.dead,
        cancelled: ended.cancelled,
        run_ms: ended.runs.quantiles(),
        wait_ms: ended.waits.quantiles(),
    };
    minutes.into_iter().map(point).collect()
}

/// Show a dashboard's figures
///
/// What is open, the last failures, and the last hour minute by minute.
#[utoipa::path(get, path = "/api/jobs/dashboard", operation_id = "getDashboard", tag = "figures",
    responses((status = 200, description = "Figures of the workspace", body = Dashboard)))]
pub(super) async fn dashboard(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<Dashboard>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let mut view = state.view(caller).await?;
    let open = count_open(&mut view, caller.workspace_id).await?;
    let lately = lately(&mut view, caller.workspace_id).await?;
    let mut failures = list::recent_failures(&mut view, caller.workspace_id, FAILURES).await?;
    let progress = failures.iter_mut().filter_map(|job| job.progress.as_mut());
    progress.for_each(|progress| state.redaction.show_part(caller, progress));
    Ok(Json(Dashboard {
        queues: open.queues,
        by_status: open.by_status,
        is_exact: open.is_exact,
        recent_failures: failures,
        performance_metrics: Performance {
            periods: Figures::of(&lately).all.shown(lately.now),
            minutes: series(&lately),
        },
    }))
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
        let first = (minutes[0].at, minutes[0].completed);
        assert_eq!(first, (at("2026-03-02T11:35:00Z"), 0));
        let last = (minutes[59].at, minutes[59].completed);
        assert_eq!(last, (at("2026-03-02T12:34:00Z"), 1));
        let [(_, since), ..] = periods(lately.now);
        assert_eq!(eta_seconds(10, 5, since, lately.now), Some(660.0));
        assert_eq!(eta_seconds(10, 0, since, lately.now), None);
    }
}
