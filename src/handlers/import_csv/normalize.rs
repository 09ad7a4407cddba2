//! One spelling for each thing: texts, domains and e-mail addresses.
//!
//! Pure functions from a cell to a value or a [`Complaint`]. They repair what has one obvious
//! meaning (blanks that do not show, case, `https://www.` in front of a domain) and refuse the rest
//! with a suggestion where there is a likely one. Links are in `link`,
//! telephone numbers in `phone`, other numbers in `number`.

use std::borrow::Cow;

use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::issue::{Code, Complaint};
use crate::handlers::formula;

/// Longest e-mail address that the mail standards allow.
pub const EMAIL_MAX: usize = 254;

/// A letter-and-digit skeleton for comparing names: no case, accents, blanks or punctuation.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for character in text.nfkd().filter(|c| !is_combining_mark(*c)) {
        match character {
            'ß' => folded.push_str("ss"),
            'ø' | 'Ø' => folded.push('o'),
            'ł' | 'Ł' => folded.push('l'),
            c if c.is_alphanumeric() => folded.extend(c.to_lowercase()),
            _ => {}
        }
    }
    folded
}

/// A cell without blanks that do not show, in composed form, and without a formula guard.
///
/// Exports write `'=1+1` so that a spreadsheet shows the text instead of computing it; reading such
/// a file again gives the original back.
pub fn clean(cell: &str) -> Cow<'_, str> {
    let unguarded = formula::unguarded(cell.trim_matches(invisible));
    if unguarded.is_ascii() || is_nfc_quick(unguarded.chars()) == IsNormalized::Yes {
        Cow::Borrowed(unguarded)
    } else {
        Cow::Owned(unguarded.nfc().collect())
    }
}

fn invisible(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}' | '\u{AD}'
        )
}

/// A text of one line: runs of blanks and line ends become one blank.
pub fn one_line(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c == ' ' || !invisible(c);
    if text.chars().all(plain) && !text.contains("  ") {
        return Cow::Borrowed(text);
    }
    let words: Vec<_> = text
        .split(invisible)
        .filter(|word| !word.is_empty())
        .collect();
    Cow::Owned(words.join(" "))
}

/// What spreadsheets write when a formula failed.
pub fn is_spreadsheet_error(text: &str) -> bool {
    const ERRORS: [&str; 9] = [
        "#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NULL!", "#NUM!", "#SPILL!", "#NV",
    ];
    text.starts_with('#') && ERRORS.iter().any(|error| text.eq_ignore_ascii_case(error))
}

/// A long number that a spreadsheet has rounded: `1.23E+11`.
pub fn is_rounded_number(text: &str) -> bool {
    let Some((mantissa, exponent)) = text.split_once(['E', 'e']) else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut mantissa_parts = mantissa.splitn(2, ['.', ',']);
    exponent.strip_prefix('+').is_some_and(digits)
        && mantissa_parts.next().is_some_and(digits)
        && mantissa_parts.next().is_none_or(digits)
}

/// The registrable domain in a domain, a URL or an e-mail address: `https://www.Shop.acme.co.uk/x`
/// gives `acme.co.uk`.
pub fn domain(text: &str) -> Result<String, Complaint> {
    let host = ascii_host(host_of(text)).ok_or_else(|| bad_domain(text))?;
    registrable(&host)
        .map(str::to_owned)
        .ok_or_else(|| bad_domain(text))
}

/// The registrable part of a host in ASCII form, when its ending is a known public suffix.
pub fn registrable(host: &str) -> Option<&str> {
    let suffix = psl::suffix(host.as_bytes())?;
    if !suffix.is_known() {
        return None;
    }
    psl::domain_str(host)
}

/// What stands between scheme and path.
pub(super) fn host_of(text: &str) -> &str {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or(rest);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => host,
    };
    host.trim_end_matches('.')
}

/// The host in lower-case ASCII (punycode), if every label is one that DNS allows.
pub(super) fn ascii_host(host: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let host = if host.bytes().all(plain) && !host.contains("--") {
        host.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii_strict(host).ok()?
    };
    let sound_label = |label: &str| {
        (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let mut labels = host.rsplit('.');
    let top_is_name = labels.next()?.bytes().any(|b| b.is_ascii_alphabetic());
    let sound =
        top_is_name && host.len() <= 253 && host.contains('.') && host.split('.').all(sound_label);
    sound.then_some(host)
}

fn bad_domain(text: &str) -> Complaint {
    let complaint = Complaint::new(
        Code::DomainInvalid,
        format!("`{}` is not a domain", shorten(text)),
    );
    let repaired: String = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| if c == ',' { '.' } else { c })
        .collect();
    if repaired == text {
        return complaint;
    }
    match ascii_host(host_of(&repaired))
        .as_deref()
        .and_then(registrable)
    {
        Some(domain) => complaint.suggest(domain),
        None => complaint,
    }
}

/// An e-mail address: the domain in lower case and ASCII, the local part as it was written.
pub fn email(text: &str) -> Result<String, Complaint> {
    parse_email(text).ok_or_else(|| {
        let message = format!("`{}` is not an e-mail address", shorten(text));
        let complaint = Complaint::new(Code::EmailInvalid, message);
        let repaired: String = text
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| if c == ',' { '.' } else { c })
            .collect();
        let repaired = repaired
            .replace("(at)", "@")
            .replace("[at]", "@")
            .replace("..", ".");
        match parse_email(repaired.trim_matches(['.', ';'])) {
            Some(address) => complaint.suggest(address),
            None => complaint,
        }
    })
}

fn parse_email(text: &str) -> Option<String> {
    // `Ada Lovelace <ada@example.com>` and `mailto:` links are common in exported address books.
    let text = match text.rsplit_once('<') {
        Some((_, rest)) => rest.strip_suffix('>')?,
        None => text,
    };
    let text = match text.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("mailto:") => &text[7..],
        _ => text,
    };
    let (local, domain) = text.rsplit_once('@')?;
    let sound = |c: char| {
        c.is_ascii_alphanumeric()
            || "!#$%&'*+/=?^_`{|}~.-".contains(c)
            || (!c.is_ascii() && c.is_alphanumeric())
    };
    let local_is_sound = (1..=64).contains(&local.len())
        && local.chars().all(sound)
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..");
    if !local_is_sound {
        return None;
    }
    let host = ascii_host(domain)?;
    // A public suffix alone receives no mail, and an unknown ending is a typing error.
    registrable(&host)?;
    let address = format!("{local}@{host}");
    (address.len() <= EMAIL_MAX).then_some(address)
}

/// The start of a value for a message; values may be megabytes long.
pub fn shorten(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => Cow::Owned(format!("{}…", &text[..at])),
        None => Cow::Borrowed(text),
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
    fn cells_lose_what_does_not_show() {
        for (cell, expected) in [
            ("  a b ", "a b"),
            ("\u{A0}a\u{200B}\u{FEFF}", "a"),
            ("Cafe\u{301}", "Café"),
            ("'=1+1", "=1+1"),
            ("'-5", "-5"),
            ("'s Hertogenbosch", "'s Hertogenbosch"),
            ("", ""),
        ] {
            assert_eq!(clean(cell), expected);
        }
        assert_eq!(one_line("a \n\t b"), "a b");
        assert_eq!(
            fold(" E-Mail  Straße (Größe) Łódź"),
            "emailstrassegrosselodz"
        );
    }

    #[test]
    fn spreadsheet_damage_is_recognised() {
        assert!(is_spreadsheet_error("#N/A") && is_spreadsheet_error("#ref!"));
        assert!(!is_spreadsheet_error("#1 Pizza"));
        for (text, rounded) in [
            ("1.23E+11", true),
            ("4,9E+10", true),
            ("1E+11", true),
            ("1E5", false),
            ("E+11", false),
            ("1.E+11", false),
            ("abcE+11", false),
        ] {
            assert_eq!(is_rounded_number(text), rounded, "{text}");
        }
    }

    #[test]
    fn domains() {
        let bad = |suggestion| Err((Code::DomainInvalid, suggestion));
        check(
            domain,
            &[
                ("acme.com", Ok("acme.com")),
                ("HTTPS://www.Acme.com/about?x=1", Ok("acme.com")),
                ("http://shop.acme.co.uk:8080/", Ok("acme.co.uk")),
                ("//acme.de", Ok("acme.de")),
                ("ada@mail.acme.com", Ok("acme.com")),
                ("acme.com.", Ok("acme.com")),
                ("müller.de", Ok("xn--mller-kva.de")),
                ("acme.github.io", Ok("acme.github.io")),
                ("acme,com", bad(Some("acme.com"))),
                ("acme .com", bad(Some("acme.com"))),
                ("acme", bad(None)),
                ("co.uk", bad(None)),
                ("127.0.0.1", bad(None)),
                ("acme.notatld", bad(None)),
                ("-acme.com", bad(None)),
                ("a..com", bad(None)),
                ("", bad(None)),
            ],
        );
    }

    #[test]
    fn emails() {
        let bad = |suggestion| Err((Code::EmailInvalid, suggestion));
        check(
            email,
            &[
                ("Ada.Lovelace@Example.COM", Ok("Ada.Lovelace@example.com")),
                (
                    "ada+tag@mail.example.co.uk",
                    Ok("ada+tag@mail.example.co.uk"),
                ),
                ("Ada <ada@example.com>", Ok("ada@example.com")),
                ("mailto:ada@example.com", Ok("ada@example.com")),
                ("o'brien@example.ie", Ok("o'brien@example.ie")),
                ("info@müller.de", Ok("info@xn--mller-kva.de")),
                ("a@b", bad(None)),
                ("ada@", bad(None)),
                ("@example.com", bad(None)),
                ("ada", bad(None)),
                ("ada@example,com", bad(Some("ada@example.com"))),
                ("ada @example.com", bad(Some("ada@example.com"))),
                ("ada(at)example.com", bad(Some("ada@example.com"))),
                ("ada..l@example.com", bad(Some("ada.l@example.com"))),
                ("ada@@example.com", bad(None)),
                (".ada@example.com", bad(Some("ada@example.com"))),
                ("ada@example.c0m", bad(None)),
                ("a@b.com; c@d.com", bad(None)),
            ],
        );
        let long = format!("{}@example.com", "x".repeat(65));
        assert!(email(&long).is_err());
    }
}
