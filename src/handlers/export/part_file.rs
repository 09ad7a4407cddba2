//! The file of an export while it is written: it only grows, and what a checkpoint vouches for is
//! on disk.
//!
//! `exports/<id>.<attempt>.part` becomes `exports/<id>.<format>` by a rename, so whoever finds a
//! file of the second name finds all of it. Only the owner of the process may read either.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::uploads::{hex, private_dir};

/// Bytes that are read at once to sum a file up.
const READ_BYTES: usize = 256 * 1024;
/// Attempts before the one that runs whose files are looked for.
const EARLIER_MAX: i32 = 100;

/// Where an attempt writes the file of an export.
pub(in crate::handlers) fn part_path(data_dir: &Path, id: Uuid, attempt: i32) -> PathBuf {
    super::dir(data_dir).join(format!("{id}.{attempt}.part"))
}

/// Where an attempt of a workbook keeps its rows until it is put together.
pub(in crate::handlers) fn spool_path(data_dir: &Path, id: Uuid, attempt: i32) -> PathBuf {
    super::dir(data_dir).join(format!("{id}.{attempt}.spool"))
}

/// Removes what the attempts before this one left, but for the part file of `kept`. One that does
/// not know yet that it lost its lease writes on into nothing.
pub(in crate::handlers) fn clear_earlier(
    data_dir: &Path,
    id: Uuid,
    attempt: i32,
    kept: i32,
) -> io::Result<()> {
    let absent = |done: io::Result<()>| match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    for earlier in attempt.saturating_sub(EARLIER_MAX).max(1)..attempt {
        absent(std::fs::remove_dir_all(spool_path(data_dir, id, earlier)))?;
        if earlier != kept {
            absent(std::fs::remove_file(part_path(data_dir, id, earlier)))?;
        }
    }
    Ok(())
}

/// A file that is being written.
#[derive(Debug)]
pub(in crate::handlers) struct PartFile {
    file: File,
    path: PathBuf,
    hash: Sha256,
    bytes: u64,
}

impl PartFile {
    /// An empty one; what stood there is gone.
    pub(in crate::handlers) fn create(path: PathBuf) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            private_dir(dir)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self {
            file: options.open(&path)?,
            path,
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    /// A copy of the one that an earlier attempt left, of so many bytes; none if that is not here,
    /// or if these bytes are not the ones that were vouched for.
    pub(in crate::handlers) fn resume(
        earlier: &Path,
        path: PathBuf,
        bytes: u64,
        sha256: &str,
    ) -> io::Result<Option<Self>> {
        let mut from = match File::open(earlier) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?.take(bytes),
        };
        let mut file = Self::create(path)?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match from.read(&mut buffer)? {
                0 => break,
                read => file.append(&buffer[..read])?,
            }
        }
        if file.bytes != bytes || file.sha256() != sha256 {
            return Ok(None);
        }
        Ok(Some(file))
    }

    pub(in crate::handlers) fn append(&mut self, text: &[u8]) -> io::Result<()> {
        self.file.write_all(text)?;
        self.hash.update(text);
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// For who writes all of it at once.
    pub(in crate::handlers) fn file(&self) -> &File {
        &self.file
    }

    pub(in crate::handlers) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Of what is written so far.
    pub(in crate::handlers) fn sha256(&self) -> String {
        hex(&self.hash.clone().finalize())
    }

    /// When this returns, everything that is written is on disk, and so is the file's name.
    pub(in crate::handlers) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()?;
        sync_dir(&self.path)
    }
}

/// Gives a whole file its name. Safe to repeat: a file that has it already is left alone.
pub(in crate::handlers) fn name(part: &Path, whole: &Path) -> io::Result<()> {
    match std::fs::rename(part, whole) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && whole.exists() => Ok(()),
        other => other,
    }?;
    sync_dir(whole)
}

/// Bytes and sum of a file; none if there is no such file.
pub(in crate::handlers) fn measure(path: &Path) -> io::Result<Option<(u64, String)>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let (hash, bytes) = sum(&mut file)?;
    Ok(Some((bytes, hex(&hash.finalize()))))
}

fn sum(reader: &mut impl Read) -> io::Result<(Sha256, u64)> {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok((hash, bytes)),
            read => {
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_attempts_left_goes_but_for_the_one_that_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let part = |n| part_path(dir.path(), Uuid::nil(), n);
        for n in 1..=4 {
            std::fs::create_dir_all(spool_path(dir.path(), Uuid::nil(), n)).unwrap();
            std::fs::write(part(n), "x").unwrap();
        }
        for _ in 0..2 {
            clear_earlier(dir.path(), Uuid::nil(), 4, 2).unwrap();
            assert_eq!(
                [1, 2, 3, 4].map(|n| part(n).exists()),
                [false, true, false, true]
            );
            let spools = [1, 2, 3, 4].map(|n| spool_path(dir.path(), Uuid::nil(), n).exists());
            assert_eq!(spools, [false, false, false, true]);
        }
    }

    #[test]
    fn a_file_goes_on_behind_what_was_vouched_for() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second, third] = [1, 2, 3].map(|n| part_path(dir.path(), Uuid::nil(), n));
        let mut file = PartFile::create(first.clone()).unwrap();
        file.append(b"one").unwrap();
        let (bytes, sum) = (file.bytes(), file.sha256());
        file.append(b"lost").unwrap();
        file.sync().unwrap();
        let resume = |bytes, sum: &str| {
            let resumed = PartFile::resume(&first, second.clone(), bytes, sum);
            resumed.unwrap()
        };
        assert!(resume(bytes, "another").is_none());
        assert!(resume(100, &sum).is_none());
        let mut resumed = resume(bytes, &sum).unwrap();
        resumed.append(b"two").unwrap();
        // The earlier attempt does not know yet that it lost its lease.
        file.append(b"late").unwrap();
        resumed.sync().unwrap();
        assert_eq!(std::fs::read(&second).unwrap(), b"onetwo");
        let whole = super::super::file_path(dir.path(), Uuid::nil(), "csv");
        name(&second, &whole).unwrap();
        name(&second, &whole).unwrap();
        assert_eq!(measure(&whole).unwrap(), Some((6, resumed.sha256())));
        assert!(
            PartFile::resume(&second, third.clone(), bytes, &sum)
                .unwrap()
                .is_none()
        );
        assert!(name(&third, &third).is_err());
    }
}
