//! Numbers and texts as a report shows them.

/// `1,234,567`
pub(super) fn count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    match number < 0 {
        true => format!("-{text}"),
        false => text,
    }
}

/// `12 ms`, `1.2 s`, `3.4 min`, `5.6 h`, `7.8 d`
pub(super) fn time(ms: f64) -> String {
    const SECOND: f64 = 1_000.0;
    const MINUTE: f64 = 60.0 * SECOND;
    const HOUR: f64 = 60.0 * MINUTE;
    const DAY: f64 = 24.0 * HOUR;
    match ms {
        ms if ms < SECOND => format!("{ms:.0} ms"),
        ms if ms < MINUTE => format!("{:.1} s", ms / SECOND),
        ms if ms < HOUR => format!("{:.1} min", ms / MINUTE),
        ms if ms < 2.0 * DAY => format!("{:.1} h", ms / HOUR),
        ms => format!("{:.1} d", ms / DAY),
    }
}

/// `12 B`, `3.4 KB`, `5.6 GB`
pub(super) fn bytes(bytes: i64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if size < 1000.0 {
            let digits = usize::from(unit != "B");
            return format!("{size:.digits$} {unit}");
        }
        size /= 1000.0;
    }
    format!("{size:.1} TB")
}

/// What part of all; none of none.
pub(super) fn part(some: i64, all: i64) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64 * 100.0)
}

/// `99.9 %`. Never more than there is: 99.99 % of a part is not all of it.
pub(super) fn percent(some: i64, all: i64) -> String {
    match part(some, all) {
        None => "–".to_owned(),
        Some(part) => format!("{:.1} %", (part * 10.0).floor() / 10.0),
    }
}

/// A text that came from outside, as the text of an element or a quoted attribute: nothing in it is
/// markup, and what would not be shown, or would turn the text around it, is replaced.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (-1_234_567, "-1,234,567"),
        ] {
            assert_eq!(count(number), text);
        }
        for (ms, text) in [
            (0.4, "0 ms"),
            (999.0, "999 ms"),
            (1_234.0, "1.2 s"),
            (90_000.0, "1.5 min"),
            (7_200_000.0, "2.0 h"),
            (259_200_000.0, "3.0 d"),
        ] {
            assert_eq!(time(ms), text);
        }
        for (size, text) in [(12, "12 B"), (3_400, "3.4 KB"), (5_000_000_000, "5.0 GB")] {
            assert_eq!(bytes(size), text);
        }
        assert_eq!(
            (percent(0, 0), percent(9_999, 10_000)),
            ("–".into(), "99.9 %".into())
        );
        assert_eq!(percent(3, 3), "100.0 %");
    }

    #[test]
    fn nothing_that_came_from_outside_is_markup() {
        let text = escaped("<script>alert('x')</script>\"&\u{0}\u{202e}\n");
        let expected =
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;\u{fffd}\u{fffd} ";
        assert_eq!(text, expected);
    }
}
