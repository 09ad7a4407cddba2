//! Times as counts per bucket: small, exact to add up, and within a fifth of the truth to read.
//!
//! Four buckets to an octave, as `bullwark.latency_bucket` has them: bucket b holds the whole
//! milliseconds from 2^(b/4) - 1 to below 2^((b+1)/4) - 1.

use serde::Serialize;

/// Buckets to a doubling.
const PER_OCTAVE: f64 = 4.0;

/// Counts per bucket, from the first one on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latencies(Vec<i64>);

/// What people read of latencies, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Quantiles {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

impl Latencies {
    pub fn new(counts: Vec<i64>) -> Self {
        Self(counts)
    }

    pub fn counts(&self) -> &[i64] {
        &self.0
    }

    /// Counts one more in each of these buckets.
    pub fn count(&mut self, buckets: &[i16]) {
        for bucket in buckets {
            let at = usize::try_from(*bucket).unwrap_or_default();
            self.reach(at + 1);
            self.0[at] += 1;
        }
    }

    pub fn add(&mut self, others: &[i64]) {
        self.reach(others.len());
        for (sum, other) in self.0.iter_mut().zip(others) {
            *sum += other;
        }
    }

    fn reach(&mut self, buckets: usize) {
        if self.0.len() < buckets {
            self.0.resize(buckets, 0);
        }
    }

    /// None of none.
    pub fn quantiles(&self) -> Option<Quantiles> {
        let all: i64 = self.0.iter().sum();
        (all > 0).then(|| Quantiles {
            p50: self.quantile(all, 0.5),
            p95: self.quantile(all, 0.95),
            p99: self.quantile(all, 0.99),
        })
    }

    /// The time that so large a part of all did not exceed: spread evenly within its bucket.
    fn quantile(&self, all: i64, part: f64) -> f64 {
        let wanted = all as f64 * part;
        let mut below = 0.0;
        for (bucket, count) in self.0.iter().enumerate() {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                let (from, to) = (begin(bucket), begin(bucket + 1));
                let ms = from + (to - from) * (wanted - below) / count;
                return (ms * 10.0).round() / 10.0;
            }
            below += count;
        }
        begin(self.0.len())
    }
}

/// Where a bucket begins, in milliseconds.
fn begin(bucket: usize) -> f64 {
    (bucket as f64 / PER_OCTAVE).exp2() - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(ms: f64) -> i16 {
        ((ms + 1.0).log2() * PER_OCTAVE).floor() as i16
    }

    #[test]
    fn quantiles_are_within_a_fifth_of_the_truth() {
        let mut latencies = Latencies::default();
        let times: Vec<f64> = (1..=10_000).map(f64::from).collect();
        latencies.count(&times.iter().map(|ms| bucket(*ms)).collect::<Vec<_>>());
        let Quantiles { p50, p95, p99 } = latencies.quantiles().unwrap();
        for (found, right) in [(p50, 5_000.0), (p95, 9_500.0), (p99, 9_900.0)] {
            let off: f64 = found / right - 1.0;
            assert!(off.abs() < 0.2, "{found} in place of {right}");
        }
        assert!(p50 < p95 && p95 < p99);
    }

    #[test]
    fn sums_are_those_of_all_and_none_has_no_quantiles() {
        let (mut one, mut other) = (Latencies::default(), Latencies::default());
        assert_eq!(one.quantiles(), None);
        one.count(&[0, 3]);
        other.count(&[1, 3, 3]);
        one.add(other.counts());
        assert_eq!(one.counts(), [1, 1, 0, 3]);
        let short = Latencies::new(vec![2]);
        one.add(short.counts());
        assert_eq!(one.counts(), [3, 1, 0, 3]);
    }
}
