//! Whether a text is an address of mail at all, and what can be told of it without asking anybody.
//!
//! The form is that of RFC 5321: a local part of at most 64 bytes, 254 for the whole, labels that
//! DNS allows, an ending that exists. Names in other scripts are looked up as punycode.

use super::super::import_csv::normalize;

/// Addresses of a function, not of a person, in small letters (RFC 2142, and what is met).
const ROLES: [&str; 34] = [
    "abuse",
    "accounting",
    "accounts",
    "admin",
    "administrator",
    "billing",
    "careers",
    "contact",
    "enquiries",
    "everyone",
    "hello",
    "help",
    "helpdesk",
    "hostmaster",
    "hr",
    "info",
    "it",
    "jobs",
    "list",
    "mail",
    "marketing",
    "news",
    "no-reply",
    "noc",
    "noreply",
    "office",
    "postmaster",
    "privacy",
    "sales",
    "security",
    "service",
    "support",
    "team",
    "webmaster",
];

/// An address of mail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) local: String,
    /// In small ASCII letters.
    pub(super) domain: String,
}

impl Address {
    /// None: it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // A name in front, or `mailto:`, is a wrong text here: it is stored, and sent to, as it is.
        if text.contains(['<', '>', ':']) || text.contains(char::is_whitespace) {
            return None;
        }
        let address = normalize::email(text).ok()?;
        let (local, domain) = address.rsplit_once('@')?;
        Some(Self {
            local: local.to_owned(),
            domain: domain.to_owned(),
        })
    }

    /// A function of a company, such as `info`; also with a tag behind it.
    pub(super) fn is_role(&self) -> bool {
        let local = self.local.to_ascii_lowercase();
        let name = local.split('+').next().unwrap_or(&local);
        ROLES.contains(&name)
    }

    /// Of a service for addresses that are thrown away.
    pub(super) fn is_disposable(&self) -> bool {
        !mailchecker::is_valid(&format!("x@{}", self.domain))
    }

    /// The local part has letters that only some servers take (RFC 6531).
    pub(super) fn needs_smtputf8(&self) -> bool {
        !self.local.is_ascii()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_form_of_the_standard() {
        let long = "a".repeat(65);
        for (text, domain) in [
            ("Ann.Lee+x@Acme.COM", Some("acme.com")),
            ("ann@b\u{fc}cher.de", Some("xn--bcher-kva.de")),
            ("ann@mail.acme.co.uk", Some("mail.acme.co.uk")),
            ("o'neil@acme.com", Some("acme.com")),
            ("ann@acme", None),
            ("ann@acme.invalidtld", None),
            ("ann@@acme.com", None),
            (".ann@acme.com", None),
            ("an..n@acme.com", None),
            ("ann@-acme.com", None),
            ("ann lee@acme.com", None),
            ("Ann <ann@acme.com>", None),
            ("mailto:ann@acme.com", None),
            ("@acme.com", None),
            ("", None),
            (&format!("{long}@acme.com"), None),
        ] {
            let found = Address::parse(text).map(|address| address.domain);
            assert_eq!(found.as_deref(), domain, "{text}");
        }
    }

    #[test]
    fn roles_and_addresses_to_throw_away_are_told_from_people() {
        let parse = |text: &str| Address::parse(text).unwrap();
        assert!(parse("Info@acme.com").is_role());
        assert!(parse("sales+de@acme.com").is_role());
        assert!(!parse("ann@acme.com").is_role());
        assert!(!parse("informer@acme.com").is_role());
        assert!(parse("ann@guerrillamailblock.com").is_disposable());
        assert!(parse("ann@sub.guerrillamailblock.com").is_disposable());
        for fine in ["ann@gmail.com", "ann@acme.com", "ann@xn--bcher-kva.de"] {
            assert!(!parse(fine).is_disposable(), "{fine}");
        }
        assert!(parse("j\u{f6}rg@acme.com").needs_smtputf8());
    }
}
