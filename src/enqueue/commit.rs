//! A lane of the group commit: collect, commit, hand over for delivery, answer.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::deliver::{Deliver, Delivery};
use super::insert::insert_all;
use super::{EnqueueError, Waiting, answer};
use crate::fault::{self, Point};
use crate::record::Record;
use crate::record::enqueue::{INSERT_MAX, Inserted};

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
    /// is in flight is in the next one.
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
        let mut size = first.jobs.len();
        let mut batch = vec![first];
        while size < INSERT_MAX {
            let Ok(next) = receiver.try_recv() else { break };
            size += next.jobs.len();
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
        for part in jobs.chunks(INSERT_MAX) {
            results.extend(insert_all(&self.record, part).await);
        }
        fault::point(Point::AfterRecordCommit);

        let mut delivery = Delivery::now();
        for (job, result) in jobs.iter().zip(&results) {
            if let Ok(Inserted::New { created_at }) = result {
                delivery.push(job, *created_at);
            }
        }
        // Handed over before the answer: a caller that waits for one job before it sends the next
        // finds them in this order in Redis, whichever lane commits the second.
        self.deliver.hand_over(delivery).await;
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
