//! Failures: tried again at once, later, or not at all.

use std::sync::Arc;

use serde_json::json;

use crate::node::{NodeEvents, NodeQueue};
use crate::sides::{Client, Pair, Producer, Running, in_pairs, pairs};
use crate::stage::Stage;
use crate::steps::steps;
use crate::wait::eventually;

const DELAY_MS: i64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_runs_again_after_its_backoff() {
    in_pairs(pairs(), retries).await;
}

async fn retries(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let producer = Producer::open(&stage, adds, &queue).await;
    let worker = Running::start(&stage, works, &queue, 5).await;
    let seen = NodeQueue::open(&stage, 6, &queue).await;
    let fail_twice = || steps(&[json!({ "fail": "boom", "times": 2 })]);
    let mut jobs = Vec::new();
    for (kind, waits) in [("fixed", DELAY_MS * 2), ("exponential", DELAY_MS * 3)] {
        let backoff = json!({ "type": kind, "delay": DELAY_MS });
        let opts = json!({ "attempts": 3, "backoff": backoff });
        jobs.push((producer.add(fail_twice(), opts).await, waits));
    }
    let at_once = producer.add(fail_twice(), json!({ "attempts": 3 })).await;
    jobs.push((at_once, 0));
    for (id, waits) in jobs {
        seen.until_state(&id, "completed").await;
        let job = seen.get(&id).await;
        assert_eq!(job["attemptsMade"], 3, "{queue} {job}");
        // A start that the record finds too early is put back, and counted.
        let starts = job["attemptsStarted"].as_i64().unwrap();
        let is_exact = works != Client::Bullwark;
        assert!(starts == 3 || (starts > 3 && !is_exact), "{queue} {job}");
        // The Rust port keeps neither for an attempt that is not the last; of Bullwark's own jobs
        // the record keeps all, Redis the last.
        if works != Client::Rust {
            assert_eq!(job["failedReason"], "boom", "{queue} {job}");
            let traces = job["stacktrace"].as_array().unwrap().len();
            let is_own = adds == Client::Bullwark && works == Client::Bullwark;
            assert_eq!(traces, if is_own { 1 } else { 2 }, "{queue} {job}");
        }
        let took = job["finishedOn"].as_i64().unwrap() - job["timestamp"].as_i64().unwrap();
        assert!(took >= waits, "{queue}: {took} ms, not {waits}");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_fails_when_its_attempts_are_used_up() {
    in_pairs(pairs(), exhausted).await;
}

async fn exhausted(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let producer = Producer::open(&stage, adds, &queue).await;
    let events = NodeEvents::open(&stage, 6, &queue).await;
    let worker = Running::start(&stage, works, &queue, 5).await;
    let seen = NodeQueue::open(&stage, 6, &queue).await;
    let always = steps(&[json!({ "fail": "no luck" })]);
    let spent = producer.add(always, json!({ "attempts": 2 })).await;
    let fatal = steps(&[json!({ "fatal": "hopeless" })]);
    let fatal = producer.add(fatal, json!({ "attempts": 5 })).await;

    for (id, attempts, reason) in [(&spent, 2, "no luck"), (&fatal, 1, "hopeless")] {
        seen.until_state(id, "failed").await;
        let job = seen.get(id).await;
        assert_eq!(job["attemptsMade"], attempts, "{queue} {job}");
        assert_eq!(job["failedReason"], reason, "{queue} {job}");
        assert_eq!(events.until("failed", id).await["failedReason"], reason);
    }
    let exhausted = events.until("retries-exhausted", &spent).await;
    assert_eq!(exhausted["attemptsMade"], "2");
    // What ended before its attempts were used up is not called exhausted.
    assert!(!events.of(&fatal).contains(&"retries-exhausted".to_owned()));
    assert_eq!(
        events
            .of(&spent)
            .iter()
            .filter(|name| *name == "failed")
            .count(),
        1
    );
    worker.stop().await;
}

/// A retry that takes both counts away leaves nothing of the earlier runs in Redis. The record
/// still has them: the job runs once for each retry, not once unseen and once again.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_counts_are_taken_away_runs_once_for_each_retry() {
    use Client::{Bullwark, Node5, Node6};
    in_pairs(
        vec![(Bullwark, Bullwark), (Bullwark, Node6), (Node5, Bullwark)],
        reset,
    )
    .await;
}

const RETRIES: usize = 3;

async fn reset(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    stage.app.start_upkeep(&stage.tasks); // who else tells the record what Node did
    let producer = Producer::open(&stage, adds, &queue).await;
    let events = NodeEvents::open(&stage, 6, &queue).await;
    let worker = Running::start(&stage, works, &queue, 5).await;
    let seen = NodeQueue::open(&stage, 6, &queue).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(producer.add(steps(&[]), json!({})).await);
    }
    let how = json!({ "resetAttemptsMade": true, "resetAttemptsStarted": true });
    for round in 1..=RETRIES {
        for id in &ids {
            until_count(&events, id, "completed", round).await;
            seen.until_state(id, "completed").await;
            stage.until_recorded(&queue, id, "completed").await;
            seen.job(id, "retry", json!(["completed", how])).await;
        }
    }
    // A run that nobody counted leaves the job active, and the stalled check runs it once more.
    for id in &ids {
        until_count(&events, id, "completed", RETRIES + 1).await;
        seen.until_state(id, "completed").await;
        stage.until_recorded(&queue, id, "completed").await;
    }
    for id in &ids {
        let count = |event: &str| events.of(id).iter().filter(|name| *name == event).count();
        assert_eq!(count("active"), RETRIES + 1, "{queue} {:?}", events.of(id));
        assert_eq!(
            count("completed"),
            RETRIES + 1,
            "{queue} {:?}",
            events.of(id)
        );
        assert_eq!(seen.get(id).await["attemptsMade"], 1, "{queue}");
    }
    worker.stop().await;
}

async fn until_count(events: &NodeEvents, id: &str, event: &str, count: usize) {
    eventually(&format!("{count} times {event} of {id}"), async || {
        let heard = events.of(id).iter().filter(|name| *name == event).count();
        (heard >= count).then_some(())
    })
    .await;
}
