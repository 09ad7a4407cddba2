//! What a row of the record must say, given what Redis shows and what events told.
//!
//! Pure. Redis is looked at as it is now, so the order of events, and events read twice, do not
//! matter; they are needed only for what leaves no trace: how a job that is gone ended, and whether
//! a person ran one again. An outcome is copied to an open row only, and numbered so that no older
//! start has a say after it.

use crate::broker::{BrokerState, WireJob};
use crate::job::Status;
use crate::record::mirror::{Change, KnownJob, REMOVED};

/// The worker of a run by a foreign worker without a name.
const NAMELESS: &str = "bullmq";
/// Due times of the two stores that differ by less than this mean the same.
const SAME_DUE_MS: i64 = 2000;
const RETRIED: &str = "retried by a BullMQ client";

/// What events told of a job beyond what Redis shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Hints {
    pub(super) ended: Option<End>,
    pub(super) is_removed: bool,
    /// A client ran it again after it was over.
    pub(super) is_retried: bool,
    /// It was delayed and became available, by its time or by a client.
    pub(super) is_promoted: bool,
    /// JSON text.
    pub(super) progress: Option<String>,
}

/// How a job ended, as its last event says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum End {
    Completed { returnvalue: String, at_ms: i64 },
    Failed { reason: String, at_ms: i64 },
}

/// The change that a row needs, if any. `seen` is none when Redis has no hash of the job.
pub(super) fn change(
    known: &KnownJob,
    seen: Option<&WireJob>,
    hints: &Hints,
    now_ms: i64,
) -> Option<Change> {
    let change = match seen {
        None => vanished(known, hints),
        Some(_) if known.status.is_final() && !may_reopen(known, hints) => None,
        Some(seen) => match seen.state {
            BrokerState::Completed | BrokerState::Failed => over(known, seen),
            BrokerState::Active if is_run_here(seen) => running_here(known, hints, now_ms),
            BrokerState::Active => running(known, seen),
            BrokerState::Delayed => waiting(known, seen, hints, seen.due_ms, now_ms),
            BrokerState::Wait
            | BrokerState::Paused
            | BrokerState::Prioritized
            | BrokerState::WaitingChildren => waiting(known, seen, hints, None, now_ms),
            BrokerState::Orphan => None,
        },
    };
    let progress = hints.progress.clone();
    match (change, progress) {
        (Some(change), progress) => Some(Change { progress, ..change }),
        (None, Some(progress)) if known.is_run_elsewhere => Some(Change {
            progress: Some(progress),
            ..unchanged(known)
        }),
        (None, _) => None,
    }
}

/// What is over stays as it is, with two exceptions: a person ran it again, or it was only taken
/// for removed and now tells how it ended.
fn may_reopen(known: &KnownJob, hints: &Hints) -> bool {
    hints.is_retried || (known.is_taken_for_removed && hints.ended.is_some())
}

/// A change that changes nothing, to start from.
fn unchanged(known: &KnownJob) -> Change {
    Change {
        id: known.id,
        was: (known.status, known.attempt),
        to: known.status,
        attempt: known.attempt,
        attempts: known.attempts,
        result: None,
        error: None,
        stack: None,
        worker: None,
        started_ms: None,
        due_ms: known.due_ms,
        ended_ms: None,
        progress: None,
        note: None,
    }
}

/// The number of a start that a foreign worker made: the one that is noted, or a newer one.
fn number(known: &KnownJob, started: u32) -> i32 {
    let least = match known.is_run_elsewhere {
        true => known.attempt,
        false => known.attempt.saturating_add(1),
    };
    least.max(signed(started))
}

pub(super) fn signed(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Failures as the record counts them: it knows no more than the job's maximum.
fn failures(known: &KnownJob, seen: &WireJob) -> i32 {
    signed(seen.attempts_made).min(known.max_attempts)
}

fn is_own(known: &KnownJob) -> bool {
    known.wire_id == known.id.to_string()
}

/// Bullwark's workers say so in their tokens. What they do, they write into the record themselves.
pub(super) fn is_run_here(seen: &WireJob) -> bool {
    let token = seen.token.as_deref();
    token.is_some_and(|token| token.starts_with(crate::broker::OWN_TOKEN))
}

fn over(known: &KnownJob, seen: &WireJob) -> Option<Change> {
    // Read again, or the end that is known already.
    let is_known = known.status.is_final() && !known.is_taken_for_removed;
    if is_known && signed(seen.attempts_started) <= known.attempt {
        return None;
    }
    let is_completed = seen.state == BrokerState::Completed;
    let made = signed(seen.attempts_made);
    let change = Change {
        attempt: number(known, seen.attempts_started),
        worker: Some(worker(seen)),
        started_ms: seen.processed_ms,
        ended_ms: seen.finished_ms,
        due_ms: None,
        note: is_own(known).then(|| match is_completed {
            true => "completed by a BullMQ worker".to_owned(),
            false => "failed for good in a BullMQ worker".to_owned(),
        }),
        ..unchanged(known)
    };
    Some(match is_completed {
        true => Change {
            to: Status::Completed,
            attempts: known.attempts.max(made - 1),
            result: Some(
                seen.returnvalue
                    .clone()
                    .unwrap_or_else(|| "null".to_owned()),
            ),
            ..change
        },
        false => Change {
            to: Status::DeadLetter,
            attempts: known.attempts.max(made),
            error: Some(seen.failed_reason.clone().unwrap_or_default()),
            stack: seen.stacktrace.clone(),
            ..change
        },
    })
}

/// A worker of ours holds it, who writes what becomes of it. It was only faster than the news that
/// a client ran the job again or made it available, without which the record does not let it start.
fn running_here(known: &KnownJob, hints: &Hints, now_ms: i64) -> Option<Change> {
    if known.status.is_final() {
        // Whether a client ran it again, its worker finds out before it runs.
        return None;
    }
    let is_later = known.due_ms.is_some_and(|due| due > now_ms + SAME_DUE_MS);
    (hints.is_promoted && is_later).then(|| Change {
        due_ms: None,
        ..unchanged(known)
    })
}

fn running(known: &KnownJob, seen: &WireJob) -> Option<Change> {
    let is_noted = (known.is_run_elsewhere || known.status.is_final())
        && known.attempt >= signed(seen.attempts_started);
    if seen.token.is_none() || is_noted {
        return None;
    }
    Some(Change {
        to: Status::Processing,
        attempt: number(known, seen.attempts_started),
        attempts: known.attempts.max(failures(known, seen)),
        worker: Some(worker(seen)),
        started_ms: seen.processed_ms,
        due_ms: None,
        note: known.status.is_final().then(|| RETRIED.to_owned()),
        ..unchanged(known)
    })
}

/// It was over, and a client ran it again.
fn reopened(known: &KnownJob, attempts: i32, due_ms: Option<i64>) -> Change {
    Change {
        to: Status::Pending,
        attempts,
        due_ms,
        note: Some(RETRIED.to_owned()),
        ..unchanged(known)
    }
}

fn waiting(
    known: &KnownJob,
    seen: &WireJob,
    hints: &Hints,
    due_ms: Option<i64>,
    now_ms: i64,
) -> Option<Change> {
    let failures = failures(known, seen);
    if known.status.is_final() {
        // Running a job again takes away when it was started, and may take away how often. One that
        // Bullwark put back has a number above all that the record knows, one that an older memory
        // of Redis shows a number below: its claim asks, and is told that it is over.
        let is_same = signed(seen.attempts_started) == known.attempt;
        let is_retried = seen.processed_ms.is_none() && (is_same || !seen.is_counted);
        return is_retried.then(|| reopened(known, failures, due_ms));
    }
    if failures > known.attempts {
        return Some(Change {
            to: Status::Failed,
            attempt: number(known, seen.attempts_started),
            attempts: failures,
            error: seen.failed_reason.clone(),
            stack: seen.stacktrace.clone(),
            worker: Some(worker(seen)),
            started_ms: seen.processed_ms,
            due_ms,
            note: is_own(known).then(|| "an attempt failed in a BullMQ worker".to_owned()),
            ..unchanged(known)
        });
    }
    match known.status {
        Status::Processing if known.is_run_elsewhere => Some(Change {
            to: Status::Pending,
            attempt: known.attempt.max(signed(seen.attempts_started)),
            due_ms,
            ..unchanged(known)
        }),
        Status::Pending | Status::Failed => {
            let has_counted = known.attempts > 0 && failures >= known.attempts;
            let was_never_started = known.attempt == 0 && seen.attempts_started == 0;
            let is_promoted = hints.is_promoted
                || was_never_started
                || (known.status == Status::Failed && has_counted);
            let is_due_changed = match (known.due_ms, due_ms) {
                (Some(known), Some(seen)) => known.abs_diff(seen) > SAME_DUE_MS.unsigned_abs(),
                // Available before it is due: somebody promoted it, or Redis was not told that it
                // is put off, and gave it back when its lease ended. Then the record is right.
                (Some(due), None) => due > now_ms + SAME_DUE_MS && is_promoted,
                (None, Some(seen)) => seen > now_ms + SAME_DUE_MS,
                (None, None) => false,
            };
            is_due_changed.then(|| Change {
                due_ms,
                ..unchanged(known)
            })
        }
        Status::Processing | Status::Completed | Status::DeadLetter | Status::Cancelled => None,
    }
}

/// Its hash is gone: events say how it ended, or that somebody removed it. Without a word of theirs
/// Redis may have lost it, which is not decided here.
fn vanished(known: &KnownJob, hints: &Hints) -> Option<Change> {
    if known.status.is_final() && !(known.is_taken_for_removed && hints.ended.is_some()) {
        return None;
    }
    let change = Change {
        due_ms: None,
        ..unchanged(known)
    };
    Some(match &hints.ended {
        Some(End::Completed { returnvalue, at_ms }) => Change {
            to: Status::Completed,
            attempt: number(known, 0),
            result: Some(returnvalue.clone()),
            ended_ms: Some(*at_ms),
            note: is_own(known).then(|| "completed by a BullMQ worker".to_owned()),
            ..change
        },
        Some(End::Failed { reason, at_ms }) => Change {
            to: Status::DeadLetter,
            attempt: number(known, 0),
            attempts: known.attempts.saturating_add(1),
            error: Some(reason.clone()),
            ended_ms: Some(*at_ms),
            note: is_own(known).then(|| "failed for good in a BullMQ worker".to_owned()),
            ..change
        },
        None if hints.is_removed => removed(known),
        None => return None,
    })
}

/// A job that a client took out of Redis.
pub(super) fn removed(known: &KnownJob) -> Change {
    Change {
        to: Status::Cancelled,
        error: Some(REMOVED.to_owned()),
        due_ms: None,
        note: Some(format!("cancelled: {REMOVED}")),
        ..unchanged(known)
    }
}

/// An iteration that Redis forgot, and that whoever looks after its schedule has made again.
pub(super) fn made_again(known: &KnownJob) -> Change {
    const WHY: &str = "Redis had forgotten it, and its schedule made this iteration again";
    Change {
        to: Status::Cancelled,
        error: Some(WHY.to_owned()),
        due_ms: None,
        note: Some(format!("cancelled: {WHY}")),
        ..unchanged(known)
    }
}

pub(super) fn worker(seen: &WireJob) -> String {
    seen.processed_by
        .clone()
        .unwrap_or_else(|| NAMELESS.to_owned())
}

/// A job whose foreign worker is gone with Redis's memory of it: it may run again.
pub(super) fn given_back(known: &KnownJob) -> Option<Change> {
    known.is_run_elsewhere.then(|| Change {
        to: Status::Pending,
        note: Some("reconciled: Redis had forgotten it while it ran".to_owned()),
        ..unchanged(known)
    })
}

#[cfg(test)]
mod tests;
