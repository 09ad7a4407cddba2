//! What a verification comes to.

use serde::Serialize;

use super::address::Address;
use super::mail_hosts::{Dns, MailHosts};

/// How good an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its domain takes mail, and nothing speaks against it. Whether there is such a mailbox only a
    /// mail tells.
    Valid,
    /// Mail may arrive, but perhaps at nobody in particular, or not for long.
    Risky,
    /// Mail can not arrive.
    Invalid,
    /// Nobody could be asked.
    Unknown,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Risky => "risky",
            Self::Invalid => "invalid",
            Self::Unknown => "unknown",
        }
    }
}

/// A status, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub status: Status,
    pub reasons: Vec<&'static str>,
}

impl Verdict {
    fn of(status: Status, reasons: &[&'static str]) -> Self {
        Self {
            status,
            reasons: reasons.to_vec(),
        }
    }
}

/// Verifies one address.
pub(super) async fn verify(dns: &Dns, text: &str) -> Verdict {
    let Some(address) = Address::parse(text) else {
        return Verdict::of(Status::Invalid, &["syntax"]);
    };
    let hosts = dns.mail_hosts(&address.domain).await;
    judge(&address, hosts)
}

fn judge(address: &Address, hosts: MailHosts) -> Verdict {
    let impossible = match hosts {
        MailHosts::Null => Some("takes_no_mail"),
        MailHosts::NoDomain => Some("no_such_domain"),
        MailHosts::None => Some("no_mail_server"),
        MailHosts::Some | MailHosts::Implicit | MailHosts::Unknown => None,
    };
    if let Some(reason) = impossible {
        return Verdict::of(Status::Invalid, &[reason]);
    }
    let mut reasons = Vec::new();
    for (is_so, reason) in [
        (address.is_disposable(), "disposable"),
        (address.is_role(), "role"),
        (address.needs_smtputf8(), "needs_smtputf8"),
        (hosts == MailHosts::Implicit, "implicit_mail_server"),
    ] {
        if is_so {
            reasons.push(reason);
        }
    }
    let status = match hosts {
        MailHosts::Unknown => {
            reasons.push("dns_unavailable");
            Status::Unknown
        }
        _ if reasons.is_empty() => Status::Valid,
        _ => Status::Risky,
    };
    Verdict { status, reasons }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_makes_the_status() {
        for (text, hosts, status, reasons) in [
            ("ann@acme.com", MailHosts::Some, Status::Valid, vec![]),
            (
                "info@acme.com",
                MailHosts::Some,
                Status::Risky,
                vec!["role"],
            ),
            (
                "ann@acme.com",
                MailHosts::Implicit,
                Status::Risky,
                vec!["implicit_mail_server"],
            ),
            (
                "ann@guerrillamailblock.com",
                MailHosts::Some,
                Status::Risky,
                vec!["disposable"],
            ),
            (
                "ann@acme.com",
                MailHosts::Null,
                Status::Invalid,
                vec!["takes_no_mail"],
            ),
            (
                "ann@acme.com",
                MailHosts::NoDomain,
                Status::Invalid,
                vec!["no_such_domain"],
            ),
            (
                "info@acme.com",
                MailHosts::None,
                Status::Invalid,
                vec!["no_mail_server"],
            ),
            (
                "info@acme.com",
                MailHosts::Unknown,
                Status::Unknown,
                vec!["role", "dns_unavailable"],
            ),
        ] {
            let address = Address::parse(text).unwrap();
            let verdict = judge(&address, hosts);
            assert_eq!(verdict, Verdict { status, reasons }, "{text} {hosts:?}");
        }
    }
}
