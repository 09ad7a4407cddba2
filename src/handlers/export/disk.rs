//! Work with files, and other work that takes its time, on threads of its own.

use std::io;

use crate::job::JobError;

/// Work with files.
pub(in crate::handlers) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, JobError> {
    off_runtime(move || work().map_err(|error| disk_error(&error))).await
}

/// Work that knows by itself how the job goes on when it fails.
pub(in crate::handlers) async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JobError> + Send + 'static,
) -> Result<T, JobError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| disk_error(&io::Error::other(error)))?
}

/// A disk may be full or away now, and be there later.
pub(in crate::handlers) fn disk_error(error: &io::Error) -> JobError {
    JobError::Retry(format!("write the export: {error}"))
}
