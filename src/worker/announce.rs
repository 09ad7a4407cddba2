//! Telling the listeners of a worker how a job ended, after both stores know it.

use std::sync::Arc;

use super::Shared;
use super::events::WorkerEvent;
use super::held::Held;
use crate::job::{Event, Outcome, Telling};
use crate::settle::Verdict;

/// Tells how a job ended that this worker has settled. Jobs that go back uncounted are no news.
pub(super) async fn announce(shared: &Shared, held: &Arc<Held>, outcome: Outcome, was_run: bool) {
    let Some(events) = shared.events() else {
        return;
    };
    let id = &held.wire_id;
    match held.verdict() {
        Some(Verdict::Accepted) => {}
        _ if outcome.telling == Telling::Nothing => return,
        Some(Verdict::Refused) => {
            let why = "it was cancelled, or started elsewhere meanwhile";
            return events.error(format!("the end of job {id} does not count: {why}"));
        }
        Some(Verdict::GivenUp) | None => {
            return events.error(format!("the end of job {id} was given up; it runs again"));
        }
    }
    let wire = held.wire.as_ref();
    let attempts_made = wire.map_or(0, |wire| wire.job.attempts_made) + 1;
    let id = held.wire_id.clone();
    match outcome.event {
        Event::Succeeded => events.tell(WorkerEvent::Completed {
            finished_ms: finished_ms(shared, held).await,
            id,
            returnvalue: outcome.result.unwrap_or_else(|| "null".to_owned()),
            attempts_made,
        }),
        Event::Errored { .. } | Event::Discarded => {
            let is_final = outcome.event != (Event::Errored { retries_left: true });
            let delay_ms = u64::try_from(outcome.delay.as_millis()).unwrap_or(u64::MAX);
            events.tell(WorkerEvent::Failed {
                delay_ms: (!is_final).then_some(delay_ms),
                finished_ms: match is_final {
                    true => finished_ms(shared, held).await,
                    false => None,
                },
                id,
                reason: outcome.error.unwrap_or_default(),
                attempts_made,
                hash: wire.filter(|_| !was_run).map(|wire| wire.job.hash.clone()),
            });
        }
        Event::Snoozed
        | Event::Released
        | Event::Cancelled
        | Event::Claimed
        | Event::Retried
        | Event::Undone { .. } => {}
    }
}

/// As Redis has it; this process's clock if the job was not kept, or Redis is away. The record has
/// the outcome then, which is what counts; who claims the job next finishes it in Redis. A round
/// trip, so it is made for listeners only.
async fn finished_ms(shared: &Shared, held: &Held) -> Option<i64> {
    let kept = shared.broker.finished_ms(&held.queue, &held.wire_id).await;
    let kept = kept.unwrap_or_else(|error| {
        let id = &held.wire_id;
        let message = format!("job {id} is over, which Redis may not know yet: {error}");
        tracing::warn!(message);
        if let Some(events) = shared.events() {
            events.error(message);
        }
        None
    });
    Some(kept.unwrap_or_else(crate::clock::now_ms))
}
