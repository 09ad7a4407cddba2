//! Schedules: jobs that are made again and again, at an interval or by a cron pattern.
//!
//! A schedule always has one **iteration**, a job `repeat:<schedule>:<ms>`. Whoever claims it makes
//! the next one before it runs, so a schedule lives as a chain of jobs and needs no clock of its
//! own. What is kept about it, and the options of its jobs, are those of `BullMQ`'s job
//! schedulers; every client that takes part computes the same chain.
//!
//! Pure: the current time comes in as an argument, in ms since 1970.

mod iteration;
mod kept;
mod legacy;
mod name;
mod occurrence;
mod outlook;
mod pattern;
mod stored;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
mod zone;

use serde_json::{Map, Value};

use super::{NewJob, wire};

pub use iteration::{Iteration, When};
pub use kept::Kept;
pub use legacy::{Repeatable, may_be_repeatable};
pub use name::{OWN_SCHEDULE_ID_MAX, ScheduleName};
pub use pattern::{InvalidPattern, Pattern};
pub use stored::StoredSchedule;
pub use zone::{UnknownZone, Zone};

/// The longest interval, in ms: a hundred years.
pub const EVERY_MAX_MS: u64 = 100 * 366 * 86_400_000;
/// The longest id of a schedule, in bytes.
pub const SCHEDULE_ID_MAX: usize = 200;

/// When the jobs of a schedule are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rhythm {
    /// At an interval. The first is due at once, or at the start of the schedule; with an offset,
    /// all are due so many ms after a multiple of the interval.
    Every {
        every_ms: u64,
        offset_ms: Option<u64>,
    },
    /// At the moments that a cron pattern names on the clock of a zone; none: UTC.
    Cron {
        pattern: String,
        zone: Option<String>,
    },
}

/// When jobs are made, from when to when, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub rhythm: Rhythm,
    pub start_ms: Option<i64>,
    /// No further iteration is made once this has passed.
    pub end_ms: Option<i64>,
    /// Iterations at most.
    pub limit: Option<u64>,
    /// The first iteration of a pattern is due at once.
    pub immediately: bool,
}

/// What each iteration is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub name: String,
    /// JSON text.
    pub data: String,
    /// A JSON object, with `BullMQ`'s names for the wire.
    pub opts: String,
}

/// Why something is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    #[error("a schedule has either an interval (every) or a pattern, this one has both")]
    BothRhythms,
    #[error("a schedule needs an interval (every) or a pattern")]
    NoRhythm,
    #[error("the interval of a schedule is from 1 to {EVERY_MAX_MS} ms")]
    Interval,
    #[error("a schedule that starts immediately can not have a start date as well")]
    ImmediatelyAndStart,
    #[error("the end date of the schedule has passed")]
    Ended,
    #[error("the id of a schedule has 1 to {SCHEDULE_ID_MAX} bytes")]
    Id,
    #[error("the options of the schedule's jobs are no JSON object")]
    Options,
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    #[error(transparent)]
    Zone(#[from] UnknownZone),
}

impl Template {
    /// Iterations like this job: of its type, with its payload and its rules. Their ids and due
    /// times are the schedule's.
    pub fn of(job: &NewJob) -> Self {
        let opts = iteration::object(&wire::options(job, 0, None)).unwrap_or_default();
        Self {
            name: job.job_type.clone(),
            data: job.payload.clone(),
            opts: Value::Object(iteration::without_moment(opts)).to_string(),
        }
    }
}

impl Schedule {
    /// At an interval.
    pub fn every(every_ms: u64) -> Self {
        Self::new(Rhythm::Every {
            every_ms,
            offset_ms: None,
        })
    }

    /// By a cron pattern, on the clock of a zone such as `Europe/Berlin`.
    pub fn cron(pattern: &str, zone: &str) -> Self {
        Self::new(Rhythm::Cron {
            pattern: pattern.to_owned(),
            zone: Some(zone.to_owned()),
        })
    }

    fn new(rhythm: Rhythm) -> Self {
        Self {
            rhythm,
            start_ms: None,
            end_ms: None,
            limit: None,
            immediately: false,
        }
    }

    /// Whether it can be kept at all; says what is wrong.
    pub fn check(&self) -> Result<(), InvalidSchedule> {
        match &self.rhythm {
            Rhythm::Every { every_ms, .. } if !(1..=EVERY_MAX_MS).contains(every_ms) => {
                return Err(InvalidSchedule::Interval);
            }
            Rhythm::Every { .. } => {}
            Rhythm::Cron { pattern, zone } => {
                pattern.parse::<Pattern>()?;
                parse_zone(zone.as_deref())?;
            }
        }
        if self.immediately && self.start_ms.is_some() {
            return Err(InvalidSchedule::ImmediatelyAndStart);
        }
        Ok(())
    }

    /// The `repeat` member of an iteration's options. `immediately` is for the first one only.
    fn from_repeat(repeat: &Map<String, Value>) -> Result<Self, InvalidSchedule> {
        let text = |name: &str| {
            repeat
                .get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let number = |name: &str| repeat.get(name).and_then(millis);
        let every = number("every").filter(|every| *every != 0);
        // `cron` is the name of very old versions.
        let rhythm = match (every, text("pattern").or_else(|| text("cron"))) {
            (Some(_), Some(_)) => return Err(InvalidSchedule::BothRhythms),
            (None, None) => return Err(InvalidSchedule::NoRhythm),
            (Some(every_ms), None) => Rhythm::Every {
                every_ms: u64::try_from(every_ms).map_err(|_| InvalidSchedule::Interval)?,
                offset_ms: number("offset").and_then(|offset| u64::try_from(offset).ok()),
            },
            (None, Some(pattern)) => Rhythm::Cron {
                pattern,
                zone: text("tz"),
            },
        };
        let schedule = Self {
            start_ms: number("startDate"),
            end_ms: number("endDate"),
            limit: number("limit").map(|limit| limit.max(0) as u64),
            ..Self::new(rhythm)
        };
        schedule.check()?;
        Ok(schedule)
    }

    /// When the iteration after this moment is due; none: the pattern names no further one before
    /// the end. A moment that a pattern names is not due twice.
    fn due_after(&self, after_ms: i64) -> Result<Option<When>, InvalidSchedule> {
        let (pattern, zone) = match &self.rhythm {
            Rhythm::Every {
                every_ms,
                offset_ms,
            } => {
                return Ok(Some(When::Every {
                    every_ms: *every_ms,
                    offset_ms: offset_ms.filter(|offset| *offset > 0),
                }));
            }
            Rhythm::Cron { pattern, zone } => (pattern, zone),
        };
        let from = after_ms.max(self.start_ms.unwrap_or(after_ms));
        let next = pattern
            .parse::<Pattern>()?
            .next_after(parse_zone(zone.as_deref())?, from);
        let end = self.end_ms.filter(|end| *end != 0).unwrap_or(i64::MAX);
        Ok(next.filter(|next| *next <= end).map(When::At))
    }

    /// Whether the iteration with this number, from 1, is still made at this moment.
    fn allows(&self, number: u64, now_ms: i64) -> bool {
        let is_over = self.end_ms.is_some_and(|end| end != 0 && now_ms > end);
        !is_over && self.limit.is_none_or(|limit| number <= limit)
    }
}

fn parse_zone(zone: Option<&str>) -> Result<Zone, UnknownZone> {
    zone.map_or(Ok(Zone::default()), str::parse)
}

/// A moment or a duration in ms as clients write it: a number, or the text of a date.
fn millis(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number
            .as_i64()
            .or_else(|| number.as_f64().map(|number| number as i64)),
        Value::String(text) => text.parse().ok().or_else(|| {
            let date = chrono::DateTime::parse_from_rfc3339(text).ok()?;
            Some(date.timestamp_millis())
        }),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether a name can be a schedule's: it becomes part of keys.
pub fn check_schedule_id(id: &str) -> Result<(), InvalidSchedule> {
    if (1..=SCHEDULE_ID_MAX).contains(&id.len()) {
        return Ok(());
    }
    Err(InvalidSchedule::Id)
}
