//! The text of a cron pattern, read into sets of numbers.
//!
//! Reads what `cron-parser` 5 reads, the library that `BullMQ` uses: up to six fields, seconds
//! first; fewer leave out the first ones. Seconds are 0 then, all others every. A field is a list
//! of `n`, `n-m`, `*`, `?`, each with `/step` if wanted; months and weekdays have English names;
//! `L` is the last day of a month, `5L` its last Friday, `5#3` its third Friday. It refuses `H`
//! (a number that the library draws anew each time), and whatever can never happen.

use std::str::FromStr;

/// The longest pattern that is looked at, in bytes.
const PATTERN_MAX: usize = 1024;
const DAYS_IN_MONTH: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// Names that stand for a whole pattern.
const NAMED: [(&str, &str); 10] = [
    ("@yearly", "0 0 0 1 1 *"),
    ("@annually", "0 0 0 1 1 *"),
    ("@monthly", "0 0 0 1 * *"),
    ("@weekly", "0 0 0 * * 0"),
    ("@daily", "0 0 0 * * *"),
    ("@hourly", "0 0 * * * *"),
    ("@minutely", "0 * * * * *"),
    ("@secondly", "* * * * * *"),
    ("@weekdays", "0 0 0 * * 1-5"),
    ("@weekends", "0 0 0 * * 0,6"),
];
/// Names of months and of weekdays, with their numbers. They are accepted in either field.
const NAMES: [(&str, u32); 19] = [
    ("jan", 1),
    ("feb", 2),
    ("mar", 3),
    ("apr", 4),
    ("may", 5),
    ("jun", 6),
    ("jul", 7),
    ("aug", 8),
    ("sep", 9),
    ("oct", 10),
    ("nov", 11),
    ("dec", 12),
    ("sun", 0),
    ("mon", 1),
    ("tue", 2),
    ("wed", 3),
    ("thu", 4),
    ("fri", 5),
    ("sat", 6),
];

/// Why a text is no cron pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    #[error("the cron pattern is empty")]
    Empty,
    #[error("the cron pattern has {0} characters, at most {PATTERN_MAX} are allowed")]
    TooLong(usize),
    #[error(
        "the cron pattern has {0} fields: five are wanted (minute, hour, day of month, month, \
         day of week), or six with the second first"
    )]
    TooManyFields(usize),
    #[error("the {field} of the cron pattern, `{text}`, {problem}")]
    Field {
        field: &'static str,
        text: String,
        problem: String,
    },
    #[error("the cron pattern asks for a day that its month does not have")]
    NoSuchDay,
}

/// A set of the numbers 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn has(self, number: u32) -> bool {
        (self.0 >> number) & 1 == 1
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |number| self.has(*number))
    }

    pub(super) fn count(self) -> u32 {
        self.0.count_ones()
    }

    fn add(&mut self, number: u32) {
        self.0 |= 1 << number;
    }
}

/// A cron pattern: which moments of local time it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    pub(super) seconds: Numbers,
    pub(super) minutes: Numbers,
    pub(super) hours: Numbers,
    months: Numbers,
    days: Numbers,
    is_last_day: bool,
    is_any_day: bool,
    /// 0 is Sunday.
    weekdays: Numbers,
    last_weekdays: Numbers,
    /// Which of the month's; none: all.
    nth_weekday: Option<u32>,
    is_any_weekday: bool,
}

impl Pattern {
    /// Whether the day of a date is named. `weekday` 0 is Sunday. If both day of month and day of
    /// week are given, one of them is enough.
    pub(super) fn has_day(&self, day: u32, days_in_month: u32, weekday: u32) -> bool {
        let by_day = self.days.has(day) || self.is_last_day && day == days_in_month;
        let is_nth = self.nth_weekday.is_none_or(|nth| day.div_ceil(7) == nth);
        let is_last = day + 7 > days_in_month && self.last_weekdays.has(weekday);
        let by_weekday = self.weekdays.has(weekday) && is_nth || is_last;
        match (self.is_any_day, self.is_any_weekday) {
            (false, false) => by_day || by_weekday,
            (true, false) => by_weekday,
            (_, true) => by_day,
        }
    }

    pub(super) fn has_month(&self, month: u32) -> bool {
        self.months.has(month)
    }
}

/// The six fields of a pattern, those that it leaves out included.
pub(super) fn fields(text: &str) -> Result<[&str; 6], InvalidPattern> {
    if text.len() > PATTERN_MAX {
        return Err(InvalidPattern::TooLong(text.len()));
    }
    let named = NAMED.iter().find(|(name, _)| *name == text);
    let given: Vec<&str> = named
        .map_or(text, |(_, pattern)| *pattern)
        .split_whitespace()
        .collect();
    if given.is_empty() {
        return Err(InvalidPattern::Empty);
    }
    let mut fields = ["0", "*", "*", "*", "*", "*"];
    let Some(left_out) = fields.len().checked_sub(given.len()) else {
        return Err(InvalidPattern::TooManyFields(given.len()));
    };
    fields[left_out..].copy_from_slice(&given);
    Ok(fields)
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let fields = fields(text)?;
        let [second, minute, hour, day, month, weekday] = fields;

        let (weekday_list, nth_weekday) = split_nth(weekday)?;
        let weekdays = WEEKDAY.read(weekday_list)?;
        let days = DAY.read(day)?;
        let pattern = Self {
            seconds: SECOND.read(second)?.numbers,
            minutes: MINUTE.read(minute)?.numbers,
            hours: HOUR.read(hour)?.numbers,
            months: MONTH.read(month)?.numbers,
            days: days.numbers,
            is_last_day: days.has_last,
            is_any_day: is_any(day),
            weekdays: weekdays.numbers,
            last_weekdays: weekdays.before_last,
            nth_weekday,
            is_any_weekday: is_any(weekday),
        };
        pattern.check_day()?;
        Ok(pattern)
    }
}

impl Pattern {
    /// One month, and no day that it has.
    fn check_day(&self) -> Result<(), InvalidPattern> {
        let mut months = self.months.iter();
        let (Some(month), None) = (months.next(), months.next()) else {
            return Ok(());
        };
        let longest = DAYS_IN_MONTH[month as usize - 1];
        let is_possible = self.is_last_day || self.days.iter().any(|day| day <= longest);
        if is_possible || !self.is_any_weekday {
            return Ok(());
        }
        Err(InvalidPattern::NoSuchDay)
    }
}

fn is_any(field: &str) -> bool {
    matches!(field, "*" | "?")
}

/// `5#3` is the third Friday. Lists and ranges have no third one.
fn split_nth(text: &str) -> Result<(&str, Option<u32>), InvalidPattern> {
    let Some((weekday, nth)) = text.split_once('#') else {
        return Ok((text, None));
    };
    if text.contains([',', '-', '/']) {
        return Err(WEEKDAY.refuse(text, "has `#` together with `,`, `-` or `/`"));
    }
    match nth.parse() {
        Ok(nth @ 1..=5) => Ok((weekday, Some(nth))),
        _ => Err(WEEKDAY.refuse(text, "needs a number from 1 to 5 after `#`")),
    }
}

/// What one field allows.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    has_names: bool,
    allows_last: bool,
}

const SECOND: Field = Field::new("second", 0, 59);
const MINUTE: Field = Field::new("minute", 0, 59);
const HOUR: Field = Field::new("hour", 0, 23);
const DAY: Field = Field {
    allows_last: true,
    ..Field::new("day of month", 1, 31)
};
const MONTH: Field = Field {
    has_names: true,
    ..Field::new("month", 1, 12)
};
/// 7 is Sunday as well.
const WEEKDAY: Field = Field {
    has_names: true,
    allows_last: true,
    ..Field::new("day of week", 0, 7)
};

/// The values of a field.
#[derive(Default)]
struct Values {
    numbers: Numbers,
    has_last: bool,
    /// The weekdays before an `L`.
    before_last: Numbers,
}

impl Field {
    const fn new(name: &'static str, min: u32, max: u32) -> Self {
        Self {
            name,
            min,
            max,
            has_names: false,
            allows_last: false,
        }
    }

    fn refuse(&self, text: &str, problem: impl Into<String>) -> InvalidPattern {
        InvalidPattern::Field {
            field: self.name,
            text: text.to_owned(),
            problem: problem.into(),
        }
    }

    fn read(&self, text: &str) -> Result<Values, InvalidPattern> {
        let mut values = Values::default();
        for part in self.without_names(text)?.split(',') {
            self.read_part(part, &mut values)
                .map_err(|problem| self.refuse(text, problem))?;
        }
        Ok(values)
    }

    /// The text with numbers in place of names.
    fn without_names(&self, text: &str) -> Result<String, InvalidPattern> {
        if !self.has_names {
            return Ok(text.to_owned());
        }
        let (mut result, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(first) = rest.chars().next() {
            let word = rest
                .get(..3)
                .filter(|word| word.bytes().all(|byte| byte.is_ascii_alphabetic()));
            let Some(word) = word else {
                result.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            };
            let found = NAMES
                .iter()
                .find(|(name, _)| word.eq_ignore_ascii_case(name));
            let Some((_, number)) = found else {
                return Err(self.refuse(text, format!("has the unknown name `{word}`")));
            };
            result.push_str(&number.to_string());
            rest = &rest[3..];
        }
        Ok(result)
    }

    fn read_part(&self, part: &str, values: &mut Values) -> Result<(), String> {
        if let Some(weekday) = part.strip_suffix('L').filter(|_| self.allows_last) {
            return self.read_last(weekday, values);
        }
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let (first, last) = match range {
            "*" | "?" => (self.min, self.max),
            _ => match (range.split_once('-'), step) {
                (Some((first, last)), _) => (self.number(first)?, self.number(last)?),
                (None, Some(_)) => (self.number(range)?, self.max),
                (None, None) => (self.number(range)?, self.number(range)?),
            },
        };
        if first > last {
            return Err(format!("has a range that ends before it begins: `{range}`"));
        }
        let step = match step.map(str::parse::<usize>) {
            None => 1,
            Some(Ok(step @ 1..)) => step,
            Some(_) => return Err("needs a number above 0 after `/`".to_owned()),
        };
        for number in (first..=last).step_by(step) {
            let is_sunday = self.max == 7 && number == 7;
            values.numbers.add(if is_sunday { 0 } else { number });
        }
        Ok(())
    }

    fn read_last(&self, before: &str, values: &mut Values) -> Result<(), String> {
        values.has_last = true;
        let is_weekday = self.max == 7;
        match before {
            "" if is_weekday => Err("needs a weekday before `L`".to_owned()),
            "" => Ok(()),
            _ => {
                let number = self.number(before)?;
                values.before_last.add(number % 7);
                Ok(())
            }
        }
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        if text.is_empty() {
            return Err("lacks a number".to_owned());
        }
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("is not understood at `{text}`"));
        }
        let number = text.parse().unwrap_or(u32::MAX);
        if number < self.min || number > self.max {
            let (min, max) = (self.min, self.max);
            return Err(format!("has {text}, which is not from {min} to {max}"));
        }
        Ok(number)
    }
}
