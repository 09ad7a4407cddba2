//! Addresses that users give for calls, checked before they are stored and again before each call.

use reqwest::Url;

use super::{Forbidden, check_literal};

/// The longest address that may be stored, in bytes.
pub const URL_MAX_BYTES: usize = 2048;
/// The longest address that is called: a client of ours adds what it asks for. More is refused by
/// servers anyway (Salesforce takes 16,384 bytes of address and headers).
const TARGET_MAX_BYTES: usize = 16 * 1024;
/// From here on any port may be called; below it live mail, shells and the like.
const FREE_PORTS: u16 = 1024;

/// The address, if it may be stored: one that may be called, and that does not name this machine.
pub fn check_url(text: &str, allow_private: bool) -> Result<Url, Forbidden> {
    check_length(text, URL_MAX_BYTES)?;
    let url = check_target(text, allow_private)?;
    match !allow_private && is_local_name(&url) {
        true => Err(Forbidden("names this machine or its network".to_owned())),
        false => Ok(url),
    }
}

/// The address, if it may be called. What its name means is looked at when it is resolved.
///
/// Over the public internet that is `https://` only; `http://` goes where private addresses are
/// allowed, which is where nobody listens in between. `http://` elsewhere would show what is sent
/// to everybody on the way.
pub(super) fn check_target(text: &str, allow_private: bool) -> Result<Url, Forbidden> {
    let refused = |why: &str| Err(Forbidden(why.to_owned()));
    check_length(text, TARGET_MAX_BYTES)?;
    if text.contains(char::is_control) || text.trim() != text {
        return refused("must have no blanks around it and no control characters");
    }
    let Ok(url) = Url::parse(text) else {
        return refused("is no URL; one looks like https://example.com/hooks");
    };
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        "http" => {
            return refused(
                "must begin with https://; http:// is for servers that allow private addresses \
                 (BULLWARK_ALLOW_PRIVATE_ADDRESSES)",
            );
        }
        _ => return refused("must begin with https://"),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return refused("has no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused("must have no user and no password in it");
    }
    if url.fragment().is_some() {
        return refused("must have no fragment (`#…`): it is never sent");
    }
    let port = url.port_or_known_default().unwrap_or(0);
    if !allow_private && port < FREE_PORTS && !matches!(port, 80 | 443) {
        return Err(Forbidden(format!(
            "names port {port}; allowed are 443, 80, and those from {FREE_PORTS} on"
        )));
    }
    check_literal(&url, "it", allow_private)?;
    Ok(url)
}

fn check_length(text: &str, max: usize) -> Result<(), Forbidden> {
    match text.len() > max {
        true => Err(Forbidden(format!("must have at most {max} bytes"))),
        false => Ok(()),
    }
}

/// Names that mean an address inside, everywhere. Others are looked at when they are resolved.
fn is_local_name(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    let ends = ["localhost", "internal", "local"];
    ends.iter().any(|end| {
        let rest = host.strip_suffix(end);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_https_is_called() {
        for (text, words) in [
            ("https://example.com/hooks?key=1", ""),
            ("https://example.com:8443/", ""),
            ("https://8.8.8.8/", ""),
            ("http://example.com/", "https://"),
            ("ftp://example.com/", "https://"),
            ("file:///etc/passwd", "https://"),
            ("/etc/passwd", "is no URL"),
            ("https://", "is no URL"),
            ("https://ada:hush@example.com/", "no user"),
            ("https://example.com/#x", "fragment"),
            (" https://example.com/", "blanks"),
            ("https://example.com/\n", "blanks"),
            ("https://example.com:25/", "port 25"),
            ("https://example.com:0/", "port 0"),
            ("https://127.0.0.1/", "inside of this network"),
            ("https://2130706433/", "inside of this network"),
            ("https://0x7f.1/", "inside of this network"),
            (
                "https://[::ffff:169.254.169.254]/",
                "inside of this network",
            ),
            ("https://169.254.169.254/latest", "inside of this network"),
            ("https://localhost/", "this machine"),
            ("https://a.LOCALHOST./", "this machine"),
            ("https://metadata.google.internal/", "this machine"),
            ("https://notlocalhost/", ""),
        ] {
            match check_url(text, false) {
                Ok(_) => assert_eq!(words, "", "{text}"),
                Err(Forbidden(why)) => {
                    assert!(!words.is_empty() && why.contains(words), "{text}: {why}");
                    assert!(!why.contains("hush"), "{why}");
                }
            }
        }
        let long = format!("https://example.com/{}", "x".repeat(URL_MAX_BYTES));
        assert!(check_url(&long, false).is_err());
    }

    #[test]
    fn closed_networks_may_call_themselves_and_nothing_else_is_loosened() {
        for text in ["http://127.0.0.1:81/", "http://localhost/", "https://db:25"] {
            assert!(check_url(text, true).is_ok(), "{text}");
        }
        for text in ["ftp://127.0.0.1/", "http://a:b@127.0.0.1/", "http://x/#y"] {
            assert!(check_url(text, true).is_err(), "{text}");
        }
    }
}
