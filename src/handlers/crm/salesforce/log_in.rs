//! The call of a log-in, and what its answer means. Pure.
//!
//! Source: Salesforce Help, "OAuth 2.0 JWT Bearer Flow for Server-to-Server Integration" and
//! "OAuth 2.0 Refresh Token Flow": the answer has `access_token`, `instance_url`, and `id`, an
//! address that ends with the ids of the organization and of the user.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::super::client::{CrmError, Identity};
use crate::clock;
use crate::handlers::connection::Connection;
use crate::outbound::{Answer, Call};
use crate::secret::Secret;

const TOKEN_PATH: &str = "/services/oauth2/token";
const JWT_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// How long an assertion may be used: Salesforce takes five minutes at most.
const ASSERTION_S: i64 = 180;
const TIMEOUT: Duration = Duration::from_secs(20);
const ANSWER_MAX: usize = 64 * 1024;
/// What is told of a refusal, in characters.
const WORDS_MAX: usize = 200;

/// The answer to a log-in that is taken.
#[derive(Deserialize)]
pub(super) struct Granted {
    pub(super) access_token: String,
    pub(super) instance_url: String,
    #[serde(default)]
    pub(super) id: String,
    pub(super) refresh_token: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Refused {
    error: String,
    error_description: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: i64,
}

/// `https://login.salesforce.com/id/ORGANIZATION/USER`.
pub(super) fn identity(address: &str) -> Identity {
    let mut parts = address.rsplit('/').filter(|part| is_id(part));
    let (user_id, org_id) = (parts.next(), parts.next());
    Identity {
        user_id: user_id.map(str::to_owned),
        org_id: org_id.map(str::to_owned),
    }
}

pub(super) fn is_id(text: &str) -> bool {
    matches!(text.len(), 15 | 18) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Why a log-in was not taken.
pub(super) fn refused(answer: &Answer) -> CrmError {
    let said: Refused = serde_json::from_slice(&answer.bytes).unwrap_or_default();
    let text = format!("{}: {}", said.error, said.error_description);
    let words: String = text.chars().take(WORDS_MAX).collect();
    let is_ours = match (answer.status, said.error.as_str()) {
        // It says so of itself: "retry your request".
        (_, "unknown_error" | "server_error" | "temporarily_unavailable") => false,
        (400 | 401 | 403, _) => true,
        _ => false,
    };
    if !is_ours {
        let why = format!("its log-in answered {} ({words})", answer.status);
        return CrmError::Retryable(answer.retry_after, why);
    }
    let help = match said.error_description.as_str() {
        "user hasn't approved this consumer" => {
            "; pre-authorize the user for the connected app (Permitted Users: Admin approved), \
             or let the user log in to it once"
        }
        "audience is invalid" => {
            "; its `baseUrl` must be https://login.salesforce.com, https://test.salesforce.com, or \
             the address of the site"
        }
        "invalid assertion" => {
            "; the certificate of the connected app and the `private_key` must belong together, \
             and the clock of the worker must be right"
        }
        text if text.starts_with("expired access/refresh token") => {
            "; the refresh token was revoked or has run out: authorize again"
        }
        _ => "",
    };
    CrmError::Auth(format!("{words}{help}"))
}

/// The call of a log-in, or what the connection lacks for it.
pub(super) fn token_call(connection: &Connection) -> Result<Call, String> {
    let base = connection
        .base_url
        .as_deref()
        .ok_or("it has no `baseUrl`")?;
    let credential = |name: &str| {
        let found = connection.credential(name);
        found.ok_or_else(|| format!("it has no `{name}`"))
    };
    let client_id = credential("client_id")?;
    let body = match connection.credential("private_key") {
        Some(key) => {
            let assertion = assertion(&client_id, &credential("username")?, &key, base)?;
            form(&[("grant_type", JWT_GRANT), ("assertion", &assertion)])
        }
        None => {
            let (token, secret) = (
                credential("refresh_token")?,
                connection.credential("client_secret"),
            );
            let mut pairs = vec![
                ("grant_type", "refresh_token"),
                ("client_id", client_id.as_str()),
                ("refresh_token", token.as_str()),
            ];
            if let Some(secret) = &secret {
                pairs.push(("client_secret", secret.as_str()));
            }
            form(&pairs)
        }
    };
    let mut headers = HeaderMap::new();
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(CONTENT_TYPE, kind);
    Ok(Call {
        method: Method::POST,
        url: format!("{}{TOKEN_PATH}", base.trim_end_matches('/')),
        headers,
        body: body.into(),
        timeout: connection.call_timeout(TIMEOUT),
        answer_max_bytes: ANSWER_MAX,
    })
}

fn assertion(
    client_id: &Secret,
    username: &Secret,
    private_key: &Secret,
    base: &str,
) -> Result<Secret, String> {
    let key = EncodingKey::from_rsa_pem(private_key.as_bytes());
    let key = key.map_err(|_| "the `private_key` is no RSA key in PEM form".to_owned())?;
    let claims = Claims {
        iss: client_id,
        sub: username,
        aud: audience(base),
        exp: clock::now().timestamp() + ASSERTION_S,
    };
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key)
        .map(Secret)
        .map_err(|_| "the `private_key` can not sign".to_owned())
}

/// Whom an assertion is for: not the organization's own domain, but the log-in behind it.
fn audience(base: &str) -> &str {
    let base = base.trim_end_matches('/');
    let host = base.split("://").nth(1).unwrap_or(base);
    match host {
        "test.salesforce.com" => "https://test.salesforce.com",
        host if is_for_tests(host) => "https://test.salesforce.com",
        host if host.ends_with(".salesforce.com") => "https://login.salesforce.com",
        _ => base,
    }
}

/// Sandboxes (`acme--name.sandbox.my.…`, before enhanced domains `acme--name.my.…`) and scratch
/// organizations log in at another place.
fn is_for_tests(host: &str) -> bool {
    let Some(name) = host.strip_suffix(".my.salesforce.com") else {
        return false;
    };
    name.contains("--") || name.ends_with(".sandbox") || name.ends_with(".scratch")
}

fn form(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter();
    let pairs: Vec<String> = pairs
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    pairs.join("&")
}

/// A text as a part of an address or a form.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, error: &str, description: &str) -> CrmError {
        let body = serde_json::json!({ "error": error, "error_description": description });
        refused(&Answer {
            status,
            headers: HeaderMap::new(),
            retry_after: None,
            bytes: body.to_string().into_bytes(),
            is_whole: true,
            took: Duration::ZERO,
        })
    }

    #[test]
    fn refused_credentials_are_told_from_a_log_in_that_is_not_well() {
        let refused = said(400, "invalid_grant", "user hasn't approved this consumer");
        assert!(matches!(&refused, CrmError::Auth(_)));
        assert!(refused.to_string().contains("pre-authorize"), "{refused}");
        for (status, error) in [(400, "unknown_error"), (503, ""), (500, "server_error")] {
            let error = said(status, error, "retry your request");
            assert!(matches!(error, CrmError::Retryable(..)), "{error:?}");
        }
    }

    #[test]
    fn an_assertion_is_for_the_log_in_behind_the_domain() {
        for (base, audience_of_it) in [
            (
                "https://login.salesforce.com",
                "https://login.salesforce.com",
            ),
            (
                "https://acme.my.salesforce.com/",
                "https://login.salesforce.com",
            ),
            (
                "https://acme--x.sandbox.my.salesforce.com",
                "https://test.salesforce.com",
            ),
            (
                "https://acme--dev.my.salesforce.com",
                "https://test.salesforce.com",
            ),
            (
                "https://dream-flow-4711.scratch.my.salesforce.com",
                "https://test.salesforce.com",
            ),
            (
                "https://acme-dev-ed.develop.my.salesforce.com",
                "https://login.salesforce.com",
            ),
            (
                "https://site.example.com/customers/",
                "https://site.example.com/customers",
            ),
        ] {
            assert_eq!(audience(base), audience_of_it);
        }
    }

    #[test]
    fn the_organization_and_the_user_are_in_the_address_of_the_identity() {
        let known =
            identity("https://login.salesforce.com/id/00Dx0000000BV7zEAG/005x00000012Q9PAAU");
        assert_eq!(known.org_id.as_deref(), Some("00Dx0000000BV7zEAG"));
        assert_eq!(known.user_id.as_deref(), Some("005x00000012Q9PAAU"));
        assert_eq!(identity(""), Identity::default());
        assert_eq!(encoded("a b+c'é"), "a%20b%2Bc%27%C3%A9");
    }
}
