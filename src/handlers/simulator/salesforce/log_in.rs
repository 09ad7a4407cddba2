//! Log-ins: with a refresh token, or with an assertion (JWT bearer, RS256).
//!
//! Source: Salesforce Help, "Refresh Token Rotation": each use gives a new refresh token, and the
//! one that was used ends. "OAuth 2.0 JWT Bearer Flow for Server-to-Server Integration": signed
//! with the certificate of the app; `iss` is its client id, `sub` the user, `aud` the log-in, and
//! `exp` lies within the next five minutes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::answers::Said;
use super::{Asked, Inner, data, pairs};

const TOKENS_MAX: usize = 1000;
const JWT_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// How far ahead the end of an assertion may be.
const EXP_MAX_S: i64 = 300;
const ENDED: &str = "expired access/refresh token";
const NOT_APPROVED: &str = "user hasn't approved this consumer";

/// Who may log in by assertions.
#[derive(Debug, Clone)]
pub struct Signer {
    /// PEM: a public key, or a certificate.
    pub certificate: String,
    pub username: String,
    pub audience: String,
}

impl Inner {
    pub(super) fn log_in(&mut self, asked: &Asked<'_>) -> Said {
        self.log_ins += 1;
        let text = String::from_utf8_lossy(asked.body).into_owned();
        let form = pairs(&text);
        let of = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let client_id = match of("grant_type") {
            "refresh_token" if !of("refresh_token").is_empty() => {
                self.granted(of("client_id"), of("refresh_token"))
            }
            JWT_GRANT => self.issuer(of("assertion")),
            _ => Err("unsupported grant type"),
        };
        let client_id = client_id.and_then(|client_id| match client_id.is_empty() {
            false if !self.refused.contains(&client_id) => Ok(client_id),
            _ => Err(NOT_APPROVED),
        });
        let client_id = match client_id {
            Ok(client_id) => client_id,
            Err(why) => {
                let words = json!({ "error": "invalid_grant", "error_description": why });
                return Said::json(400, &words);
            }
        };
        if self.tokens.len() >= TOKENS_MAX {
            self.tokens.clear();
        }
        let token = Uuid::new_v4().to_string();
        self.tokens.insert(token.clone(), client_id.clone());
        let org = self.org(&client_id).id.clone();
        let id = format!("{}/id/{org}/{}", asked.origin, data::INTEGRATION);
        let mut said = json!({
            "access_token": token, "instance_url": asked.origin, "id": id,
            "token_type": "Bearer", "scope": "api",
        });
        if let Some(current) = self.rotating.get_mut(&client_id) {
            *current = Uuid::new_v4().to_string();
            said["refresh_token"] = json!(current);
        }
        Said::json(200, &said)
    }

    /// The client of a refresh token, or why it is not taken.
    fn granted(&self, client_id: &str, refresh_token: &str) -> Result<String, &'static str> {
        match self.rotating.get(client_id) {
            Some(current) if current != refresh_token => Err(ENDED),
            _ => Ok(client_id.to_owned()),
        }
    }

    /// Which client an assertion is of, or why it is not taken.
    fn issuer(&self, assertion: &str) -> Result<String, &'static str> {
        let claims = unverified(assertion);
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let left = claims.get("exp").and_then(Value::as_i64);
        let left = left.map(|exp| exp - crate::clock::now().timestamp());
        if !left.is_some_and(|left| (1..=EXP_MAX_S).contains(&left)) {
            return Err("invalid assertion");
        }
        let (Some(issuer), Some(user), Some(audience)) = (text("iss"), text("sub"), text("aud"))
        else {
            return Err("invalid assertion");
        };
        if let Some(signer) = self.signers.get(issuer) {
            let key = DecodingKey::from_rsa_pem(signer.certificate.as_bytes());
            let mut rules = Validation::new(Algorithm::RS256);
            rules.validate_aud = false;
            let is_signed = key.is_ok_and(|key| {
                jsonwebtoken::decode::<Map<String, Value>>(assertion, &key, &rules).is_ok()
            });
            match () {
                () if !is_signed => return Err("invalid assertion"),
                () if audience != signer.audience => return Err("audience is invalid"),
                () if user != signer.username => return Err(NOT_APPROVED),
                () => {}
            }
        }
        Ok(issuer.to_owned())
    }
}

fn unverified(assertion: &str) -> Map<String, Value> {
    let parts: Vec<&str> = assertion.split('.').collect();
    let [_, claims, _] = parts.as_slice() else {
        return Map::new();
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).unwrap_or_default();
    serde_json::from_slice(&claims).unwrap_or_default()
}
