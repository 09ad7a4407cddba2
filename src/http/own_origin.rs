//! Who may ask the admin port: programs, and no page of another site in somebody's browser.
//!
//! A browser on this machine reaches loopback, too. It names the page that asks in `Origin`; and a
//! page whose name was made to point here (DNS rebinding) betrays itself by its name in `Host`.
//! Programs send no `Origin` and the address that they were given.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{Code, Problem};

/// Lets a request through unless a page of another site makes it.
pub(super) async fn refuse_pages(
    bound: Option<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match check(bound, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(bound: Option<SocketAddr>, headers: &HeaderMap) -> Result<(), Problem> {
    // Without one it is no browser.
    let host = headers.get(HOST).map(|host| host.to_str().unwrap_or(""));
    let is_loopback = bound.is_some_and(|bound| bound.ip().is_loopback());
    if is_loopback && host.is_some_and(|host| !is_here(host, bound)) {
        let why = "this port is for this machine alone: ask it by a loopback address";
        return Err(Problem::new(Code::ForeignHost, why));
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    // Where names are allowed in `Host`, only an address proves that nobody made up the name.
    let own = host
        .filter(|host| is_loopback || address(host).is_some())
        .map(|host| format!("http://{host}"));
    if own.is_some_and(|own| origin.as_bytes().eq_ignore_ascii_case(own.as_bytes())) {
        return Ok(());
    }
    let why = "pages of other sites may not steer a worker";
    Err(Problem::new(Code::ForeignOrigin, why))
}

/// The host is this machine, by a name that nobody can point elsewhere.
fn is_here(host: &str, bound: Option<SocketAddr>) -> bool {
    let is_name = |host: Authority| host.host().eq_ignore_ascii_case("localhost");
    host.parse().is_ok_and(is_name)
        || address(host)
            .is_some_and(|ip| ip.is_loopback() || bound.is_some_and(|bound| bound.ip() == ip))
}

fn address(host: &str) -> Option<IpAddr> {
    let host: Authority = host.parse().ok()?;
    let text = host.host().trim_start_matches('[').trim_end_matches(']');
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bound: &str, host: Option<&str>, origin: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in [(HOST, host), (ORIGIN, origin)] {
            if let Some(value) = value {
                headers.insert(name, value.parse().unwrap());
            }
        }
        match check(Some(bound.parse().unwrap()), &headers) {
            Ok(()) => 200,
            Err(problem) => problem.into_response().status().as_u16(),
        }
    }

    #[test]
    fn programs_on_this_machine_may_ask() {
        let hosts = [
            None,
            Some("127.0.0.1:70"),
            Some("LocalHost:70"),
            Some("[::1]:70"),
        ];
        for host in hosts {
            assert_eq!(status("127.0.0.1:70", host, None), 200, "{host:?}");
        }
        let own = Some("http://127.0.0.1:70");
        assert_eq!(status("127.0.0.1:70", Some("127.0.0.1:70"), own), 200);
    }

    #[test]
    fn a_page_of_another_site_may_not() {
        let host = Some("127.0.0.1:70");
        for origin in [
            "http://evil.example",
            "null",
            "http://127.0.0.1:71",
            "https://127.0.0.1:70",
        ] {
            assert_eq!(status("127.0.0.1:70", host, Some(origin)), 403, "{origin}");
        }
    }

    #[test]
    fn a_name_that_was_pointed_here_is_no_name_of_this_machine() {
        for host in [
            "evil.example:70",
            "localhost.evil.example",
            "10.0.0.7:70",
            "",
            "\u{e9}",
        ] {
            assert_eq!(status("127.0.0.1:70", Some(host), None), 403, "{host}");
        }
        // Off loopback any name may be right, but a page by that name proves nothing.
        let name = Some("worker.internal:70");
        assert_eq!(status("0.0.0.0:70", name, None), 200);
        assert_eq!(
            status("0.0.0.0:70", name, Some("http://worker.internal:70")),
            403
        );
        let ip = Some("10.0.0.7:70");
        assert_eq!(status("0.0.0.0:70", ip, Some("http://10.0.0.7:70")), 200);
    }
}
