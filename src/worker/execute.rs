//! One run of a job: every way it can end becomes one outcome.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::announce::announce;
use super::confirm::confirm;
use super::context::{Inner, JobContext};
use super::events::WorkerEvent;
use super::held::{ForgetOnPanic, Held, Phase};
use super::limited::respect_limit;
use super::log_writer::Line;
use super::{Shared, TakenJob};
use crate::fault::{self, Point};
use crate::job::{Ending, Event, JobError, Priority, Report, RetryRule, RetryWish, Telling};
use crate::quota::Urgency;
use crate::reconcile;
use crate::record::logs::{LogLevel, NewLog};
use crate::record::start;
use crate::settle::Ended;
use crate::tasks::panic_text;

/// How long an outcome waits for what was logged in Redis.
const LOGS_PATIENCE: Duration = Duration::from_secs(1);
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
        priority,
        timeout,
        checkpoint,
        latency,
    } = taken;
    let _forget = ForgetOnPanic::new(&shared.held, &held);
    let limit = timeout
        .or_else(|| shared.handlers.timeout(&job_type))
        .unwrap_or(crate::job::TIMEOUT);
    let context = JobContext {
        inner: Arc::new(Inner {
            record: shared.record.clone(),
            held: held.clone(),
            worker_id: shared.worker_id.clone(),
            prefix: shared.prefix.clone(),
            workspace_id,
            checkpoint,
            logs: shared.logs.clone(),
            attempts: rule.attempts,
            shared: Some(shared.clone()),
        }),
        urgency: match Priority::is_interactive(priority) {
            true => Urgency::Interactive,
            false => Urgency::Batch,
        },
    };
    if let Some(events) = shared.events() {
        events.tell(WorkerEvent::Active {
            id: held.wire_id.clone(),
        });
    }
    fault::point(Point::BeforeHandler);
    let started = tokio::time::Instant::now();
    let handler = shared.handlers.run(&job_type, context, payload);
    let ending = run_to_end(handler, &held, limit, &shared.interrupted).await;
    let (label, ran) = (shared.handlers.label(&job_type), started.elapsed());
    latency.note_run(&label, ran);
    fault::point(Point::AfterHandler);
    if let Some(event) = end(&shared, &held, ending, &rule).await {
        latency.note_end(&label, ran, event);
    }
}

/// Ends a job that must fail without having been run.
pub(super) async fn fail_unrun(shared: &Shared, taken: TakenJob, why: String) {
    if let Some(events) = shared.events() {
        events.tell(WorkerEvent::Active {
            id: taken.held.wire_id.clone(),
        });
    }
    let stack = Some(format!("UnrecoverableError: {why}"));
    let report = Report {
        message: why,
        stack,
        retry: RetryWish::Never,
    };
    let ending = Ending::Error(JobError::Reported(Box::new(report)));
    end(shared, &taken.held, ending, &taken.rule).await;
}

/// Decides the outcome of an ending and hands it over; forgets the job when this worker has no say.
/// With `BullMQ`'s manners it returns, and so frees the slot, when Redis has been told.
/// Answers what became of the attempt, once that is on its way.
async fn end(shared: &Shared, held: &Arc<Held>, ending: Ending, rule: &RetryRule) -> Option<Event> {
    let was_run = held.runs();
    held.enter(Phase::Ended);
    let mut may_have_log = true;
    let ending = match held.committed() {
        // The job is over in the record: whatever happened after that can not change it.
        Some(result) => {
            note_afterthought(shared, held, result, &ending);
            Some(Ending::Value(result.to_owned()))
        }
        None => {
            let confirmed = confirm(shared, held, ending).await;
            may_have_log = confirmed.as_ref().is_none_or(|c| c.may_have_log);
            confirmed.map(|confirmed| confirmed.ending)
        }
    };
    let outcome =
        ending.and_then(|ending| ending.settle(&last_rule(shared, held, rule), rand::random()));
    let Some(mut outcome) = outcome else {
        give_back(shared, held).await;
        shared.held.remove(held.id, &held.token);
        return None;
    };
    if let Telling::Limit(pause) = outcome.telling {
        outcome.telling = respect_limit(shared, &held.queue, pause).await;
    }
    let ended = Ended {
        id: held.id,
        wire_id: held.wire_id.clone(),
        queue: held.queue.clone(),
        token: held.token.clone(),
        attempt: held.attempt,
        max_attempts: rule.max_attempts,
        started_at: held.started_at,
        outcome,
        manner: held
            .wire
            .as_ref()
            .and_then(|wire| wire.manner(shared.manners.as_ref())),
        kept_result: None,
    };
    if shared.handlers.forwards() && may_have_log {
        copy_logs(shared, held).await;
    }
    let event = ended.outcome.event;
    let told = shared.manners.is_some().then(|| ended.outcome.clone());
    let handed_over = match held.committed() {
        Some(_) => shared.settle.hand_over_recorded(ended).await,
        None => shared.settle.hand_over(ended).await,
    };
    if let Err(error) = handed_over {
        tracing::error!(job.id = %held.id, %error, "an outcome is given up; the job runs again");
        shared.held.remove(held.id, &held.token);
        return None;
    }
    if let Some(outcome) = told {
        held.gone.cancelled().await;
        announce(shared, held, outcome, was_run).await;
    }
    Some(event)
}

/// What the receiver logged through a BullMQ library stands in Redis, and may go with the job.
async fn copy_logs(shared: &Shared, held: &Held) {
    let job = [(held.id, held.wire_id.clone())];
    let copied = reconcile::copy_logs(&shared.record, &shared.broker, &held.queue, &job);
    match tokio::time::timeout(LOGS_PATIENCE, copied).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, job.id = %held.id, "its log is not copied"),
        Err(_) => tracing::warn!(job.id = %held.id, "its log is not copied: it took too long"),
    }
}

/// Says in the job's log what its handler did after its transaction had completed the job.
fn note_afterthought(shared: &Shared, held: &Held, committed: &str, ending: &Ending) {
    let what = match ending {
        Ending::Value(result) if result == committed => return,
        Ending::Value(_) => "returned another result".to_owned(),
        Ending::Error(error) => format!("failed: {error}"),
        Ending::Panic(why) => format!("panicked: {why}"),
        Ending::Timeout(_) | Ending::Interrupted => "was still running".to_owned(),
    };
    let line = NewLog {
        job_id: held.id,
        attempt: held.attempt,
        level: LogLevel::Warn,
        message: format!("after its transaction had completed the job, the handler {what}")
            .replace('\0', "\u{fffd}"),
        metadata: None,
    };
    let line = Line {
        log: line,
        queue: held.queue.clone(),
        wire_id: held.wire_id.clone(),
    };
    if shared.logs.try_send(line).is_err() {
        metrics::counter!("bullwark_log_lines_dropped_total").increment(1);
    }
}

/// Redis has taken the job away, whatever the record says: then the record says that it waits. If
/// Redis has not put it back but lost it, the sweep adds it.
async fn give_back(shared: &Shared, held: &Held) {
    if shared.manners.is_none() {
        return; // whoever has it now, the record has decided that
    }
    let given = start::give_back(&shared.record, held.id, held.attempt, &shared.worker_id);
    if let Err(error) = given.await {
        tracing::warn!(%error, job.id = %held.id, "not given back: left to its silence");
    }
}

/// With a limit of starts, the failure of the last one that is allowed is final: version 6's rule.
fn last_rule(shared: &Shared, held: &Held, rule: &RetryRule) -> RetryRule {
    let starts_max = shared
        .manners
        .as_ref()
        .and_then(|manners| manners.starts_max);
    let starts = held
        .wire
        .as_ref()
        .map_or(0, |wire| wire.job.attempts_started);
    let mut rule = rule.clone();
    if starts_max.is_some_and(|max| starts >= max) {
        rule.max_attempts = rule.max_attempts.min(rule.attempts);
    }
    rule
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
        () = held.aborted.cancelled() => {
            Ending::Error(JobError::Retry(held.abort_reason().to_owned()))
        }
        () = interrupted.cancelled() => Ending::Interrupted,
        () = tokio::time::sleep(limit) => Ending::Timeout(limit),
    };
    held.cancelled.cancel();
    // A handler that is done at this very moment, or commits its last work, may still say so.
    match tokio::time::timeout(GRACE, handler).await {
        Ok(Ok(Ok(result))) if !matches!(stopped, Ending::Error(_)) => Ending::Value(result),
        // It got on and wants to go on later: a time limit only interrupts it then. One that did
        // not get on would do so for ever.
        Ok(Ok(Err(snooze @ JobError::Snooze(..))))
            if matches!(stopped, Ending::Timeout(_)) && held.has_gained.load(Ordering::Relaxed) =>
        {
            Ending::Error(snooze)
        }
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
