//! Halves of surrogate pairs in JSON.
//!
//! A string of JavaScript may hold one, `JSON.stringify` writes it as an escape, and `JSON.parse`
//! reads it. No text of UTF-8 can hold it: the replacement character takes its place.

use std::borrow::Cow;

const ESCAPE_LEN: usize = 6;

/// JSON in which no escape names half a pair. Everything else stays as it is, right or wrong.
pub(super) fn mended(json: &str) -> Cow<'_, str> {
    if !json.contains("\\u") {
        return Cow::Borrowed(json);
    }
    let mut mended = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        mended.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match unit(rest) {
            Some(0xd800..=0xdbff) => match rest.get(ESCAPE_LEN..).and_then(unit) {
                Some(0xdc00..=0xdfff) => 2 * ESCAPE_LEN,
                _ => 0,
            },
            Some(0xdc00..=0xdfff) => 0,
            // The character behind a backslash begins no escape of its own.
            _ => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        if taken == 0 {
            mended.push_str("\\ufffd");
            rest = &rest[ESCAPE_LEN..];
        } else {
            mended.push_str(&rest[..taken]);
            rest = &rest[taken..];
        }
    }
    mended.push_str(rest);
    Cow::Owned(mended)
}

/// The number of the escape that a text begins with.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u16::from_str_radix(digits, 16).ok().filter(|_| is_hex)
}

#[cfg(test)]
mod tests {
    use super::mended;

    #[test]
    fn only_halves_of_pairs_are_replaced() {
        for (json, becomes) in [
            (r#""plain""#, r#""plain""#),
            (r#""\ud83d\ude00 \u00e9""#, r#""\ud83d\ude00 \u00e9""#),
            (r#""\uD83D""#, r#""\ufffd""#),
            (
                r#""\ude00\ud83d\ud83d\ude00""#,
                r#""\ufffd\ufffd\ud83d\ude00""#,
            ),
            (r#""\ud83d\n\\ud83d""#, r#""\ufffd\n\\ud83d""#),
            (r#""\u12""#, r#""\u12""#),
            (r#""\u+d83""#, r#""\u+d83""#),
            ("\"\\é\\", "\"\\é\\"),
        ] {
            assert_eq!(mended(json), becomes, "{json}");
        }
    }
}
