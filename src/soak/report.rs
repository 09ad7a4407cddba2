//! What a run was and what it found: as one object, and as a section for a document.

use std::fmt::Write;

use serde::Serialize;

use super::growth::Growth;
use super::tally::Tally;
use super::violations::{Law, Violations};
use super::watch::Sample;

/// The specification's bound for a worker.
const RSS_MAX: u64 = 500 * 1024 * 1024;
/// Entries of an event stream that are kept; trimming leaves some more.
const EVENTS_MAX: u64 = 20_000;
/// Finished jobs that Redis keeps, of both kinds.
const KEPT_MAX: u64 = 10_000;
/// Samples below which a slope says nothing.
const SAMPLES_MIN: usize = 20;
/// Parts of a run whose throughput is shown.
const PARTS: usize = 10;

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub(super) passed: bool,
    pub(super) seed: u64,
    pub(super) dir: String,
    pub(super) build: &'static str,
    /// How often the run began.
    pub(super) parts: u64,
    pub(super) seconds: f64,
    pub(super) workers: usize,
    pub(super) slots: usize,
    pub(super) tally: Tally,
    /// Calls that were sent again because nobody knew what became of them.
    pub(super) repeated_calls: u64,
    /// How often both workspaces were looked at through the API.
    pub(super) looks: u64,
    pub(super) effects: i64,
    pub(super) effects_doubled: usize,
    /// Jobs about which the stores disagreed at the end.
    pub(super) drift: u64,
    pub(super) slopes: Slopes,
    /// What must not grow, the last third of the run against the middle one.
    pub(super) growth: Vec<Growth>,
    /// Accepted jobs per second, in ten parts of the run.
    pub(super) throughput: Vec<f64>,
    pub(super) largest: Sample,
    pub(super) violations: Violations,
    /// The faults, when something was found: from..to in milliseconds, name, process.
    pub(super) history: Vec<String>,
}

/// Growth per hour, over the second half of the run. With few samples there is none.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Slopes {
    pub(super) rss_bytes: Option<f64>,
    pub(super) redis_bytes: Option<f64>,
    pub(super) events: Option<f64>,
    pub(super) jobs_dead_rows: Option<f64>,
    /// Bytes of all tables per accepted job.
    pub(super) table_bytes_per_job: Option<f64>,
}

impl Report {
    /// Whether every invariant held.
    pub fn passed(&self) -> bool {
        self.passed
    }

    /// A section of `docs/soak.md`.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| writeln!(text, "| {name} | {value} |").is_ok();
        let tally = &self.tally;
        let by_name = |counts: &std::collections::BTreeMap<String, u64>| {
            let parts: Vec<String> = counts.iter().map(|(n, c)| format!("{c} {n}")).collect();
            match parts.is_empty() {
                true => "none".to_owned(),
                false => parts.join(", "),
            }
        };
        row(
            "measured",
            format!("seed {}, {} build", self.seed, self.build),
        );
        row("---", "---".to_owned());
        row(
            "time",
            format!("{:.0} s in {} parts", self.seconds, self.parts),
        );
        row("jobs accepted", tally.accepted.to_string());
        let sides = tally.sides.iter().map(|(n, c)| ((*n).to_owned(), *c));
        row("beside them", by_name(&sides.collect()));
        row("runs", tally.starts.to_string());
        row("faults", by_name(&tally.faults));
        row("calls sent again", self.repeated_calls.to_string());
        row("lost", tally.lost.to_string());
        row(
            "effects in PostgreSQL, doubled",
            format!("{}, {}", self.effects, self.effects_doubled),
        );
        row(
            "effects outside, repeated",
            format!("{}, {}", tally.letters, tally.letters_repeated),
        );
        row("runs repeated, by reason", by_name(&tally.repeats));
        row("of these overlapping", tally.overlaps.to_string());
        row("starts with an old number", tally.old_numbers.to_string());
        row(
            "at most at once, in half a window",
            format!("{}, {}", tally.most_at_once, tally.most_starts),
        );
        row("looks at both workspaces", self.looks.to_string());
        row("stale attempts refused", tally.fenced.to_string());
        row("crash loops", tally.crash_loops.to_string());
        row("drift at the end", self.drift.to_string());
        row("jobs/s, in ten parts", format!("{:?}", self.throughput));
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1048576.0);
        row("largest process", mib(self.largest.rss_bytes));
        row("Redis at most", mib(self.largest.redis_bytes));
        row("events at most", self.largest.events.to_string());
        for growth in &self.growth {
            let (middle, last) = (growth.middle, growth.last);
            row(growth.what, format!("{middle}, then {last}"));
        }
        row(
            "violations",
            self.violations
                .0
                .values()
                .map(|b| b.count)
                .sum::<u64>()
                .to_string(),
        );
        text
    }
}

/// The largest value of each.
pub(super) fn largest(samples: &[Sample]) -> Sample {
    let mut most = Sample::default();
    for sample in samples {
        most.open = most.open.max(sample.open);
        most.accepted = most.accepted.max(sample.accepted);
        most.seconds = most.seconds.max(sample.seconds);
        most.rss_bytes = most.rss_bytes.max(sample.rss_bytes);
        most.serve_rss_bytes = most.serve_rss_bytes.max(sample.serve_rss_bytes);
        most.worker_rss_bytes = most.worker_rss_bytes.max(sample.worker_rss_bytes);
        most.redis_bytes = most.redis_bytes.max(sample.redis_bytes);
        most.events = most.events.max(sample.events);
        most.kept = most.kept.max(sample.kept);
        most.jobs_bytes = most.jobs_bytes.max(sample.jobs_bytes);
        most.jobs_dead_rows = most.jobs_dead_rows.max(sample.jobs_dead_rows);
        most.tables_bytes = most.tables_bytes.max(sample.tables_bytes);
        most.indexes_bytes = most.indexes_bytes.max(sample.indexes_bytes);
    }
    most
}

/// What has a bound by itself must stay below it (I11).
pub(super) fn check_bounds(largest: &Sample, violations: &mut Violations) {
    for (what, is, most) in [
        ("bytes of memory of a process", largest.rss_bytes, RSS_MAX),
        ("entries of the event stream", largest.events, EVENTS_MAX),
        ("finished jobs in Redis", largest.kept, KEPT_MAX),
    ] {
        if is > most {
            violations.add(Law::Bounded, format!("{is} {what}, at most {most}"));
        }
    }
}

pub(super) fn slopes(samples: &[Sample]) -> Slopes {
    let half = &samples[samples.len() / 2..];
    let per_hour = |value: fn(&Sample) -> f64| slope(half, |s| s.seconds / 3600.0, value);
    Slopes {
        rss_bytes: per_hour(|s| s.rss_bytes as f64),
        redis_bytes: per_hour(|s| s.redis_bytes as f64),
        events: per_hour(|s| s.events as f64),
        jobs_dead_rows: per_hour(|s| s.jobs_dead_rows as f64),
        table_bytes_per_job: slope(half, |s| s.accepted as f64, |s| s.tables_bytes as f64),
    }
}

/// The line of least squares.
fn slope(
    samples: &[Sample],
    x: impl Fn(&Sample) -> f64,
    y: impl Fn(&Sample) -> f64,
) -> Option<f64> {
    if samples.len() < SAMPLES_MIN {
        return None;
    }
    let count = samples.len() as f64;
    let mean_x = samples.iter().map(&x).sum::<f64>() / count;
    let mean_y = samples.iter().map(&y).sum::<f64>() / count;
    let (mut both, mut square) = (0.0, 0.0);
    for sample in samples {
        let from_mean = x(sample) - mean_x;
        both += from_mean * (y(sample) - mean_y);
        square += from_mean * from_mean;
    }
    (square > 0.0).then(|| (both / square * 100.0).round() / 100.0)
}

pub(super) fn throughput(samples: &[Sample]) -> Vec<f64> {
    let size = samples.len().div_ceil(PARTS).max(2);
    samples
        .chunks(size)
        .filter_map(|part| {
            let (first, last) = (part.first()?, part.last()?);
            let seconds = last.seconds - first.seconds;
            let jobs = last.accepted.saturating_sub(first.accepted);
            (seconds > 0.0).then(|| (jobs as f64 / seconds).round())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_measured_and_bounds_are_kept() {
        let samples: Vec<Sample> = (0..100)
            .map(|n| Sample {
                seconds: f64::from(n),
                accepted: n as u64 * 10,
                rss_bytes: 1_000 + n as u64,
                tables_bytes: i64::from(n) * 2_000,
                ..Sample::default()
            })
            .collect();
        let slopes = slopes(&samples);
        assert_eq!(slopes.rss_bytes, Some(3_600.0));
        assert_eq!(slopes.redis_bytes, Some(0.0));
        assert_eq!(slopes.table_bytes_per_job, Some(200.0));
        assert_eq!(throughput(&samples), [10.0; 10]);
        assert!(super::slopes(&samples[..4]).rss_bytes.is_none());

        let mut violations = Violations::default();
        check_bounds(&largest(&samples), &mut violations);
        assert!(violations.is_empty());
        let huge = Sample {
            rss_bytes: RSS_MAX + 1,
            events: EVENTS_MAX + 1,
            ..Sample::default()
        };
        check_bounds(&huge, &mut violations);
        assert_eq!(violations.count(Law::Bounded), 2);
    }
}
