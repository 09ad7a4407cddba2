//! How much of somebody else's service may be used: the limits of a key, as plain values.
//!
//! A key may have several windows, and a call must fit into all of them. What is spent is counted
//! elsewhere (`quota`); here is what may be said, and what is refused.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Days, LocalResult, NaiveDate, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most windows of a key.
pub const WINDOWS_MAX: usize = 8;
/// The most units of a window, or of a call.
pub const UNITS_MAX: u32 = 1_000_000_000;
/// The longest window.
pub const PERIOD_MAX: Duration = Duration::from_secs(31 * 86_400);
/// The longest name of a service, in bytes.
pub const SERVICE_MAX: usize = 100;
/// What may be kept for interactive work at most, in percent.
pub const RESERVE_MAX: u8 = 90;
/// The most calls at a time that a limit may name.
pub const CONCURRENCY_MAX: u32 = 10_000;
/// Windows of this length and longer are counted in the record ahead of use; shorter ones are taken
/// for full when Redis has lost its memory.
pub const DURABLE_FROM: Duration = Duration::from_secs(120);

const DAY_MS: u64 = 86_400_000;

/// Whose quota of which service: `{service}:{workspace}` or `{service}:{workspace}:{user}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QuotaKey {
    service: String,
    workspace_id: Uuid,
    user_id: Option<Uuid>,
}

impl QuotaKey {
    /// The quota of a workspace. A service is named with small letters, digits and `_ . -`.
    pub fn new(service: &str, workspace_id: Uuid) -> Result<Self, InvalidLimits> {
        check_service(service)?;
        Ok(Self {
            service: service.to_owned(),
            workspace_id,
            user_id: None,
        })
    }

    /// The quota of one user in it.
    pub fn of_user(mut self, user_id: Uuid) -> Self {
        self.user_id = Some(user_id);
        self
    }

    pub fn service(&self) -> &str {
        &self.service
    }

    pub fn workspace_id(&self) -> Uuid {
        self.workspace_id
    }
}

impl fmt::Display for QuotaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.workspace_id)?;
        match self.user_id {
            Some(user) => write!(f, ":{user}"),
            None => Ok(()),
        }
    }
}

/// Whether a service may be named so.
pub fn check_service(service: &str) -> Result<(), InvalidLimits> {
    let is_fit =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
    let fits = (1..=SERVICE_MAX).contains(&service.len()) && service.bytes().all(is_fit);
    match fits {
        true => Ok(()),
        false => Err(InvalidLimits::Service),
    }
}

/// One of the windows that a call must fit into. `max` and the others are units of cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Window {
    /// A token bucket: `capacity` at once, and `refill` more in each `per_ms`, evenly.
    Bucket {
        capacity: u32,
        refill: u32,
        per_ms: u64,
    },
    /// Opens with the first call and ends `per_ms` later.
    Fixed { max: u32, per_ms: u64 },
    /// No stretch of `per_ms`, wherever it begins, has more.
    Sliding { max: u32, per_ms: u64 },
    /// From midnight to midnight in a time zone (a name such as `Europe/Berlin`), also when a day
    /// has 23 or 25 hours.
    Daily { max: u32, zone: String },
}

impl Window {
    /// Names the window among those of its key, for as long as it is of this kind and length.
    pub fn id(&self) -> String {
        match self {
            Self::Bucket { per_ms, .. } => format!("bucket:{per_ms}"),
            Self::Fixed { per_ms, .. } => format!("fixed:{per_ms}"),
            Self::Sliding { per_ms, .. } => format!("sliding:{per_ms}"),
            Self::Daily { zone, .. } => format!("daily:{zone}"),
        }
    }

    /// The most that one call may cost.
    pub fn max(&self) -> u32 {
        match self {
            Self::Bucket { capacity, .. } => *capacity,
            Self::Fixed { max, .. } | Self::Sliding { max, .. } | Self::Daily { max, .. } => *max,
        }
    }

    pub fn per_ms(&self) -> u64 {
        match self {
            Self::Bucket { per_ms, .. }
            | Self::Fixed { per_ms, .. }
            | Self::Sliding { per_ms, .. } => *per_ms,
            Self::Daily { .. } => DAY_MS,
        }
    }

    /// Counted in the record ahead of use, so that a loss of Redis costs neither the limit nor the
    /// rest of a long window. A bucket needs none of it: an empty one fills again at its rate.
    pub fn is_durable(&self) -> bool {
        match self {
            Self::Bucket { .. } => false,
            Self::Daily { .. } => true,
            Self::Fixed { per_ms, .. } | Self::Sliding { per_ms, .. } => {
                u128::from(*per_ms) >= DURABLE_FROM.as_millis()
            }
        }
    }

    fn check(&self) -> Result<(), InvalidLimits> {
        let units = match self {
            Self::Bucket {
                capacity, refill, ..
            } => vec![*capacity, *refill],
            other => vec![other.max()],
        };
        if units.iter().any(|n| !(1..=UNITS_MAX).contains(n)) {
            return Err(InvalidLimits::Units(self.id()));
        }
        if !(10..=PERIOD_MAX.as_millis()).contains(&u128::from(self.per_ms())) {
            return Err(InvalidLimits::Period(self.id()));
        }
        if let Self::Daily { zone, .. } = self {
            zone.parse::<Tz>()
                .map_err(|_| InvalidLimits::Zone(zone.clone()))?;
        }
        Ok(())
    }
}

/// What a key may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// A call must fit into all of them. None: only what the service itself says counts.
    #[serde(default)]
    pub windows: Vec<Window>,
    /// Calls at a time; none: as many as like.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// So many percent of each window are kept for interactive work.
    #[serde(default)]
    pub reserve_percent: u8,
    /// What the service says of its limits changes these numbers. False: they stay as they are, and
    /// what it says can only make them smaller.
    #[serde(default = "yes")]
    pub learns: bool,
}

fn yes() -> bool {
    true
}

impl Limits {
    /// These windows, and nothing else.
    pub fn of(windows: impl Into<Vec<Window>>) -> Self {
        Self {
            windows: windows.into(),
            learns: true,
            ..Self::default()
        }
    }

    /// So many at a time.
    pub fn at_once(mut self, calls: u32) -> Self {
        self.concurrency = Some(calls);
        self
    }

    /// Keeps so many percent for interactive work.
    pub fn reserve(mut self, percent: u8) -> Self {
        self.reserve_percent = percent;
        self
    }

    /// Whether they can be kept.
    pub fn check(&self) -> Result<(), InvalidLimits> {
        if self.windows.len() > WINDOWS_MAX {
            return Err(InvalidLimits::Windows);
        }
        for (at, window) in self.windows.iter().enumerate() {
            window.check()?;
            let id = window.id();
            if self.windows[..at].iter().any(|other| other.id() == id) {
                return Err(InvalidLimits::Twice(id));
            }
        }
        if self
            .concurrency
            .is_some_and(|calls| !(1..=CONCURRENCY_MAX).contains(&calls))
        {
            return Err(InvalidLimits::Concurrency);
        }
        match self.reserve_percent > RESERVE_MAX {
            true => Err(InvalidLimits::Reserve),
            false => Ok(()),
        }
    }
}

/// Limits that can not be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimits {
    #[error(
        "a service is named with 1 to {SERVICE_MAX} small letters, digits, `_`, `.` or `-`, such \
         as `apollo`"
    )]
    Service,
    #[error("at most {WINDOWS_MAX} windows are possible")]
    Windows,
    #[error("the window `{0}` is there twice")]
    Twice(String),
    #[error("the numbers of the window `{0}` must be from 1 to {UNITS_MAX}")]
    Units(String),
    #[error("the length of the window `{0}` must be from 10 ms to 31 days")]
    Period(String),
    #[error("`{0}` is no time zone: use a name such as `Europe/Berlin` or `UTC`")]
    Zone(String),
    #[error("concurrency must be from 1 to {CONCURRENCY_MAX}")]
    Concurrency,
    #[error("at most {RESERVE_MAX} percent can be kept for interactive work")]
    Reserve,
}

/// The beginnings of the days around a moment in a zone, in ms since 1970, oldest first. Who has
/// another clock finds its own day among them.
pub fn days_around(zone: &str, now_ms: i64) -> Vec<i64> {
    let zone: Tz = zone.parse().unwrap_or(Tz::UTC);
    let now = DateTime::<Utc>::from_timestamp_millis(now_ms).unwrap_or_default();
    let today = now.with_timezone(&zone).date_naive();
    let first = today.checked_sub_days(Days::new(1)).unwrap_or(today);
    let days = (0..4).filter_map(|n| first.checked_add_days(Days::new(n)));
    days.map(|day| start_of(zone, day)).collect()
}

/// Midnight; where the clock skips it, the first moment of the day that there is.
fn start_of(zone: Tz, day: NaiveDate) -> i64 {
    for quarter in 0..=16 {
        let Some(local) = day.and_hms_opt(quarter / 4, quarter % 4 * 15, 0) else {
            continue;
        };
        match zone.from_local_datetime(&local) {
            LocalResult::Single(start) => return start.timestamp_millis(),
            LocalResult::Ambiguous(first, _) => return first.timestamp_millis(),
            LocalResult::None => {}
        }
    }
    day.and_hms_opt(0, 0, 0)
        .map_or(0, |start| start.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<DateTime<Utc>>().unwrap().timestamp_millis()
    }

    #[test]
    fn a_key_is_written_as_the_specification_says() {
        let key = QuotaKey::new("clearbit", Uuid::nil()).unwrap();
        assert_eq!(key.to_string(), format!("clearbit:{}", Uuid::nil()));
        let of_user = key.of_user(Uuid::nil()).to_string();
        assert_eq!(of_user, format!("clearbit:{0}:{0}", Uuid::nil()));
        for service in ["", "a:b", "A", "a b", "ä", &"x".repeat(101)] {
            assert!(QuotaKey::new(service, Uuid::nil()).is_err(), "{service}");
        }
    }

    #[test]
    fn days_have_23_or_25_hours_where_clocks_change() {
        let hours = |zone, at| -> Vec<i64> {
            let days = days_around(zone, ms(at));
            days.windows(2).map(|d| (d[1] - d[0]) / 3_600_000).collect()
        };
        assert_eq!(hours("UTC", "2026-03-29T12:00:00Z"), [24, 24, 24]);
        assert_eq!(hours("Europe/Berlin", "2026-03-29T12:00:00Z"), [24, 23, 24]);
        assert_eq!(hours("Europe/Berlin", "2026-10-25T12:00:00Z"), [24, 25, 24]);
        // Here midnight itself was skipped.
        assert_eq!(
            hours("America/Santiago", "2024-09-08T12:00:00Z"),
            [24, 23, 24]
        );
    }

    #[test]
    fn a_day_begins_at_midnight_of_its_zone() {
        let days = days_around("America/Los_Angeles", ms("2026-07-01T06:59:00Z"));
        // It is still the last of June there.
        assert_eq!(days[1], ms("2026-06-30T07:00:00Z"));
        assert_eq!(days[2], ms("2026-07-01T07:00:00Z"));
    }

    #[test]
    fn limits_that_can_not_be_kept_are_refused_by_name() {
        let fixed = |max, per_ms| Window::Fixed { max, per_ms };
        let day = |zone: &str| Window::Daily {
            max: 1,
            zone: zone.to_owned(),
        };
        for (limits, expected) in [
            (Limits::of([fixed(0, 1000)]), "numbers of the window"),
            (Limits::of([fixed(1, 9)]), "length of the window"),
            (Limits::of([fixed(1, 1000), fixed(2, 1000)]), "twice"),
            (Limits::of([day("Mars/Base")]), "no time zone"),
            (Limits::default().at_once(0), "concurrency"),
            (Limits::default().reserve(91), "percent"),
            (Limits::of(vec![fixed(1, 1000); 9]), "at most 8"),
        ] {
            let refused = limits.check().unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
        let all = Limits::of([fixed(5, 1000), fixed(10_800, 3_600_000), day("UTC")]);
        assert_eq!(all.reserve(20).at_once(3).check(), Ok(()));
    }

    #[test]
    fn limits_are_read_as_they_are_written() {
        let limits: Limits = serde_json::from_str(
            r#"{"windows": [{"kind": "sliding", "max": 600, "per_ms": 60000}]}"#,
        )
        .unwrap();
        let sliding = Window::Sliding {
            max: 600,
            per_ms: 60_000,
        };
        assert_eq!(limits, Limits::of([sliding]));
        let odd = r#"{"windows": [{"kind": "sliding", "max": 600, "per_s": 60}]}"#;
        assert!(serde_json::from_str::<Limits>(odd).is_err());
    }
}
