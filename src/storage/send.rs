//! A whole file of this machine becomes an object: at once if it is small, else part by part.
//!
//! ```text
//! none ─► begun ─► parts … ─► whole        each arrow is one call of `Objects::send`
//! ```
//!
//! Whoever sends keeps [`Sending`] between two calls, where a later process finds it: that one goes
//! on behind the last part it knows. The object appears with the last call, as a whole.
//!
//! | the process dies | the next one |
//! |---|---|
//! | begun, nobody knows | begins anew; [`Objects::abort_abandoned`] ends the other |
//! | parts sent that nobody knows | sends them again under the same numbers |
//! | whole, nobody knows | the storage knows no such sending any more, but the object |

use std::io::SeekFrom;
use std::path::Path;

use object_store::PutPayload;
use object_store::multipart::{MultipartStore, PartId};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::Semaphore;

use super::{Objects, StorageError};

/// Bytes of a part, all but the last; S3 wants five megabytes and at most 10,000 parts.
pub(super) const PART_BYTES: u64 = 8 * 1024 * 1024;
const PARTS_MAX: u64 = 10_000;
/// Parts of one call: what is sent again after a crash.
const PARTS_AT_ONCE: u64 = 4;
/// Parts that this process holds in its memory.
const PARTS_IN_MEMORY: usize = 4;

static IN_MEMORY: Semaphore = Semaphore::const_new(PARTS_IN_MEMORY);

/// A file on its way, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    pub key: String,
    /// What the storage calls it.
    pub id: String,
    /// Bytes of each part but the last.
    pub part_bytes: u64,
    /// What the storage calls the parts it has.
    pub parts: Vec<String>,
}

/// How far it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// To be kept, and given to the next call.
    Partly(Sending),
    /// The object is there.
    Whole,
}

impl Objects {
    /// Takes the next step with a file of so many bytes. [`StorageError::Lost`]: what was sent is
    /// gone, begin with none.
    pub async fn send(
        &self,
        key: &str,
        (file, bytes): (&Path, u64),
        so_far: Option<Sending>,
    ) -> Result<Sent, StorageError> {
        if bytes <= PART_BYTES {
            let _room = IN_MEMORY.acquire().await.ok();
            let content = read_part(file, 0, bytes).await?;
            self.put(key, content).await?;
            return Ok(Sent::Whole);
        }
        if bytes.div_ceil(PART_BYTES) > PARTS_MAX {
            return Err(StorageError::Away(format!(
                "takes no file of {bytes} bytes"
            )));
        }
        let path = self.path(key);
        let so_far = match so_far {
            Some(so_far) if so_far.key == key && so_far.part_bytes > 0 => so_far,
            other => {
                if let Some(other) = other {
                    self.abort(&other).await?;
                }
                let begun = self.store.create_multipart(&path).await;
                return Ok(Sent::Partly(Sending {
                    key: key.to_owned(),
                    id: begun.map_err(|error| self.error(error, key))?,
                    part_bytes: PART_BYTES,
                    parts: Vec::new(),
                }));
            }
        };
        let advanced = self.advance((file, bytes), so_far).await;
        match advanced {
            // Somebody may have ended it, without being able to say so.
            Err(StorageError::Lost { key }) => match self.look(&key).await? {
                Some(object) if object.bytes == bytes => Ok(Sent::Whole),
                _ => Err(StorageError::Lost { key }),
            },
            other => other,
        }
    }

    async fn advance(
        &self,
        (file, bytes): (&Path, u64),
        mut so_far: Sending,
    ) -> Result<Sent, StorageError> {
        let (path, key) = (self.path(&so_far.key), so_far.key.clone());
        let failed = |error| match self.error(error, &key) {
            // Of an object that is being made, there is nothing else to be not found.
            StorageError::NotFound { key } => StorageError::Lost { key },
            error => error,
        };
        let parts = bytes.div_ceil(so_far.part_bytes);
        let from = so_far.parts.len() as u64;
        for part in from..parts.min(from + PARTS_AT_ONCE) {
            let start = part * so_far.part_bytes;
            let length = so_far.part_bytes.min(bytes - start);
            let _room = IN_MEMORY.acquire().await.ok();
            let content = PutPayload::from(read_part(file, start, length).await?);
            let number = usize::try_from(part).unwrap_or(usize::MAX);
            let put = self.store.put_part(&path, &so_far.id, number, content);
            so_far.parts.push(put.await.map_err(failed)?.content_id);
        }
        if from < parts {
            return Ok(Sent::Partly(so_far));
        }
        let part = |content_id| PartId { content_id };
        let sent = so_far.parts.into_iter().map(part).collect();
        let ended = self.store.complete_multipart(&path, &so_far.id, sent);
        ended.await.map_err(failed)?;
        match self.look(&key).await? {
            Some(object) if object.bytes == bytes => Ok(Sent::Whole),
            _ => Err(StorageError::Lost { key }),
        }
    }

    /// Sends a file from its beginning to its end, in one life of the process.
    pub async fn send_whole(&self, key: &str, file: (&Path, u64)) -> Result<(), StorageError> {
        let mut so_far = None;
        loop {
            match self.send(key, file, so_far.take()).await? {
                Sent::Whole => return Ok(()),
                Sent::Partly(sending) => so_far = Some(sending),
            }
        }
    }

    /// Ends a sending for good, if it still goes on.
    pub async fn abort(&self, sending: &Sending) -> Result<(), StorageError> {
        let path = self.path(&sending.key);
        let aborted = self.store.abort_multipart(&path, &sending.id).await;
        match aborted.map_err(|error| self.error(error, &sending.key)) {
            Err(StorageError::Lost { .. } | StorageError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }
}

async fn read_part(file: &Path, start: u64, length: u64) -> Result<Vec<u8>, StorageError> {
    let mut file = tokio::fs::File::open(file).await?;
    file.seek(SeekFrom::Start(start)).await?;
    let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(length).read_to_end(&mut content).await?;
    if content.len() as u64 != length {
        let error = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it became shorter");
        return Err(error.into());
    }
    Ok(content)
}
