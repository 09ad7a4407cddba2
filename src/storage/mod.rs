//! Where files are kept that outlive a job: exports, reports, uploads, error reports of imports.
//!
//! Always in the data directory while they are written. Whole ones stay there, or, with settings
//! for it, go to a bucket of an object storage that speaks S3, so that servers and workers need no
//! directory in common.
//!
//! ```text
//! exports/<id>.<attempt>.<format>    uploads/<id>    uploads/<id>.json    reports/<id>.csv
//! ```
//!
//! Promises: an object is there as a whole or not at all; memory does not grow with files; nothing
//! waits without an end; no error, log or `Debug` has the secret. Refuses: plain HTTP to another
//! machine. What is not done: objects are not encrypted here, which is the bucket's business.

mod options;

#[cfg(any(feature = "handlers", feature = "server"))]
mod error;
#[cfg(any(feature = "handlers", feature = "server"))]
mod objects;
#[cfg(any(feature = "handlers", feature = "server"))]
mod round;
#[cfg(any(feature = "handlers", feature = "server"))]
mod send;
#[cfg(any(feature = "handlers", feature = "server"))]
mod unfinished;

#[cfg(any(feature = "handlers", feature = "server"))]
pub use error::StorageError;
#[cfg(feature = "server")]
pub(crate) use objects::as_io;
#[cfg(any(feature = "handlers", feature = "server"))]
pub use objects::{Object, Objects};
pub use options::{InvalidStorage, StorageOptions};
#[cfg(any(feature = "handlers", feature = "server"))]
pub use round::{Removed, Round};
#[cfg(any(feature = "handlers", feature = "server"))]
pub use send::{Sending, Sent};
#[cfg(any(feature = "handlers", feature = "server"))]
pub use unfinished::Abandoned;

/// The data directory, and the bucket if there is one.
#[cfg(any(feature = "handlers", feature = "server"))]
#[derive(Debug, Clone)]
pub struct Storage {
    data_dir: std::path::PathBuf,
    objects: Option<Objects>,
}

#[cfg(any(feature = "handlers", feature = "server"))]
impl Storage {
    /// Everything stays in the data directory.
    pub fn local(data_dir: impl Into<std::path::PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            objects: None,
        }
    }

    /// Whole files go to a bucket, if one is named. Asks nobody yet.
    pub fn open(
        data_dir: impl Into<std::path::PathBuf>,
        options: Option<&StorageOptions>,
    ) -> Result<Self, StorageError> {
        Ok(Self {
            data_dir: data_dir.into(),
            objects: options.map(Objects::open).transpose()?,
        })
    }

    pub fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }

    /// Where whole files are; none: in the data directory.
    pub fn objects(&self) -> Option<&Objects> {
        self.objects.as_ref()
    }
}
