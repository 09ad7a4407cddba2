//! What a verification comes to.

use serde::Serialize;

use super::address::Address;
use super::mail_hosts::{Dns, MailHosts};
use super::probe::Finding;

const DISPOSABLE: &str = "disposable";

/// How good an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its domain takes mail, and nothing speaks against it. Whether there is such a mailbox only a
    /// mail tells, or its server, if that is asked.
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

    /// Mail may arrive, so that its server can be asked. What is thrown away soon is not worth it.
    pub(super) fn may_be_probed(&self) -> bool {
        matches!(self.status, Status::Valid | Status::Risky) && !self.reasons.contains(&DISPOSABLE)
    }

    /// Adds what a mail server said.
    pub(super) fn add(&mut self, finding: Finding) {
        let (status, reason) = match finding {
            Finding::Confirmed => (self.status, "mailbox_confirmed"),
            Finding::TakesAll => (Status::Risky, "catch_all"),
            Finding::Full => (Status::Risky, "mailbox_full"),
            Finding::Unclear => (self.status, "probe_unclear"),
            Finding::NotProbed => (self.status, "not_probed"),
            // Nothing else matters of it.
            Finding::NoMailbox => {
                *self = Self::of(Status::Invalid, &["no_such_mailbox"]);
                return;
            }
        };
        self.status = status;
        self.reasons.push(reason);
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
        (address.is_disposable(), DISPOSABLE),
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
    fn what_a_mail_server_says_is_added_to_what_is_known() {
        let valid = Verdict::of(Status::Valid, &[]);
        let role = Verdict::of(Status::Risky, &["role"]);
        for (before, finding, status, reasons) in [
            (
                &valid,
                Finding::Confirmed,
                Status::Valid,
                vec!["mailbox_confirmed"],
            ),
            (
                &role,
                Finding::Confirmed,
                Status::Risky,
                vec!["role", "mailbox_confirmed"],
            ),
            (&valid, Finding::TakesAll, Status::Risky, vec!["catch_all"]),
            (&valid, Finding::Full, Status::Risky, vec!["mailbox_full"]),
            (
                &role,
                Finding::NoMailbox,
                Status::Invalid,
                vec!["no_such_mailbox"],
            ),
            (
                &valid,
                Finding::Unclear,
                Status::Valid,
                vec!["probe_unclear"],
            ),
            (
                &role,
                Finding::NotProbed,
                Status::Risky,
                vec!["role", "not_probed"],
            ),
        ] {
            let mut verdict = before.clone();
            verdict.add(finding);
            assert_eq!(
                verdict,
                Verdict { status, reasons },
                "{before:?} {finding:?}"
            );
        }
    }

    #[test]
    fn only_what_may_get_mail_is_worth_a_question() {
        for (status, reasons, may_be) in [
            (Status::Valid, vec![], true),
            (Status::Risky, vec!["role"], true),
            (Status::Risky, vec!["disposable", "role"], false),
            (Status::Invalid, vec!["syntax"], false),
            (Status::Unknown, vec!["dns_unavailable"], false),
        ] {
            let verdict = Verdict::of(status, &reasons);
            assert_eq!(verdict.may_be_probed(), may_be, "{verdict:?}");
        }
    }

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
