//! Committing outcomes: who has a say, once, and what is written besides the status.

use std::time::Duration;

use bullwark::job::{Ending, JobError};
use bullwark::record::settle::{settle_many, settled_as};
use bullwark::record::start::mark_running;
use serde_json::json;
use uuid::Uuid;

use crate::stage::{
    Stage, completed, discarded, failed, ids, job, rule, running, settled, snoozed, some_jobs,
};

/// A job whose attempt `attempt` runs at worker `a`.
async fn running_job(stage: &Stage, attempt: i32) -> Uuid {
    let job = job();
    stage.insert(std::slice::from_ref(&job)).await;
    mark_running(&stage.record, "a", &[running(job.id, attempt)])
        .await
        .unwrap();
    job.id
}

#[tokio::test]
async fn only_the_newest_attempt_at_its_own_worker_has_a_say() {
    let stage = Stage::new().await;
    for outcome in [completed(), failed("x")] {
        let id = running_job(&stage, 3).await;
        for (attempt, worker) in [(2, "a"), (0, "a"), (3, "b")] {
            let batch = [settled(id, attempt, worker, outcome.clone())];
            let accepted = settle_many(&stage.record, &batch).await.unwrap();
            assert!(accepted.is_empty(), "{attempt} {worker}");
        }
        assert_eq!(stage.status(id).await, "processing");
        assert!(stage.history(id).await.is_empty());

        let batch = [settled(id, 3, "a", outcome.clone())];
        assert!(
            settle_many(&stage.record, &batch)
                .await
                .unwrap()
                .contains(&id)
        );
        let before = serde_json::to_value(stage.row(id).await).unwrap();
        let again = settle_many(&stage.record, &batch).await.unwrap();
        assert!(again.is_empty(), "an attempt is settled once");
        let after = serde_json::to_value(stage.row(id).await).unwrap();
        assert_eq!(before, after);
    }
}

#[tokio::test]
async fn a_newer_attempt_settles_although_its_start_was_not_noted() {
    let stage = Stage::new().await;
    let job = job();
    stage.insert(std::slice::from_ref(&job)).await;
    let batch = [settled(job.id, 1, "a", completed())];
    assert_eq!(settle_many(&stage.record, &batch).await.unwrap().len(), 1);
    let row = stage.row(job.id).await;
    assert_eq!(
        (row.status.as_str(), row.worker_id.as_deref()),
        ("completed", Some("a"))
    );
    assert_eq!(row.result, Some(json!({"ok": true})));
    assert!(row.started_at.is_some() && row.completed_at.is_some());
    assert_eq!(stage.attempt(job.id).await, 1);
}

#[tokio::test]
async fn what_is_over_stays_over() {
    let stage = Stage::new().await;
    for status in ["completed", "dead_letter", "cancelled"] {
        let id = running_job(&stage, 1).await;
        stage
            .execute(format!(
                "UPDATE jobs SET status = '{status}' WHERE id = '{id}'"
            ))
            .await;
        for outcome in [
            completed(),
            failed("x"),
            discarded("x"),
            snoozed(Duration::ZERO),
        ] {
            let batch = [settled(id, 9, "b", outcome)];
            assert!(settle_many(&stage.record, &batch).await.unwrap().is_empty());
        }
        assert_eq!(stage.status(id).await, status);
    }
}

#[tokio::test]
async fn a_mixed_batch_writes_history_and_dead_letters() {
    let stage = Stage::new().await;
    let jobs = some_jobs(5);
    stage.insert(&jobs).await;
    let ids = ids(&jobs);
    let retry = Ending::Error(JobError::RetryAfter(Duration::from_secs(90), "429".into()));
    let batch = [
        settled(ids[4], 1, "a", snoozed(Duration::from_secs(30))),
        settled(ids[0], 1, "a", completed()),
        settled(ids[1], 1, "a", retry.settle(&rule(0, 5), 0.0).unwrap()),
        settled(ids[2], 1, "a", discarded("hopeless")),
        settled(
            ids[3],
            1,
            "a",
            Ending::Interrupted.settle(&rule(2, 5), 0.0).unwrap(),
        ),
    ];
    assert_eq!(settle_many(&stage.record, &batch).await.unwrap().len(), 5);

    assert_eq!(stage.status(ids[0]).await, "completed");
    let failed = stage.row(ids[1]).await;
    assert_eq!((failed.status.as_str(), failed.attempts), ("failed", 1));
    assert_eq!(failed.error_message.as_deref(), Some("429"));
    let wait = failed.next_retry_at.unwrap() - failed.failed_at.unwrap();
    assert_eq!(wait.num_seconds(), 90, "by the record's clock");
    let dead = stage.row(ids[2]).await;
    assert_eq!((dead.status.as_str(), dead.attempts), ("dead_letter", 0));
    assert!(dead.next_retry_at.is_none() && dead.failed_at.is_some());
    let released = stage.row(ids[3]).await;
    assert_eq!(
        (released.status.as_str(), released.attempts),
        ("pending", 2)
    );
    let snoozed = stage.row(ids[4]).await;
    assert_eq!((snoozed.status.as_str(), snoozed.attempts), ("pending", 0));
    assert!(snoozed.scheduled_for.unwrap() > snoozed.created_at + Duration::from_secs(29));

    assert_eq!(stage.history(ids[1]).await, [(1, "failed".to_owned())]);
    assert_eq!(stage.history(ids[2]).await, [(1, "dead_letter".to_owned())]);
    assert_eq!(stage.count("job_failures").await, 2);
    let buried: Uuid = stage
        .scalar("SELECT job_id FROM bullwark.dead_letters".into())
        .await;
    assert_eq!(buried, ids[2]);
}

#[tokio::test]
async fn failures_never_exceed_the_retries_allowed() {
    let stage = Stage::new().await;
    let mut job = job();
    job.max_attempts = 2;
    stage.insert(std::slice::from_ref(&job)).await;
    let mut attempts = 0;
    for attempt in 1..=3 {
        let ending = Ending::Error(JobError::retry("boom"));
        let outcome = ending.settle(&rule(attempts, 2), 0.0).unwrap();
        attempts = outcome.attempts;
        let batch = [settled(job.id, attempt, "a", outcome)];
        assert_eq!(settle_many(&stage.record, &batch).await.unwrap().len(), 1);
    }
    let row = stage.row(job.id).await;
    assert_eq!((row.status.as_str(), row.attempts), ("dead_letter", 2));
    assert_eq!(stage.history(job.id).await.len(), 3);
}

#[tokio::test]
async fn a_batch_in_two_orders_at_once_does_not_deadlock() {
    let stage = Stage::new().await;
    let jobs = some_jobs(400);
    stage.insert(&jobs).await;
    let rows = |worker: &'static str, outcome: &dyn Fn() -> bullwark::job::Outcome| {
        let row = |job: &bullwark::job::NewJob| settled(job.id, 1, worker, outcome());
        jobs.iter().map(row).collect::<Vec<_>>()
    };
    let (forward, mut backward) = (rows("a", &completed), rows("b", &|| failed("x")));
    backward.reverse();
    let (first, second) = tokio::join!(
        settle_many(&stage.record, &forward),
        settle_many(&stage.record, &backward)
    );
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.len() + second.len(), 400);
    assert!(first.is_disjoint(&second), "each attempt is settled once");
}

#[tokio::test]
async fn who_lost_the_answer_to_a_commit_can_ask_what_it_did() {
    let stage = Stage::new().await;
    let jobs = some_jobs(4);
    stage.insert(&jobs).await;
    let ids = ids(&jobs);
    let batch = [
        settled(ids[0], 1, "a", completed()),
        settled(ids[1], 1, "a", failed("x")),
    ];
    settle_many(&stage.record, &batch).await.unwrap();
    mark_running(&stage.record, "a", &[running(ids[2], 1)])
        .await
        .unwrap();

    let asked = [
        settled(ids[0], 1, "a", completed()),
        settled(ids[1], 1, "a", completed()),
        settled(ids[2], 1, "a", completed()),
        settled(ids[3], 1, "a", completed()),
    ];
    let known = settled_as(&stage.record, &asked).await.unwrap();
    assert_eq!(known.into_iter().collect::<Vec<_>>(), [ids[0]]);
    let stranger = [settled(ids[0], 1, "b", completed())];
    assert!(
        settled_as(&stage.record, &stranger)
            .await
            .unwrap()
            .is_empty()
    );
}
