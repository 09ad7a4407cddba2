//! Jobs that a job makes, committed together with what it writes.
//!
//! Where it may die: before the commit there is none of it, after it there is all, and the relay
//! tells Redis within a second, whoever died.

use uuid::Uuid;

use super::JobContext;
use crate::enqueue::EnqueueError;
use crate::job::{JobError, JobRequest};
use crate::record::Tx;

impl JobContext {
    /// Enqueues jobs inside a transaction of this context: they exist if and only if it commits, so
    /// a job that runs again does not make them twice. They belong to the job's own workspace.
    ///
    /// ```
    /// # use bullwark::job::{JobError, JobRequest};
    /// # use bullwark::worker::JobContext;
    /// # async fn run(ctx: JobContext) -> Result<(), JobError> {
    /// ctx.transaction(async |tx| {
    ///     let next = JobRequest::new("welcome", serde_json::json!({ "name": "Ada" }));
    ///     ctx.enqueue_in(tx, vec![next]).await?;
    ///     Ok(())
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// All or nothing: one request that is wrong refuses the call, for good, before anything is
    /// written. A request of another workspace is wrong. At most
    /// [`INSERT_MAX`](crate::record::enqueue::INSERT_MAX) at once. Gives their ids, in order.
    pub async fn enqueue_in(
        &self,
        tx: &mut Tx,
        mut requests: Vec<JobRequest>,
    ) -> Result<Vec<Uuid>, JobError> {
        let Some(shared) = &self.inner.shared else {
            let why = "a job that runs outside of a worker makes no jobs";
            return Err(JobError::permanent(why));
        };
        let own = self.inner.workspace_id;
        for request in &mut requests {
            if request.workspace_id.is_some() && request.workspace_id != own {
                let why = "a job makes jobs of its own workspace, and of no other";
                return Err(JobError::permanent(why));
            }
            request.workspace_id = own;
        }
        let enqueued = shared.enqueue.enqueue_in(tx, requests).await;
        let enqueued = enqueued.map_err(|error: EnqueueError| match error.is_unavailable() {
            true => JobError::retry(error),
            false => JobError::permanent(error),
        })?;
        Ok(enqueued.into_iter().map(|job| job.id).collect())
    }
}
