//! What people are shown of a schedule: when it runs next, and its rhythm in words.

use chrono::{DateTime, FixedOffset, TimeDelta};
use croner::Cron;
use croner::parser::{CronParser, Seconds};

use super::pattern::{self, Pattern};
use super::{InvalidSchedule, Rhythm, Schedule, StoredSchedule, When, Zone, parse_zone};

/// Runs that the library which says it in words must see as we do.
const RUNS_COMPARED: usize = 5;
/// Units of an interval, the largest first.
const UNITS: [(u64, &str); 5] = [
    (86_400_000, "day"),
    (3_600_000, "hour"),
    (60_000, "minute"),
    (1000, "second"),
    (1, "millisecond"),
];

impl StoredSchedule {
    /// The next runs, on the clock of its zone. The first one is that of the current iteration,
    /// which may be due already. Empty: it is over, or can not be understood.
    pub fn next_runs(&self, now_ms: i64, count: usize) -> Vec<DateTime<FixedOffset>> {
        let Some((schedule, _)) = self.read() else {
            return Vec::new();
        };
        let made = self.fields.get("ic").and_then(|made| made.parse().ok());
        let number = made.unwrap_or(1u64).max(1);
        let first = match self.due_ms {
            Some(due_ms) => Some(due_ms),
            None if schedule.allows(number, now_ms) => schedule.first_run(now_ms),
            None => None,
        };
        let runs = schedule.runs_from(first, number).take(count);
        let zone = schedule.zone().unwrap_or_default();
        runs.filter_map(|ms| zone.local(ms)).collect()
    }
}

impl Schedule {
    /// The rhythm in English; none for a pattern that is not read alike by the library that says it
    /// in words.
    pub fn words(&self) -> Option<String> {
        match &self.rhythm {
            Rhythm::Every { every_ms, .. } => Some(every(*every_ms)),
            Rhythm::Cron { pattern, .. } => described(pattern),
        }
    }

    fn zone(&self) -> Result<Zone, InvalidSchedule> {
        match &self.rhythm {
            Rhythm::Cron { zone, .. } => Ok(parse_zone(zone.as_deref())?),
            Rhythm::Every { .. } => Ok(Zone::default()),
        }
    }

    fn first_run(&self, now_ms: i64) -> Option<i64> {
        match &self.rhythm {
            Rhythm::Every { .. } => Some(self.start_ms.unwrap_or(now_ms).max(now_ms)),
            Rhythm::Cron { .. } if self.immediately => Some(now_ms),
            Rhythm::Cron { .. } => self.run_after(now_ms),
        }
    }

    /// Each iteration is made when the one before it begins.
    fn runs_from(&self, first: Option<i64>, number: u64) -> impl Iterator<Item = i64> {
        let mut number = number;
        std::iter::successors(first, move |last| {
            number = number.saturating_add(1);
            let is_made = self.allows(number, *last);
            is_made.then(|| self.run_after(*last)).flatten()
        })
    }

    fn run_after(&self, after_ms: i64) -> Option<i64> {
        match self.due_after(after_ms).ok()?? {
            When::At(ms) => Some(ms),
            When::Every { every_ms, .. } => after_ms.checked_add(i64::try_from(every_ms).ok()?),
        }
    }
}

fn every(every_ms: u64) -> String {
    let whole = |(size, _): &&(u64, &str)| every_ms.is_multiple_of(*size);
    let (size, unit) = UNITS.iter().find(whole).unwrap_or(&UNITS[4]);
    match every_ms / size {
        1 => format!("Every {unit}."),
        count => format!("Every {count} {unit}s."),
    }
}

fn described(text: &str) -> Option<String> {
    let ours: Pattern = text.parse().ok()?;
    let fields = pattern::fields(text).ok()?.join(" ");
    let parser = CronParser::builder().seconds(Seconds::Optional).build();
    let theirs = parser.parse(&fields).ok()?;
    is_read_alike(&ours, &theirs).then(|| theirs.describe())
}

/// By the first runs of this century that both name.
fn is_read_alike(ours: &Pattern, theirs: &Cron) -> bool {
    let mut at = DateTime::UNIX_EPOCH + TimeDelta::days(30 * 365);
    (0..RUNS_COMPARED).all(|_| {
        let expected = ours.next_after(Zone::default(), at.timestamp_millis());
        let found = theirs.find_next_occurrence(&at, false).ok();
        match (expected, found) {
            (Some(expected), Some(found)) => {
                at = found;
                expected == found.timestamp_millis()
            }
            (None, None) => true,
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::Template;
    use super::*;

    fn stored(schedule: &Schedule) -> StoredSchedule {
        let template = Template {
            name: "noop".into(),
            data: "{}".into(),
            opts: "{}".into(),
        };
        StoredSchedule::new("s", schedule, &template)
    }

    fn runs(stored: &StoredSchedule, now: &str, count: usize) -> Vec<String> {
        let now: DateTime<FixedOffset> = now.parse().unwrap();
        let runs = stored.next_runs(now.timestamp_millis(), count);
        runs.iter().map(DateTime::to_rfc3339).collect()
    }

    #[test]
    fn runs_are_those_of_the_zone_s_clock() {
        let daily = stored(&Schedule::cron("30 8 * * *", "Europe/Berlin"));
        let expected = [
            "2026-03-28T08:30:00+01:00",
            "2026-03-29T08:30:00+02:00", // the clock was changed
            "2026-03-30T08:30:00+02:00",
        ];
        assert_eq!(runs(&daily, "2026-03-27T12:00:00Z", 3), expected);
    }

    #[test]
    fn runs_go_on_from_the_current_iteration_and_end_with_the_schedule() {
        let mut hourly = stored(&Schedule {
            limit: Some(7),
            ..Schedule::every(3_600_000)
        });
        hourly.fields.insert("ic".into(), "5".into());
        let due: DateTime<FixedOffset> = "2026-01-01T10:00:00Z".parse().unwrap();
        hourly.due_ms = Some(due.timestamp_millis());
        let expected = ["10", "11", "12"].map(|hour| format!("2026-01-01T{hour}:00:00+00:00"));
        assert_eq!(runs(&hourly, "2026-01-01T10:20:00Z", 5), expected);
        let end: DateTime<FixedOffset> = "2026-01-03T00:00:00Z".parse().unwrap();
        let ending = stored(&Schedule {
            end_ms: Some(end.timestamp_millis()),
            ..Schedule::cron("0 12 * * *", "UTC")
        });
        assert_eq!(runs(&ending, "2026-01-01T00:00:00Z", 5).len(), 2);
        assert!(runs(&ending, "2026-01-04T00:00:00Z", 5).is_empty());
        assert!(runs(&StoredSchedule::default(), "2026-01-01T00:00:00Z", 5).is_empty());
    }

    #[test]
    fn rhythms_are_said_in_words() {
        for (every_ms, words) in [
            (1, "Every millisecond."),
            (1500, "Every 1500 milliseconds."),
            (60_000, "Every minute."),
            (5_400_000, "Every 90 minutes."),
            (172_800_000, "Every 2 days."),
        ] {
            assert_eq!(Schedule::every(every_ms).words().unwrap(), words);
        }
        for (pattern, part) in [
            ("*/5 * * * *", "5 minutes"),
            ("30 8 * * 1-5", "08:30"),
            ("@daily", "00:00"),
            ("15 30 4 1 jan *", "January"),
        ] {
            let words = Schedule::cron(pattern, "UTC").words().unwrap();
            assert!(words.contains(part), "{pattern}: {words}");
        }
        assert_eq!(Schedule::cron("no pattern", "UTC").words(), None);
    }
}
