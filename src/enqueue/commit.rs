//! A lane of the group commit: collect, commit, hand over for delivery, answer.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deliver::{Deliver, Delivery};
use super::insert::insert_all;
use super::{EnqueueError, Waiting, answer};
use crate::fault::{self, Point};
use crate::job::NewJob;
use crate::record::Record;
use crate::record::enqueue::{INSERT_MAX, Inserted};

/// Payloads of one statement; a single larger job goes alone. They are copied for the statement and
/// for Redis: this bounds what all that costs.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often a lane lets others go first at most, while each time somebody joins.
const TURNS_MAX: usize = 8;

/// One of the writers. Only one lane collects at a time; the others commit meanwhile.
pub(super) struct Lane {
    pub(super) record: Record,
    pub(super) receiver: Arc<Mutex<mpsc::Receiver<Waiting>>>,
    pub(super) deliver: Deliver,
    pub(super) stopping: CancellationToken,
}

impl Lane {
    /// Runs until every handle is gone, or until it should stop and nobody waits any more.
    pub(super) async fn run(self) {
        while let Some(batch) = self.collect().await {
            metrics::histogram!("bullwark_enqueue_batch_jobs").record(
                batch
                    .iter()
                    .map(|waiting| waiting.jobs.len())
                    .sum::<usize>() as f64,
            );
            self.commit(batch).await;
        }
    }

    /// Everything that waits right now, up to a full batch. No timer: whoever comes while a commit
    /// is in flight is in the next one, and whoever is on the way to it, see [`others_first`].
    async fn collect(&self) -> Option<Vec<Waiting>> {
        let mut receiver = self.receiver.lock().await;
        let first = tokio::select! {
            biased;
            first = receiver.recv() => first?,
            () = self.stopping.cancelled() => {
                // Refuses new callers; those who wait already are still served.
                receiver.close();
                receiver.recv().await?
            }
        };
        others_first(&receiver).await;
        let (mut size, mut bytes) = (first.jobs.len(), bytes_of(&first.jobs));
        let mut batch = vec![first];
        while size < INSERT_MAX && bytes < BYTES_MAX {
            let Ok(next) = receiver.try_recv() else { break };
            size += next.jobs.len();
            bytes += bytes_of(&next.jobs);
            batch.push(next);
        }
        Some(batch)
    }

    async fn commit(&self, batch: Vec<Waiting>) {
        let mut jobs = Vec::with_capacity(INSERT_MAX);
        let mut callers = Vec::with_capacity(batch.len());
        for waiting in batch {
            callers.push((waiting.jobs.len(), waiting.answer));
            jobs.extend(waiting.jobs);
        }
        // The last caller may have brought more than fits into one statement.
        let mut results = Vec::with_capacity(jobs.len());
        for part in parts(&jobs) {
            // Before the commit: whatever holds it up, its answer, or this process counts.
            let mut delivery = Delivery::begun(Instant::now());
            let inserted = insert_all(&self.record, part).await;
            fault::point(Point::AfterRecordCommit);
            for (job, result) in part.iter().zip(&inserted) {
                if let Ok(Inserted::New { created_at }) = result {
                    delivery.push(job, *created_at);
                }
            }
            // Handed over before the answer: a caller that waits for one job before it sends the
            // next finds them in this order in Redis, whichever lane commits the second.
            self.deliver.hand_over(delivery).await;
            results.extend(inserted);
        }
        fault::point(Point::BeforeAnswer);

        let mut outcomes = jobs.iter().zip(results).map(|(job, result)| match result {
            Ok(inserted) => answer(job.id, &inserted),
            Err(error) => Err(EnqueueError::Record(error)),
        });
        for (size, caller) in callers {
            // A caller that went away is no error: its jobs are accepted all the same.
            caller.send(Ok(outcomes.by_ref().take(size).collect())).ok();
        }
    }
}

/// Lets what is ready to run do so, and sockets be read, as long as that brings more callers.
///
/// Answers go out in groups, so callers come back in groups: the first of them is not committed
/// alone, with all others behind it. An idle process goes on at once; a busy one runs 61 other
/// tasks at most per turn (`event_interval` of tokio).
async fn others_first(receiver: &mpsc::Receiver<Waiting>) {
    for _ in 0..TURNS_MAX {
        let before = receiver.len();
        tokio::task::yield_now().await;
        if receiver.len() == before {
            break;
        }
    }
}

fn bytes_of(jobs: &[NewJob]) -> usize {
    jobs.iter().map(|job| job.payload.len()).sum()
}

/// In their order, each within the bounds of a statement.
fn parts(jobs: &[NewJob]) -> impl Iterator<Item = &[NewJob]> {
    let mut rest = jobs;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(INSERT_MAX).take_while(|job| {
            bytes += job.payload.len();
            bytes <= BYTES_MAX
        });
        let size = fits.count().max(1).min(rest.len());
        let (part, others) = rest.split_at(size);
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobRequest, JobType, JobTypes};

    #[test]
    fn a_statement_is_bounded_in_jobs_and_in_bytes() {
        let mut types = JobTypes::default();
        types.add(JobType::new("noop", serde_json::json!({})).unwrap());
        let of = |bytes: usize| {
            let request = JobRequest::new("noop", serde_json::json!("x".repeat(bytes)));
            types.check(request).unwrap()
        };
        let small: Vec<NewJob> = (0..=INSERT_MAX).map(|_| of(1)).collect();
        let sizes = |jobs: &[NewJob]| parts(jobs).map(<[NewJob]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(&small), [INSERT_MAX, 1]);
        let half: Vec<NewJob> = (0..4).map(|_| of(900_000)).collect();
        let large = [half.clone(), half.clone(), half].concat();
        assert_eq!(sizes(&large), [4, 4, 4]);
        assert_eq!(sizes(&[]), Vec::<usize>::new());
    }
}
