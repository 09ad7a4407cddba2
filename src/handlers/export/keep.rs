//! A whole file goes to where it is kept: it gets its name in the data directory, or becomes an
//! object of the bucket.
//!
//! A large one is sent part by part, and the checkpoint knows how far it came: a later attempt on
//! this machine goes on behind the last part, one on another machine begins anew unless the object
//! is there already. Each attempt that writes a file has an object of its own, so what the record
//! names is what was vouched for, whatever an attempt does that lost its lease.

use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::disk::on_disk;
use super::{file_path, object_key, part_file};
use crate::fault::{self, Point};
use crate::job::JobError;
use crate::storage::{Objects, Sending, Sent, Storage, StorageError};
use crate::worker::JobContext;

/// A file that an attempt has vouched for.
#[derive(Debug, Clone)]
pub(in crate::handlers) struct WholeFile {
    pub(in crate::handlers) id: Uuid,
    pub(in crate::handlers) format: &'static str,
    /// The one that wrote it.
    pub(in crate::handlers) attempt: i32,
    pub(in crate::handlers) bytes: u64,
    pub(in crate::handlers) sha256: String,
}

/// Writes down how far a file came.
pub(in crate::handlers) trait Saves: Send {
    /// None: nothing of it arrived.
    fn save(
        &mut self,
        sending: Option<Sending>,
    ) -> impl Future<Output = Result<(), JobError>> + Send;
}

impl WholeFile {
    fn part(&self, data_dir: &Path) -> PathBuf {
        part_file::part_path(data_dir, self.id, self.attempt)
    }

    fn key(&self) -> String {
        object_key(self.id, self.attempt, self.format)
    }

    /// Whether what an earlier attempt wrote can still be had: on this machine, under either name,
    /// or in the bucket.
    pub(in crate::handlers) async fn is_here(&self, storage: &Storage) -> Result<bool, JobError> {
        let expected = Some((self.bytes, self.sha256.clone()));
        let part = self.part(storage.data_dir());
        let whole = file_path(storage.data_dir(), self.id, self.format);
        let is_here = on_disk(move || {
            if part_file::measure(&part)? == expected {
                return Ok(true);
            }
            // It would go before the whole one.
            if part.exists() {
                std::fs::remove_file(&part)?;
            }
            Ok(part_file::measure(&whole)? == expected)
        });
        Ok(is_here.await? || self.is_object(storage).await?)
    }

    async fn is_object(&self, storage: &Storage) -> Result<bool, JobError> {
        let Some(objects) = storage.objects() else {
            return Ok(false);
        };
        let found = objects.look(&self.key()).await.map_err(storage_error)?;
        Ok(found.is_some_and(|object| object.bytes == self.bytes))
    }

    /// Puts it there, from where `sending` says that it is; answers the key of the object if there
    /// is one. Safe to repeat.
    pub(in crate::handlers) async fn keep(
        &self,
        ctx: &JobContext,
        storage: &Storage,
        sending: Option<Sending>,
        saves: &mut impl Saves,
    ) -> Result<Option<String>, JobError> {
        let part = self.part(storage.data_dir());
        let whole = file_path(storage.data_dir(), self.id, self.format);
        let Some(objects) = storage.objects() else {
            on_disk(move || part_file::name(&part, &whole)).await?;
            return Ok(None);
        };
        // A part file is what was vouched for; a named one may be of another time, unless there is
        // nothing else.
        let is_there = async |path: &Path| tokio::fs::try_exists(path).await.unwrap_or(false);
        let path = match is_there(&part).await {
            true => part,
            false if self.is_object(storage).await? => return Ok(Some(self.key())),
            false => whole,
        };
        self.send(ctx, objects, (&path, sending), saves).await?;
        Ok(Some(self.key()))
    }

    async fn send(
        &self,
        ctx: &JobContext,
        objects: &Objects,
        (path, mut sending): (&Path, Option<Sending>),
        saves: &mut impl Saves,
    ) -> Result<(), JobError> {
        let key = self.key();
        let parts = |sending: &Option<Sending>| sending.as_ref().map_or(0, |s| s.parts.len());
        let before = parts(&sending);
        loop {
            let step = objects.send(&key, (path, self.bytes), sending.clone());
            let sent = tokio::select! {
                sent = step => sent,
                () = ctx.cancelled().cancelled() => {
                    let is_further = parts(&sending) > before;
                    // The fence says whether somebody cancelled the job.
                    saves.save(sending).await?;
                    let message = "interrupted while the file was sent to the bucket".to_owned();
                    return Err(match is_further {
                        true => JobError::Snooze(Duration::from_secs(1), message),
                        false => JobError::Retry(message),
                    });
                }
            };
            match sent {
                Ok(Sent::Whole) => return Ok(()),
                Ok(Sent::Partly(next)) => {
                    fault::point(Point::AfterPartsSent);
                    saves.save(Some(next.clone())).await?;
                    sending = Some(next);
                }
                Err(StorageError::Lost { key }) => {
                    saves.save(None).await?;
                    return Err(storage_error(StorageError::Lost { key }));
                }
                Err(error) => return Err(storage_error(error)),
            }
        }
    }

    /// Removes what is on this machine of a file that is in the bucket; what can not be removed
    /// goes with a sweep.
    pub(in crate::handlers) async fn remove_local(&self, storage: &Storage) {
        let part = self.part(storage.data_dir());
        let whole = file_path(storage.data_dir(), self.id, self.format);
        for path in [part, whole] {
            match tokio::fs::remove_file(&path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %path.display(), "not removed");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// A storage may be away or closed now, and be there later.
fn storage_error(error: StorageError) -> JobError {
    JobError::Retry(format!("keep the file: {error}"))
}
