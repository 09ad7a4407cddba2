//! The cookie of a browser's session, and who may use it.
//!
//! A browser sends a cookie by itself, also when a page of somebody else makes it ask. So a request
//! that is known by its cookie alone must come from a page of this server: the cookie is
//! `SameSite`, browsers say where a request comes from (`Sec-Fetch-Site`, else `Origin`), and
//! whatever may change something names a token that only a page of this server could read (OWASP,
//! "Cross-Site Request Forgery Prevention"). Requests with a key or a token in a header need none
//! of this.

use axum::http::header::{COOKIE, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::clock;
use crate::http::problem::{Code, Problem};

/// Where a page sends the token that only it could read.
pub(in crate::http) const CSRF: &str = "x-csrf-token";
/// Kept by browsers for encrypted connections to this very host only.
pub(in crate::http) const SECURE: &str = "__Host-bullwark_session";
/// On this machine itself, where connections need no encryption.
const LOCAL: &str = "bullwark_session";
/// What a session's cookie says: 256 random bits in base64.
const TOKEN_LENGTH: usize = 43;
/// A key of HMAC-SHA256 that is taken as it is, in bytes.
const KEY_LENGTH: usize = 64;

/// The session that a request names, if it does.
pub(in crate::http) fn session(headers: &HeaderMap) -> Option<&str> {
    let name = name(headers);
    let cookies = headers.get_all(COOKIE).into_iter();
    let mut pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, token) = pairs.find(|(named, _)| *named == name)?;
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (token.len() == TOKEN_LENGTH && token.chars().all(is_base64)).then_some(token)
}

/// What makes a browser keep the session until it ends.
pub(in crate::http) fn keep(headers: &HeaderMap, token: &str, until: DateTime<Utc>) -> HeaderValue {
    let seconds = (until - clock::now()).num_seconds().max(0);
    written(headers, token, seconds)
}

/// What makes a browser forget it.
pub(in crate::http) fn forget(headers: &HeaderMap) -> HeaderValue {
    written(headers, "", 0)
}

fn written(headers: &HeaderMap, token: &str, seconds: i64) -> HeaderValue {
    let name = name(headers);
    let secure = if name == SECURE { "; Secure" } else { "" };
    let text =
        format!("{name}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    // Base64 and digits: always a header.
    let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// A page chooses what it calls this server, not what the server's address is. A browser that was
/// made to call another machine by this name has no cookie for it.
fn name(headers: &HeaderMap) -> &'static str {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host: Option<Authority> = host.and_then(|host| host.parse().ok());
    let is_local = host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        let address: Result<std::net::IpAddr, _> = name.parse();
        name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
    });
    if is_local { LOCAL } else { SECURE }
}

/// What a page of this server sends in [`CSRF`] with this session.
pub(in crate::http) fn csrf_token(session: &str) -> String {
    URL_SAFE_NO_PAD.encode(mac(session).finalize().into_bytes())
}

fn mac(session: &str) -> Hmac<Sha256> {
    let mut key = [0; KEY_LENGTH];
    let length = session.len().min(KEY_LENGTH);
    key[..length].copy_from_slice(&session.as_bytes()[..length]);
    let mut mac = Hmac::<Sha256>::new(&key.into());
    mac.update(b"csrf");
    mac
}

/// Refuses what a page of another site could make a browser ask.
pub(super) fn check(parts: &Parts, session: &str) -> Result<(), Problem> {
    let text = |name: &str| parts.headers.get(name).map(|value| value.as_bytes());
    let changes = !matches!(parts.method, Method::GET | Method::HEAD);
    let is_own = match text("sec-fetch-site") {
        None | Some(b"same-origin") => true,
        // Typed, or opened from a bookmark.
        Some(b"none") => !changes,
        Some(_) => false,
    };
    if !is_own {
        let detail = "a page of another site may not use the session of this one";
        return Err(Problem::new(Code::ForeignOrigin, detail));
    }
    check_origin(&parts.headers)?;
    if !changes {
        return Ok(());
    }
    let given = text(CSRF).and_then(|token| URL_SAFE_NO_PAD.decode(token).ok());
    // Compared in constant time.
    let is_right = given.is_some_and(|given| mac(session).verify_slice(&given).is_ok());
    if is_right {
        return Ok(());
    }
    let detail = "a session that changes something must send the header `X-CSRF-Token` with the \
        `csrf_token` of `GET /api/session`";
    Err(Problem::new(Code::CsrfTokenRequired, detail))
}

/// Refuses a page that this server has not made, and a proxy that hides what the page calls it: the
/// name decides how safely a browser keeps the session.
pub(in crate::http) fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(HeaderValue::as_bytes);
    let Some(origin) = text(ORIGIN) else {
        return Ok(());
    };
    let host = text(HOST).unwrap_or_default();
    let schemes = [&b"https://"[..], b"http://"];
    let mut named = schemes
        .iter()
        .filter_map(|scheme| origin.strip_prefix(*scheme));
    if named.any(|authority| authority.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    let detail = "the page (`Origin`) is of another site than this server (`Host`); a proxy in \
        front must pass `Host` as the browser sent it";
    Err(Problem::new(Code::ForeignOrigin, detail))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use axum::response::IntoResponse;

    use super::*;

    const SESSION: &str = "abcdefghijklmnopqrstuvwxyz0123456789-_ABCDE";

    fn status(method: Method, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).header(HOST, "q.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        match check(&parts, SESSION) {
            Ok(()) => 200,
            Err(problem) => problem.into_response().status().as_u16(),
        }
    }

    #[test]
    fn only_a_page_of_this_server_may_use_its_session() {
        let token = csrf_token(SESSION);
        let own = ("sec-fetch-site", "same-origin");
        let with_token = ("x-csrf-token", token.as_str());
        assert_eq!(status(Method::GET, &[own]), 200);
        assert_eq!(status(Method::GET, &[("sec-fetch-site", "none")]), 200);
        assert_eq!(status(Method::POST, &[own, with_token]), 200);
        let old = ("origin", "https://q.example");
        assert_eq!(
            status(Method::POST, &[old, with_token]),
            200,
            "an old browser"
        );
        assert_eq!(status(Method::POST, &[with_token]), 200, "no browser");

        for site in ["cross-site", "same-site", ""] {
            let headers = [("sec-fetch-site", site), with_token];
            assert_eq!(status(Method::GET, &headers), 403, "{site}");
            assert_eq!(status(Method::POST, &headers), 403, "{site}");
        }
        let none = [("sec-fetch-site", "none"), with_token];
        assert_eq!(status(Method::POST, &none), 403);
        for origin in [
            "https://evil.example",
            "null",
            "https://q.example.evil",
            "q.example",
        ] {
            assert_eq!(
                status(Method::POST, &[("origin", origin), with_token]),
                403,
                "{origin}"
            );
        }
    }

    #[test]
    fn whatever_changes_something_needs_the_token_of_this_very_session() {
        let own = ("sec-fetch-site", "same-origin");
        let other = csrf_token("another session");
        for wrong in ["", "x", SESSION, other.as_str()] {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                assert_eq!(
                    status(method, &[own, ("x-csrf-token", wrong)]),
                    403,
                    "{wrong}"
                );
            }
        }
        assert_eq!(status(Method::POST, &[own]), 403);
    }

    const OTHER: &str = "abcdefghijklmnopqrstuvwxyz0123456789-_ABCDF";

    #[test]
    fn a_cookie_is_for_encrypted_connections_but_on_this_machine() {
        let headers = |host: &str, cookie: &str| {
            let pairs = [(HOST, host), (COOKIE, cookie)];
            let pair = |(name, value): (_, &str)| (name, HeaderValue::from_str(value).unwrap());
            HeaderMap::from_iter(pairs.map(pair))
        };
        for host in ["localhost:8080", "127.0.0.1", "[::1]:8080"] {
            let here = headers(host, &format!("a=1; bullwark_session={SESSION}"));
            let kept = keep(&here, "one", clock::now());
            let kept = kept.to_str().unwrap();
            assert!(
                kept.starts_with("bullwark_session=one; Path=/; Max-Age=0; "),
                "{kept}"
            );
            assert!(kept.ends_with("; HttpOnly; SameSite=Strict"), "{kept}");
            assert_eq!(session(&here), Some(SESSION));
        }
        let away = headers("q.example", &format!("bullwark_session={SESSION}"));
        assert_eq!(session(&away), None);
        let kept = keep(&away, "one", clock::now());
        assert!(
            kept.to_str()
                .unwrap()
                .ends_with("; SameSite=Strict; Secure")
        );
        let away = headers("q.example", &format!("x; __Host-bullwark_session={OTHER} "));
        assert_eq!(session(&away), Some(OTHER));
        for wrong in ["", "one", &"x".repeat(44), &"=".repeat(43)] {
            let away = headers("q.example", &format!("__Host-bullwark_session={wrong}"));
            assert_eq!(session(&away), None, "{wrong}");
        }
    }
}
