//! What a server says: appended to a file, kept within limits, and quoted when a start fails.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::StoresError;

/// How much of a log an error shows.
const TAIL_BYTES: u64 = 4096;

/// A log is put aside at the start of a run once it is larger.
const SIZE_MAX_BYTES: u64 = 10 * 1024 * 1024;

/// The log of one run, which begins where the runs before ended.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    start: u64,
}

impl Log {
    pub(super) fn open(path: &Path) -> Result<Self, StoresError> {
        if std::fs::metadata(path).is_ok_and(|found| found.len() > SIZE_MAX_BYTES) {
            let aside = path.with_extension("log.1");
            std::fs::rename(path, &aside).map_err(StoresError::file("put aside", path))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(StoresError::file("open", path))?;
        let start = file
            .metadata()
            .map_err(StoresError::file("look at", path))?
            .len();
        Ok(Self {
            path: path.to_owned(),
            file,
            start,
        })
    }

    /// A handle for the server to write to.
    pub(super) fn writer(&self) -> Result<File, StoresError> {
        self.file
            .try_clone()
            .map_err(StoresError::file("open", &self.path))
    }

    /// The last lines of this run.
    pub(super) fn tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.path)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(
                self.start.max(end.saturating_sub(TAIL_BYTES)),
            ))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
        };
        match read() {
            Ok(text) if text.is_empty() => "(empty)".to_owned(),
            Ok(text) => text,
            Err(error) => format!("({}: {error})", self.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_tail_shows_the_end_of_this_run_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.log");
        std::fs::write(&path, "an earlier run\n").unwrap();
        let log = Log::open(&path).unwrap();
        assert_eq!(log.tail(), "(empty)");
        writeln!(log.writer().unwrap(), "this run").unwrap();
        assert_eq!(log.tail(), "this run");
        let long = "x".repeat(10_000) + "\nthe end\n";
        log.writer().unwrap().write_all(long.as_bytes()).unwrap();
        assert!(log.tail().len() <= 4096 && log.tail().ends_with("the end"));
    }

    #[test]
    fn a_large_log_is_put_aside_before_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.log");
        File::create(&path)
            .unwrap()
            .set_len(SIZE_MAX_BYTES + 1)
            .unwrap();
        Log::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        assert!(dir.path().join("server.log.1").exists());
    }
}
