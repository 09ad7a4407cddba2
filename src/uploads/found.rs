//! Uploads that are complete: found, and brought to where they can be read; and the same among the
//! objects of a bucket, where `uploads/<id>` comes first and `uploads/<id>.json` makes it complete.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::{Upload, Uploads};
use crate::storage::{Objects, Removed, Round};

const DIR: &str = "uploads";
/// The largest that is read of what is known about an upload.
const KNOWN_BYTES_MAX: u64 = 16 * 1024;
/// What a sending is given to come to its end before it counts as abandoned. The time of an object
/// is that of its beginning, too.
const SENDING_MAX: chrono::Duration = chrono::Duration::hours(24);

/// A complete upload.
#[derive(Debug, Clone)]
pub struct Found {
    pub upload: Upload,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Here(PathBuf),
    Object(Objects),
}

impl Uploads {
    /// A complete upload of this workspace. One that was kept here before there was a bucket is
    /// found as well.
    pub async fn find(&self, id: Uuid, workspace_id: Uuid) -> io::Result<Option<Found>> {
        let is_ours = |upload: &Upload| upload.workspace_id == workspace_id;
        if let Some(objects) = &self.objects {
            let known = objects.read(&known_key(id), KNOWN_BYTES_MAX).await?;
            if let Some(known) = known {
                let upload: Upload = serde_json::from_slice(&known)?;
                let content = Content::Object(objects.clone());
                return Ok(is_ours(&upload).then_some(Found { upload, content }));
            }
        }
        let content = self.dir.join(id.to_string());
        let text = match tokio::fs::read(self.known_path(id)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let upload: Upload = serde_json::from_slice(&text)?;
        let is_complete = is_ours(&upload) && tokio::fs::try_exists(&content).await?;
        let content = Content::Here(content);
        Ok(is_complete.then_some(Found { upload, content }))
    }
}

impl Found {
    /// Where the content is on this machine. An object is copied into `dir`, which is the
    /// caller's to remove, and has to have the sum that it came with.
    pub async fn bring(self, dir: &Path) -> io::Result<PathBuf> {
        let objects = match self.content {
            Content::Here(path) => return Ok(path),
            Content::Object(objects) => objects,
        };
        let path = dir.join("upload");
        let key = content_key(self.upload.id);
        let (bytes, sha256) = objects.fetch(&key, &path, u64::MAX).await?;
        if (bytes, &sha256) != (self.upload.bytes, &self.upload.sha256) {
            let text = format!("the object `{key}` is not what was uploaded");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(path)
    }

    /// The same with a copy of the first bytes only, which nobody compares.
    pub async fn bring_beginning(&self, dir: &Path, bytes: u64) -> io::Result<PathBuf> {
        match &self.content {
            Content::Here(path) => Ok(path.clone()),
            Content::Object(objects) => {
                let (path, key) = (dir.join("beginning"), content_key(self.upload.id));
                objects.fetch(&key, &path, bytes).await?;
                Ok(path)
            }
        }
    }
}

/// Keeps an upload whose content is in a file.
pub(super) async fn keep(
    objects: &Objects,
    upload: &Upload,
    content: &Path,
    known: Vec<u8>,
) -> io::Result<()> {
    let file = (content, upload.bytes);
    objects.send_whole(&content_key(upload.id), file).await?;
    Ok(objects.put(&known_key(upload.id), known).await?)
}

/// Removes contents that nothing is known about, and ends what was on its way for too long: a pass
/// of a round.
pub(super) async fn sweep(objects: &Objects, round: &mut Round) -> io::Result<Removed> {
    let mut removed = sweep_contents(objects, round).await?;
    removed.add(sweep_sendings(objects, round).await?);
    Ok(removed)
}

async fn sweep_contents(objects: &Objects, round: &mut Round) -> io::Result<Removed> {
    let now = crate::clock::now();
    let (after, max) = (round.object.as_deref(), round.look_max());
    let listed = objects.list(DIR, after, max).await?;
    let mut removed = Removed::default();
    let known: HashSet<&str> = listed
        .found
        .iter()
        .filter_map(|object| object.key.strip_suffix(".json"))
        .collect();
    for object in &listed.found {
        let is_complete = object.key.ends_with(".json") || known.contains(object.key.as_str());
        if is_complete || now - object.modified <= SENDING_MAX {
            continue;
        }
        // The list has an end, and what is known of this one may stand behind it.
        if objects
            .look(&format!("{}.json", object.key))
            .await?
            .is_none()
        {
            removed.note(&object.key, objects.remove(&object.key).await);
        }
        if removed.is_enough() {
            round.object = Some(object.key.clone());
            return Ok(removed);
        }
    }
    round.object = listed.next;
    Ok(removed)
}

async fn sweep_sendings(objects: &Objects, round: &mut Round) -> io::Result<Removed> {
    let now = crate::clock::now();
    let (after, max) = (round.sending.as_ref(), round.look_max());
    let listed = objects.unfinished(DIR, after, max).await?;
    let mut removed = Removed::default();
    for unfinished in &listed.found {
        if now - unfinished.begun > SENDING_MAX {
            let done = objects.abort_abandoned(unfinished).await;
            removed.note(&unfinished.key, done);
        }
        if removed.is_enough() {
            round.sending = Some(objects.mark(unfinished));
            return Ok(removed);
        }
    }
    round.sending = listed.next;
    Ok(removed)
}

fn content_key(id: Uuid) -> String {
    format!("{DIR}/{id}")
}

fn known_key(id: Uuid) -> String {
    format!("{DIR}/{id}.json")
}
