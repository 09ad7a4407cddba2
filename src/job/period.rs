//! Which days a report is about, on the clock of a place.
//!
//! Promises: a span is the same for everybody who works it out from the same moment; its slots have
//! no gaps and do not overlap, also where clocks are changed. Refuses days of which the record does
//! not have all figures any more, and days that have not begun.

use chrono::{DateTime, Datelike, Days, NaiveDate, SecondsFormat, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::Zone;

/// Days that figures are kept for, and the most that a span has.
pub const DAYS_MAX: u64 = 90;
/// Spans up to this long are told by the hour; longer ones by the day.
const HOURLY_MAX: TimeDelta = TimeDelta::hours(50);
/// More slots than any span has: 50 hours, or 90 days and parts of two.
const SLOTS_MAX: usize = 128;

/// Days that have a name, counted back from a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum PeriodName {
    /// From midnight until now.
    #[serde(rename = "today")]
    Today,
    #[serde(rename = "yesterday")]
    Yesterday,
    /// Whole hours.
    #[serde(rename = "last_24_hours")]
    Last24Hours,
    /// Whole days; today is not one of them.
    #[default]
    #[serde(rename = "last_7_days")]
    Last7Days,
    #[serde(rename = "last_30_days")]
    Last30Days,
    /// From Monday until now.
    #[serde(rename = "this_week")]
    ThisWeek,
    #[serde(rename = "last_week")]
    LastWeek,
    /// From its first day until now.
    #[serde(rename = "this_month")]
    ThisMonth,
    #[serde(rename = "last_month")]
    LastMonth,
}

impl PeriodName {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Today => "today",
            Self::Yesterday => "yesterday",
            Self::Last24Hours => "last_24_hours",
            Self::Last7Days => "last_7_days",
            Self::Last30Days => "last_30_days",
            Self::ThisWeek => "this_week",
            Self::LastWeek => "last_week",
            Self::ThisMonth => "this_month",
            Self::LastMonth => "last_month",
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    Named(PeriodName),
    /// The first and the last day.
    Days(NaiveDate, NaiveDate),
}

/// From the beginning of `from` to before `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

/// A part of a span: an hour or a day, or what of it is in the span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    /// `2026-11-27`, or `2026-11-27T13:00:00+01:00`.
    pub name: String,
}

/// Why there is no such span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfReach {
    #[error("the last day is before the first")]
    Backwards,
    #[error("the first day has not begun")]
    Ahead,
    #[error("figures are kept for {DAYS_MAX} days: the first day may be {0} at the earliest")]
    Gone(NaiveDate),
}

impl Period {
    /// The span, as it is at a moment. What is not over ends at that moment.
    pub fn span(self, zone: Zone, moment: DateTime<Utc>) -> Result<Span, OutOfReach> {
        let today = zone.date(moment);
        let begin = |day: NaiveDate| zone.begin_of(day);
        let back = |days: u64| today.checked_sub_days(Days::new(days)).unwrap_or(today);
        let monday = back(u64::from(today.weekday().num_days_from_monday()));
        let first = today.with_day(1).unwrap_or(today);
        let before = |day: NaiveDate, days| day.checked_sub_days(Days::new(days)).unwrap_or(day);
        let (from, to) = match self {
            Self::Named(PeriodName::Today) => (begin(today), moment),
            Self::Named(PeriodName::Yesterday) => (begin(back(1)), begin(today)),
            Self::Named(PeriodName::Last24Hours) => {
                let seconds = moment.timestamp();
                let hour = DateTime::from_timestamp(seconds - seconds.rem_euclid(3600), 0);
                let hour = hour.unwrap_or(moment);
                (hour - TimeDelta::hours(24), hour)
            }
            Self::Named(PeriodName::Last7Days) => (begin(back(7)), begin(today)),
            Self::Named(PeriodName::Last30Days) => (begin(back(30)), begin(today)),
            Self::Named(PeriodName::ThisWeek) => (begin(monday), moment),
            Self::Named(PeriodName::LastWeek) => (begin(before(monday, 7)), begin(monday)),
            Self::Named(PeriodName::ThisMonth) => (begin(first), moment),
            Self::Named(PeriodName::LastMonth) => {
                let last = before(first, 1);
                (begin(last.with_day(1).unwrap_or(last)), begin(first))
            }
            Self::Days(first, last) => {
                let earliest = back(DAYS_MAX - 1);
                if last < first {
                    return Err(OutOfReach::Backwards);
                }
                if first > today {
                    return Err(OutOfReach::Ahead);
                }
                if first < earliest {
                    return Err(OutOfReach::Gone(earliest));
                }
                let next = last.checked_add_days(Days::new(1)).unwrap_or(last);
                (begin(first), begin(next).min(moment))
            }
        };
        Ok(Span { from, to })
    }
}

impl Span {
    pub fn is_hourly(&self) -> bool {
        self.to - self.from <= HOURLY_MAX
    }

    /// Whether no hour of the record's figures is cut by its beginning.
    pub fn begins_on_the_hour(&self) -> bool {
        self.from.timestamp() % 3600 == 0
    }

    /// Its hours or days, in order.
    pub fn slots(&self, zone: Zone) -> Vec<Slot> {
        let mut slots = Vec::new();
        let mut at = self.from;
        while at < self.to && slots.len() < SLOTS_MAX {
            let day = zone.date(at);
            let next = match self.is_hourly() {
                true => at + TimeDelta::hours(1),
                false => match day.checked_add_days(Days::new(1)) {
                    Some(next) => zone.begin_of(next),
                    None => self.to,
                },
            };
            // A day always ends after each of its moments; if not, this would not end either.
            let next = if next > at {
                next.min(self.to)
            } else {
                self.to
            };
            let name = match self.is_hourly() {
                true => zone
                    .local_time(at)
                    .to_rfc3339_opts(SecondsFormat::Secs, true),
                false => day.to_string(),
            };
            slots.push(Slot {
                from: at,
                to: next,
                name,
            });
            at = next;
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn span(name: PeriodName, zone: &str, moment: &str) -> (String, String) {
        let span = Period::Named(name).span(zone.parse().unwrap(), at(moment));
        let span = span.unwrap();
        let text = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        (text(span.from), text(span.to))
    }

    #[test]
    fn named_days_are_those_of_the_place() {
        // A Friday, 00:30 in Berlin and still Thursday in New York.
        let moment = "2026-11-26T23:30:00Z";
        for (name, zone, from, to) in [
            (PeriodName::Today, "UTC", "2026-11-26T00:00:00Z", moment),
            (
                PeriodName::Today,
                "Europe/Berlin",
                "2026-11-26T23:00:00Z",
                moment,
            ),
            (
                PeriodName::Yesterday,
                "America/New_York",
                "2026-11-25T05:00:00Z",
                "2026-11-26T05:00:00Z",
            ),
            (
                PeriodName::Last24Hours,
                "Asia/Kolkata",
                "2026-11-25T23:00:00Z",
                "2026-11-26T23:00:00Z",
            ),
            (
                PeriodName::Last7Days,
                "Europe/Berlin",
                "2026-11-19T23:00:00Z",
                "2026-11-26T23:00:00Z",
            ),
            (
                PeriodName::Last30Days,
                "UTC",
                "2026-10-27T00:00:00Z",
                "2026-11-26T00:00:00Z",
            ),
            (PeriodName::ThisWeek, "UTC", "2026-11-23T00:00:00Z", moment),
            (
                PeriodName::LastWeek,
                "UTC",
                "2026-11-16T00:00:00Z",
                "2026-11-23T00:00:00Z",
            ),
            (PeriodName::ThisMonth, "UTC", "2026-11-01T00:00:00Z", moment),
            (
                // Begins in summer time, ends in winter time.
                PeriodName::LastMonth,
                "Europe/Berlin",
                "2026-09-30T22:00:00Z",
                "2026-10-31T23:00:00Z",
            ),
        ] {
            let expected = (from.to_owned(), to.to_owned());
            assert_eq!(span(name, zone, moment), expected, "{name:?} {zone}");
        }
    }

    #[test]
    fn slots_follow_each_other_where_clocks_are_changed() {
        let zone: Zone = "Europe/Berlin".parse().unwrap();
        let name = PeriodName::Last7Days;
        let span = Period::Named(name)
            .span(zone, at("2026-10-28T12:00:00Z"))
            .unwrap();
        let slots = span.slots(zone);
        assert_eq!((slots.len(), slots[0].from), (7, span.from));
        assert!(slots.windows(2).all(|pair| pair[0].to == pair[1].from));
        assert_eq!(slots[6].to, span.to);
        let long = slots.iter().find(|slot| slot.name == "2026-10-25").unwrap();
        assert_eq!(long.to - long.from, TimeDelta::hours(25));
        assert_eq!((span.is_hourly(), span.begins_on_the_hour()), (false, true));

        let day = Period::Named(PeriodName::Yesterday).span(zone, at("2026-10-26T12:00:00Z"));
        let hours = day.unwrap().slots(zone);
        assert_eq!(hours.len(), 25);
        assert_eq!(hours[2].name, "2026-10-25T02:00:00+02:00");
        assert_eq!(hours[3].name, "2026-10-25T02:00:00+01:00");
        // Midnight does not exist there on that day.
        let zone: Zone = "Africa/Cairo".parse().unwrap();
        let day = NaiveDate::from_ymd_opt(2026, 4, 24).unwrap();
        assert_eq!(zone.begin_of(day), at("2026-04-23T22:00:00Z"));
    }

    #[test]
    fn days_that_nobody_has_figures_of_are_refused() {
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        let (zone, moment) = (Zone::default(), at("2026-11-27T12:00:00Z"));
        let span = |first, last| Period::Days(day(first), day(last)).span(zone, moment);
        let whole = span("2026-11-01", "2026-11-02").unwrap();
        assert_eq!(whole.to - whole.from, TimeDelta::days(2));
        assert_eq!(span("2026-11-20", "9999-12-31").unwrap().to, moment);
        assert_eq!(span("2026-11-02", "2026-11-01"), Err(OutOfReach::Backwards));
        assert_eq!(span("2026-11-28", "2026-11-28"), Err(OutOfReach::Ahead));
        let earliest = day("2026-08-30");
        assert_eq!(
            span("2026-08-29", "2026-11-01"),
            Err(OutOfReach::Gone(earliest))
        );
        let longest = span("2026-08-30", "2026-11-27").unwrap();
        assert_eq!(longest.slots(zone).len(), 90);
    }
}
