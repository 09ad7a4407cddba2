//! Telling Redis what the record has decided.

use std::collections::HashMap;
use std::time::Duration;

use super::Ended;
use crate::broker::{Broker, BrokerError, Fail, Finish, Keep, Release, Retry};
use crate::job::wire::{KEEP_COMPLETED, KEEP_FAILED};
use crate::job::{Event, QueueName, Telling, append_stack_trace};

/// What one queue is told, by kind.
#[derive(Default)]
struct Told {
    finish: Vec<Finish>,
    fail: Vec<Fail>,
    retry: Vec<Retry>,
    release: Vec<Release>,
    cancel: Vec<String>,
    /// Starts nothing for so long.
    pause: Option<Duration>,
}

/// Tells Redis of committed outcomes. Safe to repeat. A job whose lease or hash is gone is left
/// alone: whoever has it now asks the record.
pub async fn tell(broker: &Broker, ended: &[&Ended]) -> Result<(), BrokerError> {
    let mut queues: HashMap<&QueueName, Told> = HashMap::new();
    for ended in ended {
        queues.entry(&ended.queue).or_default().push(ended);
    }
    // Whatever fails, the others are told: a failure may be the fault of one job.
    let mut first_error = Ok(());
    for (queue, told) in queues {
        // Closed before the job that met the limit goes back, or the next free slot takes it.
        if let Some(pause) = told.pause {
            first_error = first_error.and(broker.rate_limit(queue, pause).await);
        }
        let results = [
            broker.finish(queue, &told.finish).await.map(drop),
            broker.fail(queue, &told.fail).await.map(drop),
            broker.retry(queue, &told.retry).await.map(drop),
            broker.release(queue, &told.release).await.map(drop),
            broker.cancel(queue, &told.cancel).await.map(drop),
        ];
        for result in results {
            first_error = first_error.and(result);
        }
    }
    first_error
}

impl Told {
    fn push(&mut self, ended: &Ended) {
        let (id, token) = (ended.wire_id.clone(), ended.token.clone());
        let outcome = &ended.outcome;
        match outcome.telling {
            Telling::Event => {}
            Telling::Nothing => return,
            Telling::Limit(pause) => self.pause = self.pause.max(pause),
        }
        let manner = ended.manner.as_deref();
        let reason = outcome.error.clone().unwrap_or_default();
        let stacktrace = {
            let (before, max) = manner.map_or((None, 1), |manner| {
                (manner.stacktrace.as_deref(), manner.stack_traces_max)
            });
            append_stack_trace(before, outcome.stack.as_deref().unwrap_or(&reason), max)
        };
        let retry = |count_attempt| Retry {
            id: id.clone(),
            token: token.clone(),
            delay_ms: outcome.delay.as_millis() as i64,
            reason: reason.clone(),
            stacktrace: stacktrace.clone(),
            count_attempt,
            lifo: manner.is_some_and(|manner| manner.lifo),
        };
        match outcome.event {
            Event::Succeeded => self.finish.push(Finish {
                id,
                token,
                returnvalue: outcome.result.clone().unwrap_or_else(|| "null".to_owned()),
                keep: manner.map_or(keep(KEEP_COMPLETED), |manner| manner.keep_completed),
            }),
            Event::Errored { retries_left: true } => self.retry.push(retry(true)),
            Event::Errored {
                retries_left: false,
            }
            | Event::Discarded => self.fail.push(Fail {
                id,
                token,
                reason,
                stacktrace,
                attempts: ended.max_attempts + 1,
                keep: manner.map_or(keep(KEEP_FAILED), |manner| manner.keep_failed),
            }),
            Event::Snoozed => self.retry.push(retry(false)),
            Event::Released => self.release.push(Release { id, token }),
            Event::Cancelled => self.cancel.push(id),
            Event::Claimed | Event::Retried | Event::Undone { .. } => {
                tracing::error!(job.id = id, "no outcome of an attempt: {}", outcome.event);
            }
        }
    }
}

fn keep(count: u64) -> Keep {
    Keep::Some {
        count: Some(count),
        age_seconds: None,
        limit: None,
    }
}
