//! The published keys of whoever makes the tokens (RFC 7517).
//!
//! A task fetches them: at the start, every few minutes, so that a key that was withdrawn ends, and
//! at once when a token names one that is not known, so that a new one works; but not more often
//! than every few seconds, whatever ids strangers send. Nobody with a known key waits for that.
//! While they can not be fetched the last ones are believed for an hour.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::{Notify, watch};

use super::super::problem::{Code, Problem};
use super::unauthorized;
use crate::tasks::Tasks;

const FETCH_EVERY: Duration = Duration::from_secs(300);
const STALE_MAX: Duration = Duration::from_secs(3600);
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest set.
const BYTES_MAX: usize = 256 * 1024;

type Key = (DecodingKey, Algorithm);
type Keys = HashMap<String, Key>;

/// A set of keys at an address.
#[derive(Debug)]
pub(super) struct Jwks {
    url: String,
    known: Mutex<Known>,
    /// Somebody wants a key that is not known.
    wanted: Notify,
    /// Told after each try.
    tried: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// By id. A key without one has the empty id.
    keys: Keys,
    fetched: Option<Instant>,
    /// When the last try ended, and whether it brought keys.
    tried: Option<(Instant, bool)>,
}

impl Jwks {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            known: Mutex::default(),
            wanted: Notify::new(),
            tried: watch::Sender::new(()),
        }
    }

    /// Fetches until `tasks` stop.
    pub(super) async fn run(&self, tasks: &Tasks) {
        let stopping = tasks.stopping().clone();
        loop {
            let fetched = tokio::select! {
                fetched = self.fetch() => fetched,
                () = stopping.cancelled() => return,
            };
            if let Err(error) = &fetched {
                tracing::warn!(error, url = self.url, "the keys for tokens are not fetched");
            }
            self.note(fetched);
            tokio::select! {
                () = tokio::time::sleep(TRY_EVERY) => {}
                () = stopping.cancelled() => return,
            }
            tokio::select! {
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(FETCH_EVERY) => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    fn note(&self, fetched: Result<Keys, String>) {
        let (now, mut known) = (Instant::now(), self.lock());
        known.tried = Some((now, fetched.is_ok()));
        if let Ok(keys) = fetched {
            known.keys = keys;
            known.fetched = Some(now);
        }
        drop(known);
        self.tried.send_replace(());
    }

    /// The key of this id, and the algorithm that it is for.
    pub(super) async fn key(&self, id: Option<&str>) -> Result<Key, Problem> {
        let id = id.unwrap_or_default();
        let mut tried = self.tried.subscribe();
        let is_recent = {
            let known = self.lock();
            if let Some(key) = known.key(id) {
                return Ok(key);
            }
            let last = known.tried;
            last.is_some_and(|(ended, _)| ended.elapsed() < TRY_EVERY)
        };
        if !is_recent {
            self.wanted.notify_one();
            // A try that ends after this question knows whether there is such a key.
            tokio::time::timeout(PATIENCE * 2, tried.changed())
                .await
                .ok();
        }
        let known = self.lock();
        match (known.key(id), known.tried) {
            (Some(key), _) => Ok(key),
            (None, Some((_, true))) => {
                let detail = "the token's key is not known";
                Err(unauthorized(Code::InvalidToken, detail))
            }
            // Whether there is such a key can not be told.
            (None, _) => {
                let detail = "the keys for tokens can not be fetched; try again shortly";
                Err(Problem::new(Code::KeysUnavailable, detail))
            }
        }
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let text = |error: reqwest::Error| {
            let error = error.without_url();
            let source = std::error::Error::source(&error);
            source.map_or_else(|| error.to_string(), |why| format!("{error}: {why}"))
        };
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(text)?;
        let answer = client.get(&self.url).send().await.map_err(text)?;
        let mut answer = answer.error_for_status().map_err(text)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(text)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > BYTES_MAX {
                return Err(format!("more than {BYTES_MAX} bytes"));
            }
        }
        keys(&bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn key(&self, id: &str) -> Option<Key> {
        let is_believed = self.fetched.is_some_and(|at| at.elapsed() < STALE_MAX);
        self.keys.get(id).filter(|_| is_believed).cloned()
    }
}

/// The keys that may sign tokens. Others, and secrets above all, are passed over; a set without
/// any is a mistake, and replaces nothing.
fn keys(bytes: &[u8]) -> Result<Keys, String> {
    let set: JwkSet = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let mut keys = Keys::new();
    for jwk in &set.keys {
        let id = jwk.common.key_id.clone().unwrap_or_default();
        let usable = algorithm(jwk).and_then(|algorithm| {
            let key = DecodingKey::from_jwk(jwk).ok()?;
            Some((key, algorithm))
        });
        match usable {
            Some(key) if !keys.contains_key(&id) => drop(keys.insert(id, key)),
            _ => tracing::debug!(id, "a published key is passed over"),
        }
    }
    match keys.is_empty() {
        true => Err("there is no key for RS256, ES256 or EdDSA".to_owned()),
        false => Ok(keys),
    }
}

/// What a public key is for: what it is able to, unless it says that it is for something else.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    let for_signatures = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    let (able, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key)
            if key.curve == EllipticCurve::Ed25519 && is_ed25519(&key.x) =>
        {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    let says = jwk.common.key_algorithm;
    (for_signatures && says.is_none_or(|says| says == named)).then_some(able)
}

fn is_ed25519(x: &str) -> bool {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(x);
    bytes.is_ok_and(|bytes| bytes.len() == 32)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_can_sign_tokens_are_taken_and_no_others() {
        let x = "MsyFAdhjJTxSjGTah_kzQCh8MaYfypLxRIzhflMlBHQ";
        let key = |id: &str| json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x });
        let with = |id: &str, name: &str, value: &str| {
            let mut key = key(id);
            key[name] = json!(value);
            key
        };
        let secret = json!({ "kty": "oct", "kid": "secret", "alg": "HS256", "k": x });
        let set = json!({ "keys": [
            key("plain"), with("named", "alg", "EdDSA"), with("sig", "use", "sig"),
            with("enc", "use", "enc"), with("other", "alg", "RS256"), with("short", "x", "AQAB"),
            secret,
        ]});
        let taken = keys(set.to_string().as_bytes()).unwrap();
        let mut ids: Vec<&str> = taken.keys().map(String::as_str).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["named", "plain", "sig"]);
        assert!(taken.values().all(|(_, a)| *a == Algorithm::EdDSA));
        for useless in [
            json!({ "keys": [] }),
            json!({ "keys": [secret] }),
            json!([]),
        ] {
            assert!(keys(useless.to_string().as_bytes()).is_err());
        }
    }
}
