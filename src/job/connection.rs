//! Providers outside: which there are, and what a connection to each needs.
//!
//! The names of credentials and settings are those of the providers' own documents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest credential, in bytes: private keys are the largest.
pub const CREDENTIAL_MAX_BYTES: usize = 16 * 1024;
/// The longest setting, in bytes.
pub const SETTING_MAX_BYTES: usize = 1024;
/// How long one call may take at most, in seconds.
const CALL_SECONDS_MAX: u64 = 300;

/// Credentials by name.
pub type Credentials = BTreeMap<String, String>;

/// Who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum Provider {
    Clearbit,
    Zoominfo,
    Apollo,
    Salesforce,
    Hubspot,
    Sendgrid,
    Ses,
    Smtp,
    /// Any server, for `http_call`.
    Http,
}

/// What a connection of a provider has.
struct Shape {
    name: &'static str,
    /// Where it is; none: the connection says so.
    base_url: Option<&'static str>,
    /// Each is enough, the first that is whole counts.
    needs: &'static [&'static [&'static str]],
    may_have: &'static [&'static str],
    settings: &'static [&'static str],
    needs_settings: &'static [&'static str],
}

impl Provider {
    pub const ALL: [Self; 9] = [
        Self::Clearbit,
        Self::Zoominfo,
        Self::Apollo,
        Self::Salesforce,
        Self::Hubspot,
        Self::Sendgrid,
        Self::Ses,
        Self::Smtp,
        Self::Http,
    ];

    fn shape(self) -> Shape {
        let plain = Shape {
            name: "",
            base_url: None,
            needs: &[&["api_key"]],
            may_have: &[],
            settings: &[],
            needs_settings: &[],
        };
        match self {
            // Two hosts: this one is for companies, `person.clearbit.com` is derived from it.
            Self::Clearbit => Shape {
                name: "clearbit",
                base_url: Some("https://company.clearbit.com"),
                ..plain
            },
            Self::Zoominfo => Shape {
                name: "zoominfo",
                base_url: Some("https://api.zoominfo.com"),
                needs: &[
                    &["username", "password"],
                    &["username", "client_id", "private_key"],
                ],
                ..plain
            },
            Self::Apollo => Shape {
                name: "apollo",
                base_url: Some("https://api.apollo.io"),
                ..plain
            },
            Self::Salesforce => Shape {
                name: "salesforce",
                base_url: Some("https://login.salesforce.com"),
                needs: &[
                    &["client_id", "username", "private_key"],
                    &["client_id", "client_secret", "refresh_token"],
                    &["client_id", "refresh_token"],
                ],
                may_have: &["access_token", "instance_url"],
                settings: &[
                    "api_version",
                    "call_timeout_seconds",
                    "external_id_field",
                    "mapping",
                ],
                ..plain
            },
            Self::Hubspot => Shape {
                name: "hubspot",
                base_url: Some("https://api.hubapi.com"),
                needs: &[
                    &["access_token"],
                    &["client_id", "client_secret", "refresh_token"],
                ],
                settings: &["call_timeout_seconds", "external_id_field", "mapping"],
                ..plain
            },
            Self::Sendgrid => Shape {
                name: "sendgrid",
                base_url: Some("https://api.sendgrid.com"),
                may_have: &["webhook_public_key"],
                settings: &["from_address"],
                ..plain
            },
            Self::Ses => Shape {
                name: "ses",
                needs: &[&["access_key_id", "secret_access_key"]],
                may_have: &["session_token"],
                settings: &[
                    "region",
                    "configuration_set",
                    "from_address",
                    "events_topic_arn",
                ],
                needs_settings: &["region"],
                ..plain
            },
            Self::Smtp => Shape {
                name: "smtp",
                needs: &[&["username", "password"], &[]],
                settings: &["host", "port", "security", "from_address"],
                needs_settings: &["host"],
                ..plain
            },
            Self::Http => Shape {
                name: "http",
                needs: &[&["authorization"], &["signing_secret"]],
                may_have: &["authorization", "signing_secret"],
                ..plain
            },
        }
    }

    pub fn as_str(self) -> &'static str {
        self.shape().name
    }

    /// Where it is called unless the connection says otherwise.
    pub fn base_url(self) -> Option<&'static str> {
        self.shape().base_url
    }

    /// Whether calls go to addresses of HTTP at all, and the connection has to name one.
    pub fn needs_base_url(self) -> bool {
        self == Self::Http
    }

    /// What is wrong with these credentials, and where.
    pub fn check_credentials(self, given: &Credentials) -> Result<(), super::Problem> {
        let shape = self.shape();
        let problem = |pointer: String, message: String| Err(super::Problem { pointer, message });
        for (name, value) in given {
            let pointer = format!(
                "/credentials/{}",
                name.replace('~', "~0").replace('/', "~1")
            );
            let mut known = shape.needs.iter().flat_map(|set| set.iter());
            let is_known = known.any(|known| known == name) || shape.may_have.contains(&&**name);
            if !is_known {
                let all = names(shape.needs, shape.may_have).join(", ");
                let message = format!("is no credential of {}; it has: {all}", shape.name);
                return problem(pointer, message);
            }
            if value.is_empty() || value.len() > CREDENTIAL_MAX_BYTES || value.contains('\0') {
                let message = format!("must have 1 to {CREDENTIAL_MAX_BYTES} bytes and no U+0000");
                return problem(pointer, message);
            }
        }
        let is_whole = |set: &&[&str]| set.iter().all(|name| given.contains_key(*name));
        if shape.needs.iter().any(is_whole) {
            return Ok(());
        }
        let sets: Vec<String> = shape.needs.iter().map(|set| set.join(" and ")).collect();
        let message = format!("{} needs {}", shape.name, sets.join(", or "));
        problem("/credentials".to_owned(), message)
    }

    /// What is wrong with these settings, and where.
    pub fn check_settings(self, given: &Map<String, Value>) -> Result<(), super::Problem> {
        let shape = self.shape();
        let problem = |pointer: String, message: String| Err(super::Problem { pointer, message });
        for (name, value) in given {
            let pointer = format!("/settings/{}", name.replace('~', "~0").replace('/', "~1"));
            if !shape.settings.contains(&&**name) {
                let all = match shape.settings {
                    [] => "none".to_owned(),
                    all => all.join(", "),
                };
                let message = format!("is no setting of {}; it has: {all}", shape.name);
                return problem(pointer, message);
            }
            let fits = match (&**name, value) {
                ("port", value) => value
                    .as_u64()
                    .is_some_and(|port| (1..65_536).contains(&port)),
                ("call_timeout_seconds", value) => value
                    .as_u64()
                    .is_some_and(|seconds| (1..=CALL_SECONDS_MAX).contains(&seconds)),
                ("security", Value::String(text)) => {
                    matches!(&**text, "starttls" | "tls" | "none")
                }
                // It becomes a part of the host that is called.
                ("region", Value::String(text)) => {
                    let is_part =
                        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                    (1..=30).contains(&text.len()) && text.chars().all(is_part)
                }
                // Whom notices come from that name nobody.
                ("from_address", Value::String(text)) => {
                    let (name, host) = text.split_once('@').unwrap_or_default();
                    let is_plain = |c: char| c.is_ascii_graphic() && !"<>,;\"()".contains(c);
                    text.len() <= 254
                        && text.chars().all(is_plain)
                        && !name.is_empty()
                        && !host.is_empty()
                }
                (_, Value::String(text)) => {
                    (1..=SETTING_MAX_BYTES).contains(&text.len())
                        && !text.contains(char::is_control)
                }
                _ => false,
            };
            if !fits {
                let message = match &**name {
                    "port" => "must be a number from 1 to 65535",
                    "call_timeout_seconds" => "must be a whole number from 1 to 300",
                    "security" => "must be `starttls`, `tls` or `none`",
                    "from_address" => "must be an address of mail",
                    "region" => "must be a region's name, such as `eu-central-1`",
                    _ => "must be a text of 1 to 1024 bytes without control characters",
                };
                return problem(pointer, message.to_owned());
            }
        }
        let mut needed = shape.needs_settings.iter();
        match needed.find(|name| !given.contains_key(**name)) {
            None => Ok(()),
            Some(name) => {
                let message = format!("{} needs the setting `{name}`", shape.name);
                problem(format!("/settings/{name}"), message)
            }
        }
    }
}

fn names<'a>(needs: &[&'a [&'a str]], may_have: &[&'a str]) -> Vec<&'a str> {
    let mut all: Vec<&str> = needs.iter().flat_map(|set| set.iter().copied()).collect();
    all.extend(may_have);
    let mut seen = Vec::new();
    all.retain(|name| {
        let is_new = !seen.contains(name);
        seen.push(*name);
        is_new
    });
    all
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|provider| provider.as_str() == text)
            .ok_or_else(|| format!("there is no provider `{text}`"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Credentials {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn one_whole_set_of_credentials_is_enough_and_half_of_two_is_not() {
        let hubspot = Provider::Hubspot;
        assert!(
            hubspot
                .check_credentials(&of(&[("access_token", "x")]))
                .is_ok()
        );
        let half = of(&[("client_id", "x"), ("refresh_token", "y")]);
        let problem = hubspot.check_credentials(&half).unwrap_err();
        assert_eq!(problem.pointer, "/credentials");
        assert!(
            problem.message.contains("client_secret"),
            "{}",
            problem.message
        );
        let smtp = Provider::Smtp;
        assert!(
            smtp.check_credentials(&of(&[])).is_ok(),
            "an open relay needs none"
        );
    }

    #[test]
    fn what_a_provider_does_not_know_is_named_with_what_it_knows() {
        let given = of(&[("api_key", "x"), ("api/token", "hush")]);
        let problem = Provider::Apollo.check_credentials(&given).unwrap_err();
        assert_eq!(problem.pointer, "/credentials/api~1token");
        assert!(
            problem.message.contains("it has: api_key"),
            "{}",
            problem.message
        );
        assert!(!problem.message.contains("hush"));
        let settings = json!({ "region": "eu" });
        let problem = Provider::Apollo.check_settings(settings.as_object().unwrap());
        assert_eq!(problem.unwrap_err().pointer, "/settings/region");
    }

    #[test]
    fn settings_have_their_forms() {
        let check = |settings: Value| Provider::Smtp.check_settings(settings.as_object().unwrap());
        assert!(check(json!({ "host": "mx", "port": 587, "security": "tls" })).is_ok());
        for (settings, pointer) in [
            (json!({}), "/settings/host"),
            (json!({ "host": "" }), "/settings/host"),
            (json!({ "host": "m\nx" }), "/settings/host"),
            (json!({ "host": "m", "port": "25" }), "/settings/port"),
            (json!({ "host": "m", "port": 70_000 }), "/settings/port"),
            (
                json!({ "host": "m", "security": "ssl" }),
                "/settings/security",
            ),
        ] {
            assert_eq!(
                check(settings.clone()).unwrap_err().pointer,
                pointer,
                "{settings}"
            );
        }
        let region = json!({ "region": "eu.evil.example/" });
        assert!(
            Provider::Ses
                .check_settings(region.as_object().unwrap())
                .is_err()
        );
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for provider in Provider::ALL {
            assert_eq!(provider.as_str().parse(), Ok(provider));
            assert_eq!(json!(provider), provider.as_str());
        }
    }
}
