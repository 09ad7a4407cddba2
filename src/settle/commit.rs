//! A lane of the group commit of outcomes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Done, Ended, Verdict, Waiting, tell};
use crate::broker::Broker;
use crate::fault::{self, Point};
use crate::job::{Event, Outcome, Telling};
use crate::record::settle::{SETTLE_MAX, SettledAttempt, settle_many, settled_as};
use crate::record::{Record, RecordError, Trouble};

/// The pause after a failed commit: doubled from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Tries after which an error that is neither an outage nor a refusal counts as a refusal.
const STRANGE_ERRORS_MAX: u32 = 3;
/// Tries of a batch against other transactions, before the row that is in the way is looked for.
const CONFLICTS_MAX: u32 = 5;
/// The same for that row alone: half a minute. Then its job is left to its lease.
const CONFLICTS_ALONE_MAX: u32 = 20;

pub(super) struct Lane {
    pub(super) record: Record,
    pub(super) broker: Broker,
    pub(super) worker_id: String,
    pub(super) receiver: Arc<Mutex<mpsc::Receiver<Waiting>>>,
    pub(super) done: Done,
    pub(super) closing: CancellationToken,
    pub(super) abandoned: CancellationToken,
}

impl Lane {
    /// Runs until it is closed or every handle is gone, and nothing is left.
    pub(super) async fn run(self) {
        loop {
            let batch = self.receive().await;
            if batch.is_empty() {
                return;
            }
            metrics::histogram!("bullwark_settle_batch_jobs").record(batch.len() as f64);
            let (mut ended, mut recorded) = (Vec::with_capacity(batch.len()), Vec::new());
            let mut rooms = Vec::with_capacity(batch.len());
            for waiting in batch {
                rooms.push((waiting.room, waiting.held));
                match waiting.is_recorded {
                    true => recorded.push((waiting.ended, Verdict::Accepted)),
                    false => ended.push(waiting.ended),
                }
            }
            if !recorded.is_empty() {
                self.pass_on(&recorded).await;
            }
            if !ended.is_empty() {
                let settled = self.commit(ended).await;
                fault::point(Point::AfterOutcomeCommit);
                self.pass_on(&settled).await;
            }
            drop(rooms);
        }
    }

    /// Tells Redis of what the record has, and the worker of everything.
    async fn pass_on(&self, settled: &[(Ended, Verdict)]) {
        let accepted: Vec<&Ended> = settled
            .iter()
            .filter(|(_, verdict)| *verdict == Verdict::Accepted)
            .map(|(ended, _)| ended)
            .collect();
        count(&accepted);
        if let Err(error) = tell(&self.broker, &accepted).await {
            tracing::warn!(%error, jobs = accepted.len(), "redis not told; rescue will");
        }
        fault::point(Point::AfterOutcomeTold);
        for (ended, verdict) in settled {
            if *verdict == Verdict::Refused {
                metrics::counter!("bullwark_outcomes_refused_total").increment(1);
                tracing::info!(job.id = %ended.id, attempt = ended.attempt, "outcome refused");
            }
            (self.done)(ended, *verdict);
        }
    }

    async fn receive(&self) -> Vec<Waiting> {
        let mut batch = Vec::with_capacity(SETTLE_MAX);
        let mut receiver = self.receiver.lock().await;
        if !receiver.is_closed() {
            tokio::select! {
                biased;
                _ = receiver.recv_many(&mut batch, SETTLE_MAX) => return batch,
                () = self.closing.cancelled() => receiver.close(),
            }
        }
        receiver.recv_many(&mut batch, SETTLE_MAX).await;
        batch
    }

    /// Commits, for as long as it takes: these outcomes exist nowhere else. Only a worker that was
    /// told to hurry gives them up.
    async fn commit(&self, ended: Vec<Ended>) -> Vec<(Ended, Verdict)> {
        let held = ended.len();
        metrics::gauge!("bullwark_outcomes_held").increment(held as f64);
        let settled = self.commit_part(ended, false).await;
        metrics::gauge!("bullwark_outcomes_held").decrement(held as f64);
        settled
    }

    /// `is_unsure`: the answer to an earlier try was lost.
    async fn commit_part(
        &self,
        mut ended: Vec<Ended>,
        mut is_unsure: bool,
    ) -> Vec<(Ended, Verdict)> {
        let mut pause = PAUSE.0;
        let (mut strange_errors, mut conflicts) = (0, 0);
        loop {
            let rows: Vec<SettledAttempt> = ended.iter().map(|e| self.row(e)).collect();
            let error = match self.try_commit(&rows, is_unsure).await {
                Ok(accepted) => return judge(ended, &accepted),
                Err(error) => error,
            };
            strange_errors += u32::from(matches!(error, RecordError::Corrupt(_)));
            conflicts += u32::from(error.trouble() == Some(Trouble::Conflict));
            let is_refused =
                matches!(error, RecordError::Refused { .. }) || strange_errors > STRANGE_ERRORS_MAX;
            match ended.as_mut_slice() {
                [only] if is_refused => {
                    // What was done is done: the record keeps a result that it can not hold (half
                    // a surrogate pair, a NUL) as a text, and Redis gets it as it is.
                    if let (Some(result), None) = (&only.outcome.result, &only.kept_result) {
                        only.kept_result = Some(as_text(result));
                        strange_errors = 0;
                        continue;
                    }
                    // The record can not hold this outcome. The job must still end.
                    tracing::error!(job.id = %only.id, %error, "the record refused an outcome");
                    if only.outcome.event == Event::Discarded {
                        return give_up(ended);
                    }
                    only.outcome = unstorable(&only.outcome, &error);
                    strange_errors = 0;
                }
                [_] if conflicts > CONFLICTS_ALONE_MAX => {
                    tracing::error!(%error, "an outcome was given up: always in conflict");
                    return give_up(ended);
                }
                [_, _, ..] if is_refused || conflicts > CONFLICTS_MAX => {
                    let second = ended.split_off(ended.len() / 2);
                    let mut settled = Box::pin(self.commit_part(ended, is_unsure)).await;
                    settled.extend(Box::pin(self.commit_part(second, is_unsure)).await);
                    return settled;
                }
                _ if self.abandoned.is_cancelled() => {
                    tracing::error!(%error, outcomes = ended.len(), "outcomes given up");
                    return give_up(ended);
                }
                _ => {
                    tracing::warn!(%error, outcomes = ended.len(), "outcomes held");
                    // The answer may be all that was lost.
                    is_unsure = true;
                    let jitter = 0.5 + rand::random::<f64>() / 2.0;
                    tokio::select! {
                        () = tokio::time::sleep(pause.mul_f64(jitter)) => {}
                        () = self.abandoned.cancelled() => {}
                    }
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
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
        if accepted.len() < rows.len() {
            // A server that lacks its tail may lack these rows; they come back when it was looked
            // at. What it has accepted is found again by then.
            self.record.check_server()?;
        }
        Ok(accepted)
    }

    fn row(&self, ended: &Ended) -> SettledAttempt {
        SettledAttempt {
            id: ended.id,
            attempt: ended.attempt,
            worker_id: self.worker_id.clone(),
            started_at: ended.started_at,
            outcome: Outcome {
                result: ended.kept_result.clone().or(ended.outcome.result.clone()),
                ..ended.outcome.clone()
            },
        }
    }
}

fn judge(ended: Vec<Ended>, accepted: &HashSet<Uuid>) -> Vec<(Ended, Verdict)> {
    let verdict = |ended: Ended| match accepted.contains(&ended.id) {
        true => (ended, Verdict::Accepted),
        false => (ended, Verdict::Refused),
    };
    ended.into_iter().map(verdict).collect()
}

fn give_up(ended: Vec<Ended>) -> Vec<(Ended, Verdict)> {
    metrics::counter!("bullwark_outcomes_given_up_total").increment(ended.len() as u64);
    ended.into_iter().map(|e| (e, Verdict::GivenUp)).collect()
}

/// The end of a job whose own outcome the record can not hold. No failure is added to those counted
/// before, so that the numbers can not be what is refused again.
fn unstorable(outcome: &Outcome, why: &RecordError) -> Outcome {
    let counted = outcome.event == (Event::Errored { retries_left: true });
    Outcome {
        event: Event::Discarded,
        result: None,
        error: Some(format!("the outcome could not be stored: {why}")),
        delay: Duration::ZERO,
        attempts: outcome.attempts.saturating_sub(u32::from(counted)),
        stack: None,
        telling: Telling::Event,
    }
}

/// Any text as a JSON string that PostgreSQL takes.
fn as_text(json: &str) -> String {
    serde_json::Value::from(json.replace('\0', "\u{fffd}")).to_string()
}

/// Counts attempts by how they ended: one step of a counter per batch and kind.
fn count(accepted: &[&Ended]) {
    let mut counts = [("completed", 0), ("retried", 0), ("dead_letter", 0)];
    for ended in accepted {
        match ended.outcome.event {
            Event::Succeeded => counts[0].1 += 1,
            Event::Errored { retries_left: true } => counts[1].1 += 1,
            Event::Errored { .. } | Event::Discarded => counts[2].1 += 1,
            _ => {} // not counted as attempts
        }
    }
    for (outcome, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        metrics::counter!("bullwark_attempts_total", "outcome" => outcome).increment(count);
    }
}
