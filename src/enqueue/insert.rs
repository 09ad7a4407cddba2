//! Inserting a batch, whatever its connection and its neighbours do.
//!
//! * The connection broke: whether the batch was written is read, over another connection. That
//!   also serves the first call after PostgreSQL was restarted, which meets a connection to the
//!   server before.
//! * Another transaction was in the way: it is tried again, a few times, with jitter.
//! * One job is at fault: it is found by halving the batch, so that it never keeps the others out.
//!
//! Everything else is told to the callers at once: they have the request, and know how long it is
//! worth trying.

use std::sync::Arc;
use std::time::Duration;

use crate::job::NewJob;
use crate::record::enqueue::{Inserted, insert_again, insert_many};
use crate::record::flow::{FlowRows, insert_flow, insert_flow_again};
use crate::record::{Record, RecordError, Trouble};

/// Connections that may turn out to be broken before a batch is given up: all that the lanes may
/// have left in the pool, and one.
const LOST_MAX: u32 = 6;
/// Tries of a whole batch, and of a part of it, against other transactions.
const CONFLICTS_MAX: u32 = 3;
const PART_CONFLICTS_MAX: u32 = 1;
/// The pause before such a try, times its number.
const PAUSE: Duration = Duration::from_millis(20);

/// The answer for each job of a batch.
type Answers = Vec<Result<Inserted, Arc<RecordError>>>;

pub(super) async fn insert_all(record: &Record, jobs: &[NewJob]) -> Answers {
    insert_parts(record, jobs, CONFLICTS_MAX).await
}

async fn insert_parts(record: &Record, jobs: &[NewJob], conflicts_max: u32) -> Answers {
    let error = match insert(record, jobs, conflicts_max).await {
        Ok(inserted) => return inserted.into_iter().map(Ok).collect(),
        Err(error) => error,
    };
    let is_fault_of_one =
        matches!(error, RecordError::Refused { .. }) || error.trouble() == Some(Trouble::Conflict);
    if is_fault_of_one && jobs.len() > 1 {
        let (left, right) = jobs.split_at(jobs.len() / 2);
        let mut answers = Box::pin(insert_parts(record, left, PART_CONFLICTS_MAX)).await;
        answers.extend(Box::pin(insert_parts(record, right, PART_CONFLICTS_MAX)).await);
        return answers;
    }
    tracing::warn!(%error, jobs = jobs.len(), "enqueue refused");
    let error = Arc::new(error);
    jobs.iter().map(|_| Err(error.clone())).collect()
}

async fn insert(
    record: &Record,
    jobs: &[NewJob],
    conflicts_max: u32,
) -> Result<Vec<Inserted>, RecordError> {
    let mut tries = Tries::new(conflicts_max);
    loop {
        let inserted = match tries.may_be_written() {
            false => insert_many(record, jobs).await,
            true => insert_again(record, jobs).await,
        };
        match inserted {
            Ok(inserted) => return Ok(inserted),
            Err(error) => tries.next(error).await?,
        }
    }
}

/// A flow goes in whole or not at all.
pub(super) async fn insert_whole(
    record: &Record,
    tree: &FlowRows<'_>,
) -> Result<Option<Inserted>, RecordError> {
    let mut tries = Tries::new(CONFLICTS_MAX);
    loop {
        let inserted = match tries.may_be_written() {
            false => insert_flow(record, tree).await,
            true => insert_flow_again(record, tree).await,
        };
        match inserted {
            Ok(inserted) => return Ok(inserted),
            Err(error) => tries.next(error).await?,
        }
    }
}

/// How often something was tried, and why it failed.
struct Tries {
    lost: u32,
    conflicts: u32,
    conflicts_max: u32,
}

impl Tries {
    fn new(conflicts_max: u32) -> Self {
        Self {
            lost: 0,
            conflicts: 0,
            conflicts_max,
        }
    }

    /// An answer may have been lost.
    fn may_be_written(&self) -> bool {
        self.lost > 0
    }

    /// Returns when it is time for the next try; the error, if something else is wrong than the
    /// connection or another transaction, or for too long.
    async fn next(&mut self, error: RecordError) -> Result<(), RecordError> {
        match error.trouble() {
            Some(Trouble::Lost) if self.lost < LOST_MAX => {
                self.lost += 1;
                tracing::debug!(%error, "connection lost: looked at again");
                Ok(())
            }
            Some(Trouble::Conflict) if self.conflicts < self.conflicts_max => {
                self.conflicts += 1;
                metrics::counter!("bullwark_enqueue_conflicts_total").increment(1);
                tokio::time::sleep(PAUSE * self.conflicts).await;
                tokio::time::sleep(PAUSE.mul_f64(rand::random::<f64>())).await;
                Ok(())
            }
            _ => Err(error),
        }
    }
}
