//! How long a failed job waits before its next attempt.
//!
//! The default is the specification's formula, to the letter:
//! `min(retry_delay_seconds * 2^attempts, 3600) + random(0..30)` seconds, where `attempts` is the
//! number of failures counted *before* this one.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The specification's base delay.
pub const RETRY_DELAY_SECONDS: i32 = 60;
/// The longest delay before jitter, in seconds.
pub const BACKOFF_MAX_SECONDS: f64 = 3600.0;
/// The width of the jitter, in seconds.
pub const JITTER_SECONDS: f64 = 30.0;
/// How many delays a list may name.
pub const DELAYS_MAX: usize = 100;

/// A rule that replaces the specification's formula for one job or one job type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum Backoff {
    /// The same delay every time; `jitter` (0 to 1) is the share that is random.
    Fixed {
        #[cfg_attr(feature = "server", schema(maximum = 9007199254740991.0))]
        delay_ms: u64,
        #[serde(default, skip_serializing_if = "is_none")]
        #[cfg_attr(feature = "server", schema(minimum = 0.0, maximum = 1.0))]
        jitter: f64,
    },
    /// `delay * 2^attempts`, at most `max_ms`; `jitter` (0 to 1) is the share that is random.
    Exponential {
        #[cfg_attr(feature = "server", schema(maximum = 9007199254740991.0))]
        delay_ms: u64,
        #[serde(default)]
        #[cfg_attr(feature = "server", schema(maximum = 9007199254740991.0))]
        max_ms: Option<u64>,
        #[serde(default)]
        #[cfg_attr(feature = "server", schema(minimum = 0.0, maximum = 1.0))]
        jitter: f64,
    },
    /// One delay per retry; the last is used again when there are more retries.
    List {
        #[cfg_attr(feature = "server", schema(min_items = 1, max_items = 100))]
        delays_ms: Vec<u64>,
    },
    /// At once.
    None,
}

/// Why a backoff rule can not be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidBackoff {
    #[error("backoff jitter is {0}, it must be between 0 and 1")]
    Jitter(f64),
    #[error("backoff names {0} delays, it must name between 1 and {DELAYS_MAX}")]
    Delays(usize),
}

impl Backoff {
    pub fn validate(&self) -> Result<(), InvalidBackoff> {
        match self {
            Self::Fixed { jitter, .. } | Self::Exponential { jitter, .. }
                if !(0.0..=1.0).contains(jitter) =>
            {
                Err(InvalidBackoff::Jitter(*jitter))
            }
            Self::List { delays_ms } if !(1..=DELAYS_MAX).contains(&delays_ms.len()) => {
                Err(InvalidBackoff::Delays(delays_ms.len()))
            }
            Self::Fixed { .. } | Self::Exponential { .. } | Self::List { .. } | Self::None => {
                Ok(())
            }
        }
    }

    /// The delay after a failure. `attempts` counts the failures before this one; `random` is a
    /// number in `0.0..1.0` made by the caller, so that this stays pure.
    pub fn delay(&self, attempts: u32, random: f64) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Fixed { delay_ms, jitter } => with_jitter(*delay_ms as f64, *jitter, random),
            Self::List { delays_ms } => {
                let nth = delays_ms.get(attempts as usize).or(delays_ms.last());
                Duration::from_millis(nth.copied().unwrap_or(0))
            }
            Self::Exponential {
                delay_ms,
                max_ms,
                jitter,
            } => {
                let cap = max_ms.map_or(BACKOFF_MAX_SECONDS * 1000.0, |ms| ms as f64);
                let full = (*delay_ms as f64 * 2f64.powi(attempts.min(62) as i32)).min(cap);
                with_jitter(full, *jitter, random)
            }
        }
    }
}

/// The plain rule is written as it always was.
fn is_none(jitter: &f64) -> bool {
    *jitter == 0.0
}

fn with_jitter(full_ms: f64, jitter: f64, random: f64) -> Duration {
    // Read from the wire, so not always validated.
    let jitter = jitter.clamp(0.0, 1.0);
    Duration::from_secs_f64(full_ms * (1.0 - jitter + jitter * random) / 1000.0)
}

/// The specification's delay after a failure, jitter included. `random` is in `0.0..1.0`.
pub fn specified_delay(retry_delay_seconds: i32, attempts: u32, random: f64) -> Duration {
    let base = f64::from(retry_delay_seconds.max(0));
    let delay = (base * 2f64.powi(attempts.min(62) as i32)).min(BACKOFF_MAX_SECONDS);
    Duration::from_secs_f64(delay + random * JITTER_SECONDS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_specified_delays_double_up_to_an_hour() {
        let delays: Vec<u64> = (0..8)
            .map(|attempts| specified_delay(60, attempts, 0.0).as_secs())
            .collect();
        assert_eq!(delays, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(specified_delay(60, 0, 0.5).as_secs(), 75);
    }

    proptest! {
        #[test]
        fn the_specified_delay_is_the_formula_with_up_to_thirty_seconds_of_jitter(
            base in 0i32..100_000, attempts in 0u32..1000, random in 0.0f64..1.0,
        ) {
            let exact = (f64::from(base) * 2f64.powf(f64::from(attempts))).min(3600.0);
            let delay = specified_delay(base, attempts, random).as_secs_f64();
            prop_assert!(delay >= exact - 1e-6 && delay < exact + 30.0 + 1e-6);
        }

        #[test]
        fn no_rule_overflows(attempts in any::<u32>(), delay_ms in 0u64..10_000_000_000,
            jitter in 0.0f64..=1.0, random in 0.0f64..1.0) {
            let cap = BACKOFF_MAX_SECONDS;
            let rule = Backoff::Exponential { delay_ms, max_ms: None, jitter };
            prop_assert!(rule.delay(attempts, random).as_secs_f64() <= cap + 1e-6);
            Backoff::List { delays_ms: vec![1, 2] }.delay(attempts, random);
        }
    }

    #[test]
    fn a_list_repeats_its_last_delay() {
        let rule = Backoff::List {
            delays_ms: vec![10, 20],
        };
        let delays: Vec<u128> = (0..4).map(|n| rule.delay(n, 0.0).as_millis()).collect();
        assert_eq!(delays, [10, 20, 20, 20]);
        assert!(Backoff::List { delays_ms: vec![] }.validate().is_err());
    }
}
