//! The next moment that a cron pattern names, on the clock of a place.
//!
//! The rules are those of `cron-parser` 5.10.3, where that clock is changed:
//!
//! * Hours that are skipped: what was to run in one of them runs in the hour that follows, at its
//!   minute: `30 2 * * *` at 3:30. Where the day itself begins with the skipped hour, its runs are
//!   left out, unless the pattern names the hour before as well.
//! * An hour that is repeated: it counts once, the first time. A pattern that names all hours runs
//!   in both. Whoever asks from within the second time is answered from it.
//! * Less than an hour that is skipped or repeated is what the clock says: skipped minutes do not
//!   exist, repeated ones come twice.
//!
//! Compared with the library for thousands of random patterns, zones and moments; it answers
//! otherwise in these cases, where following it would be wrong:
//!
//! * Lord Howe Island moves its clock by half an hour. At that the library loses its way and says
//!   that there is no next moment, which would end a schedule.
//! * On the Chatham Islands the skipped hour ends at 3:45, and the library runs what was to run in
//!   its part of hour 3 at the same minute of the next hour. Here it is left out on that day.
//! * Where midnight is repeated (Azores, Cuba) the library may take the second one for the first
//!   day's begin, if it is asked late on the day before. Here it is always the first.
//! * A weekday that is listed twice (`0,7`) is refused by version 5, but not by version 4.
//!
//! `BullMQ` 5 uses version 4.9.0, which takes `5#3` together with a day of month as *both*, where
//! version 5 takes *either*, and does not know `@minutely`, `@secondly`, `@weekdays`, `@weekends`.

use chrono::{Datelike, NaiveDate};

use super::pattern::Pattern;
use super::zone::Zone;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// How far a pattern is followed: 29 February can be a certain weekday only every 40 years.
const DAYS_MAX: usize = 100 * 366;
/// Where dates end that are looked at, the year 9999: seconds since 1970.
const MOMENT_MAX: i64 = 253_402_300_799;

impl Pattern {
    /// The first named moment after this one; none: there is none within a hundred years.
    ///
    /// In ms since 1970, whole seconds. Before 1970 and after 9999 there is nothing.
    pub fn next_after(&self, zone: Zone, after_ms: i64) -> Option<i64> {
        let first = after_ms.div_euclid(1000) + 1;
        if !(0..MOMENT_MAX).contains(&first) {
            return None;
        }
        let search = Search {
            pattern: self,
            zone,
            after_ms,
            first,
        };
        search.run().map(|moment| moment * 1000)
    }
}

/// All moments are in seconds since 1970; local ones are those of a clock in UTC that shows the
/// same.
struct Search<'a> {
    pattern: &'a Pattern,
    zone: Zone,
    after_ms: i64,
    first: i64,
}

/// A part of a day in which the clock is not changed.
struct Stretch {
    from: i64,
    to: i64,
    offset: i64,
}

impl Search<'_> {
    fn run(&self) -> Option<i64> {
        let local = self.first + self.zone.offset(self.first);
        let mut date = date_of(local.div_euclid(DAY))?;
        for _ in 0..DAYS_MAX {
            if !self.pattern.has_month(date.month()) {
                date = first_of_next_month(date)?;
                continue;
            }
            if self.has_day(date)
                && let Some(found) = self.within(date)
            {
                return Some(found);
            }
            date = date.succ_opt()?;
        }
        None
    }

    fn has_day(&self, date: NaiveDate) -> bool {
        let weekday = date.weekday().num_days_from_sunday();
        self.pattern.has_month(date.month())
            && self
                .pattern
                .has_day(date.day(), u32::from(date.num_days_in_month()), weekday)
    }

    fn within(&self, date: NaiveDate) -> Option<i64> {
        let midnight = i64::from(date.to_epoch_days()) * DAY;
        let (start, end) = (self.day_start(midnight), self.day_start(midnight + DAY));
        let offset = self.zone.offset(start);
        let change = self.change(start, end);
        let before = Stretch {
            from: start,
            to: change,
            offset,
        };
        let after = Stretch {
            from: change,
            to: end,
            offset: self.zone.offset(change),
        };
        [before, after]
            .iter()
            .filter(|stretch| stretch.from < stretch.to && stretch.to > self.first)
            .find_map(|stretch| self.within_stretch(date, midnight, stretch))
    }

    fn within_stretch(&self, date: NaiveDate, midnight: i64, part: &Stretch) -> Option<i64> {
        let from = self.first.max(part.from);
        let hours = (0..24).filter(|hour| self.has_hour(date, midnight, *hour, part));
        for hour in hours {
            let start = midnight + i64::from(hour) * HOUR - part.offset;
            if start + HOUR <= from {
                continue;
            }
            for minute in self.pattern.minutes.iter() {
                for second in self.pattern.seconds.iter() {
                    let moment = start + i64::from(minute) * 60 + i64::from(second);
                    if (from..part.to).contains(&moment) {
                        return Some(moment);
                    }
                }
            }
        }
        None
    }

    /// Whether an hour is named, after what the change before this stretch did to it.
    fn has_hour(&self, date: NaiveDate, midnight: i64, hour: u32, part: &Stretch) -> bool {
        let hours = self.pattern.hours;
        let offset_before = self.zone.offset(part.from - 1);
        let is_asked_before = self.after_ms < part.from * 1000;
        let first_hour = hour_of(part.from + part.offset);
        if hour != first_hour || !is_asked_before || offset_before == part.offset {
            return hours.has(hour);
        }
        if offset_before > part.offset {
            let is_whole = (part.from + part.offset) % HOUR == 0;
            return hours.has(hour) && (hours.count() == 24 || !is_whole);
        }
        let hour_before = hour_of(part.from - 1 + offset_before);
        let is_reached = part.from > self.day_start(midnight)
            || hours.has(hour_before) && date.pred_opt().is_some_and(|date| self.has_day(date));
        let mut skipped = (hour_before + 1) % 24;
        let mut is_named = hours.has(hour);
        while skipped != hour {
            is_named |= is_reached && hours.has(skipped);
            skipped = (skipped + 1) % 24;
        }
        is_named
    }

    /// The first moment at which the local date is not before that of this midnight.
    fn day_start(&self, midnight: i64) -> i64 {
        first_where(midnight - DAY, midnight + DAY, |moment| {
            moment + self.zone.offset(moment) >= midnight
        })
    }

    /// When the clock is changed between these moments; else the second one.
    fn change(&self, start: i64, end: i64) -> i64 {
        let offset = self.zone.offset(start);
        if self.zone.offset(end - 1) == offset {
            return end;
        }
        first_where(start, end, |moment| self.zone.offset(moment) != offset)
    }
}

/// The first moment in `low..high` for which it holds from there on; else `high`.
fn first_where(mut low: i64, mut high: i64, holds: impl Fn(i64) -> bool) -> i64 {
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

fn hour_of(local: i64) -> u32 {
    (local.rem_euclid(DAY) / HOUR) as u32
}

fn date_of(day: i64) -> Option<NaiveDate> {
    NaiveDate::from_epoch_days(i32::try_from(day).ok()?)
}

fn first_of_next_month(date: NaiveDate) -> Option<NaiveDate> {
    let (year, month) = match date.month() {
        12 => (date.year() + 1, 1),
        month => (date.year(), month + 1),
    };
    NaiveDate::from_ymd_opt(year, month, 1)
}
