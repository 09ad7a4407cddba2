//! A directory for the files of one attempt.

use std::path::PathBuf;

use crate::job::JobError;

/// The files of one attempt. They go with the attempt; what a crash leaves goes with the next one.
pub(crate) struct Spool {
    pub(crate) path: PathBuf,
}

impl Spool {
    pub(crate) fn create(path: PathBuf) -> Result<Self, JobError> {
        let made = match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => std::fs::create_dir_all(&path),
        };
        made.map_err(|error| JobError::Retry(format!("prepare a work directory: {error}")))?;
        Ok(Self { path })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Nothing to do about an error: the next attempt removes it too.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
