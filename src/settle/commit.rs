//! A lane of the group commit of outcomes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use uuid::Uuid;

use super::{Done, Ended, tell};
use crate::broker::Broker;
use crate::job::{Event, Outcome};
use crate::record::settle::{SETTLE_MAX, SettledAttempt, settle_many, settled_as};
use crate::record::{Record, RecordError};

/// The pause after a failed commit: doubled up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

pub(super) struct Lane {
    pub(super) record: Record,
    pub(super) broker: Broker,
    pub(super) worker_id: String,
    pub(super) receiver: Arc<Mutex<mpsc::Receiver<Ended>>>,
    pub(super) done: Done,
}

impl Lane {
    /// Runs until every handle is gone.
    pub(super) async fn run(self) {
        let mut batch = Vec::with_capacity(SETTLE_MAX);
        loop {
            let received = self
                .receiver
                .lock()
                .await
                .recv_many(&mut batch, SETTLE_MAX)
                .await;
            if received == 0 {
                return;
            }
            metrics::histogram!("bullwark_settle_batch_jobs").record(received as f64);
            let ended = std::mem::take(&mut batch);
            let accepted = self.commit(&ended).await;
            let (told, refused): (Vec<&Ended>, Vec<&Ended>) =
                ended.iter().partition(|ended| accepted.contains(&ended.id));
            for ended in refused {
                // Cancelled, restarted elsewhere or settled before: the record has decided.
                metrics::counter!("bullwark_outcomes_refused_total").increment(1);
                tracing::info!(job.id = %ended.id, attempt = ended.attempt, "outcome refused");
            }
            if let Err(error) = tell(&self.broker, &told).await {
                tracing::warn!(%error, jobs = told.len(), "redis not told; rescue will");
            }
            for ended in &ended {
                (self.done)(ended);
            }
        }
    }

    /// Commits, for as long as it takes: these outcomes exist nowhere else. Returns the ids that
    /// the record accepted.
    async fn commit(&self, ended: &[Ended]) -> HashSet<Uuid> {
        let mut rows: Vec<SettledAttempt> = ended.iter().map(|e| self.row(e)).collect();
        let mut accepted = HashSet::new();
        let mut pause = PAUSE.0;
        let mut is_unsure = false;
        while !rows.is_empty() {
            match self.try_commit(&rows, is_unsure).await {
                Ok(ids) => {
                    accepted.extend(ids);
                    return accepted;
                }
                Err(RecordError::Refused { message, .. }) if rows.len() == 1 => {
                    // The record can not hold this outcome. The job must still end.
                    tracing::error!(job.id = %rows[0].id, message, "the record refused an outcome");
                    if rows[0].outcome.event == Event::Discarded {
                        return accepted;
                    }
                    rows[0].outcome = unstorable(&rows[0].outcome, &message);
                }
                Err(RecordError::Refused { .. }) => {
                    for half in halves(ended) {
                        accepted.extend(Box::pin(self.commit(half)).await);
                    }
                    return accepted;
                }
                Err(error) => {
                    tracing::warn!(%error, outcomes = rows.len(), "outcomes held");
                    // The answer may be all that was lost.
                    is_unsure = true;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
        accepted
    }

    async fn try_commit(
        &self,
        rows: &[SettledAttempt],
        is_unsure: bool,
    ) -> Result<HashSet<Uuid>, RecordError> {
        let mut accepted = settle_many(&self.record, rows).await?;
        if is_unsure && accepted.len() < rows.len() {
            // What an earlier try committed without telling us is ours as well.
            accepted.extend(settled_as(&self.record, rows).await?);
        }
        Ok(accepted)
    }

    fn row(&self, ended: &Ended) -> SettledAttempt {
        SettledAttempt {
            id: ended.id,
            attempt: ended.attempt,
            worker_id: self.worker_id.clone(),
            started_at: ended.started_at,
            outcome: ended.outcome.clone(),
        }
    }
}

fn halves(ended: &[Ended]) -> [&[Ended]; 2] {
    let (left, right) = ended.split_at(ended.len() / 2);
    [left, right]
}

fn unstorable(outcome: &Outcome, why: &str) -> Outcome {
    Outcome {
        event: Event::Discarded,
        result: None,
        error: Some(format!("the outcome could not be stored: {why}")),
        delay: Duration::ZERO,
        attempts: outcome.attempts,
    }
}
