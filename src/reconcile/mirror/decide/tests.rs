use uuid::Uuid;

use super::*;

const NOW: i64 = 1_700_000_000_000;

fn known(status: Status, attempt: i32) -> KnownJob {
    KnownJob {
        id: Uuid::nil(),
        wire_id: "7".into(),
        status,
        attempt,
        attempts: 0,
        max_attempts: 2,
        due_ms: None,
        is_run_elsewhere: false,
        is_taken_for_removed: false,
        created_ms: 5,
        epoch: None,
    }
}

fn elsewhere(attempt: i32) -> KnownJob {
    KnownJob {
        is_run_elsewhere: true,
        ..known(Status::Processing, attempt)
    }
}

fn seen(state: BrokerState, started: u32, made: u32) -> WireJob {
    WireJob {
        state,
        due_ms: None,
        token: None,
        timestamp_ms: 5,
        priority: 0,
        processed_ms: (started > 0).then_some(NOW),
        attempts_made: made,
        attempts_started: started,
        is_counted: started > 0,
        finished_ms: None,
        progress: None,
        returnvalue: Some("1".into()),
        failed_reason: Some("x".into()),
        stacktrace: None,
        processed_by: None,
        content: None,
    }
}

fn active(token: &str, started: u32) -> WireJob {
    WireJob {
        token: Some(token.into()),
        ..seen(BrokerState::Active, started, 0)
    }
}

fn delayed(due_ms: i64, started: u32, made: u32) -> WireJob {
    WireJob {
        due_ms: Some(due_ms),
        ..seen(BrokerState::Delayed, started, made)
    }
}

/// Run again by a client, and not claimed since.
fn to_start_anew(started: u32) -> WireJob {
    WireJob {
        processed_ms: None,
        ..seen(BrokerState::Wait, started, 1)
    }
}

fn hints() -> Hints {
    Hints::default()
}

fn retried() -> Hints {
    Hints {
        is_retried: true,
        ..hints()
    }
}

fn promoted() -> Hints {
    Hints {
        is_promoted: true,
        ..hints()
    }
}

fn ended() -> Hints {
    let end = End::Completed {
        returnvalue: "1".into(),
        at_ms: NOW,
    };
    Hints {
        ended: Some(end),
        ..hints()
    }
}

#[test]
fn a_row_follows_what_redis_shows() {
    let put_off = KnownJob {
        attempts: 1,
        due_ms: Some(NOW + 60_000),
        ..known(S::Failed, 1)
    };
    use BrokerState as B;
    use Status as S;
    let own = active(&format!("{}w:1", crate::broker::OWN_TOKEN), 1);
    let failed_once = KnownJob {
        attempts: 1,
        ..known(S::Failed, 1)
    };
    let scheduled = KnownJob {
        due_ms: Some(NOW + 60_000),
        ..known(S::Pending, 0)
    };
    let removed = KnownJob {
        is_taken_for_removed: true,
        ..known(S::Cancelled, 1)
    };
    for (nth, (known, seen, hints, expected)) in [
        // It runs.
        (
            known(S::Pending, 0),
            Some(active("n", 1)),
            hints(),
            Some((S::Processing, 1, 0)),
        ),
        (
            failed_once.clone(),
            Some(active("n", 2)),
            hints(),
            Some((S::Processing, 2, 1)),
        ),
        (
            known(S::Pending, 3),
            Some(active("n", 1)),
            hints(),
            Some((S::Processing, 4, 0)),
        ),
        (elsewhere(1), Some(active("n", 1)), hints(), None),
        (
            elsewhere(1),
            Some(active("n", 2)),
            hints(),
            Some((S::Processing, 2, 0)),
        ),
        (known(S::Pending, 0), Some(own.clone()), hints(), None),
        (known(S::Processing, 1), Some(own.clone()), hints(), None),
        // Its lease was lost to a foreign worker.
        (
            known(S::Processing, 1),
            Some(active("n", 2)),
            hints(),
            Some((S::Processing, 2, 0)),
        ),
        // A client promoted it, and our worker was faster than the news.
        (
            scheduled.clone(),
            Some(own.clone()),
            promoted(),
            Some((S::Pending, 0, 0)),
        ),
        (scheduled.clone(), Some(own.clone()), hints(), None),
        // It ended.
        (
            known(S::Pending, 0),
            Some(seen(B::Completed, 1, 1)),
            hints(),
            Some((S::Completed, 1, 0)),
        ),
        (
            elsewhere(1),
            Some(seen(B::Completed, 1, 1)),
            hints(),
            Some((S::Completed, 1, 0)),
        ),
        (
            elsewhere(2),
            Some(seen(B::Failed, 3, 3)),
            hints(),
            Some((S::DeadLetter, 3, 3)),
        ),
        (
            known(S::Pending, 5),
            Some(seen(B::Failed, 1, 1)),
            hints(),
            Some((S::DeadLetter, 6, 1)),
        ),
        (
            known(S::Completed, 1),
            Some(seen(B::Failed, 1, 1)),
            hints(),
            None,
        ),
        (
            known(S::DeadLetter, 1),
            Some(seen(B::Completed, 2, 1)),
            hints(),
            None,
        ),
        (
            known(S::Cancelled, 1),
            Some(seen(B::Completed, 2, 1)),
            ended(),
            None,
        ),
        (
            removed.clone(),
            Some(seen(B::Completed, 1, 1)),
            ended(),
            Some((S::Completed, 2, 0)),
        ),
        // An attempt failed.
        (
            elsewhere(1),
            Some(delayed(NOW, 1, 1)),
            hints(),
            Some((S::Failed, 1, 1)),
        ),
        (
            known(S::Pending, 0),
            Some(seen(B::Wait, 1, 1)),
            hints(),
            Some((S::Failed, 1, 1)),
        ),
        (
            failed_once.clone(),
            Some(seen(B::Wait, 1, 1)),
            hints(),
            None,
        ),
        // It was given back unrun.
        (
            elsewhere(1),
            Some(seen(B::Wait, 1, 0)),
            hints(),
            Some((S::Pending, 1, 0)),
        ),
        (
            known(S::Processing, 1),
            Some(seen(B::Wait, 1, 0)),
            hints(),
            None,
        ),
        // It is due at another time.
        (
            scheduled.clone(),
            Some(delayed(NOW + 60_500, 0, 0)),
            hints(),
            None,
        ),
        (
            scheduled.clone(),
            Some(delayed(NOW + 90_000, 0, 0)),
            hints(),
            Some((S::Pending, 0, 0)),
        ),
        (
            scheduled.clone(),
            Some(seen(B::Wait, 0, 0)),
            hints(),
            Some((S::Pending, 0, 0)),
        ),
        // It failed and is put off, of which Redis was not told: the record is right.
        (put_off.clone(), Some(seen(B::Wait, 1, 0)), hints(), None),
        // Redis was told, so somebody has promoted it.
        (
            put_off,
            Some(seen(B::Wait, 1, 1)),
            hints(),
            Some((S::Failed, 1, 1)),
        ),
        (
            known(S::Pending, 0),
            Some(seen(B::Wait, 0, 0)),
            hints(),
            None,
        ),
        (
            known(S::Pending, 0),
            Some(seen(B::WaitingChildren, 0, 0)),
            hints(),
            None,
        ),
        // A client ran it again.
        (
            known(S::DeadLetter, 1),
            Some(to_start_anew(1)),
            retried(),
            Some((S::Pending, 1, 1)),
        ),
        (
            known(S::DeadLetter, 1),
            Some(to_start_anew(1)),
            hints(),
            None,
        ),
        (
            known(S::DeadLetter, 1),
            Some(active("n", 2)),
            retried(),
            Some((S::Processing, 2, 0)),
        ),
        (
            known(S::DeadLetter, 1),
            Some(seen(B::Completed, 2, 2)),
            retried(),
            Some((S::Completed, 2, 1)),
        ),
        (
            known(S::Completed, 2),
            Some(seen(B::Completed, 2, 2)),
            retried(),
            None,
        ),
        // Held by a worker of ours: it finds out by itself whether that is a new run.
        (known(S::Completed, 0), Some(own.clone()), retried(), None),
        (known(S::Completed, 1), Some(own), retried(), None),
        (
            known(S::Completed, 2),
            Some(seen(B::Wait, 2, 1)),
            retried(),
            None,
        ),
        // It is gone.
        (elsewhere(1), None, ended(), Some((S::Completed, 1, 0))),
        (
            known(S::Pending, 0),
            None,
            ended(),
            Some((S::Completed, 1, 0)),
        ),
        (known(S::Completed, 1), None, ended(), None),
        (removed, None, ended(), Some((S::Completed, 2, 0))),
        (known(S::Pending, 0), None, hints(), None),
    ]
    .into_iter()
    .enumerate()
    {
        let change = change(&known, seen.as_ref(), &hints, NOW);
        let found = change
            .as_ref()
            .map(|change| (change.to, change.attempt, change.attempts));
        assert_eq!(found, expected, "case {nth}: {known:?} {seen:?} {hints:?}");
        if let Some(change) = change {
            assert_eq!(change.was, (known.status, known.attempt));
        }
    }
}

#[test]
fn what_is_written_changes_nothing_when_it_is_seen_again() {
    use BrokerState as B;
    for seen in [
        active("n", 1),
        delayed(NOW + 60_000, 1, 1),
        seen(B::Wait, 1, 1),
        seen(B::Completed, 1, 1),
        seen(B::Failed, 1, 1),
    ] {
        for hints in [hints(), retried()] {
            let before = known(Status::Pending, 0);
            let change = super::change(&before, Some(&seen), &hints, NOW).unwrap();
            let after = KnownJob {
                status: change.to,
                attempt: change.attempt,
                attempts: change.attempts.min(before.max_attempts),
                due_ms: change.due_ms,
                is_run_elsewhere: change.to == Status::Processing,
                ..before
            };
            assert_eq!(
                super::change(&after, Some(&seen), &hints, NOW),
                None,
                "{seen:?}"
            );
        }
    }
}

#[test]
fn progress_is_taken_from_foreign_runs_only() {
    let hints = Hints {
        progress: Some("5".into()),
        ..hints()
    };
    let seen = active("n", 1);
    let progress = |known: &KnownJob| change(known, Some(&seen), &hints, NOW)?.progress;
    assert_eq!(progress(&elsewhere(1)).as_deref(), Some("5"));
    assert_eq!(progress(&known(Status::Completed, 1)), None);
}
