//! A cell of a workbook, as people see it.

use std::borrow::Cow;

use calamine::{DataRef, ExcelDateTime, Style};

/// Integers below this have all their digits; of longer ones a spreadsheet keeps fifteen.
const EXACT: f64 = 1e15;
/// Milliseconds of a day.
const DAY_MS: f64 = 86_400_000.0;
/// Zeros that a format may put in front.
const ZEROS_MAX: usize = 30;

/// What the format of a cell does to its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Shown {
    #[default]
    Plain,
    /// `0.25` is seen as `25%`.
    Percent,
    /// `1234` is seen as `01234`: postal codes, ids.
    Zeros(usize),
}

impl Shown {
    pub(super) fn of(style: &Style) -> Self {
        let format = style.number_format.as_ref();
        Self::by_code(format.map_or("", |format| format.format_code.as_str()))
    }

    fn by_code(code: &str) -> Self {
        let code = code.split(';').next().unwrap_or_default();
        if code.ends_with('%') && !code.contains(['"', '\\']) {
            return Self::Percent;
        }
        let is_zeros = (2..=ZEROS_MAX).contains(&code.len()) && code.bytes().all(|b| b == b'0');
        if is_zeros {
            Self::Zeros(code.len())
        } else {
            Self::Plain
        }
    }
}

pub(super) fn cell<'a>(value: &'a DataRef<'_>, shown: Shown, decimal_comma: bool) -> Cow<'a, str> {
    match value {
        DataRef::Empty => Cow::Borrowed(""),
        DataRef::String(text) => Cow::Borrowed(text),
        DataRef::SharedString(text) => Cow::Borrowed(text),
        DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => Cow::Borrowed(text),
        DataRef::Bool(true) => Cow::Borrowed("TRUE"),
        DataRef::Bool(false) => Cow::Borrowed("FALSE"),
        DataRef::Error(error) => Cow::Owned(error.to_string()),
        DataRef::Int(number) => Cow::Owned(format(*number as f64, shown, decimal_comma)),
        DataRef::Float(number) => Cow::Owned(format(*number, shown, decimal_comma)),
        DataRef::DateTime(date) => Cow::Owned(date_time(date)),
    }
}

fn format(number: f64, shown: Shown, decimal_comma: bool) -> String {
    let mut text = match shown {
        Shown::Plain => plain(number),
        Shown::Percent => format!("{}%", plain(number * 100.0)),
        Shown::Zeros(digits) if number >= 0.0 && number.fract() == 0.0 => {
            format!("{:0>digits$}", plain(number))
        }
        Shown::Zeros(_) => plain(number),
    };
    if decimal_comma {
        text = text.replace('.', ",");
    }
    text
}

/// The fifteen digits that a spreadsheet shows; beyond, the way in which it says that digits are
/// lost, which the checks of ids know.
fn plain(number: f64) -> String {
    let rounded: f64 = format!("{number:.14e}").parse().unwrap_or(number);
    if rounded.abs() >= EXACT {
        return format!("{rounded:E}").replace('E', "E+");
    }
    // Minus zero is nothing that people see.
    format!("{}", rounded + 0.0)
}

/// ISO 8601, which no reader takes for another day: `2024-03-01`, `2024-03-01 13:30:00`. A time
/// without a day, and a span: `13:30:00`, `26:00:00`.
fn date_time(date: &ExcelDateTime) -> String {
    let value = date.as_f64();
    if date.is_duration() || (0.0..1.0).contains(&value) {
        let seconds = (value.abs() * DAY_MS / 1000.0).round() as u64;
        let sign = if value < 0.0 { "-" } else { "" };
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        return format!("{sign}{hours:02}:{minutes:02}:{:02}", seconds % 60);
    }
    let (year, month, day, hour, minute, second, _) = date.to_ymd_hms_milli();
    let day = format!("{year:04}-{month:02}-{day:02}");
    match (hour, minute, second) {
        (0, 0, 0) => day,
        _ => format!("{day} {hour:02}:{minute:02}:{second:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use calamine::ExcelDateTimeType;

    #[test]
    fn numbers_have_the_digits_that_a_spreadsheet_shows() {
        for (number, expected) in [
            (42.0, "42"),
            (-0.0, "0"),
            (0.1 + 0.2, "0.3"),
            (1.5, "1.5"),
            (491_701_234_567.0, "491701234567"),
            (999_999_999_999_999.0, "999999999999999"),
            (1e-7, "0.0000001"),
            (12_345_678_901_234_567_890.0, "1.23456789012346E+19"),
        ] {
            assert_eq!(plain(number), expected);
        }
        assert!(crate::handlers::import_csv::normalize::is_rounded_number(
            &plain(1e20)
        ));
    }

    #[test]
    fn formats_that_change_what_is_read_are_followed() {
        for (code, number, expected) in [
            ("General", 0.25, "0.25"),
            ("0%", 0.25, "25%"),
            ("0.00%", 0.1234, "12.34%"),
            ("00000", 1234.0, "01234"),
            ("00000", 123_456.0, "123456"),
            ("00000", -5.0, "-5"),
            ("0", 7.0, "7"),
            ("#,##0.00", 1234.5, "1234.5"),
            ("0\" %\"", 3.0, "3"),
        ] {
            assert_eq!(
                format(number, Shown::by_code(code), false),
                expected,
                "{code}"
            );
        }
        assert_eq!(format(1.5, Shown::Plain, true), "1,5");
    }

    #[test]
    fn dates_are_days_and_spans_are_hours() {
        use ExcelDateTimeType::{DateTime, TimeDelta};
        for (value, kind, expected) in [
            (45_352.0, DateTime, "2024-03-01"),
            (45_352.562_5, DateTime, "2024-03-01 13:30:00"),
            (0.562_5, DateTime, "13:30:00"),
            (1.5, TimeDelta, "36:00:00"),
            (-0.5, TimeDelta, "-12:00:00"),
        ] {
            assert_eq!(date_time(&ExcelDateTime::new(value, kind, false)), expected);
        }
    }
}
