//! Names of hosts that users give, for protocols other than HTTP.

use std::net::SocketAddr;

use super::{Forbidden, is_forbidden};

/// Why a host has no address that may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error("`{0}` is not known: {1}")]
    Unknown(String, String),
}

/// The addresses of a host that may be reached. Whoever connects does so to one of these, and does
/// not ask for the name again.
pub async fn resolve(
    host: &str,
    port: u16,
    allow_private: bool,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let unknown =
        |why: &dyn std::fmt::Display| ResolveError::Unknown(host.to_owned(), why.to_string());
    let found = tokio::net::lookup_host((host, port)).await;
    let found: Vec<SocketAddr> = found.map_err(|error| unknown(&error))?.collect();
    if found.is_empty() {
        return Err(unknown(&"it has no address"));
    }
    let is_allowed = |address: &SocketAddr| allow_private || !is_forbidden(address.ip());
    let allowed: Vec<SocketAddr> = found.into_iter().filter(is_allowed).collect();
    match allowed.is_empty() {
        true => {
            let why = format!("`{host}` is an address inside of this network");
            Err(Forbidden(why).into())
        }
        false => Ok(allowed),
    }
}
