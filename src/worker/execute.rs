//! One run of a job: every way it can end becomes one outcome.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::context::{Inner, JobContext};
use super::held::{Held, HeldJobs, Phase};
use super::{Shared, TakenJob};
use crate::job::{Ending, JobError, RetryRule};
use crate::settle::Ended;
use crate::tasks::panic_text;

/// How long a handler that was told to stop may take to do so, before it is dropped.
const GRACE: Duration = Duration::from_secs(5);

/// Runs a job and hands its outcome over.
pub(super) async fn execute(shared: Arc<Shared>, taken: TakenJob) {
    let TakenJob {
        held,
        job_type,
        payload,
        rule,
        workspace_id,
        timeout,
        checkpoint,
    } = taken;
    let _forget = ForgetOnPanic {
        held_jobs: shared.held.clone(),
        held: held.clone(),
    };
    let limit = timeout
        .or_else(|| shared.handlers.timeout(&job_type))
        .unwrap_or(crate::job::TIMEOUT);
    let context = JobContext {
        inner: Arc::new(Inner {
            record: shared.record.clone(),
            held: held.clone(),
            worker_id: shared.worker_id.clone(),
            workspace_id,
            checkpoint,
            logs: shared.logs.clone(),
        }),
    };
    let started = tokio::time::Instant::now();
    let handler = shared.handlers.run(&job_type, context, payload);
    let ending = run_to_end(handler, &held, limit, &shared.interrupted).await;
    metrics::histogram!("bullwark_run_seconds", "job_type" => job_type)
        .record(started.elapsed().as_secs_f64());
    hand_over(&shared, &held, ending, &rule).await;
}

/// Decides the outcome of an ending and hands it over; forgets the job when this worker has no say.
pub(super) async fn hand_over(shared: &Shared, held: &Held, ending: Ending, rule: &RetryRule) {
    held.enter(Phase::Ended);
    let Some(outcome) = ending.settle(rule, rand::random()) else {
        shared.held.remove(held.id, &held.token);
        return;
    };
    let ended = Ended {
        id: held.id,
        wire_id: held.wire_id.clone(),
        queue: held.queue.clone(),
        token: held.token.clone(),
        attempt: held.attempt,
        max_attempts: rule.max_attempts,
        started_at: held.started_at,
        outcome,
    };
    if let Err(error) = shared.settle.hand_over(ended).await {
        tracing::error!(job.id = %held.id, %error, "an outcome is given up; the job runs again");
        shared.held.remove(held.id, &held.token);
    }
}

/// A panic outside the handler is a bug here. The job's lease must not be renewed for ever then.
struct ForgetOnPanic {
    held_jobs: Arc<HeldJobs>,
    held: Arc<Held>,
}

impl Drop for ForgetOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.held_jobs.remove(self.held.id, &self.held.token);
        }
    }
}

async fn run_to_end(
    handler: impl Future<Output = Result<String, JobError>>,
    held: &Held,
    limit: Duration,
    interrupted: &CancellationToken,
) -> Ending {
    let mut handler = std::pin::pin!(AssertUnwindSafe(handler).catch_unwind());
    let stopped = tokio::select! {
        biased;
        ended = &mut handler => return ending(ended),
        () = held.lost.cancelled() => Ending::Error(JobError::LeaseLost),
        () = interrupted.cancelled() => Ending::Interrupted,
        () = tokio::time::sleep(limit) => Ending::Timeout(limit),
    };
    held.cancelled.cancel();
    // A handler that is done at this very moment, or commits its last step, may still say so.
    match tokio::time::timeout(GRACE, handler).await {
        Ok(Ok(Ok(result))) if !matches!(stopped, Ending::Error(_)) => Ending::Value(result),
        Ok(Err(panic)) if !matches!(stopped, Ending::Error(_)) => ending(Err(panic)),
        Ok(_) | Err(_) => stopped,
    }
}

fn ending(ended: Result<Result<String, JobError>, Box<dyn std::any::Any + Send>>) -> Ending {
    match ended {
        Ok(Ok(result)) => Ending::Value(result),
        Ok(Err(error)) => Ending::Error(error),
        Err(panic) => Ending::Panic(panic_text(panic.as_ref()).to_owned()),
    }
}
