//! Inserting a batch or a flow, whatever its connection and its neighbours do.
//!
//! * The connection broke: whether the batch was written is read, over another connection. That
//!   also serves the first call after PostgreSQL was restarted, which meets a connection to the
//!   server before.
//! * Another transaction was in the way: it is tried again, a few times, with jitter.
//! * One job is at fault: it is found by halving the batch, so that it never keeps the others out.
//!
//! Everything else is told to the callers at once: they have the request, and know how long it is
//! worth trying.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::job::NewJob;
use crate::record::enqueue::{Inserted, insert_again, insert_many};
use crate::record::flow::{insert_flow, insert_flow_again};
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
    let insert = |is_again| async move {
        match is_again {
            false => insert_many(record, jobs).await,
            true => insert_again(record, jobs).await,
        }
    };
    let error = match persist(jobs.len(), conflicts_max, insert).await {
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

/// The same for a flow, which is written whole.
pub(super) async fn insert_tree(
    record: &Record,
    jobs: &[NewJob],
    links: impl Fn(DateTime<Utc>) -> Vec<String> + Send + Sync,
) -> Result<Option<Inserted>, RecordError> {
    let links = &links;
    let insert = |is_again| async move {
        match is_again {
            false => insert_flow(record, jobs, links).await,
            true => insert_flow_again(record, jobs, links).await,
        }
    };
    persist(jobs.len(), CONFLICTS_MAX, insert).await
}

/// Inserts, and again as long as that may help; `insert` is told whether an earlier try may have
/// written everything.
async fn persist<T, F>(
    jobs: usize,
    conflicts_max: u32,
    insert: impl Fn(bool) -> F,
) -> Result<T, RecordError>
where
    F: Future<Output = Result<T, RecordError>>,
{
    let (mut lost, mut conflicts) = (0, 0);
    loop {
        let error = match insert(lost > 0).await {
            Ok(inserted) => return Ok(inserted),
            Err(error) => error,
        };
        match error.trouble() {
            Some(Trouble::Lost) if lost < LOST_MAX => {
                lost += 1;
                tracing::debug!(%error, jobs, "connection lost: looked at again");
            }
            Some(Trouble::Conflict) if conflicts < conflicts_max => {
                conflicts += 1;
                metrics::counter!("bullwark_enqueue_conflicts_total").increment(1);
                tokio::time::sleep(PAUSE * conflicts).await;
                tokio::time::sleep(PAUSE.mul_f64(rand::random::<f64>())).await;
            }
            _ => return Err(error),
        }
    }
}
