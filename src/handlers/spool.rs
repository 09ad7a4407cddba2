//! Directories for the files of attempts.
//!
//! Promises: what an attempt leaves in a [`Spool`] goes with it, and what a crash leaves goes with
//! the next one. What a job keeps in its [`JobSpool`] is there for its next attempt on this
//! machine, and goes with the job's end; of a job that ended elsewhere, after [`KEPT_MAX`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use crate::job::JobError;

/// How long files of a job are kept that no attempt on this machine has asked for.
const KEPT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The files of one attempt. They go with the attempt; what a crash leaves goes with the next one.
pub(crate) struct Spool {
    pub(crate) path: PathBuf,
}

impl Spool {
    pub(crate) fn create(path: PathBuf) -> Result<Self, JobError> {
        let made = match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => fs::create_dir_all(&path),
        };
        made.map_err(unprepared)?;
        Ok(Self { path })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Nothing to do about an error: the next attempt removes it too.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The files of the attempts of one job on this machine: `kept` for all of them, and a directory
/// of each. An attempt that was replaced and still ends does not touch those of the newer one.
pub(crate) struct JobSpool {
    dir: PathBuf,
    attempt: i32,
    is_over: bool,
}

impl JobSpool {
    /// The directory of a job below `work`, with what was kept; what earlier attempts left beside
    /// it goes, and what other jobs left long ago.
    pub(crate) fn open(work: &Path, job: Uuid, attempt: i32) -> Result<Self, JobError> {
        let spool = Self {
            dir: work.join(format!("{job}{SUFFIX}")),
            attempt,
            is_over: false,
        };
        forget_old(work);
        for earlier in spool.attempts().filter(|earlier| *earlier <= attempt) {
            let _ = fs::remove_dir_all(spool.dir.join(earlier.to_string()));
        }
        for path in [spool.kept(), spool.own()] {
            fs::create_dir_all(path).map_err(unprepared)?;
        }
        Ok(spool)
    }

    /// What the next attempt finds: nothing in it may be half done, whenever this one ends.
    pub(crate) fn kept(&self) -> PathBuf {
        self.dir.join("kept")
    }

    /// This attempt's own files.
    pub(crate) fn own(&self) -> PathBuf {
        self.dir.join(self.attempt.to_string())
    }

    /// The job has ended: nothing is kept any more.
    pub(crate) fn end(&mut self) {
        self.is_over = true;
    }

    fn attempts(&self) -> impl Iterator<Item = i32> + use<> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }
}

impl Drop for JobSpool {
    fn drop(&mut self) {
        // Nothing to do about errors: whoever comes next removes it too.
        let _ = fs::remove_dir_all(self.own());
        if self.is_over && self.attempts().next().is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Of directories of jobs; those of [`Spool`] have other names.
const SUFFIX: &str = ".job";

/// Removes what jobs left that went on elsewhere, or not at all.
fn forget_old(work: &Path) {
    for entry in fs::read_dir(work).into_iter().flatten().flatten() {
        let is_old = || {
            let changed = entry.metadata()?.modified()?;
            Ok::<_, io::Error>(changed.elapsed().is_ok_and(|age| age > KEPT_MAX))
        };
        let of_job = entry.file_name().to_string_lossy().ends_with(SUFFIX);
        if of_job && is_old().unwrap_or(false) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn unprepared(error: io::Error) -> JobError {
    JobError::Retry(format!("prepare a work directory: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_is_kept_is_found_by_the_next_attempt_and_goes_with_the_last() {
        let work = tempfile::tempdir().unwrap();
        let id = Uuid::now_v7();
        let first = JobSpool::open(work.path(), id, 1).unwrap();
        fs::write(first.kept().join("file"), "all of it").unwrap();
        fs::write(first.own().join("half"), "").unwrap();
        drop(first);
        let second = JobSpool::open(work.path(), id, 2).unwrap();
        assert!(second.kept().join("file").exists());
        assert!(!second.dir.join("1").exists());
        // A crash drops nothing.
        std::mem::forget(second);
        let mut third = JobSpool::open(work.path(), id, 3).unwrap();
        assert!(!third.dir.join("2").exists() && third.kept().join("file").exists());
        third.end();
        drop(third);
        assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_attempt_that_was_replaced_leaves_the_newer_one_its_files() {
        let work = tempfile::tempdir().unwrap();
        let id = Uuid::now_v7();
        let mut frozen = JobSpool::open(work.path(), id, 1).unwrap();
        let newer = JobSpool::open(work.path(), id, 2).unwrap();
        frozen.end();
        drop(frozen);
        assert!(newer.own().exists() && newer.kept().exists());
    }

    #[test]
    fn what_a_job_left_long_ago_goes_and_nothing_else() {
        let work = tempfile::tempdir().unwrap();
        let [old, young] = [1, 2].map(Uuid::from_u128);
        for id in [old, young] {
            drop(JobSpool::open(work.path(), id, 1).unwrap());
        }
        let aged = work.path().join(format!("{old}{SUFFIX}"));
        let now = fs::metadata(&aged).unwrap().modified().unwrap();
        let long_ago = now - KEPT_MAX - Duration::from_secs(60);
        File::open(&aged).unwrap().set_modified(long_ago).unwrap();
        let other = work.path().join("preview");
        fs::create_dir(&other).unwrap();
        File::open(&other).unwrap().set_modified(long_ago).unwrap();
        drop(JobSpool::open(work.path(), Uuid::from_u128(3), 1).unwrap());
        assert!(!aged.exists() && other.exists());
        assert!(work.path().join(format!("{young}{SUFFIX}")).exists());
    }
}
