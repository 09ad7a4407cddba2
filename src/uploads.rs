//! Files of clients: what they uploaded, and the reports that jobs leave for them.
//!
//! `uploads/<id>` is the content as it came, `uploads/<id>.json` is what is known about it. The
//! content appears last, by a rename, so whoever finds it finds all of it. An upload belongs to one
//! workspace, and [`Uploads::find`] gives it to that one only.
//!
//! Where the process may die, and what the next reader finds:
//!
//! * while the content arrives: a `.part` file, which [`Uploads::sweep`] removes;
//! * between the two renames: a `.json` without content, likewise;
//! * after the second: a complete upload, whoever was told of it.
//!
//! With an object storage the content goes there when it has arrived, and what is known about it
//! last: whoever finds that finds both. Until then the same files are here, and go the same way.

mod found;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

pub use self::found::Found;
use crate::storage::{Objects, Removed, Round, Storage};

/// The longest file name that is kept, in characters.
const FILE_NAME_MAX: usize = 200;
/// The name of a file that came without a usable one.
const FILE_NAME: &str = "upload";
/// Unfinished files older than this are removed: longer than any upload may take.
const UNFINISHED_MAX: Duration = Duration::from_secs(3600);
/// Files of the data directory that one sweep looks at.
const SWEEP_MAX: usize = 100_000;

/// What is known about an upload: the content of its `.json` file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    pub id: Uuid,
    pub workspace_id: Uuid,
    /// For people only; never a path.
    pub file_name: String,
    pub bytes: u64,
    /// Of the content, in hexadecimal digits.
    pub sha256: String,
    pub created_at: chrono::DateTime<chrono::Utc>,
}

impl Upload {
    /// How jobs name it.
    pub fn url(&self) -> String {
        format!("upload://{}", self.id)
    }
}

/// The uploads of a data directory, or of a bucket.
#[derive(Debug, Clone)]
pub struct Uploads {
    dir: PathBuf,
    objects: Option<Objects>,
}

impl Uploads {
    pub fn new(storage: &Storage) -> Self {
        Self {
            dir: storage.data_dir().join("uploads"),
            objects: storage.objects().cloned(),
        }
    }

    /// Begins an upload. Dropped without [`Incoming::finish`], it leaves nothing.
    pub async fn begin(&self, workspace_id: Uuid, file_name: &str) -> io::Result<Incoming> {
        let (uploads, id) = (self.clone(), Uuid::now_v7());
        let file_name = sanitized(file_name);
        blocking(move || {
            private_dir(&uploads.dir)?;
            let part = Part::create(uploads.dir.join(format!("{id}.part")))?;
            let file = tokio::fs::File::from_std(part.file.try_clone()?);
            Ok(Incoming {
                uploads,
                id,
                workspace_id,
                file_name,
                file,
                part,
                hash: Sha256::new(),
                bytes: 0,
            })
        })
        .await
    }

    /// Removes what uploads left that were cut short by the end of their process. In a bucket this
    /// is a pass of a round.
    pub async fn sweep(&self, round: &mut Round) -> io::Result<Removed> {
        let dir = self.dir.clone();
        let here = blocking(move || sweep(&dir)).await?;
        let mut swept = match &self.objects {
            Some(objects) => found::sweep(objects, round).await?,
            None => Removed::default(),
        };
        swept.removed += here;
        Ok(swept)
    }

    fn known_path(&self, id: Uuid) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }
}

/// Where the error report of a job is, if it has one.
pub fn report_path(data_dir: &Path, job_id: Uuid) -> PathBuf {
    data_dir.join(report_key(job_id))
}

/// The same among the objects.
pub fn report_key(job_id: Uuid) -> String {
    format!("reports/{job_id}.csv")
}

/// An upload that is arriving.
#[derive(Debug)]
pub struct Incoming {
    uploads: Uploads,
    id: Uuid,
    workspace_id: Uuid,
    file_name: String,
    file: tokio::fs::File,
    part: Part,
    hash: Sha256,
    bytes: u64,
}

impl Incoming {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub async fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.hash.update(chunk);
        self.bytes += chunk.len() as u64;
        self.file.write_all(chunk).await
    }

    /// Puts the upload in its place. When this returns, it is on disk, or with the objects.
    pub async fn finish(self) -> io::Result<Upload> {
        let Self {
            uploads,
            id,
            workspace_id,
            file_name,
            mut file,
            part,
            hash,
            bytes,
        } = self;
        file.flush().await?;
        file.sync_all().await?;
        let upload = Upload {
            id,
            workspace_id,
            file_name,
            bytes,
            sha256: hex(&hash.finalize()),
            created_at: crate::clock::now(),
        };
        let known = serde_json::to_vec(&upload)?;
        if let Some(objects) = &uploads.objects {
            // Dropped in the middle, or at its end, the part goes.
            found::keep(objects, &upload, &part.path, known).await?;
            return Ok(upload);
        }
        blocking(move || {
            let mut beside = Part::create(uploads.dir.join(format!("{id}.json.part")))?;
            beside.file.write_all(&known)?;
            beside.file.sync_all()?;
            let mut beside = beside.rename(uploads.known_path(id))?;
            part.rename(uploads.dir.join(id.to_string()))?.keep();
            beside.keep();
            File::open(&uploads.dir)?.sync_all()?;
            Ok(upload)
        })
        .await
    }
}

/// A file that is removed when it is dropped, unless it is kept.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: File,
    is_kept: bool,
}

impl Part {
    fn create(path: PathBuf) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        Ok(Self {
            path,
            file,
            is_kept: false,
        })
    }

    fn rename(mut self, path: PathBuf) -> io::Result<Self> {
        std::fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(self)
    }

    fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "unfinished upload not removed");
        }
    }
}

fn sweep(dir: &Path) -> io::Result<usize> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut removed = 0;
    for entry in entries.take(SWEEP_MAX) {
        let path = entry?.path();
        let is_unfinished = match path.extension().and_then(|e| e.to_str()) {
            Some("part") => true,
            Some("json") => !path.with_extension("").exists(),
            _ => false,
        };
        if !is_unfinished {
            continue;
        }
        // By the file system's clock, which wrote the other time as well. An unreadable age, or a
        // file that went away meanwhile, counts as young.
        let age = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
        let is_old = age
            .and_then(|modified| modified.elapsed().ok())
            .is_some_and(|age| age > UNFINISHED_MAX);
        if is_old && std::fs::remove_file(&path).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// What a person may see of a file name that a stranger chose: the last part of a path, without
/// characters that hide or reorder others.
pub(crate) fn sanitized(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let is_plain = |c: &char| {
        !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            && !matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let plain: String = last.chars().filter(is_plain).take(FILE_NAME_MAX).collect();
    let plain = plain.trim().trim_start_matches('.');
    if plain.is_empty() { FILE_NAME } else { plain }.to_owned()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
