//! I11: what must not grow does not. The last third of a run is held against the middle one, after
//! everything has warmed up in the first: levels by their medians, tables and indexes by their
//! bytes per job. A run that is too short for that is not judged.

use serde::Serialize;

use super::violations::{Law, Violations};
use super::watch::Sample;

/// Samples, one a second, below which nothing is judged.
const SAMPLES_MIN: usize = 300;
/// Jobs of a third below which nothing is said about bytes per job.
const JOBS_MIN: u64 = 50_000;
/// The last third may be so much above the middle one.
const RATIO_MAX: f64 = 1.2;
const MIB: f64 = 1024.0 * 1024.0;

/// Something that is measured, and how far above the ratio it may be besides.
#[derive(Clone, Copy)]
struct Measure {
    what: &'static str,
    value: fn(&Sample) -> f64,
    slack: f64,
}

/// What goes up and down with the open jobs and the faults.
const LEVELS: [Measure; 4] = [
    Measure {
        what: "bytes of memory of the server",
        value: |sample| sample.serve_rss_bytes as f64,
        slack: 32.0 * MIB,
    },
    Measure {
        what: "bytes of memory of the largest worker",
        value: |sample| sample.worker_rss_bytes as f64,
        slack: 32.0 * MIB,
    },
    Measure {
        what: "bytes of memory of Redis",
        value: |sample| sample.redis_bytes as f64,
        slack: 32.0 * MIB,
    },
    Measure {
        what: "entries of the event stream",
        value: |sample| sample.events as f64,
        slack: 5_000.0,
    },
];

/// What grows with the jobs, and only with them.
const PER_JOB: [Measure; 2] = [
    Measure {
        what: "bytes of tables and indexes per job",
        value: |sample| sample.tables_bytes as f64,
        slack: 128.0,
    },
    Measure {
        what: "bytes of indexes per job",
        value: |sample| sample.indexes_bytes as f64,
        slack: 64.0,
    },
];

/// One of them, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Growth {
    pub(super) what: &'static str,
    pub(super) middle: f64,
    pub(super) last: f64,
    /// The last third's bound.
    pub(super) most: f64,
}

/// All of them; none of a run that is too short.
pub(super) fn measure(samples: &[Sample]) -> Vec<Growth> {
    if samples.len() < SAMPLES_MIN {
        return Vec::new();
    }
    let third = samples.len() / 3;
    let (middle, last) = (&samples[third..2 * third], &samples[2 * third..]);
    let levels = LEVELS.iter().map(|measure| {
        let (middle, last) = (median(middle, measure.value), median(last, measure.value));
        Some(growth(*measure, middle, last))
    });
    let per_job = PER_JOB.iter().map(|measure| {
        let middle = per_job(middle, measure.value)?;
        Some(growth(*measure, middle, per_job(last, measure.value)?))
    });
    levels.chain(per_job).flatten().collect()
}

fn growth(measure: Measure, middle: f64, last: f64) -> Growth {
    Growth {
        what: measure.what,
        middle: middle.round(),
        last: last.round(),
        most: middle.max(0.0).mul_add(RATIO_MAX, measure.slack).round(),
    }
}

fn median(samples: &[Sample], value: fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn per_job(samples: &[Sample], value: fn(&Sample) -> f64) -> Option<f64> {
    let (first, last) = (samples.first()?, samples.last()?);
    let jobs = last.accepted.saturating_sub(first.accepted);
    (jobs >= JOBS_MIN).then(|| (value(last) - value(first)) / jobs as f64)
}

pub(super) fn check(growth: &[Growth], violations: &mut Violations) {
    for Growth {
        what,
        middle,
        last,
        most,
    } in growth
    {
        if last > most {
            let text = format!("{last} {what} in the last third, {middle} before; at most {most}");
            violations.add(Law::Bounded, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(samples: &[Sample]) -> Vec<String> {
        let mut violations = Violations::default();
        check(&measure(samples), &mut violations);
        let broken = violations.0.remove(&Law::Bounded).unwrap_or_default();
        broken.examples
    }

    /// A run of so many seconds in which nothing grows that must not.
    fn run(seconds: u32) -> Vec<Sample> {
        let sample = |n: u32| Sample {
            seconds: n.into(),
            accepted: u64::from(n) * 3_000,
            serve_rss_bytes: 60 << 20,
            worker_rss_bytes: 50 << 20,
            redis_bytes: 40 << 20,
            events: 10_000,
            tables_bytes: i64::from(n) * 3_000 * 1_200,
            indexes_bytes: i64::from(n) * 3_000 * 300,
            ..Sample::default()
        };
        (0..seconds).map(sample).collect()
    }

    #[test]
    fn a_run_that_grows_by_its_jobs_only_passes() {
        assert_eq!(measure(&run(600)).len(), LEVELS.len() + PER_JOB.len());
        assert!(found(&run(600)).is_empty());
        assert!(measure(&run(100)).is_empty(), "too short");
    }

    #[test]
    fn memory_streams_and_rows_that_grow_are_found() {
        type Spoil = fn(&mut Sample, u64);
        let spoils: [(Spoil, &str); 6] = [
            (
                |sample, n| sample.serve_rss_bytes += n << 19,
                "of the server",
            ),
            (
                |sample, n| sample.worker_rss_bytes += n << 19,
                "largest worker",
            ),
            (|sample, n| sample.redis_bytes += n << 19, "of Redis"),
            (|sample, n| sample.events += n * 60, "event stream"),
            (
                |sample, n| sample.tables_bytes += (n * n * 9_000) as i64,
                "tables",
            ),
            (
                |sample, n| sample.indexes_bytes += (n * n * 3_000) as i64,
                "bytes of indexes",
            ),
        ];
        for (spoil, what) in spoils {
            let mut samples = run(600);
            for (n, sample) in samples.iter_mut().enumerate() {
                spoil(sample, n as u64);
            }
            let found = found(&samples);
            assert_eq!(found.len(), 1, "{what}: {found:?}");
            assert!(found[0].contains(what), "{what}: {found:?}");
        }
    }
}
