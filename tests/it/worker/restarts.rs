//! Jobs that were started before: the record decides, and its history says what happened.

use std::time::Duration;

use bullwark::broker::{ClaimOptions, Retry};
use bullwark::clock;
use bullwark::control;
use bullwark::job::{Backoff, Event, Outcome, QueueName, Telling};
use bullwark::record::access::By;
use bullwark::record::restart::{Asked, Restart, restart_many};
use bullwark::record::settle::{SettledAttempt, settle_many};
use serde_json::json;

use super::rig::{Rig, eventually};
use super::script::{Act, fail, scripted, succeed, wait};

fn outcomes(failures: &[bullwark::record::jobs::FailureRow]) -> Vec<(i32, &str)> {
    failures
        .iter()
        .map(|f| (f.attempt, f.outcome.as_str()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_by_hand_is_no_lost_lease() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let permanent = Act::Permanent {
        message: "wrong key".into(),
    };
    let id = rig.enqueue(scripted("a", &[&[permanent], &[]])).await;
    rig.until(id, "dead_letter").await;
    rig.until_redis(id, "Failed").await;
    let (record, broker) = (&rig.app.record, &rig.app.broker);
    let retried = control::retry(record, broker, &[id], &By::OPERATOR)
        .await
        .unwrap();
    assert_eq!(retried, [id]);
    rig.until(id, "completed").await;
    let failures = rig.failures(id).await;
    assert_eq!(outcomes(&failures), [(1, "dead_letter")]);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

/// A start that is being checked must not be noted as running meanwhile: the check would then see
/// a lost lease. The journal has its chance in each of these restarts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_start_is_noted_while_the_record_is_asked() {
    let rig = Rig::new().await;
    let mut ids = Vec::new();
    for n in 0..200 {
        let mut request = scripted(&format!("{n}"), &[&[fail("boom")]]);
        request.backoff = Some(Backoff::None);
        ids.push(rig.enqueue(request).await);
    }
    let worker = rig.work(|_| {});
    for id in &ids {
        rig.until(*id, "dead_letter").await;
    }
    for id in ids {
        let failures = rig.failures(id).await;
        let expected: Vec<_> = (1..=5)
            .map(|n| (n, "failed"))
            .chain([(6, "dead_letter")])
            .collect();
        assert_eq!(outcomes(&failures), expected);
    }
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

/// A row that somebody else has locked for long must not hold up its neighbours of the same claim.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_job_is_put_back_and_its_neighbours_run() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let locked = rig
        .enqueue(scripted("locked", &[&[fail("boom")], &[]]))
        .await;
    let free = rig.enqueue(scripted("free", &[&[fail("boom")], &[]])).await;
    // Not "failed" before it: that is passed in the blink of a backoff, and may never be seen.
    rig.until(free, "completed").await;
    rig.until(locked, "completed").await;
    // Retried by hand, so that both are checked in one batch.
    let mut tx = rig.app.record.begin().await.unwrap();
    let (record, broker) = (&rig.app.record, &rig.app.broker);
    worker.stop().await;
    let mut retried = control::retry(record, broker, &[locked, free], &By::OPERATOR)
        .await
        .unwrap();
    retried.sort();
    assert_eq!(retried, [locked, free]);
    sqlx::query("SELECT 1 FROM jobs WHERE id = $1 FOR UPDATE")
        .bind(locked)
        .execute(tx.connection())
        .await
        .unwrap();
    let worker = rig.work(|_| {});
    rig.until(free, "completed").await;
    assert_eq!(rig.probe.starts_of("locked"), 2);
    tx.rollback().await.unwrap();
    rig.until(locked, "completed").await;
    for id in [locked, free] {
        assert_eq!(outcomes(&rig.failures(id).await), [(1, "failed")]);
    }
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

/// The commit went through, its answer was lost: asked again, the same start is not a lost lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_twice_about_one_start_is_no_lost_lease() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let id = rig
        .enqueue(scripted("a", &[&[Act::Snooze { ms: 3_600_000 }]]))
        .await;
    rig.until_redis(id, "Delayed").await;
    worker.stop().await;
    rig.sql("UPDATE jobs SET scheduled_for = now()").await;
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let mut answers = restart_many(&rig.app.record, "w", &[Asked::new(id, 2)])
            .await
            .unwrap();
        let Restart::Run(restarted) = answers.remove(0) else {
            panic!("{answers:?}")
        };
        assert_eq!(restarted.lease_losses, 0);
        numbers.push(restarted.attempt);
    }
    assert!(numbers[0] < numbers[1], "the first is fenced: {numbers:?}");
    assert!(rig.failures(id).await.is_empty());
    // Another worker that is given the job is another matter.
    let mut answers = restart_many(&rig.app.record, "v", &[Asked::new(id, 3)])
        .await
        .unwrap();
    let Restart::Run(restarted) = answers.remove(0) else {
        panic!("{answers:?}")
    };
    assert_eq!(restarted.lease_losses, 1);
    assert_eq!(
        outcomes(&rig.failures(id).await),
        [(numbers[1], "lease_lost")]
    );
    rig.close().await;
}

/// A person who promotes a retry on a dashboard wants it to run now, and it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_is_promoted_runs_before_it_is_due() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let id = rig
        .enqueue(scripted("a", &[&[Act::RetryAfter { ms: 3_600_000 }], &[]]))
        .await;
    rig.until(id, "failed").await;
    rig.until_redis(id, "Delayed").await;
    let queue = QueueName::default();
    rig.app
        .broker
        .promote(&queue, &[id.to_string()])
        .await
        .unwrap();
    rig.until(id, "completed").await;
    assert_eq!(rig.probe.starts_of("a"), 2);
    assert_eq!(outcomes(&rig.failures(id).await), [(1, "failed")]);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

/// The retry is in the record, but Redis was not told of it: handed out at once by the rescue, the
/// job goes back until it is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_redis_was_not_told_of_is_put_back_and_runs_when_it_is_due() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let id = rig
        .enqueue(scripted("a", &[&[Act::RetryAfter { ms: 3_600_000 }], &[]]))
        .await;
    rig.until(id, "failed").await;
    rig.until_redis(id, "Delayed").await;
    let queue = QueueName::default();
    for starts in 2..=3 {
        let key = |suffix: &str| format!("{}:default:{suffix}", rig.app.config.prefix);
        let _: () = redis::pipe()
            .hset(key(&id.to_string()), "atm", 0)
            .zrem(key("delayed"), id.to_string())
            .rpush(key("wait"), id.to_string())
            .zadd(key("marker"), "0", 0)
            .query_async(&mut rig.redis().await)
            .await
            .unwrap();
        let back = async || {
            let ats = rig.hash("default", id, "ats").await?;
            (ats == starts.to_string() && rig.redis_state(id).await? == "Delayed").then_some(())
        };
        eventually("the job to be put back", back).await;
    }
    assert_eq!(rig.probe.starts_of("a"), 1);
    rig.sql("UPDATE jobs SET next_retry_at = now()").await;
    rig.app
        .broker
        .promote(&queue, &[id.to_string()])
        .await
        .unwrap();
    rig.until(id, "completed").await;
    assert_eq!(outcomes(&rig.failures(id).await), [(1, "failed")]);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

/// Law 5: the record has the outcome, Redis was not told, the worker is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_over_in_the_record_is_finished_in_redis_without_a_run() {
    let rig = Rig::new().await.with_upkeep();
    let mut ids = Vec::new();
    for name in ["done", "dead"] {
        ids.push(rig.enqueue(scripted(name, &[&[]])).await);
    }
    let queue = QueueName::default();
    let options = ClaimOptions {
        token: "bullwark:gone:0".to_owned(),
        max: 2,
        lease: Duration::from_millis(300),
        worker_name: None,
        ..Default::default()
    };
    let claim = async || {
        let claimed = rig.app.broker.claim(&queue, &options).await.unwrap();
        (!claimed.jobs.is_empty()).then_some(claimed.jobs.len())
    };
    let mut claimed = 0;
    while claimed < 2 {
        claimed += eventually("both jobs", claim).await;
    }
    let settled = |id, event, result: Option<&str>, error: Option<&str>| SettledAttempt {
        id,
        attempt: 1,
        worker_id: "gone".to_owned(),
        started_at: clock::now(),
        outcome: Outcome {
            event,
            result: result.map(str::to_owned),
            error: error.map(str::to_owned),
            delay: Duration::ZERO,
            attempts: 0,
            stack: None,
            telling: Telling::Event,
        },
    };
    let batch = [
        settled(ids[0], Event::Succeeded, Some(r#"{"kept":1}"#), None),
        settled(ids[1], Event::Discarded, None, Some("hopeless")),
    ];
    let accepted = settle_many(&rig.app.record, &batch).await.unwrap();
    assert_eq!(accepted.len(), 2);

    let worker = rig.work(|_| {});
    rig.until_redis(ids[0], "Completed").await;
    rig.until_redis(ids[1], "Failed").await;
    assert_eq!(rig.probe.started(), Vec::<String>::new());
    let kept = rig.hash("default", ids[0], "returnvalue").await.unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&kept).unwrap(),
        json!({ "kept": 1 })
    );
    assert_eq!(
        rig.hash("default", ids[1], "failedReason").await.as_deref(),
        Some("hopeless")
    );
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

/// Redis hands out a job whose run this worker has just ended, before the outcome is committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_outcome_is_under_way_does_not_run_again() {
    let rig = Rig::new().await.with_upkeep();
    let worker = rig.work(|options| options.lease = Duration::from_secs(2));
    let id = rig
        .enqueue(scripted("a", &[&[wait("go"), succeed(json!(1))]]))
        .await;
    rig.probe.starts(1).await;
    rig.until(id, "processing").await;
    // Nothing can be settled while somebody holds the row.
    let mut tx = rig.app.record.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM jobs WHERE id = $1 FOR UPDATE")
        .bind(id)
        .execute(tx.connection())
        .await
        .unwrap();
    rig.probe.open("go");
    rig.probe
        .saw("a", |what| *what == super::probe::What::Gone)
        .await;
    // As if the lease had ended: the job goes back and is claimed again by the same worker.
    let mut redis = rig.redis().await;
    let key = format!("{}:default:{id}:lock", rig.app.config.prefix);
    let _: () = redis::cmd("SET")
        .arg(key)
        .arg("mine")
        .query_async(&mut redis)
        .await
        .unwrap();
    let retry = Retry {
        id: id.to_string(),
        token: "mine".to_owned(),
        delay_ms: 0,
        reason: String::new(),
        stacktrace: String::new(),
        count_attempt: false,
        lifo: false,
    };
    rig.app
        .broker
        .retry(&QueueName::default(), &[retry])
        .await
        .unwrap();
    let again = async || (rig.hash("default", id, "ats").await? == "2").then_some(());
    eventually("the second claim", again).await;
    tx.rollback().await.unwrap();
    rig.until(id, "completed").await;
    rig.until_redis(id, "Completed").await;
    assert_eq!(rig.probe.starts_of("a"), 1);
    assert!(rig.failures(id).await.is_empty());
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}
