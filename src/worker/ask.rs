//! Asking the record about jobs that were started before, and adopting those that it does not know.

use std::collections::HashMap;
use std::time::Duration;

use super::Shared;
use super::restart::Claimed;
use crate::fault::{self, Point};
use crate::job::{QueueName, WireForm, wire};
use crate::reconcile::{self, ReconcileError};
use crate::record::adopt::{self, ForeignJob};
use crate::record::restart::{self, Asked, Restart};
use crate::record::{Record, RecordError};

/// How long a job rests about which the stores give no sensible answer.
const STRANGE_DELAY: Duration = Duration::from_secs(5);
/// The pause between two tries to reach the record.
const PAUSE: Duration = Duration::from_millis(500);

/// What is to be done with a claimed job.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Record(Restart),
    /// It came from a foreign client, and the record can not hold it.
    Unrecordable(String),
    /// Nobody answered before the shutdown.
    None,
}

impl Claimed {
    fn asked(&self) -> Asked {
        Asked {
            id: self.held.id,
            number: self.held.attempt,
            made: i32::try_from(self.wire.job.attempts_made).unwrap_or(i32::MAX),
        }
    }

    /// It was not started since somebody put it back.
    fn was_put_back(&self) -> bool {
        !self.wire.job.was_started
    }
}

/// Asks until there is an answer for each job, or the shutdown can wait no longer.
pub(super) async fn ask(shared: &Shared, queue: &QueueName, jobs: &[Claimed]) -> Vec<Answer> {
    loop {
        match try_ask(shared, queue, jobs).await {
            Ok(answers) => return answers,
            Err(error) if error.is_unavailable() => {
                tracing::warn!(%error, jobs = jobs.len(), "restarts not checked");
                // The claims that would have it compared may wait for the slots of these jobs.
                if shared.record.unchecked().is_some() {
                    let compared = reconcile::readmit(&shared.record, &shared.broker);
                    tokio::select! {
                        compared = Box::pin(compared) => {
                            if let Err(error) = compared {
                                tracing::warn!(%error, "redis and the record were not compared");
                            }
                        }
                        () = shared.interrupted.cancelled() => {}
                    }
                }
            }
            // No retry helps: the one at fault rests, the others are asked about without it.
            Err(error) => match jobs {
                [only] => {
                    tracing::error!(%error, job.id = %only.held.id, "a restart can't be checked");
                    let delay_ms = STRANGE_DELAY.as_millis() as i64;
                    return vec![Answer::Record(Restart::Later { delay_ms })];
                }
                _ => {
                    let (first, second) = jobs.split_at(jobs.len() / 2);
                    let mut answers = Box::pin(ask(shared, queue, first)).await;
                    answers.extend(Box::pin(ask(shared, queue, second)).await);
                    return answers;
                }
            },
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = shared.interrupted.cancelled() => return vec![Answer::None; jobs.len()],
        }
    }
}

/// Safe to repeat: the same worker asking again about the same start is no lost lease.
async fn try_ask(
    shared: &Shared,
    queue: &QueueName,
    jobs: &[Claimed],
) -> Result<Vec<Answer>, ReconcileError> {
    let starts: Vec<Asked> = jobs.iter().map(Claimed::asked).collect();
    let restarts = restart::restart_many(&shared.record, &shared.worker_id, &starts).await?;
    let mut answers: Vec<Answer> = restarts.into_iter().map(Answer::Record).collect();
    if let Some(again) = ask_again(shared, queue, jobs, &answers).await? {
        answers = again.into_iter().map(Answer::Record).collect();
    }

    let unknown: Vec<usize> = (0..answers.len())
        .filter(|nth| answers[*nth] == Answer::Record(Restart::Unknown))
        .collect();
    if unknown.is_empty() {
        return Ok(answers);
    }
    let foreign: Vec<ForeignJob> = unknown
        .iter()
        .map(|nth| foreign(queue, &jobs[*nth]))
        .collect();
    let refused = adopt_all(&shared.record, &foreign).await?;
    fault::point(Point::AfterAdoption);
    let asked: Vec<Asked> = unknown.iter().map(|nth| starts[*nth]).collect();
    let known = restart::restart_many(&shared.record, &shared.worker_id, &asked).await?;
    metrics::counter!("bullwark_jobs_adopted_total").increment(known.len() as u64);
    for (nth, (of_unknown, restart)) in unknown.into_iter().zip(known.into_iter().enumerate()) {
        answers[nth] = match refused.get(&of_unknown) {
            Some(why) => Answer::Unrecordable(why.clone()),
            None => Answer::Record(restart),
        };
    }
    Ok(answers)
}

/// A job that is over or not due by the record may have been put back by a client a moment ago. The
/// record is told of that, and asked once more if it changed anything.
async fn ask_again(
    shared: &Shared,
    queue: &QueueName,
    jobs: &[Claimed],
    answers: &[Answer],
) -> Result<Option<Vec<Restart>>, ReconcileError> {
    let (mut put_back, mut reset, mut doubtful) = (Vec::new(), Vec::new(), Vec::new());
    for (claimed, answer) in jobs.iter().zip(answers) {
        match answer {
            Answer::Record(Restart::Over { .. }) if claimed.was_put_back() => {
                match claimed.wire.job.attempts_started {
                    1 => reset.push(claimed),
                    _ => put_back.push(claimed.asked()),
                }
            }
            Answer::Record(Restart::Later { .. }) => doubtful.push(claimed.held.wire_id.clone()),
            _ => {}
        }
    }
    let mut changed = 0;
    if !put_back.is_empty() {
        changed += restart::reopen_many(&shared.record, &put_back, false).await?;
    }
    if !reset.is_empty() {
        // The client may have reset the counts, too; then only events tell.
        let ids: Vec<String> = reset.iter().map(|c| c.held.wire_id.clone()).collect();
        let wanted = reconcile::put_back_by_clients(&shared.broker, queue, &ids).await?;
        let wanted: Vec<Asked> = reset
            .iter()
            .filter(|claimed| wanted.contains(&claimed.held.wire_id))
            .map(|claimed| claimed.asked())
            .collect();
        changed += restart::reopen_many(&shared.record, &wanted, true).await?;
    }
    if !doubtful.is_empty() {
        changed += reconcile::catch_up(&shared.record, &shared.broker, queue, &doubtful).await?;
    }
    if changed == 0 {
        return Ok(None);
    }
    // Those that run already are asked about again, too: the same worker asking about the same
    // start gets a new number, and no lost lease is counted.
    let starts: Vec<Asked> = jobs.iter().map(Claimed::asked).collect();
    let again = restart::restart_many(&shared.record, &shared.worker_id, &starts).await?;
    Ok(Some(again))
}

fn foreign(queue: &QueueName, claimed: &Claimed) -> ForeignJob {
    let (job, held) = (&claimed.wire.job, &claimed.held);
    ForeignJob::new(held.id, job.id.clone(), queue, &job.name, &job.data)
        .with_numbers(job.priority, wire::read_options(&job.opts).max_attempts)
        .with_history(job.attempts_made, job.timestamp_ms)
        .with_starts(held.attempt - 1)
        .with_wire(WireForm {
            opts: job.opts.clone(),
            priority: job.priority,
            data: None,
            parent_key: job.parent_key.clone(),
            parent: job.parent.clone(),
            rjk: job.repeat_job_key.clone(),
            deid: job.dedup_id.clone(),
        })
}

/// Writes foreign jobs into the record; returns why it refused some of them, by position.
async fn adopt_all(
    record: &Record,
    jobs: &[ForeignJob],
) -> Result<HashMap<usize, String>, RecordError> {
    let mut refused = HashMap::new();
    match adopt::adopt_many(record, jobs).await {
        Err(RecordError::Refused { .. }) => {}
        adopted => return adopted.map(|()| refused),
    }
    for (nth, job) in jobs.iter().enumerate() {
        match adopt::adopt_many(record, std::slice::from_ref(job)).await {
            Err(error @ RecordError::Refused { .. }) => {
                refused.insert(nth, error.to_string());
            }
            adopted => adopted?,
        }
    }
    Ok(refused)
}
