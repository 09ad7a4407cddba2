//! What the record gets of a job that it does not know.

use super::decide::{is_run_here, signed, worker};
use crate::broker::{BrokerState, WireJob};
use crate::job::{ForeignOptions, QueueName, WireForm};
use crate::record::adopt::{ForeignJob, Standing, record_id};

/// A job that the record does not know, as Redis shows it. None without what its client wrote.
pub(super) fn adoption(
    prefix: &str,
    queue: &QueueName,
    wire_id: &str,
    seen: &WireJob,
    epoch: &str,
) -> Option<ForeignJob> {
    let content = seen.content.as_ref()?;
    let options = ForeignOptions::read(&content.opts);
    let max_attempts = options.attempts.saturating_sub(1);
    let is_run_here = seen.state == BrokerState::Active && is_run_here(seen);
    // A run by Bullwark is noted by its worker, with a number of its own.
    let started = seen.attempts_started.saturating_sub(u32::from(is_run_here));
    let (started_ms, ended_ms) = (seen.processed_ms, seen.finished_ms.unwrap_or_default());
    let error = seen.failed_reason.clone().unwrap_or_default();
    let standing = match (seen.state, seen.due_ms) {
        (BrokerState::Completed, _) => Standing::Completed {
            result: seen
                .returnvalue
                .clone()
                .unwrap_or_else(|| "null".to_owned()),
            started_ms,
            ended_ms,
        },
        (BrokerState::Failed, _) => Standing::Dead {
            error,
            stack: seen.stacktrace.clone(),
            started_ms,
            ended_ms,
        },
        (BrokerState::Active, _) if !is_run_here => Standing::Running {
            worker: worker(seen),
            started_ms,
        },
        (_, Some(due_ms)) if seen.attempts_made.min(max_attempts) > 0 => {
            Standing::Failed { error, due_ms }
        }
        (_, Some(due_ms)) => Standing::Scheduled { due_ms },
        _ => Standing::Waiting,
    };
    let form = WireForm {
        opts: content.opts.clone(),
        priority: seen.priority,
        data: None,
        parent_key: content.parent_key.clone(),
        parent: content.parent.clone(),
        rjk: content.repeat_job_key.clone(),
        deid: content.dedup_id.clone(),
    };
    let made = match seen.state {
        // BullMQ counts the attempt that succeeded as well.
        BrokerState::Completed => seen.attempts_made.saturating_sub(1),
        _ => seen.attempts_made,
    };
    let id = record_id(prefix, queue, wire_id, seen.timestamp_ms);
    let job = ForeignJob::new(id, wire_id.to_owned(), queue, &content.name, &content.data)
        .with_numbers(seen.priority, max_attempts)
        .with_history(made, seen.timestamp_ms)
        .with_starts(signed(started.max(made)))
        .with_wire(form)
        .with_epoch(epoch)
        .with_standing(standing);
    Some(job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::WireContent;

    fn ended_ms(state: BrokerState, finished_ms: Option<i64>) -> Option<i64> {
        let seen = WireJob {
            state,
            due_ms: None,
            token: None,
            timestamp_ms: 5,
            priority: 0,
            processed_ms: Some(6),
            attempts_made: 1,
            attempts_started: 1,
            is_counted: true,
            finished_ms,
            progress: None,
            returnvalue: None,
            failed_reason: None,
            stacktrace: None,
            processed_by: None,
            content: Some(WireContent::default()),
        };
        let queue = QueueName::default();
        let bare = WireJob {
            content: None,
            ..seen.clone()
        };
        assert!(adoption("bull", &queue, "7", &bare, "e").is_none());
        adoption("bull", &queue, "7", &seen, "e")
            .unwrap()
            .ended_ms()
    }

    #[test]
    fn an_unknown_job_is_adopted_where_it_stands() {
        for (state, finished_ms, expected) in [
            (BrokerState::Completed, Some(9), Some(9)),
            (BrokerState::Failed, Some(9), Some(9)),
            (BrokerState::Wait, None, None),
            (BrokerState::Active, None, None),
        ] {
            assert_eq!(ended_ms(state, finished_ms), expected, "{state:?}");
        }
    }
}
