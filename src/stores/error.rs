//! Why private stores could not be started or stopped.

use std::io;
use std::path::{Path, PathBuf};

/// Every variant says what a person can do about it, or carries the server's own last words.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    #[error("{what} was not found{found_old}; install it: {install}")]
    Missing {
        what: &'static str,
        found_old: String,
        install: &'static str,
    },

    #[error(
        "{} was made by PostgreSQL {needed}, which is not installed (found: {found}); \
         install that version or move the directory away",
        dir.display()
    )]
    OtherMajor {
        dir: PathBuf,
        needed: u32,
        found: String,
    },

    #[error(
        "{} is in use by another Bullwark, process {pid}; stop that one or name another directory",
        dir.display()
    )]
    InUse { dir: PathBuf, pid: String },

    #[error(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody`"
    )]
    NoAccount,

    #[error(
        "PostgreSQL has to run as user `{account}`, who can reach none of {tried}; \
         name a directory that every user may pass through"
    )]
    Unreachable { account: String, tried: String },

    #[error("{doing} {}: {source}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },

    #[error("start {program}: {source}")]
    Spawn { program: String, source: io::Error },

    #[error("{server} did not start: {why}\n--- last lines of its log ---\n{log}")]
    NotStarted {
        server: &'static str,
        why: String,
        log: String,
    },

    #[error("{server} ended by itself ({why})\n--- last lines of its log ---\n{log}")]
    Ended {
        server: &'static str,
        why: String,
        log: String,
    },

    #[error(
        "{server} of an earlier run, process {pid}, works on {} and cannot be ended",
        dir.display()
    )]
    Stale {
        server: &'static str,
        pid: i32,
        dir: PathBuf,
    },

    #[error("no free port was found on 127.0.0.1")]
    NoPort,
}

impl StoresError {
    /// Names a file operation that failed: `map_err(StoresError::file("create", &path))`.
    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}
