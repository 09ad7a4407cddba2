//! Work of a handler, committed together with the place where the next attempt goes on.

use std::sync::atomic::Ordering;

use super::write::{Fenced, Wrote, not_committed, write_error};
use super::{JobContext, storable};
use crate::job::{JobError, Progress};
use crate::record::start::{self, Gain};
use crate::record::{RecordError, Tx};

impl JobContext {
    /// Begins a checkpoint: a transaction that commits work of the handler together with the place
    /// to go on from. Its first statement is the fence: if the job went elsewhere or is over, this
    /// fails with [`JobError::LeaseLost`] and nothing was written. Until the commit nobody else can
    /// restart, settle or cancel the job.
    pub async fn begin_checkpoint(&self) -> Result<Checkpoint, JobError> {
        Ok(Checkpoint {
            fenced: self.begin_fenced().await?,
            context: self.clone(),
        })
    }

    /// Begins work that belongs behind a checkpoint which is not committed yet. It sees nothing of
    /// that one, and commits behind it; until [`Ahead::fence`] nobody is kept from restarting,
    /// settling or cancelling the job, and then that fails.
    ///
    /// `None`: few connections are free, and others need them more.
    pub async fn begin_ahead(&self) -> Result<Option<Ahead>, JobError> {
        if !self.record().has_spare_connections() {
            return Ok(None);
        }
        Ok(Some(Ahead {
            tx: self.begin_unfenced().await?,
            context: self.clone(),
        }))
    }
}

/// Work ahead of its turn. Dropping it rolls back.
#[derive(Debug)]
pub struct Ahead {
    tx: Tx,
    context: JobContext,
}

impl Ahead {
    pub fn tx(&mut self) -> &mut Tx {
        &mut self.tx
    }

    /// Its turn has come: makes a checkpoint of it, or fails with [`JobError::LeaseLost`], and
    /// nothing was written.
    pub async fn fence(self) -> Result<Checkpoint, JobError> {
        Ok(Checkpoint {
            fenced: self.context.fence_late(self.tx).await?,
            context: self.context,
        })
    }

    /// Takes the work back and waits for that: behind it, its locks are gone.
    pub async fn roll_back(self) -> Result<(), JobError> {
        self.tx.rollback().await.map_err(write_error)
    }
}

/// A checkpoint under way. Dropping it rolls back.
#[derive(Debug)]
pub struct Checkpoint {
    fenced: Fenced,
    context: JobContext,
}

impl Checkpoint {
    pub fn tx(&mut self) -> &mut Tx {
        &mut self.fenced.tx
    }

    /// Commits the work, the place to go on from and the progress: all or nothing. A job that was
    /// interrupted any time later goes on from this checkpoint. When the answer to the commit is
    /// lost, the record is asked what became of it.
    ///
    /// A job that gets on is no crash loop: if the place is another one than before, the workers
    /// that vanished while they ran the job are forgotten.
    pub async fn commit(
        self,
        checkpoint: serde_json::Value,
        progress: Progress,
    ) -> Result<(), JobError> {
        self.save(Some(checkpoint), progress, Gain::Ahead).await
    }

    /// The same for what an attempt writes before it got on, such as that it begins: vanished
    /// workers stay counted. A job that kills each of its workers is stopped by that count alone.
    pub async fn commit_without_gain(
        self,
        checkpoint: serde_json::Value,
        progress: Progress,
    ) -> Result<(), JobError> {
        self.save(Some(checkpoint), progress, Gain::None).await
    }

    /// Commits the work and the progress of a job that does not go on; the place to go on from
    /// stays the one that is committed, for whoever tries the job again.
    pub async fn commit_in_place(self, progress: Progress) -> Result<(), JobError> {
        self.save(None, progress, Gain::None).await
    }

    async fn save(
        mut self,
        checkpoint: Option<serde_json::Value>,
        mut progress: Progress,
        gain: Gain,
    ) -> Result<(), JobError> {
        let is_gain = gain == Gain::Ahead && self.context.checkpoint() != checkpoint.as_ref();
        progress.message = storable(&progress.message);
        let id = self.context.inner.held.id;
        let tx = &mut self.fenced.tx;
        let number = start::save_checkpoint(tx, id, checkpoint.as_ref(), &progress, gain)
            .await
            .map_err(write_error)?;
        match self.fenced.commit().await {
            Ok(()) => {}
            // A constraint that was checked at the end: an answer, and nothing was written.
            Err(error @ RecordError::Refused { .. }) => return Err(write_error(error)),
            Err(error) => {
                let wrote = Wrote::Transaction(&number);
                if !self.context.resolve(&error, wrote).await {
                    return Err(not_committed(&error));
                }
            }
        }
        if is_gain {
            let held = &self.context.inner.held;
            held.has_gained.store(true, Ordering::Relaxed);
        }
        self.context.progress(progress);
        Ok(())
    }
}
