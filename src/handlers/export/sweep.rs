//! Takes away what exports leave when their days are over: files that expired, and parts that
//! nobody goes on with.
//!
//! Each server does it in its own data directory, and all of them in the bucket. Bounded, safe to
//! repeat, and safe beside itself:
//! the record says first that a file has expired, then the file goes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::record::exports::{BATCH, expire, living};
use crate::record::{Record, RecordError, download_links};
use crate::storage::{Objects, Storage, StorageError};

/// Files that one sweep looks at.
const FILES_MAX: usize = 100_000;
/// Younger files are left alone: somebody may just be about to say what they are.
const YOUNG: Duration = Duration::from_secs(3600);

/// Why a sweep did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the exports of the data directory: {0}")]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Files that are gone.
    pub removed: usize,
    /// The record may have more that is over.
    pub is_more: bool,
}

/// Says of files that they have expired, and removes those and whatever else nobody wants.
pub async fn sweep(record: &Record, storage: &Storage) -> Result<Swept, SweepError> {
    let is_more = expire(record).await? | download_links::purge(record).await?;
    let mut removed = sweep_files(record, storage.data_dir()).await?;
    if let Some(objects) = storage.objects() {
        removed += sweep_objects(record, objects).await?;
    }
    Ok(Swept { removed, is_more })
}

async fn sweep_files(record: &Record, data_dir: &Path) -> Result<usize, SweepError> {
    let dir = super::dir(data_dir);
    let old = tokio::task::spawn_blocking(move || old_files(&dir));
    let old = old.await.map_err(io::Error::other)??;
    let mut removed = 0;
    for batch in old.chunks(BATCH) {
        let ids: Vec<Uuid> = batch.iter().map(|(id, _)| *id).collect();
        let living = living(record, &ids).await?;
        for (id, path) in batch {
            let is_whole = path.extension() != Some("part".as_ref()) && path.is_file();
            // Of a running export everything is left alone, of a whole one its file.
            if living.get(id).is_some_and(|living| match living.is_whole {
                true => is_whole && living.object_key.is_none(),
                false => true,
            }) {
                continue;
            }
            let removing = match path.is_dir() {
                true => tokio::fs::remove_dir_all(path).await,
                false => tokio::fs::remove_file(path).await,
            };
            match removing {
                Ok(()) => removed += 1,
                // Another server of this directory was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // The others go all the same; this one is tried again next time.
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "not removed");
                }
            }
        }
    }
    Ok(removed)
}

/// The same in the bucket, where each attempt has an object of its own; and what was on its way
/// there and does not go on.
async fn sweep_objects(record: &Record, objects: &Objects) -> Result<usize, SweepError> {
    let now = crate::clock::now();
    let is_old = |time: DateTime<Utc>| (now - time).to_std().is_ok_and(|age| age > YOUNG);
    let listed = objects.list(super::DIR, FILES_MAX).await?;
    let listed = listed.into_iter().filter(|object| is_old(object.modified));
    let listed: Vec<_> = listed
        .filter_map(|o| Some((id_of(&o.key)?, o.key)))
        .collect();
    let mut removed = 0;
    for batch in listed.chunks(BATCH) {
        let ids: Vec<Uuid> = batch.iter().map(|(id, _)| *id).collect();
        let living = living(record, &ids).await?;
        for (id, key) in batch {
            let is_wanted = living.get(id).is_some_and(|living| match living.is_whole {
                true => living.object_key.as_ref() == Some(key),
                false => true,
            });
            if !is_wanted {
                objects.remove(key).await?;
                removed += 1;
            }
        }
    }
    let unfinished = objects.unfinished(super::DIR).await?.into_iter();
    let unfinished = unfinished.filter(|sending| is_old(sending.begun));
    let unfinished: Vec<_> = unfinished
        .filter_map(|s| Some((id_of(&s.key)?, s)))
        .collect();
    for batch in unfinished.chunks(BATCH) {
        let ids: Vec<Uuid> = batch.iter().map(|(id, _)| *id).collect();
        let living = living(record, &ids).await?;
        for (id, sending) in batch {
            if living.get(id).is_none_or(|living| living.is_whole) {
                objects.abort_abandoned(sending).await?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// Whose object it is; none: it is no export's.
fn id_of(key: &str) -> Option<Uuid> {
    let name = key.strip_prefix(super::DIR)?.strip_prefix('/')?;
    name.split('.').next()?.parse().ok()
}

/// Files of exports that are not young, and whose they are.
fn old_files(dir: &Path) -> io::Result<Vec<(Uuid, PathBuf)>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut old = Vec::new();
    for entry in entries.take(FILES_MAX) {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let id = name.and_then(|name| name.split('.').next()?.parse().ok());
        let Some(id) = id else { continue };
        // An age that can not be told counts as young.
        let modified = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
        let age = modified.and_then(|modified| modified.elapsed().ok());
        if age.is_some_and(|age| age > YOUNG) {
            old.push((id, path));
        }
    }
    Ok(old)
}
