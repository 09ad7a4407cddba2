//! The files of a private Redis that is down: taken away, or put back to an earlier state.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a snapshot is called by default.
const SNAPSHOT: &str = "dump.rdb";
/// Redis 7 keeps its append-only file in parts; a list names them.
const PARTS: &str = "appendonlydir";
const LIST: &str = "appendonly.aof.manifest";
const BASE: &str = "appendonly.aof.1.base.rdb";
/// Redis 6 keeps one file, which may begin with a snapshot.
const SINGLE: &str = "appendonly.aof";

/// The directory of a Redis.
#[derive(Debug, Clone)]
pub(super) struct RedisFiles(pub(super) PathBuf);

impl RedisFiles {
    /// Keeps the newest snapshot for later.
    pub(super) fn keep_snapshot(&self) -> io::Result<()> {
        fs::rename(self.0.join(SNAPSHOT), self.kept()).or_else(|error| {
            // Another file system, or nothing to keep.
            match fs::copy(self.0.join(SNAPSHOT), self.kept()) {
                Ok(_) => Ok(()),
                Err(_) => Err(error),
            }
        })
    }

    fn kept(&self) -> PathBuf {
        self.0.join("soak-snapshot.rdb")
    }

    /// Removes everything that Redis would load.
    pub(super) fn empty(&self) -> io::Result<()> {
        for file in [SNAPSHOT, SINGLE] {
            absent_is_fine(fs::remove_file(self.0.join(file)))?;
        }
        absent_is_fine(fs::remove_dir_all(self.0.join(PARTS)))
    }

    /// Puts the kept snapshot in the place of everything. False: there is none.
    pub(super) fn roll_back(&self) -> io::Result<bool> {
        if !self.kept().exists() {
            return Ok(false);
        }
        let in_parts = self.0.join(PARTS).exists();
        let owner = owner_of(&self.0)?;
        self.empty()?;
        let written = match in_parts {
            true => {
                let dir = self.0.join(PARTS);
                fs::create_dir(&dir)?;
                fs::copy(self.kept(), dir.join(BASE))?;
                fs::write(dir.join(LIST), format!("file {BASE} seq 1 type b\n"))?;
                vec![dir.join(BASE), dir.join(LIST), dir]
            }
            false => {
                fs::copy(self.kept(), self.0.join(SINGLE))?;
                vec![self.0.join(SINGLE)]
            }
        };
        for path in written {
            std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1))?;
        }
        Ok(true)
    }
}

fn owner_of(path: &Path) -> io::Result<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path)?;
    Ok((metadata.uid(), metadata.gid()))
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
