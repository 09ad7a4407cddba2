//! Work that is finished even if its attempt ends before it.
//!
//! For a call that costs money: a job that is cancelled, times out or loses its lease in the middle
//! must not throw away an answer that was paid for. What runs on may write only what belongs to
//! nobody's attempt, such as a cache; the fence would refuse the rest.

use std::future::Future;

use tokio::sync::oneshot;

use super::JobContext;
use crate::job::JobError;

impl JobContext {
    /// Runs `work` to its end, whatever becomes of this attempt meanwhile; gives its result if the
    /// attempt is still there then. A worker that shuts down waits for it as for its jobs. It has
    /// to end by itself, in a time that it knows.
    pub async fn outlive<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, JobError>> + Send + 'static,
    ) -> Result<T, JobError> {
        let Some(shared) = &self.inner.shared else {
            return work.await;
        };
        let (tell, told) = oneshot::channel();
        shared.jobs.spawn(name, async move {
            // Nobody listens any more: it was done for those who come later.
            let _ = tell.send(work.await);
        });
        tokio::select! {
            ended = told => ended.unwrap_or_else(|_| {
                Err(JobError::Retry(format!("{name} broke off: the log of the worker says why")))
            }),
            () = self.cancelled().cancelled() => {
                Err(JobError::Retry("told to stop".to_owned()))
            }
        }
    }
}
