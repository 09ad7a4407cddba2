//! Tokens of users: JSON Web Tokens (RFC 7519) as Supabase's authentication makes them.
//!
//! A token is signed with the secret of the settings (HS256), or with a key of a published set
//! (RFC 7517), found by its id. Which algorithm is right says our own key and never the token, so
//! that no public key is taken for a secret. Expiry and audience are always looked at.

use chrono::{DateTime, Utc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use uuid::Uuid;

use super::super::problem::{Code, Problem};
use super::jwks::Jwks;
use super::unauthorized;
use crate::secret::Secret;
use crate::tasks::Tasks;

/// The longest token, in bytes.
const TOKEN_MAX: usize = 8 * 1024;
/// How far the clock of whoever made a token may differ, in seconds.
const LEEWAY: u64 = 30;
/// The audience of Supabase's tokens.
pub const AUDIENCE: &str = "authenticated";

/// Whose tokens are taken. None, unless a secret or a set of keys is given.
#[derive(Debug, Clone, Default)]
pub struct TokenOptions {
    /// For tokens that are signed with HS256.
    pub secret: Option<Secret>,
    /// Where the public keys are, for tokens that are signed with RS256, ES256 or `EdDSA`.
    pub jwks_url: Option<String>,
    /// The audience that they must name; [`AUDIENCE`] if none is given.
    pub audience: Option<String>,
    /// Who must have made them. Asked of users' tokens only: the service role's, which are signed
    /// with our own secret, come from elsewhere at Supabase.
    pub issuer: Option<String>,
}

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) bearer: Bearer,
    /// The workspace that it is for, if it names one.
    pub(super) workspace_id: Option<Uuid>,
    /// When it ends.
    pub(super) until: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearer {
    User(Uuid),
    /// Of the database's service role: it may do everything, in any workspace.
    Service,
}

#[derive(Debug, Deserialize)]
struct Claims {
    /// Seconds since 1970; a number of JSON, which may have a fraction. One without is refused.
    exp: Option<f64>,
    sub: Option<String>,
    role: Option<String>,
    aud: Option<Audience>,
    iss: Option<String>,
    workspace_id: Option<Uuid>,
    app_metadata: Option<Metadata>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn names(&self, wanted: &str) -> bool {
        match self {
            Self::One(one) => one == wanted,
            Self::Several(all) => all.iter().any(|one| one == wanted),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Metadata {
    workspace_id: Option<Uuid>,
}

/// Looks at tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    secret: Option<DecodingKey>,
    jwks: Option<Jwks>,
    audience: String,
    issuer: Option<String>,
}

/// Whether this is meant to be a token, valid or not. Anything else is taken for a key.
pub(super) fn is_token(text: &str) -> bool {
    text.len() <= TOKEN_MAX && decode_header(text).is_ok()
}

impl Tokens {
    pub(super) fn new(options: &TokenOptions) -> Self {
        let secret = options.secret.as_ref();
        Self {
            secret: secret.map(|secret| DecodingKey::from_secret(secret.0.as_bytes())),
            jwks: options.jwks_url.as_deref().map(Jwks::new),
            audience: options
                .audience
                .clone()
                .unwrap_or_else(|| AUDIENCE.to_owned()),
            issuer: options.issuer.clone(),
        }
    }

    /// Fetches published keys until `tasks` stop.
    pub(super) async fn run(&self, tasks: &Tasks) {
        if let Some(jwks) = &self.jwks {
            jwks.run(tasks).await;
        }
    }

    pub(super) async fn check(&self, text: &str) -> Result<Token, Problem> {
        if self.secret.is_none() && self.jwks.is_none() {
            return Err(wrong("this server takes no tokens: send an API key"));
        }
        let header = decode_header(text).map_err(|_| wrong("this is no JSON Web Token"))?;
        let is_by_secret = header.alg == Algorithm::HS256;
        let claims = match (is_by_secret, &self.secret, &self.jwks) {
            (true, Some(secret), _) => claims(text, secret, Algorithm::HS256)?,
            (false, _, Some(jwks)) => {
                let (key, algorithm) = jwks.key(header.kid.as_deref()).await?;
                claims(text, &key, algorithm)?
            }
            _ => return Err(wrong("tokens with this signature are not taken here")),
        };
        let named = claims.app_metadata.as_ref().and_then(|m| m.workspace_id);
        Ok(Token {
            bearer: self.bearer(&claims, is_by_secret)?,
            workspace_id: claims.workspace_id.or(named),
            // One that never ends is one that ends late.
            until: DateTime::from_timestamp(claims.exp.unwrap_or_default() as i64, 0)
                .unwrap_or(DateTime::<Utc>::MAX_UTC),
        })
    }

    fn bearer(&self, claims: &Claims, is_by_secret: bool) -> Result<Bearer, Problem> {
        let is_for_us = claims.aud.as_ref().map(|aud| aud.names(&self.audience));
        match (claims.role.as_deref(), is_for_us) {
            (_, Some(false)) => return Err(wrong("the token is for another audience")),
            // Supabase's own one names no audience. Whoever publishes keys says who its users are,
            // and not who may do everything here.
            (Some("service_role"), _) if is_by_secret => return Ok(Bearer::Service),
            (Some("service_role" | "anon"), _) => return Err(wrong("the token is no user's")),
            (_, None) => return Err(wrong("the token names no audience")),
            (_, Some(true)) => {}
        }
        if self.issuer.is_some() && claims.iss != self.issuer {
            return Err(wrong("the token comes from another issuer"));
        }
        match claims.sub.as_deref().map(str::parse) {
            Some(Ok(user_id)) => Ok(Bearer::User(user_id)),
            Some(Err(_)) => Err(wrong("the token's `sub` is no UUID")),
            None => Err(wrong("the token is no user's")),
        }
    }
}

fn wrong(detail: &str) -> Problem {
    unauthorized(Code::InvalidToken, detail)
}

/// What the token says, if it was signed with this key and holds now.
fn claims(text: &str, key: &DecodingKey, of_key: Algorithm) -> Result<Claims, Problem> {
    let mut validation = Validation::new(of_key);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    // For whom it is, is looked at with its role.
    validation.validate_aud = false;
    validation.set_required_spec_claims(&["exp"]);
    let decoded = decode::<Claims>(text, key, &validation);
    decoded.map(|token| token.claims).map_err(|error| {
        wrong(match error.kind() {
            ErrorKind::ExpiredSignature => "the token has expired",
            ErrorKind::ImmatureSignature => "the token is not valid yet",
            ErrorKind::MissingRequiredClaim(_) => "the token lacks `exp`",
            _ => "the token is not valid",
        })
    })
}
