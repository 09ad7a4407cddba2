//! Telephone numbers in one spelling.

use super::issue::{Code, Complaint};
use super::normalize::is_rounded_number;

/// A telephone number: `+` and digits where the country is known, else the digits; an extension as
/// ` x12` behind it.
pub fn phone(text: &str, default_dial: &str) -> Result<String, Complaint> {
    let bad = |why: &'static str| Complaint::new(Code::PhoneInvalid, why);
    if is_rounded_number(text) {
        let message = "a spreadsheet has rounded this number; format the column as text";
        return Err(Complaint::new(Code::ExcelDamage, message));
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.trim_start_matches("tel:");
    let (number, extension) = split_extension(lower);
    if number
        .chars()
        .any(|c| !(c.is_ascii_digit() || " +-./()\u{A0}\u{2011}\u{2013}".contains(c)))
    {
        return Err(bad(
            "a telephone number has digits, blanks and + - . / ( ) only",
        ));
    }
    let mut digits: String = number.chars().filter(char::is_ascii_digit).collect();
    let international = number.trim_start().trim_start_matches('(').starts_with('+');
    if international {
        // `+49 (0)30 …`: the bracketed zero is dialled inside the country only.
        if let Some(at) = number.find("(0)") {
            let before = number[..at].chars().filter(char::is_ascii_digit).count();
            digits.remove(before);
        }
    } else if let Some(rest) = digits.strip_prefix("00") {
        digits = rest.to_owned();
    } else if !default_dial.is_empty() {
        // Italy keeps the zero of the area code; the others drop it.
        let national = if default_dial == "39" {
            &digits[..]
        } else {
            digits.trim_start_matches('0')
        };
        let national = match default_dial {
            "1" if national.len() == 11 && national.starts_with('1') => &national[1..],
            _ => national,
        };
        digits = format!("{default_dial}{national}");
    } else {
        return match digits.len() {
            5..=15 => Ok(with_extension(digits, extension)),
            _ => Err(bad("a telephone number has between 5 and 15 digits")),
        };
    }
    match digits.len() {
        7..=15 => Ok(with_extension(format!("+{digits}"), extension)),
        _ => Err(bad("a telephone number has between 7 and 15 digits")),
    }
}

fn split_extension(number: &str) -> (&str, Option<&str>) {
    for mark in ["extension", "ext.", "ext", "durchwahl", "x", "#"] {
        if let Some((number, extension)) = number.split_once(mark) {
            let extension = extension.trim_matches([' ', '.', ':']);
            let sound = (1..=6).contains(&extension.len())
                && extension.bytes().all(|byte| byte.is_ascii_digit());
            if sound {
                return (number, Some(extension));
            }
        }
    }
    (number, None)
}

fn with_extension(number: String, extension: Option<&str>) -> String {
    match extension {
        Some(extension) => format!("{number} x{extension}"),
        None => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value, or a code with the suggestion.
    type Expected<'a> = Result<&'a str, (Code, Option<&'a str>)>;

    fn check(function: impl Fn(&str) -> Result<String, Complaint>, cases: &[(&str, Expected<'_>)]) {
        for (text, expected) in cases {
            let found = function(text);
            let found = match &found {
                Ok(value) => Ok(value.as_str()),
                Err(complaint) => Err((complaint.code, complaint.suggestion.as_deref())),
            };
            assert_eq!(&found, expected, "{text:?}");
        }
    }

    #[test]
    fn telephone_numbers() {
        let bad = Err((Code::PhoneInvalid, None));
        check(
            |text| phone(text, "49"),
            &[
                ("+49 (0)30 / 123-456", Ok("+4930123456")),
                ("030 123456", Ok("+4930123456")),
                ("0044 20 7946 0958", Ok("+442079460958")),
                ("+1 (415) 555-0100 ext. 12", Ok("+14155550100 x12")),
                ("tel:+4930123456", Ok("+4930123456")),
                ("4,9E+10", Err((Code::ExcelDamage, None))),
                ("call me", bad),
                ("12", bad),
                ("1234567890123456", bad),
            ],
        );
        check(
            |text| phone(text, ""),
            &[
                ("(415) 555-0100", Ok("4155550100")),
                ("+14155550100", Ok("+14155550100")),
            ],
        );
        check(
            |text| phone(text, "1"),
            &[("1-415-555-0100", Ok("+14155550100"))],
        );
        check(
            |text| phone(text, "39"),
            &[("06 1234567", Ok("+39061234567"))],
        );
    }
}
