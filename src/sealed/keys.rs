//! Encryption keys: as they are written, and the file of a data directory that holds one.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest, Sha256};

use super::SealError;

/// The file of the key in a data directory.
pub const FILE: &str = "encryption.key";

const KEY_BYTES: usize = 32;
/// The most keys of a setting: the one that seals, and older ones that open.
const KEYS_MAX: usize = 8;

/// A text that is no key. It does not tell the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    #[error(
        "it must be 32 random bytes in base64 or in hexadecimal digits, as `openssl rand -base64 \
         32` makes them"
    )]
    Form,
    #[error("at most {KEYS_MAX} keys can be given: the one that seals, and older ones")]
    TooMany,
}

/// The keys of a process. The first one seals, all of them open.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys(Arc<Vec<OneKey>>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.ids())
    }
}

#[derive(PartialEq, Eq)]
pub(super) struct OneKey {
    /// What sealed texts call it: the beginning of its hash.
    pub(super) id: String,
    pub(super) bytes: [u8; KEY_BYTES],
}

impl Keys {
    /// One key, or several with commas: the newest first.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let keys: Result<Vec<_>, _> = text.split(',').map(|key| parse_one(key.trim())).collect();
        let keys = keys?;
        match keys.len() {
            1..=KEYS_MAX => Ok(Self(Arc::new(keys))),
            _ => Err(InvalidKey::TooMany),
        }
    }

    pub(super) fn first(&self) -> &OneKey {
        &self.0[0]
    }

    pub(super) fn find(&self, id: &str) -> Option<&OneKey> {
        self.0.iter().find(|key| key.id == id)
    }

    /// The names of the keys, which tell nothing of them.
    pub(super) fn ids(&self) -> String {
        let ids: Vec<&str> = self.0.iter().map(|key| key.id.as_str()).collect();
        ids.join(", ")
    }
}

fn parse_one(text: &str) -> Result<OneKey, InvalidKey> {
    let bytes = from_hex(text).or_else(|| from_base64(text));
    let bytes: [u8; KEY_BYTES] = bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(InvalidKey::Form)?;
    let mut hash = Sha256::new();
    hash.update("bullwark encryption key");
    hash.update(bytes);
    let id = hash.finalize()[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(OneKey { id, bytes })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let places = (0..KEY_BYTES).map(|n| &text[2 * n..2 * n + 2]);
    places
        .map(|digits| u8::from_str_radix(digits, 16).ok())
        .collect()
}

/// Of either alphabet, with padding or without.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabets = [&alphabet::STANDARD, &alphabet::URL_SAFE];
    let mut decoded = alphabets
        .into_iter()
        .map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text));
    decoded.find_map(Result::ok)
}

/// The key of a data directory, if one was made.
pub(super) fn read_file(data_dir: &Path) -> Result<Option<Keys>, SealError> {
    let path = data_dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SealError::File { path, error }),
    };
    // Told, not refused: where files are mounted, their modes are not always the owner's choice.
    let mode = std::fs::metadata(&path).map(|file| file.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        let path = path.display();
        tracing::warn!(%path, "others than its owner may read the encryption key: chmod 600");
    }
    let keys = Keys::parse(text.trim());
    let keys = keys.map_err(|error| SealError::Unreadable { path, error })?;
    Ok(Some(keys))
}

/// The key of a data directory; makes one, readable by its owner alone, if there is none.
///
/// The file appears whole, by a link that fails if another process was first: then that one's key
/// counts. Name and content are on disk before this returns.
pub(super) fn make_file(data_dir: &Path) -> Result<Keys, SealError> {
    let made = link_new(data_dir).map_err(|error| SealError::File {
        path: data_dir.join(FILE),
        error,
    });
    made?;
    // Ours, or that of whoever was faster.
    read_file(data_dir)?.ok_or_else(|| SealError::File {
        path: data_dir.join(FILE),
        error: io::ErrorKind::NotFound.into(),
    })
}

fn link_new(data_dir: &Path) -> io::Result<()> {
    let parent = data_dir.parent().filter(|_| !data_dir.exists());
    std::fs::create_dir_all(data_dir)?;
    if let Some(parent) = parent.filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::File::open(parent)?.sync_all()?;
    }
    let random: [u8; KEY_BYTES] = rand::random();
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let part: u64 = rand::random();
    let temporary = data_dir.join(format!("{FILE}.{part:016x}"));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = writeln!(file, "{hex}")
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&temporary, data_dir.join(FILE)));
    std::fs::remove_file(&temporary).ok();
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        written => written?,
    }
    std::fs::File::open(data_dir)?.sync_all()
}
