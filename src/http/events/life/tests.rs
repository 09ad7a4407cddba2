//! Lives of jobs, as they are told.

use super::*;

fn at(second: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(second, 0)
}

fn stood(status: Status) -> Stood {
    Stood {
        status,
        attempt: 0,
        attempts: 0,
        started_at: None,
        due_at: None,
        ended_at: None,
        progress: None,
        is_deleted: false,
    }
}

fn running(attempt: i32, started: i64) -> Stood {
    Stood {
        attempt,
        started_at: at(started),
        ..stood(Status::Processing)
    }
}

fn names(before: &Stood, now: &Stood) -> Vec<&'static str> {
    let happened = since(Some(before), now, Hint::default());
    happened.into_iter().map(Happened::as_str).collect()
}

#[test]
fn a_life_is_told_in_its_order() {
    let new = stood(Status::Pending);
    let first = running(1, 10);
    let failed = Stood {
        attempts: 1,
        ended_at: at(20),
        ..running(1, 10)
    };
    let failed = Stood {
        status: Status::Failed,
        ..failed
    };
    let second = Stood {
        attempts: 1,
        ..running(2, 30)
    };
    let done = Stood {
        status: Status::Completed,
        ended_at: at(40),
        ..second.clone()
    };
    assert_eq!(names(&new, &first), ["started"]);
    assert_eq!(names(&first, &failed), ["failed"]);
    assert_eq!(names(&failed, &second), ["started"]);
    assert_eq!(names(&second, &done), ["completed"]);
    // Nobody looked in between.
    assert_eq!(names(&new, &failed), ["started", "failed"]);
    assert_eq!(names(&failed, &done), ["started", "completed"]);
    assert_eq!(names(&first, &second), ["failed", "started"]);
    assert_eq!(
        names(&new, &done),
        ["started", "failed", "started", "completed"]
    );
    for same in [&new, &first, &failed, &second, &done] {
        assert!(names(same, same).is_empty());
    }
}

#[test]
fn a_job_that_is_run_again_or_goes_is_told_so() {
    let done = Stood {
        status: Status::Completed,
        ended_at: at(40),
        ..running(1, 10)
    };
    let again = Stood {
        status: Status::Pending,
        ended_at: None,
        ..done.clone()
    };
    let twice = Stood {
        ended_at: at(60),
        started_at: at(50),
        attempt: 2,
        ..done.clone()
    };
    assert_eq!(names(&done, &again), ["retried"]);
    assert_eq!(names(&done, &twice), ["retried", "started", "completed"]);
    // Only the number of a start that came too late was noted.
    let counted = Stood {
        attempt: 2,
        ..done.clone()
    };
    assert!(names(&done, &counted).is_empty());
    let gone = Stood {
        status: Status::Cancelled,
        is_deleted: true,
        ..done.clone()
    };
    assert_eq!(names(&done, &gone), ["deleted"]);
    assert!(names(&gone, &gone).is_empty());
}

#[test]
fn progress_and_waiting_are_told_once() {
    let running = running(1, 10);
    let further = Stood {
        progress: Some(7),
        ..running.clone()
    };
    let back = Stood {
        status: Status::Pending,
        due_at: at(99),
        ..further.clone()
    };
    assert_eq!(names(&running, &further), ["progress"]);
    assert_eq!(names(&further, &back), ["waiting"]);
    assert_eq!(
        names(&stood(Status::Pending), &back),
        ["started", "waiting"]
    );
    assert!(names(&further, &further).is_empty());
    assert_eq!(fingerprint(&serde_json::json!({})), None);
}

#[test]
fn a_job_that_is_promoted_waits_and_does_not_fail_again() {
    let failed = Stood {
        status: Status::Failed,
        attempts: 1,
        ended_at: at(20),
        due_at: at(90),
        ..running(1, 10)
    };
    let promoted = Stood {
        due_at: at(30),
        ..failed.clone()
    };
    assert_eq!(names(&failed, &promoted), ["waiting"]);
    let hint = Hint {
        moved: true,
        ..Hint::default()
    };
    assert_eq!(since(None, &promoted, hint), [Happened::Waiting]);
}

#[test]
fn a_hint_that_the_record_does_not_confirm_is_not_told() {
    let new = stood(Status::Pending);
    let hint = Hint {
        added: true,
        started: true,
        ended: true,
        ..Hint::default()
    };
    assert_eq!(since(None, &new, hint), [Happened::Accepted]);
    assert!(!new.is_as_far_as(hint, None), "so it is looked at again");
    let done = Stood {
        status: Status::Completed,
        ended_at: at(40),
        ..running(1, 10)
    };
    assert!(done.is_as_far_as(hint, None));
    assert_eq!(
        since(None, &done, hint),
        [Happened::Accepted, Happened::Started, Happened::Completed]
    );
    // A client ran it again, and the record has not heard of it.
    let retried = Hint {
        retried: true,
        ..Hint::default()
    };
    assert!(since(None, &done, retried).is_empty());
    assert!(!done.is_as_far_as(retried, None));
    let again = Stood {
        status: Status::Pending,
        ..done.clone()
    };
    assert_eq!(since(None, &again, retried), [Happened::Retried]);
    let put_back = Hint {
        added: true,
        ..Hint::default()
    };
    assert!(since(None, &again, put_back).is_empty(), "it is not new");
    // It ended long ago; Redis was only cleaned of it.
    let removed = Hint {
        removed: true,
        ..Hint::default()
    };
    assert!(since(None, &done, removed).is_empty());
    let progressed = Hint {
        progressed: true,
        ..Hint::default()
    };
    let running = running(1, 10);
    assert!(running.lacks_progress(progressed, Some(&running)));
    assert!(!done.lacks_progress(progressed, Some(&running)));
}
