//! A handler's writes and the end of its job, in one commit.
//!
//! Where it may die, and what the next reader finds:
//!
//! | between | finds | does |
//! |---|---|---|
//! | the fence and the commit | nothing of it | runs again |
//! | the commit and its answer | all of it, the job completed | asks the record; Redis is told |
//! | the answer and Redis | completed in the record, active in Redis | rescue finishes it there |

use serde::Serialize;

use super::JobContext;
use super::write::{Wrote, not_committed, write_error};
use crate::fault::{self, Point};
use crate::job::{Ending, JobError, RetryRule};
use crate::record::settle::{SettledAttempt, complete_in};
use crate::record::{RecordError, Tx};
use crate::worker::confirm::confirm;
use crate::worker::handler::result_text;

impl JobContext {
    /// Runs the last work of a job in a transaction that also completes the job, with the value
    /// that the work returns as its result. Both are committed together or not at all: the work
    /// takes effect exactly once.
    ///
    /// Return what this returns from [`Handler::run`](crate::worker::Handler::run):
    ///
    /// ```
    /// # use bullwark::job::JobError;
    /// # use bullwark::worker::JobContext;
    /// # async fn run(ctx: JobContext, name: String) -> Result<u64, JobError> {
    /// ctx.transaction(async |tx| {
    ///     let inserted = sqlx::query("INSERT INTO greetings (name) VALUES ($1)")
    ///         .bind(&name)
    ///         .execute(tx.connection())
    ///         .await
    ///         .map_err(JobError::retry)?;
    ///     Ok(inserted.rows_affected())
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// * An error or a panic of the work rolls back: nothing was written, and the error decides
    ///   what becomes of the job.
    /// * [`JobError::LeaseLost`]: the job went elsewhere, was cancelled or is over. Nothing was
    ///   written.
    /// * When the answer to the commit is lost, the record is asked what became of it. The work is
    ///   never repeated because of that, and never reported as failed when it is there.
    /// * After it returned a value the job is over. Whatever the handler returns then, an error or
    ///   another value, does not count, and it can write nothing more but log lines.
    ///
    /// Until the commit nobody else can restart, settle or cancel the job, and the connection is
    /// taken: keep it short, and make no other writes of this context inside of it.
    pub async fn transaction<T: Serialize>(
        &self,
        work: impl AsyncFnOnce(&mut Tx) -> Result<T, JobError>,
    ) -> Result<T, JobError> {
        self.may_complete().await?;
        let mut fenced = self.begin_fenced().await?;
        let value = work(&mut fenced.tx).await?;
        let result = result_text(&value)?;
        let Some(settled) = self.completed(&result) else {
            return Err(self.lease_lost());
        };
        let is_held = complete_in(&mut fenced.tx, &settled).await;
        if !is_held.map_err(write_error)? {
            return Err(self.lease_lost());
        }
        fault::point(Point::BeforeTransactionCommit);
        match fenced.commit().await {
            Ok(()) => {}
            // A constraint that was checked at the end: an answer, and nothing was written.
            Err(error @ RecordError::Refused { .. }) => return Err(write_error(error)),
            Err(error) => {
                if !self.resolve(&error, Wrote::End).await {
                    return Err(not_committed(&error));
                }
            }
        }
        fault::point(Point::AfterTransactionCommit);
        self.inner.held.set_committed(result);
        Ok(value)
    }

    /// Some jobs may complete only when Redis agrees: see [`confirm`]. Asked before the job is
    /// locked, since Redis may be away for long.
    async fn may_complete(&self) -> Result<(), JobError> {
        let Some(shared) = &self.inner.shared else {
            return Ok(());
        };
        let confirmed = confirm(shared, &self.inner.held, Ending::Value(String::new())).await;
        match confirmed.map(|confirmed| confirmed.ending) {
            Some(Ending::Error(error)) => Err(error),
            Some(_) => Ok(()),
            None => Err(JobError::LeaseLost),
        }
    }

    fn completed(&self, result: &str) -> Option<SettledAttempt> {
        let held = &self.inner.held;
        let rule = RetryRule {
            attempts: self.inner.attempts,
            max_attempts: self.inner.attempts,
            retry_delay_seconds: 0,
            backoff: None,
        };
        Some(SettledAttempt {
            id: held.id,
            attempt: held.attempt,
            worker_id: self.inner.worker_id.to_string(),
            started_at: held.started_at,
            outcome: Ending::Value(result.to_owned()).settle(&rule, 0.0)?,
        })
    }
}
