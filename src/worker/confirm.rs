//! Before an outcome is recorded, Redis may have to be asked whether the attempt may end.
//!
//! A job that completes has no open or failed children: asked for jobs that may have some. A worker
//! with `BullMQ`'s manners also asks for its lease. Whoever lost it records nothing: the job is
//! another worker's, or will be.

use std::time::Duration;

use super::Shared;
use super::held::Held;
use crate::broker::{Confirm, Confirmed, Settled};
use crate::job::{Ending, JobError, Report, RetryWish};

/// The pause between two tries to reach Redis.
const PAUSE: Duration = Duration::from_millis(500);

/// How an attempt may end.
pub(super) struct MayEnd {
    /// Which may be another one than was meant.
    pub(super) ending: Ending,
    /// Redis said that the job's log has rows, or was not asked.
    pub(super) may_have_log: bool,
}

/// The ending that may be recorded; none: this worker has no say any more, and its listeners know
/// why.
pub(super) async fn confirm(shared: &Shared, held: &Held, ending: Ending) -> Option<MayEnd> {
    let completes = matches!(ending, Ending::Value(_));
    let is_asked = match shared.manners {
        Some(_) => !matches!(ending, Ending::Error(JobError::Moved | JobError::LeaseLost)),
        None => {
            completes
                && held
                    .wire
                    .as_ref()
                    .is_some_and(|wire| wire.may_have_children)
        }
    };
    let may_end = |ending, may_have_log| {
        Some(MayEnd {
            ending,
            may_have_log,
        })
    };
    if !is_asked {
        return may_end(ending, true);
    }
    let command = match &ending {
        Ending::Value(_) => "moveToFinished",
        Ending::Error(JobError::RateLimited(_)) => "moveJobFromActiveToWait",
        Ending::Error(_) | Ending::Panic(_) | Ending::Timeout(_) | Ending::Interrupted => {
            "moveToFinished"
        }
    };
    let id = &held.wire_id;
    let answer = ask(shared, held, completes).await?;
    let refusal = match answer.settled {
        Settled::Done => return may_end(ending, answer.log_rows > 0),
        Settled::PendingChildren => {
            let message = format!("Job {id} has pending dependencies. {command}");
            return again(shared, held, failed(message, RetryWish::Backoff)).await;
        }
        Settled::FailedChildren => {
            let message = format!(
                "Cannot complete job {id} because it has at least one failed child. {command}"
            );
            return again(shared, held, failed(message, RetryWish::Never)).await;
        }
        // Without the manners the record judges who may end it.
        _ if shared.manners.is_none() => return may_end(ending, true),
        Settled::JobMissing => format!("Missing key for job {id}. {command}"),
        Settled::LockMissing => format!("Missing lock for job {id}. {command}"),
        Settled::NotActive => format!("Job {id} is not in the active state. {command}"),
        Settled::LockMismatch => format!("Lock mismatch for job {id}. Cmd {command} from active"),
    };
    tracing::warn!(job.id = %held.id, refusal, "an outcome is not recorded");
    if let Some(events) = shared.events() {
        events.error(refusal);
    }
    None
}

async fn again(shared: &Shared, held: &Held, ending: Ending) -> Option<MayEnd> {
    Box::pin(confirm(shared, held, ending)).await
}

fn failed(message: String, retry: RetryWish) -> Ending {
    let stack = Some(format!("Error: {message}"));
    Ending::Error(JobError::Reported(Box::new(Report {
        message,
        stack,
        retry,
    })))
}

/// Asks until Redis answers, the lease is known to be lost, or the shutdown can wait no longer.
async fn ask(shared: &Shared, held: &Held, completes: bool) -> Option<Confirmed> {
    let question = [Confirm {
        id: held.wire_id.clone(),
        token: held.token.clone(),
        completes,
    }];
    loop {
        match shared.broker.confirm(&held.queue, &question).await {
            Ok(answers) => return answers.into_iter().next(),
            Err(error) => {
                tracing::warn!(%error, job.id = %held.id, "an end is not confirmed yet");
                if let Some(events) = shared.events() {
                    events.error(error.to_string());
                }
                if !error.is_unavailable() {
                    return None; // no retry helps: left to its lease
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = held.lost.cancelled() => return None,
            () = shared.interrupted.cancelled() => return None,
        }
    }
}
