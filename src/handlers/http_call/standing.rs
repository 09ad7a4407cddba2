//! Whose quota a call uses, and whose breaker it feeds: those of the host that is called, within
//! the workspace. One that fails at an address of a user is left alone for that workspace only.

use reqwest::Url;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::super::connection::Connection;
use crate::job::JobError;
use crate::quota::{Limits, QuotaKey};
use crate::uploads::hex;

/// Letters of a host's sum that stand for a name that can be no service.
const SUM_LETTERS: usize = 32;

/// What is asked for before a call.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) key: QuotaKey,
    /// What nobody has set: the receiver's own words count, and nothing else.
    pub(super) limits: Limits,
    pub(super) breaker: String,
}

impl Standing {
    pub(super) fn of(
        workspace_id: Uuid,
        url: &str,
        connection: Option<&Connection>,
    ) -> Result<Self, JobError> {
        let service = service(url).ok_or_else(|| JobError::permanent("`url` is no URL"))?;
        let breaker = match connection {
            Some(connection) => format!("connection.{}", connection.id),
            None => format!("{}.{service}", workspace_id.simple()),
        };
        Ok(Self {
            key: QuotaKey::new(&service, workspace_id).map_err(JobError::permanent)?,
            limits: Limits::of([]),
            breaker,
        })
    }
}

/// What the host of an address is called among services: its name, with its port if that is not
/// the usual one.
fn service(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?.trim_end_matches('.');
    let plain = host.trim_matches(['[', ']']).replace(':', "-");
    let name = match url.port() {
        Some(port) => format!("{plain}-{port}"),
        None => plain,
    };
    let name = name.to_ascii_lowercase();
    match crate::job::quota::check_service(&name) {
        Ok(()) => Some(name),
        // A host may have 253 letters.
        Err(_) => {
            let sum = hex(&Sha256::digest(name.as_bytes()));
            Some(format!("host-{}", &sum[..SUM_LETTERS]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_service() {
        for (url, expected) in [
            ("https://API.Example.com/v1?x=1", "api.example.com"),
            ("https://api.example.com.:443/", "api.example.com"),
            ("https://api.example.com:8443/", "api.example.com-8443"),
            ("http://[2001:db8::1]:8080/", "2001-db8--1-8080"),
            ("https://bücher.example/", "xn--bcher-kva.example"),
        ] {
            assert_eq!(service(url).as_deref(), Some(expected), "{url}");
        }
        let long = format!("https://{}.example/", vec!["a"; 60].join("."));
        assert_eq!(service(&long).unwrap().len(), 5 + SUM_LETTERS);
        assert_ne!(
            service(&long),
            service(&long.replace("a.example", "b.example"))
        );
        assert_eq!(service("no url"), None);
    }
}
