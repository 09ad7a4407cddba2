//! How a worker stops.

use std::time::Duration;

use serde_json::json;

use super::probe::What;
use super::rig::{Rig, within};
use super::script::{Act, scripted, succeed, wait};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_worker_claims_nothing_and_lets_running_jobs_finish() {
    let rig = Rig::new().await;
    let worker = rig.work(|options| options.slots = 4);
    let running = rig
        .enqueue(scripted("running", &[&[wait("go"), succeed(json!(1))]]))
        .await;
    rig.probe.starts(1).await;
    worker.stop.cancel();
    let next = rig.enqueue(scripted("next", &[&[]])).await;
    rig.until_redis(next, "Prioritized").await;
    assert!(!worker.ended.is_cancelled());
    rig.probe.open("go");
    worker.stop().await;
    // Committed before the worker said that it had ended.
    assert_eq!(rig.job(running).await.status, "completed");
    assert_eq!(rig.redis_state(running).await.as_deref(), Some("Completed"));
    assert_eq!(rig.job(next).await.status, "pending");
    assert_eq!(rig.probe.started(), ["running"]);
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_too_long_goes_back_without_spending_an_attempt() {
    let rig = Rig::new().await;
    let first = rig.work(|options| options.shutdown_limit = Duration::from_millis(200));
    let obedient = rig
        .enqueue(scripted("obedient", &[&[wait("never")], &[]]))
        .await;
    let stubborn = Act::Stubborn {
        gate: "never".into(),
    };
    let stubborn = rig.enqueue(scripted("stubborn", &[&[stubborn], &[]])).await;
    rig.probe.starts(2).await;
    first.stop().await;
    for id in [obedient, stubborn] {
        let job = rig.job(id).await;
        assert_eq!((job.status.as_str(), job.attempts), ("pending", 0));
        assert_eq!(rig.redis_state(id).await.as_deref(), Some("Prioritized"));
    }
    assert_eq!(
        rig.probe
            .notes()
            .iter()
            .filter(|note| note.what == What::Gone)
            .count(),
        2
    );
    rig.agree().await;

    let second = rig.work(|_| {});
    for id in [obedient, stubborn] {
        let job = rig.until(id, "completed").await;
        assert_eq!(
            (job.attempts, job.worker_id),
            (0, Some(second.worker_id.clone()))
        );
        assert!(
            rig.failures(id).await.is_empty(),
            "going back is no failure"
        );
    }
    second.stop().await;
    rig.agree().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hurried_worker_does_not_wait_for_the_limit() {
    let rig = Rig::new().await;
    let worker = rig.work(|_| {});
    let id = rig.enqueue(scripted("a", &[&[wait("never")]])).await;
    rig.probe.starts(1).await;
    worker.hurry.cancel();
    within("the end", worker.stop()).await;
    assert_eq!(rig.job(id).await.status, "pending");
    rig.close().await;
}

/// Two threads, one of them held by a handler that never yields: the worker still ends, its other
/// jobs are settled, and the job itself is left to its lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_blocks_its_thread_does_not_block_the_shutdown() {
    let rig = Rig::new().await.with_upkeep();
    let worker = rig.work(|options| {
        options.lease = Duration::from_secs(1);
        options.shutdown_limit = Duration::from_millis(100);
    });
    let block = Act::Block {
        gate: "unblock".into(),
    };
    let blocked = rig.enqueue(scripted("blocked", &[&[block], &[]])).await;
    rig.probe.starts(1).await;
    let other = rig
        .enqueue(scripted("other", &[&[wait("never")], &[]]))
        .await;
    rig.probe.starts(2).await;
    worker.stop().await;
    assert_eq!(rig.job(other).await.status, "pending");

    let second = rig.work(|_| {});
    rig.until(other, "completed").await;
    rig.until(blocked, "completed").await;
    let failures = rig.failures(blocked).await;
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].outcome, "lease_lost");
    rig.probe.open("unblock");
    rig.probe.saw("blocked", |what| *what == What::Gone).await;
    second.stop().await;
    rig.agree().await;
    rig.close().await;
}
