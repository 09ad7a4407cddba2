//! Texts that a spreadsheet would compute, and the guard that keeps it from that.
//!
//! Promises: whatever [`guarded`] makes, [`unguarded`] brings back to what it was, so a file that
//! was exported can be imported again. A text that looks guarded already gets another apostrophe
//! for that.

use std::borrow::Cow;

/// Whether a spreadsheet would take a text for a formula, also in full width or behind blanks.
pub fn starts_a_formula(text: &str) -> bool {
    let first = text.trim_start_matches(' ').chars().next();
    first.is_some_and(|c| "=+-@\t\r\n＝＋－＠".contains(c))
}

/// The text, with an apostrophe before it where a spreadsheet would compute it.
pub fn guarded(text: &str) -> Cow<'_, str> {
    match starts_a_formula(text.trim_start_matches('\'')) {
        true => Cow::Owned(format!("'{text}")),
        false => Cow::Borrowed(text),
    }
}

/// The text without its guard, if it has one.
pub fn unguarded(text: &str) -> &str {
    match text.strip_prefix('\'') {
        Some(rest) if starts_a_formula(rest.trim_start_matches('\'')) => rest,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_would_compute_are_guarded() {
        for (text, guarded) in [
            ("=1", true),
            ("+1", true),
            ("-1", true),
            ("@x", true),
            ("\tx", true),
            (" =1", true),
            ("＝1", true),
            ("a=1", false),
            ("", false),
            ("'=1", false),
        ] {
            assert_eq!(starts_a_formula(text), guarded, "{text:?}");
        }
    }

    #[test]
    fn a_guard_is_taken_off_again_whatever_stood_there() {
        for (text, in_file) in [
            ("=cmd|'/c calc'!A1", "'=cmd|'/c calc'!A1"),
            ("+49 30 1", "'+49 30 1"),
            ("'=1", "''=1"),
            ("''@x", "'''@x"),
            ("'tis", "'tis"),
            ("'", "'"),
            ("plain", "plain"),
        ] {
            assert_eq!(guarded(text), in_file);
            assert_eq!(unguarded(in_file), text);
        }
    }
}
