//! Web addresses and `LinkedIn` pages in one spelling each.

use super::issue::{Code, Complaint};
use super::normalize::{ascii_host, host_of, registrable, shorten};

/// A web address with scheme and a lower-case host; the path stays.
pub fn website(text: &str) -> Result<String, Complaint> {
    let bad = || {
        Complaint::new(
            Code::UrlInvalid,
            format!("`{}` is no web address", shorten(text)),
        )
    };
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => ("https".to_owned(), text.strip_prefix("//").unwrap_or(text)),
    };
    if !matches!(scheme.as_str(), "http" | "https") || text.contains(char::is_whitespace) {
        return Err(bad());
    }
    let host = ascii_host(host_of(rest))
        .filter(|host| registrable(host).is_some())
        .ok_or_else(bad)?;
    let path_at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let path = if rest[path_at..] == *"/" {
        ""
    } else {
        &rest[path_at..]
    };
    Ok(format!("{scheme}://{host}{path}"))
}

/// A `LinkedIn` page, in the one form that can be compared: no locale host, query or closing slash.
pub fn linkedin(text: &str) -> Result<String, Complaint> {
    let bad = || {
        let message = format!("`{}` is no LinkedIn address", shorten(text));
        Complaint::new(Code::UrlInvalid, message)
    };
    let lower = text.to_lowercase();
    let rest = lower
        .split_once("://")
        .map_or(lower.as_str(), |(_, rest)| rest);
    let path = match rest.split_once('/') {
        Some((host, path)) if host == "linkedin.com" || host.ends_with(".linkedin.com") => path,
        Some(("in" | "company" | "school", _)) => rest,
        _ => return Err(bad()),
    };
    let path = path
        .split(['?', '#'])
        .next()
        .unwrap_or(path)
        .trim_matches('/');
    let mut parts = path.split('/');
    match (parts.next(), parts.next()) {
        (Some(kind @ ("in" | "company" | "school" | "pub" | "showcase")), Some(name))
            if !name.is_empty() && !name.contains(char::is_whitespace) =>
        {
            Ok(format!("https://www.linkedin.com/{kind}/{name}"))
        }
        _ => Err(bad()),
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
    fn links() {
        let bad = Err((Code::UrlInvalid, None));
        check(
            website,
            &[
                ("acme.com", Ok("https://acme.com")),
                ("http://WWW.Acme.com/", Ok("http://www.acme.com")),
                ("https://acme.com/A?b=C", Ok("https://acme.com/A?b=C")),
                ("ftp://acme.com", bad),
                ("javascript:alert(1)", bad),
                ("http://10.0.0.1/", bad),
                ("acme com", bad),
            ],
        );
        check(
            linkedin,
            &[
                (
                    "https://de.linkedin.com/in/Ada-L/?trk=x",
                    Ok("https://www.linkedin.com/in/ada-l"),
                ),
                (
                    "linkedin.com/company/acme",
                    Ok("https://www.linkedin.com/company/acme"),
                ),
                ("in/ada", Ok("https://www.linkedin.com/in/ada")),
                ("https://evil-linkedin.com/in/ada", bad),
                ("https://linkedin.com/feed", bad),
                ("ada", bad),
            ],
        );
    }
}
