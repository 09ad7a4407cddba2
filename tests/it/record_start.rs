//! What the record learns of running attempts, and whom it lets start again.

use std::time::Duration;

use bullwark::job::{NewJob, Progress, QueueName, Status};
use bullwark::record::access::By;
use bullwark::record::adopt::{ForeignJob, adopt_many, record_id};
use bullwark::record::control::{cancel_many, retry_many};
use bullwark::record::restart::{Asked, Restart, Restarted, restart_many};
use bullwark::record::settle::settle_many;
use bullwark::record::start::{
    Gain, fence, mark_running, save_checkpoint, save_progress, still_held,
};
use serde_json::json;
use uuid::Uuid;

use crate::stage::{
    Stage, completed, discarded, failed, ids, job, running, settled, snoozed, some_jobs,
};

async fn one(stage: &Stage) -> Uuid {
    let job = job();
    stage.insert(std::slice::from_ref(&job)).await;
    job.id
}

async fn restart(stage: &Stage, worker: &str, id: Uuid, number: i32) -> Restart {
    let answers = restart_many(&stage.record, worker, &[Asked::new(id, number)]).await;
    answers.unwrap().remove(0)
}

async fn run_again(stage: &Stage, worker: &str, id: Uuid, number: i32) -> Restarted {
    match restart(stage, worker, id, number).await {
        Restart::Run(restarted) => *restarted,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_start_is_noted_and_a_heartbeat_renews_it() {
    let stage = Stage::new().await;
    let id = one(&stage).await;
    mark_running(&stage.record, "a", &[running(id, 1)])
        .await
        .unwrap();
    let row = stage.row(id).await;
    assert_eq!(
        (row.status.as_str(), row.worker_id.as_deref()),
        ("processing", Some("a"))
    );
    stage
        .execute("UPDATE jobs SET worker_heartbeat_at = now() - interval '1 day'".into())
        .await;
    let mut later = running(id, 1);
    later.started_at = row.started_at.unwrap();
    mark_running(&stage.record, "a", &[later]).await.unwrap();
    let beat = "SELECT worker_heartbeat_at > now() - interval '1 minute' FROM jobs";
    assert!(stage.scalar::<bool>(beat.into()).await);
}

#[tokio::test]
async fn a_start_is_not_noted_over_an_end_or_a_newer_attempt() {
    let stage = Stage::new().await;
    let jobs = some_jobs(4);
    stage.insert(&jobs).await;
    let ids = ids(&jobs);
    let batch = [
        settled(ids[0], 1, "a", completed()),
        settled(ids[1], 1, "a", failed("x")),
    ];
    settle_many(&stage.record, &batch).await.unwrap();
    mark_running(&stage.record, "a", &[running(ids[2], 5)])
        .await
        .unwrap();
    let late: Vec<_> = [(ids[0], 1), (ids[1], 1), (ids[2], 4), (ids[3], 1)]
        .map(|(id, attempt)| running(id, attempt))
        .into();
    mark_running(&stage.record, "b", &late).await.unwrap();
    let mut seen = Vec::new();
    for id in ids {
        seen.push((stage.status(id).await, stage.attempt(id).await));
    }
    let expected = [
        ("completed", 1),
        ("failed", 1),
        ("processing", 5),
        ("processing", 1),
    ];
    assert_eq!(
        seen,
        expected.map(|(status, attempt)| (status.to_owned(), attempt))
    );
}

#[tokio::test]
async fn noting_starts_does_not_wait_for_a_handler_s_transaction() {
    let stage = Stage::new().await;
    let jobs = some_jobs(2);
    stage.insert(&jobs).await;
    let ids = ids(&jobs);
    let mut tx = stage.record.begin().await.unwrap();
    assert!(fence(&mut tx, ids[0], 1, "a").await.unwrap());
    let both: Vec<_> = ids.iter().map(|id| running(*id, 1)).collect();
    let noted = mark_running(&stage.record, "a", &both);
    tokio::time::timeout(Duration::from_secs(5), noted)
        .await
        .expect("a locked row is passed over")
        .unwrap();
    assert_eq!(stage.status(ids[1]).await, "processing");
    tx.commit().await.unwrap();
    assert_eq!(
        stage.status(ids[0]).await,
        "processing",
        "the transaction noted it itself"
    );
}

#[tokio::test]
async fn a_restart_is_answered_by_what_the_record_knows() {
    let stage = Stage::new().await;
    let later = NewJob {
        due: bullwark::job::Due::In(Duration::from_secs(3600)),
        ..job()
    };
    let jobs = [some_jobs(4), vec![later]].concat();
    stage.insert(&jobs).await;
    let ids = ids(&jobs);
    let batch = [
        settled(ids[0], 1, "a", completed()),
        settled(ids[1], 1, "a", discarded("hopeless")),
        settled(ids[2], 1, "a", failed("try later")),
    ];
    settle_many(&stage.record, &batch).await.unwrap();
    let unknown = Uuid::now_v7();
    let starts = [ids[3], ids[1], unknown, ids[2], ids[0], ids[4]].map(|id| Asked::new(id, 2));
    let answers = restart_many(&stage.record, "b", &starts).await.unwrap();

    let Restart::Run(run) = &answers[0] else {
        panic!("{answers:?}");
    };
    assert_eq!((run.attempt, run.attempts, run.max_attempts), (2, 0, 5));
    let over = |status, result: Option<&str>, error: Option<&str>| Restart::Over {
        status,
        result: result.map(str::to_owned),
        error: error.map(str::to_owned),
    };
    assert_eq!(answers[1], over(Status::DeadLetter, None, Some("hopeless")));
    assert_eq!(answers[2], Restart::Unknown);
    let (minute, hour) = (60_000, 3_600_000);
    let later_than = |answer: &Restart, ms: i64| {
        matches!(answer, Restart::Later { delay_ms } if (ms - 30_000..=ms + 30_000)
            .contains(delay_ms))
    };
    assert!(later_than(&answers[3], minute), "{:?}", answers[3]);
    assert_eq!(
        answers[4],
        over(Status::Completed, Some(r#"{"ok": true}"#), None)
    );
    assert!(later_than(&answers[5], hour), "{:?}", answers[5]);
    assert_eq!(
        stage.status(ids[2]).await,
        "failed",
        "what is not due is left alone"
    );
}

#[tokio::test]
async fn a_number_is_never_used_twice_although_redis_lost_count() {
    let stage = Stage::new().await;
    let id = one(&stage).await;
    assert_eq!(run_again(&stage, "a", id, 7).await.attempt, 7);
    // Redis came back empty and begins to count again.
    assert_eq!(run_again(&stage, "b", id, 1).await.attempt, 8);
    assert_eq!(run_again(&stage, "c", id, 2).await.attempt, 9);
    let old = [settled(id, 8, "b", completed())];
    assert!(settle_many(&stage.record, &old).await.unwrap().is_empty());
}

#[tokio::test]
async fn lost_leases_in_a_row_are_counted_until_the_job_gets_on() {
    let stage = Stage::new().await;
    let id = one(&stage).await;
    mark_running(&stage.record, "a", &[running(id, 1)])
        .await
        .unwrap();
    for number in 2..=4 {
        let restarted = run_again(&stage, "a", id, number).await;
        assert_eq!(restarted.lease_losses, number.unsigned_abs() - 1);
    }
    let lost = |attempt| (attempt, "lease_lost".to_owned());
    assert_eq!(stage.history(id).await, [lost(1), lost(2), lost(3)]);

    let mut tx = stage.record.begin().await.unwrap();
    assert!(fence(&mut tx, id, 4, "a").await.unwrap());
    let progress = Progress::new(10, 4, 0, "at 4");
    // What it writes before it got on, or a place that is the same, forgives nothing.
    for (place, gain, losses) in [
        (0, Gain::None, 3),
        (0, Gain::Ahead, 3),
        (4, Gain::None, 3),
        (5, Gain::Ahead, 0),
        (4, Gain::Ahead, 0),
    ] {
        let place = json!({"at": place});
        save_checkpoint(&mut tx, id, Some(&place), &progress, gain)
            .await
            .unwrap();
        let left: i32 = sqlx::query_scalar("SELECT lease_losses FROM jobs")
            .fetch_one(tx.connection())
            .await
            .unwrap();
        assert_eq!(left, losses, "{place} {gain:?}");
    }
    tx.commit().await.unwrap();
    let restarted = run_again(&stage, "b", id, 5).await;
    assert_eq!(
        (restarted.lease_losses, restarted.checkpoint),
        (1, Some(json!({"at": 4})))
    );

    let end = [settled(id, 5, "b", failed("x"))];
    settle_many(&stage.record, &end).await.unwrap();
    stage
        .execute("UPDATE jobs SET next_retry_at = now()".into())
        .await;
    assert_eq!(
        run_again(&stage, "c", id, 6).await.lease_losses,
        0,
        "an outcome ends the row"
    );
}

#[tokio::test]
async fn a_first_start_that_nobody_noted_counts_as_a_lost_lease() {
    let stage = Stage::new().await;
    let id = one(&stage).await;
    assert_eq!(run_again(&stage, "b", id, 2).await.lease_losses, 1);
    assert_eq!(stage.history(id).await, [(1, "lease_lost".to_owned())]);
}

#[tokio::test]
async fn a_gap_in_the_count_of_redis_is_no_lost_lease() {
    let stage = Stage::new().await;
    let id = one(&stage).await;
    let batch = [settled(id, 1, "a", snoozed(Duration::ZERO))];
    settle_many(&stage.record, &batch).await.unwrap();
    // Put back by the sweep after a flush, or claimed once before it was due.
    assert_eq!(run_again(&stage, "b", id, 3).await.lease_losses, 0);
    assert!(stage.history(id).await.is_empty());
}

#[tokio::test]
async fn the_fence_lets_the_newest_attempt_in_and_holds_the_others_off() {
    let stage = Stage::new().await;
    let id = one(&stage).await;
    let mut tx = stage.record.begin().await.unwrap();
    assert!(fence(&mut tx, id, 2, "a").await.unwrap());

    // Nobody restarts it until the commit: whoever wants to asks again, which holds up nobody else.
    let early = restart_many(&stage.record, "b", &[Asked::new(id, 3)])
        .await
        .unwrap();
    assert!(matches!(early[..], [Restart::Locked]), "{early:?}");
    tx.commit().await.unwrap();
    let late = restart_many(&stage.record, "b", &[Asked::new(id, 3)])
        .await
        .unwrap();
    assert!(matches!(late[..], [Restart::Run(_)]), "{late:?}");

    for (attempt, worker) in [(2, "a"), (3, "a")] {
        let mut tx = stage.record.begin().await.unwrap();
        assert!(!fence(&mut tx, id, attempt, worker).await.unwrap());
        tx.rollback().await.unwrap();
    }
    let held = [(id, 2), (id, 3)];
    assert!(
        still_held(&stage.record, "a", &held)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(still_held(&stage.record, "b", &held).await.unwrap(), [id]);
}

#[tokio::test]
async fn progress_of_the_running_attempt_is_kept_and_of_no_other() {
    let stage = Stage::new().await;
    let id = one(&stage).await;
    mark_running(&stage.record, "a", &[running(id, 2)])
        .await
        .unwrap();
    let save = async |attempt, worker: &str, done| {
        let update = (id, attempt, Progress::new(10, done, 0, ""));
        save_progress(&stage.record, worker, &[update])
            .await
            .unwrap();
        stage.row(id).await.progress.unwrap()["processed"].clone()
    };
    assert_eq!(save(2, "a", 5).await, 5);
    assert_eq!(save(1, "a", 6).await, 5);
    assert_eq!(save(2, "b", 7).await, 5);

    cancel_many(&stage.record, &[id], &By::OPERATOR, "by hand")
        .await
        .unwrap();
    retry_many(&stage.record, &[id], &By::OPERATOR)
        .await
        .unwrap();
    assert_eq!(
        save(2, "a", 8).await,
        json!(null),
        "the attempt was cancelled"
    );
}

#[tokio::test]
async fn a_cancelled_attempt_has_no_say_after_a_retry_by_hand() {
    let stage = Stage::new().await;
    // Its first attempt runs at `a`, but the record has not heard of it yet.
    let id = one(&stage).await;
    cancel_many(&stage.record, &[id], &By::OPERATOR, "by hand")
        .await
        .unwrap();
    retry_many(&stage.record, &[id], &By::OPERATOR)
        .await
        .unwrap();
    let late = [settled(id, 1, "a", completed())];
    assert!(settle_many(&stage.record, &late).await.unwrap().is_empty());
    mark_running(&stage.record, "a", &[running(id, 1)])
        .await
        .unwrap();
    assert_eq!(stage.status(id).await, "pending");
    assert_eq!(run_again(&stage, "b", id, 2).await.lease_losses, 0);
}

#[tokio::test]
async fn an_adopted_job_brings_its_failures_along_and_no_lost_lease() {
    let stage = Stage::new().await;
    let queue = QueueName::default();
    let adopt = async |wire_id: &str, attempts_made, starts| {
        let id = record_id("bull", &queue, wire_id, 5);
        let job = ForeignJob::new(id, wire_id.into(), &queue, "mail", "not json")
            .with_numbers(0, 3)
            .with_history(attempts_made, 5);
        adopt_many(&stage.record, std::slice::from_ref(&job))
            .await
            .unwrap();
        adopt_many(&stage.record, &[job]).await.unwrap();
        (id, run_again(&stage, "a", id, starts).await)
    };
    // A foreign worker failed it twice.
    let (id, restarted) = adopt("1", 2, 3).await;
    assert_eq!(
        (
            restarted.attempt,
            restarted.attempts,
            restarted.max_attempts
        ),
        (3, 2, 3)
    );
    assert_eq!(restarted.lease_losses, 0);
    assert!(stage.history(id).await.is_empty());
    let row = stage.row(id).await;
    assert_eq!((row.payload, row.priority), (json!("not json"), 10));
    // Started before, by whomever, or put back unrun: of a foreign job no lost lease of ours.
    let (id, restarted) = adopt("2", 0, 2).await;
    assert_eq!((restarted.attempt, restarted.lease_losses), (2, 0));
    assert!(stage.history(id).await.is_empty());
    assert_eq!(
        stage.count("bullwark.stragglers").await,
        2,
        "their ids follow no clock"
    );
}
