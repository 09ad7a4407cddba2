//! Secrets that have to be kept, and to be read again: sealed before they are stored, opened where
//! they are used (XChaCha20-Poly1305).
//!
//! The key is that of the settings (`BULLWARK_ENCRYPTION_KEY`), or a file in the data directory
//! that is made when the first secret is sealed, and which opens beside the settings' later on. A
//! sealed text says which key sealed it, and opens only in its place: whoever copies it to another
//! row, or to another workspace's, has nothing.
//!
//! Promises: no key and no secret is printed; two processes of one data directory have one key,
//! whoever comes first. Refuses, by the name of the setting, what another key has sealed.
//!
//! Where the process may die: before the key's file has its name, nothing is sealed with that key;
//! after that, everybody finds it. The name is on disk before the first secret is.

mod keys;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use uuid::Uuid;

use crate::secret::Secret;
pub use keys::{FILE, InvalidKey, Keys};
use keys::{OneKey, make_file, read_file};

/// The form of sealed texts: `v1.KEY.NONCE_AND_TEXT`.
const VERSION: &str = "v1";
const NONCE_BYTES: usize = 24;

/// Where a secret belongs: it opens there and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Such as `webhook`.
    pub kind: &'static str,
    pub workspace_id: Uuid,
    /// The row.
    pub id: Uuid,
}

impl Place {
    fn text(&self) -> String {
        format!("{VERSION}|{}|{}|{}", self.kind, self.workspace_id, self.id)
    }
}

/// A secret that can not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error(
        "a stored secret was sealed with the encryption key {sealed_by}, and this process has \
         {has}: set BULLWARK_ENCRYPTION_KEY to the same value for every process, or give them one \
         data directory"
    )]
    OtherKey { sealed_by: String, has: String },
    #[error(
        "a stored secret does not open: it was changed, or belongs to another row; make a new one"
    )]
    Damaged,
    #[error(
        "stored secrets are sealed with an encryption key that this process does not have: set \
         BULLWARK_ENCRYPTION_KEY as it is for the others, or give it their data directory"
    )]
    KeyMissing,
    #[error("encryption key in {}: {error}", path.display())]
    File {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("encryption key in {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: InvalidKey },
}

/// Seals and opens. A cheap handle.
#[derive(Clone)]
pub struct Sealer {
    data_dir: PathBuf,
    keys: Arc<Mutex<Option<Keys>>>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    /// With the keys of the settings, or the file of this directory. Touches nothing yet.
    pub fn new(keys: Option<Keys>, data_dir: impl AsRef<Path>) -> Self {
        Self {
            data_dir: data_dir.as_ref().to_owned(),
            keys: Arc::new(Mutex::new(keys)),
        }
    }

    /// Whether there is a key, so that sealing makes none.
    pub fn has_key(&self) -> Result<bool, SealError> {
        Ok(self.known()?.is_some())
    }

    /// A text that holds the secret, for this place.
    pub fn seal(&self, place: &Place, secret: &Secret) -> Result<String, SealError> {
        let keys = match self.known()? {
            Some(keys) => keys,
            None => self.remember(make_file(&self.data_dir)?),
        };
        let key = keys.first();
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let aad = place.text();
        let payload = Payload {
            msg: secret.as_bytes(),
            aad: aad.as_bytes(),
        };
        let sealed = cipher(key).encrypt(&XNonce::from(nonce), payload);
        // It can only be too long, which takes 256 GiB.
        let sealed = sealed.map_err(|_| SealError::Damaged)?;
        let text = URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat());
        Ok(format!("{VERSION}.{}.{text}", key.id))
    }

    /// The secret of this place.
    pub fn open(&self, place: &Place, sealed: &str) -> Result<Secret, SealError> {
        let mut parts = sealed.splitn(3, '.');
        let parts = (parts.next(), parts.next(), parts.next());
        let (Some(VERSION), Some(key_id), Some(text)) = parts else {
            return Err(SealError::Damaged);
        };
        let mut keys = self.known()?;
        if keys
            .as_ref()
            .is_some_and(|keys| keys.find(key_id).is_none())
        {
            // Sealed before there was a setting, maybe.
            keys = read_file(&self.data_dir)?
                .filter(|of_file| of_file.find(key_id).is_some())
                .or(keys);
        }
        let key = keys.as_ref().and_then(|keys| keys.find(key_id));
        let Some(key) = key else {
            return Err(SealError::OtherKey {
                sealed_by: key_id.chars().take(16).collect(),
                has: keys.map_or_else(|| "none".to_owned(), |keys| keys.ids()),
            });
        };
        let bytes = URL_SAFE_NO_PAD.decode(text);
        let bytes = bytes.map_err(|_| SealError::Damaged)?;
        let Some((nonce, sealed)) = bytes.split_first_chunk::<NONCE_BYTES>() else {
            return Err(SealError::Damaged);
        };
        let aad = place.text();
        let payload = Payload {
            msg: sealed,
            aad: aad.as_bytes(),
        };
        let opened = cipher(key).decrypt(&XNonce::from(*nonce), payload);
        let opened = opened.map_err(|_| SealError::Damaged)?;
        let text = String::from_utf8(opened);
        text.map(Secret).map_err(|_| SealError::Damaged)
    }

    /// The keys, if there are any: a process that only opens makes none.
    fn known(&self) -> Result<Option<Keys>, SealError> {
        if let Some(keys) = self.keys().clone() {
            return Ok(Some(keys));
        }
        let found = read_file(&self.data_dir)?;
        Ok(found.map(|keys| self.remember(keys)))
    }

    fn remember(&self, keys: Keys) -> Keys {
        self.keys().insert(keys).clone()
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Option<Keys>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cipher(key: &OneKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&Key::from(key.bytes))
}
