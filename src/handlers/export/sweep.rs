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
use crate::storage::{Objects, Removed, Round, Storage, StorageError};

/// Files of the data directory that one sweep looks at.
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
    /// Files that the object storage did not remove.
    pub refused: usize,
    /// The record may have more that is over.
    pub is_more: bool,
}

/// Says of files that they have expired, and removes those and whatever else nobody wants. In a
/// bucket this is a pass of a round.
pub async fn sweep(
    record: &Record,
    storage: &Storage,
    round: &mut Round,
) -> Result<Swept, SweepError> {
    let is_more = expire(record).await? | download_links::purge(record).await?;
    let here = sweep_files(record, storage.data_dir()).await?;
    let mut there = Removed::default();
    if let Some(objects) = storage.objects() {
        there.add(sweep_objects(record, objects, round).await?);
        there.add(sweep_sendings(record, objects, round).await?);
    }
    Ok(Swept {
        removed: here + there.removed,
        refused: there.refused,
        is_more,
    })
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

/// The same in the bucket, where each attempt has an object of its own.
async fn sweep_objects(
    record: &Record,
    objects: &Objects,
    round: &mut Round,
) -> Result<Removed, SweepError> {
    let (after, max) = (round.object.as_deref(), round.look_max());
    let listed = objects.list(super::DIR, after, max).await?;
    let old = listed.found.into_iter().filter(|o| is_old(o.modified));
    let old: Vec<_> = old.filter_map(|o| Some((id_of(&o.key)?, o.key))).collect();
    let mut removed = Removed::default();
    for batch in old.chunks(BATCH) {
        let ids: Vec<Uuid> = batch.iter().map(|(id, _)| *id).collect();
        let living = living(record, &ids).await?;
        for (id, key) in batch {
            let is_wanted = living.get(id).is_some_and(|living| match living.is_whole {
                true => living.object_key.as_ref() == Some(key),
                false => true,
            });
            if !is_wanted {
                removed.note(key, objects.remove(key).await);
            }
            if removed.is_enough() {
                round.object = Some(key.clone());
                return Ok(removed);
            }
        }
    }
    round.object = listed.next;
    Ok(removed)
}

/// What was on its way to the bucket and does not go on.
async fn sweep_sendings(
    record: &Record,
    objects: &Objects,
    round: &mut Round,
) -> Result<Removed, SweepError> {
    let (after, max) = (round.sending.as_ref(), round.look_max());
    let listed = objects.unfinished(super::DIR, after, max).await?;
    let old = listed.found.into_iter().filter(|s| is_old(s.begun));
    let old: Vec<_> = old.filter_map(|s| Some((id_of(&s.key)?, s))).collect();
    let mut removed = Removed::default();
    for batch in old.chunks(BATCH) {
        let ids: Vec<Uuid> = batch.iter().map(|(id, _)| *id).collect();
        let living = living(record, &ids).await?;
        for (id, sending) in batch {
            if living.get(id).is_none_or(|living| living.is_whole) {
                let done = objects.abort_abandoned(sending).await;
                removed.note(&sending.key, done);
            }
            if removed.is_enough() {
                round.sending = Some(objects.mark(sending));
                return Ok(removed);
            }
        }
    }
    round.sending = listed.next;
    Ok(removed)
}

fn is_old(time: DateTime<Utc>) -> bool {
    let age = (crate::clock::now() - time).to_std();
    age.is_ok_and(|age| age > YOUNG)
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
