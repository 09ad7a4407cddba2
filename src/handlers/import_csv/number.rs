//! Numbers as people write them: `1,234.56`, `1.234,56`, `1 234`, `$1.5M`, `51-200`.
//!
//! Where one value allows two readings (`1,234`), the number format of the file decides; the caller
//! knows it from the options or from the delimiter.

use super::issue::{Code, Complaint};
use super::normalize::shorten;
use super::payload::NumberFormat;

/// Largest number of employees that is believed: more people than any organisation has ever had.
pub const EMPLOYEES_MAX: i64 = 50_000_000;
/// Largest amount that is stored: fits a double exactly, so that JSON carries it unharmed.
pub const AMOUNT_MAX: f64 = 9_007_199_254_740_991.0;

/// A number of people. Of a range such as `51-200` or `10,001+` the lower end counts, because that
/// many are certain.
pub fn employees(text: &str, format: NumberFormat) -> Result<i32, Complaint> {
    let bad = || mismatch(text, "a number of employees");
    let lower = text.to_lowercase();
    let mut rest = lower.trim_start_matches(['~', '>', '≥', '≈', ' ']);
    for word in [
        "about ",
        "approx. ",
        "approx ",
        "ca. ",
        "ca ",
        "over ",
        "more than ",
    ] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let rest = rest
        .trim_end_matches("employees")
        .trim_end_matches("mitarbeiter")
        .trim();
    let first = rest.split(['-', '–', '—']).next().unwrap_or(rest);
    let first = first.split(" to ").next().unwrap_or(first);
    let first = first.trim().trim_end_matches('+');
    // There are no fractions of people: three digits behind the only mark are thousands.
    let ungrouped = first.replacen(['.', ','], "", 1);
    let grouped = first
        .rsplit(['.', ','])
        .next()
        .is_some_and(|behind| behind.len() == 3)
        && ungrouped.bytes().all(|byte| byte.is_ascii_digit());
    let value = parse(if grouped { &ungrouped } else { first }, format).ok_or_else(bad)?;
    if value < 0.0 || value.fract() != 0.0 || value > EMPLOYEES_MAX as f64 {
        return Err(bad());
    }
    Ok(value as i32)
}

/// An amount of money in whole units of its currency; the currency sign is dropped.
pub fn amount(text: &str, format: NumberFormat) -> Result<i64, Complaint> {
    let kept: String = text
        .to_uppercase()
        .replace("USD", "")
        .replace("EUR", "")
        .replace("GBP", "")
        .replace("CHF", "")
        .replace(['$', '€', '£', '¥'], "");
    match parse(kept.trim().trim_end_matches('+'), format) {
        Some(value) if value.abs() <= AMOUNT_MAX => Ok(value.round() as i64),
        _ => Err(mismatch(text, "an amount")),
    }
}

/// A number, with whatever stands behind its decimal mark; none that would lose digits before it.
pub fn number(text: &str, format: NumberFormat) -> Result<f64, Complaint> {
    let found = parse(text, format).filter(|number| number.abs() <= AMOUNT_MAX);
    found.ok_or_else(|| mismatch(text, "a number of at most 15 digits"))
}

fn mismatch(text: &str, expected: &str) -> Complaint {
    Complaint::new(
        Code::TypeMismatch,
        format!("`{}` is not {expected}", shorten(text)),
    )
}

fn parse(text: &str, format: NumberFormat) -> Option<f64> {
    let (text, negative) = match text
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
    {
        Some(inner) => (inner, true),
        None => match text.strip_prefix(['-', '−']) {
            Some(rest) => (rest.trim_start(), true),
            None => (text.strip_prefix('+').unwrap_or(text), false),
        },
    };
    let digits_end = text
        .find(|c: char| !(c.is_ascii_digit() || " .,'’\u{A0}\u{202F}\u{2009}".contains(c)))
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    // `1.23E+6` is a plain number to a spreadsheet that shows few digits.
    let (scale, unit) = match unit.strip_prefix(['E', 'e']) {
        Some(exponent)
            if exponent
                .trim_start_matches('+')
                .parse::<u8>()
                .is_ok_and(|e| e <= 15) =>
        {
            (
                10_f64.powi(exponent.trim_start_matches('+').parse().ok()?),
                "",
            )
        }
        _ => (1.0, unit),
    };
    let factor = match unit.trim().trim_end_matches('.').to_lowercase().as_str() {
        "" => 1.0,
        "k" | "tsd" | "thousand" => 1e3,
        "m" | "mm" | "mn" | "mio" | "mil" | "million" | "millions" | "millionen" => 1e6,
        "b" | "bn" | "mrd" | "billion" | "billions" | "milliarden" => 1e9,
        _ => return None,
    };
    let plain = plain_digits(digits.trim(), format)?;
    let value = plain.parse::<f64>().ok()? * scale * factor;
    value
        .is_finite()
        .then_some(if negative { -value } else { value })
}

/// Digits with a point before the fraction and nothing else.
fn plain_digits(text: &str, format: NumberFormat) -> Option<String> {
    let text: String = text
        .chars()
        .filter(|c| !" '’\u{A0}\u{202F}\u{2009}".contains(*c))
        .collect();
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (points, commas) = (text.matches('.').count(), text.matches(',').count());
    let decimal = match (points, commas) {
        (0, 0) => return Some(text),
        (1, 0) => is_decimal(&text, '.', format == NumberFormat::Point).then_some('.'),
        (0, 1) => is_decimal(&text, ',', format == NumberFormat::Comma).then_some(','),
        (_, 0) | (0, _) => None,
        _ if text.rfind('.') > text.rfind(',') && points == 1 => Some('.'),
        _ if text.rfind(',') > text.rfind('.') && commas == 1 => Some(','),
        _ => return None,
    };
    let (whole, fraction) = match decimal {
        Some(mark) => text.rsplit_once(mark)?,
        None => (text.as_str(), ""),
    };
    if fraction.contains(['.', ',']) || !grouped_by_three(whole) {
        return None;
    }
    let whole = whole.replace(['.', ','], "");
    Some(if fraction.is_empty() {
        whole
    } else {
        format!("{whole}.{fraction}")
    })
}

/// Whether the only separator of a number is its decimal one.
fn is_decimal(text: &str, mark: char, is_decimal_here: bool) -> bool {
    let behind = text.rsplit_once(mark).map_or(0, |(_, behind)| behind.len());
    behind != 3 || is_decimal_here
}

/// `1.234.567` is grouped; `1.2.3` is a version and `12.34.56` a date.
fn grouped_by_three(whole: &str) -> bool {
    let mut groups = whole.split(['.', ',']);
    let first = groups.next().map_or(0, str::len);
    let mut grouped = false;
    let sound = groups.all(|group| {
        grouped = true;
        // Indian grouping has pairs before the last three digits.
        group.len() == 3 || group.len() == 2
    });
    let last_is_three = whole
        .rsplit(['.', ','])
        .next()
        .is_some_and(|last| last.len() == 3);
    sound && (!grouped || (first <= 3 && last_is_three))
}

#[cfg(test)]
mod tests {
    use super::*;
    use NumberFormat::{Comma, Point};

    #[test]
    fn amounts() {
        for (text, format, expected) in [
            ("1234", Point, Some(1234)),
            ("1,234.56", Point, Some(1235)),
            ("1.234,56", Point, Some(1235)),
            ("1.234,56 €", Comma, Some(1235)),
            ("1,234", Point, Some(1234)),
            ("1,234", Comma, Some(1)),
            ("1.234", Comma, Some(1234)),
            ("1.234", Point, Some(1)),
            ("1,5", Point, Some(2)),
            ("1.234.567", Point, Some(1_234_567)),
            ("12,34,567", Point, Some(1_234_567)),
            ("1 234 567", Point, Some(1_234_567)),
            ("1'234'567.50", Point, Some(1_234_568)),
            ("$1.5M", Point, Some(1_500_000)),
            ("1,5 Mio. €", Comma, Some(1_500_000)),
            ("2 Mrd EUR", Comma, Some(2_000_000_000)),
            ("10k", Point, Some(10_000)),
            ("1.23E+6", Point, Some(1_230_000)),
            ("(500)", Point, Some(-500)),
            ("-5", Point, Some(-5)),
            ("$10M+", Point, Some(10_000_000)),
            ("1.2.3", Point, None),
            ("12.34.56", Point, None),
            ("n/a", Point, None),
            ("", Point, None),
            (".5", Point, None),
            ("1e99", Point, None),
            ("99999999999999999999", Point, None),
            ("10%", Point, None),
        ] {
            assert_eq!(amount(text, format).ok(), expected, "{text} {format:?}");
        }
    }

    #[test]
    fn employees_of_ranges_are_the_certain_ones() {
        for (text, expected) in [
            ("250", Some(250)),
            ("51-200", Some(51)),
            ("51 – 200 employees", Some(51)),
            ("10,001+", Some(10_001)),
            ("1.000", Some(1_000)),
            ("1,000", Some(1_000)),
            ("~500", Some(500)),
            ("ca. 30 Mitarbeiter", Some(30)),
            ("2k", Some(2_000)),
            ("-5", None),
            ("12.5", None),
            ("many", None),
            ("1000000000", None),
        ] {
            assert_eq!(employees(text, Point).ok(), expected, "{text}");
        }
        assert_eq!(employees("1.000", Comma).ok(), Some(1_000));
    }
}
