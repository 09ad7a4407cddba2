//! What all writes of an attempt have in common: the fence, one at a time, and the question what
//! became of a commit that was not answered.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;

use super::{Inner, JobContext};
use crate::job::JobError;
use crate::record::{RecordError, Tx, settle, start, steps};

/// How long a write waits for another one of the same attempt.
const TURN_LIMIT: Duration = Duration::from_secs(10);
const STILL_OPEN: &str = "another write of this job is still open; writes do not nest";
/// Between two questions about a commit: doubled from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Times that a write is tried again which can be repeated: what it notes has happened already.
const RETRIES: u32 = 5;

/// A transaction behind the fence: until it ends nobody else can restart, settle or cancel the job.
/// Dropping it rolls back.
#[derive(Debug)]
pub(super) struct Fenced {
    pub(super) tx: Tx,
    _turn: OwnedSemaphorePermit,
}

impl Fenced {
    pub(super) async fn commit(self) -> Result<(), RecordError> {
        self.tx.commit().await
    }
}

/// What a commit wrote that is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wrote<'a> {
    /// This attempt's completion of the job.
    End,
    Step(&'a str),
    /// The transaction of this number.
    Transaction(&'a str),
}

impl JobContext {
    /// Begins a write of this attempt.
    ///
    /// Writes of one attempt go one after the other. A second one inside of the first would wait
    /// for ever behind the lock of the job, so it fails after a while.
    pub(super) async fn begin_fenced(&self) -> Result<Fenced, JobError> {
        let turn = self.write_turn().await?;
        let tx = self.inner.record.begin().await.map_err(write_error)?;
        self.fence(tx, turn).await
    }

    /// Begins a transaction that is not fenced yet: [`Self::fence_late`] must come before its
    /// commit.
    pub(super) async fn begin_unfenced(&self) -> Result<Tx, JobError> {
        let mut tx = self.inner.record.begin().await.map_err(write_error)?;
        start::speak_for(&mut tx, self.inner.held.id)
            .await
            .map_err(write_error)?;
        Ok(tx)
    }

    /// Fences a transaction that has written already.
    pub(super) async fn fence_late(&self, tx: Tx) -> Result<Fenced, JobError> {
        let turn = self.write_turn().await?;
        self.fence(tx, turn).await
    }

    async fn write_turn(&self) -> Result<OwnedSemaphorePermit, JobError> {
        let held = &self.inner.held;
        let turn = tokio::time::timeout(TURN_LIMIT, held.turn().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(JobError::Retry(STILL_OPEN.to_owned()));
        };
        if held.committed().is_some() {
            return Err(JobError::LeaseLost); // by its own transaction: the job is over
        }
        Ok(turn)
    }

    async fn fence(&self, mut tx: Tx, turn: OwnedSemaphorePermit) -> Result<Fenced, JobError> {
        let held = &self.inner.held;
        let is_held = start::fence(&mut tx, held.id, held.attempt, &self.inner.worker_id)
            .await
            .map_err(write_error)?;
        if !is_held {
            return Err(self.lease_lost());
        }
        held.is_marked.store(true, Ordering::Relaxed);
        Ok(Fenced { tx, _turn: turn })
    }

    /// This attempt has no say any more; its run is told.
    pub(super) fn lease_lost(&self) -> JobError {
        self.inner.held.lost.cancel();
        JobError::LeaseLost
    }

    /// Asks what became of a commit that was not answered, until the record can tell. The handler's
    /// time limit is the end of that, and then the fence decides: an outcome that is in the record
    /// refuses every other one.
    pub(super) async fn resolve(&self, why: &RecordError, wrote: Wrote<'_>) -> bool {
        let held = &self.inner.held;
        tracing::warn!(job.id = %held.id, error = %why, "a commit was not answered");
        let mut pause = PAUSE.0;
        loop {
            match self.is_there(wrote).await {
                Ok(is_there) => return is_there,
                Err(error) => tracing::warn!(job.id = %held.id, %error, "not known yet"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn is_there(&self, wrote: Wrote<'_>) -> Result<bool, RecordError> {
        let Inner {
            record,
            held,
            worker_id,
            ..
        } = &*self.inner;
        let mut tx = start::hold(record, held.id).await?;
        match wrote {
            Wrote::End => settle::is_completed_by(&mut tx, held.id, held.attempt, worker_id).await,
            Wrote::Step(name) => Ok(steps::find(&mut tx, held.id, name).await?.is_some()),
            // The job's lock was its, so it is over.
            Wrote::Transaction(number) => tx.has_committed(number).await,
        }
    }

    /// Repeats a write that is safe to repeat while the record is away. The writes are boxed: what
    /// a handler calls must be `Send` whatever it borrows.
    pub(super) async fn insist<'a, T>(
        &self,
        mut write: impl FnMut() -> BoxFuture<'a, Result<T, JobError>>,
    ) -> Result<T, JobError> {
        let mut pause = PAUSE.0;
        for _ in 0..RETRIES {
            match write().await {
                Err(JobError::Retry(why)) if why != STILL_OPEN => {
                    tracing::warn!(job.id = %self.inner.held.id, why, "a write is tried again");
                }
                ended => return ended,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
        write().await
    }
}

/// What a handler hears of a commit that was not carried out.
pub(super) fn not_committed(why: &RecordError) -> JobError {
    JobError::Retry(format!("nothing was committed: {why}"))
}

/// An error of the record inside a handler: a later attempt may succeed, unless the values are
/// refused for good.
pub(super) fn write_error(error: RecordError) -> JobError {
    match error {
        RecordError::Refused { .. } => JobError::Permanent(error.to_string()),
        RecordError::Unavailable(..)
        | RecordError::Address(_)
        | RecordError::Schema(_)
        | RecordError::Corrupt(_) => JobError::Retry(error.to_string()),
    }
}
