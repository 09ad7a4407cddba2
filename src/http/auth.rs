//! Who calls: an API key names the workspace of a request.
//!
//! A key is looked up in the record and remembered for some seconds, so that a busy client does not
//! cost a query per request and a revoked key still stops working at once. While the record is
//! away a known key stays known for some minutes, and an unknown one is told 503: only the record
//! can say that a key is wrong.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use super::problem::{Code, Problem};
use super::state::State;
use crate::record::{Record, api_keys};

/// How long a key is used without asking the record: the longest life of a revoked one.
const FRESH: Duration = Duration::from_secs(5);
/// How long a known key is believed while the record is away.
const STALE_MAX: Duration = Duration::from_secs(300);
/// Keys that are remembered.
const KEYS_MAX: usize = 10_000;
/// Keys that are looked up at once, so that guessing keys does not take the record's connections.
const LOOKUPS_MAX: usize = 4;
/// How long a lookup of a remembered key may take before it is believed.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(2);
/// The longest key, in bytes.
const KEY_MAX: usize = 512;

/// The caller of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) workspace_id: Uuid,
}

impl FromRequestParts<State> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let key = given_key(parts)?;
        let workspace_id = state.keys.workspace(&state.services.record, key).await?;
        Ok(Self { workspace_id })
    }
}

fn given_key(parts: &Parts) -> Result<&str, Problem> {
    if let Some(value) = parts.headers.get(AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        let (scheme, key) = text.split_once(' ').unwrap_or((text, ""));
        if !scheme.eq_ignore_ascii_case("bearer") || key.trim().is_empty() {
            let detail = "the Authorization header must read `Bearer <API key>`";
            return Err(unauthorized(Code::MissingApiKey, detail));
        }
        return Ok(key.trim());
    }
    let value = parts.headers.get("x-api-key");
    value
        .and_then(|value| value.to_str().ok())
        .map(str::trim)
        .filter(|key| !key.is_empty())
        .ok_or_else(|| {
            let detail = "this route needs an API key: send the header \
                `Authorization: Bearer <API key>` or `X-API-Key: <API key>`";
            unauthorized(Code::MissingApiKey, detail)
        })
}

fn unauthorized(code: Code, detail: &str) -> Problem {
    let challenge = match code {
        Code::InvalidApiKey => "Bearer realm=\"bullwark\", error=\"invalid_token\"",
        _ => "Bearer realm=\"bullwark\"",
    };
    Problem::new(code, detail).with_header(WWW_AUTHENTICATE, challenge)
}

/// The keys that were valid lately, by their hash.
#[derive(Debug)]
pub(super) struct Keys {
    known: Mutex<HashMap<[u8; 32], Known>>,
    lookups: Semaphore,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    workspace_id: Uuid,
    looked_up: Instant,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            lookups: Semaphore::new(LOOKUPS_MAX),
        }
    }
}

impl Keys {
    async fn workspace(&self, record: &Record, key: &str) -> Result<Uuid, Problem> {
        let invalid = || unauthorized(Code::InvalidApiKey, "the API key is unknown or revoked");
        if key.len() > KEY_MAX {
            return Err(invalid());
        }
        let hash: [u8; 32] = Sha256::digest(key).into();
        let known = self.known(&hash);
        if let Some(known) = known.filter(|known| known.looked_up.elapsed() < FRESH) {
            return Ok(known.workspace_id);
        }
        let lookup = async {
            // Closed never; a failure to wait would only mean one lookup more.
            let _turn = self.lookups.acquire().await;
            api_keys::find_workspace(record, key).await
        };
        let believed = known.filter(|known| known.looked_up.elapsed() < STALE_MAX);
        let found = match believed {
            None => lookup.await,
            Some(believed) => match tokio::time::timeout(LOOKUP_PATIENCE, lookup).await {
                Ok(Err(error)) if error.is_unavailable() => return Ok(believed.workspace_id),
                Ok(found) => found,
                Err(_) => return Ok(believed.workspace_id),
            },
        };
        match found? {
            Some(workspace_id) => {
                self.remember(hash, workspace_id);
                Ok(workspace_id)
            }
            None => {
                self.lock().remove(&hash);
                Err(invalid())
            }
        }
    }

    fn known(&self, hash: &[u8; 32]) -> Option<Known> {
        self.lock().get(hash).copied()
    }

    fn remember(&self, hash: [u8; 32], workspace_id: Uuid) {
        let mut known = self.lock();
        if known.len() >= KEYS_MAX {
            known.retain(|_, known| known.looked_up.elapsed() < FRESH);
        }
        if known.len() < KEYS_MAX {
            let looked_up = Instant::now();
            known.insert(
                hash,
                Known {
                    workspace_id,
                    looked_up,
                },
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
