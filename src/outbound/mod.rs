//! Calls to addresses that users give: what guards every one of them.
//!
//! Whoever may name an address may try to make this machine talk to its own network: to a metadata
//! service, to a database, to a router. So a host that is an address is looked at in the URL
//! ([`check_literal`]), a name when it is resolved ([`GuardedResolver`]), each time anew; and no
//! proxy stands between the guard and the connection. [`Caller`] sends what is to be sent.
//!
//! Promises: with private addresses forbidden, no byte goes to an address that is not of the public
//! internet. Query strings are secrets (signed links): no error has one.

mod address;
mod call;
mod failure;
mod resolve;
mod url;

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

pub use address::GuardedResolver;
use address::is_forbidden;
pub use call::{ANSWER_MAX_BYTES, Answer, CALL_TIMEOUT, Call, CallFailure, Caller};
pub use failure::{Failure, explain};
pub use resolve::{ResolveError, resolve};
pub use url::{URL_MAX_BYTES, check_url};

/// Longest wait that a server may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// An address that must not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Forbidden(pub String);

/// Whether an address that somebody has looked up by himself may be reached.
pub fn may_reach(ip: IpAddr, allow_private: bool) -> bool {
    allow_private || !is_forbidden(ip)
}

/// Hosts that are addresses never reach the resolver: they are looked at here. `what` leads there.
pub fn check_literal(url: &Url, what: &str, allow_private: bool) -> Result<(), Forbidden> {
    if !matches!(url.scheme(), "http" | "https") {
        let scheme = url.scheme();
        let why = format!("{what} leads to `{scheme}://`, which is not allowed");
        return Err(Forbidden(why));
    }
    match literal(url) {
        Some(ip) if !allow_private && is_forbidden(ip) => Err(Forbidden(format!(
            "{what} leads to {ip}, an address inside of this network"
        ))),
        _ => Ok(()),
    }
}

/// The host of a URL, if it is an address. Whatever way it was written in, the parser of URLs has
/// made one form of it.
fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse().ok()
}

/// `Retry-After` in seconds, or as a date compared with the server's own clock.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let seconds = match text.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let date = |text| chrono::DateTime::parse_from_rfc2822(text).ok();
            let now = date(headers.get(DATE)?.to_str().ok()?)?;
            u64::try_from((date(text)? - now).num_seconds()).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests;
