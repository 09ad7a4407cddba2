//! Delays: nobody starts a job before it is due.

use std::sync::Arc;

use serde_json::json;

use crate::node::{NodeEvents, NodeQueue};
use crate::sides::{Client, Pair, Producer, Running, in_pairs, pairs};
use crate::stage::Stage;
use crate::steps::steps;

const DELAY_MS: i64 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_job_starts_when_it_is_due() {
    in_pairs(pairs(), delayed).await;
}

async fn delayed(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let producer = Producer::open(&stage, adds, &queue).await;
    let seen = NodeQueue::open(&stage, 6, &queue).await;
    // Asleep already when the job comes: the marker alone tells it when to look.
    let worker = Running::start(&stage, works, &queue, 2).await;
    let id = producer.add(steps(&[]), json!({ "delay": DELAY_MS })).await;
    seen.until_state(&id, "completed").await;
    let job = seen.get(&id).await;
    let waited = job["processedOn"].as_i64().unwrap() - job["timestamp"].as_i64().unwrap();
    assert!(waited >= DELAY_MS, "{queue}: {waited} ms, not {DELAY_MS}");
    worker.stop().await;
}

/// A job that puts itself off spends no attempt. The Rust port has no call for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_may_put_itself_off() {
    let can = |pair: &Pair| pair.1 != Client::Rust;
    in_pairs(pairs().into_iter().filter(can).collect(), puts_itself_off).await;
}

async fn puts_itself_off(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let producer = Producer::open(&stage, adds, &queue).await;
    let events = NodeEvents::open(&stage, 6, &queue).await;
    let seen = NodeQueue::open(&stage, 6, &queue).await;
    let worker = Running::start(&stage, works, &queue, 2).await;
    let id = producer
        .add(steps(&[json!({ "delay": 200 })]), json!({ "attempts": 1 }))
        .await;
    seen.until_state(&id, "completed").await;
    events.until("completed", &id).await;
    let job = seen.get(&id).await;
    assert_eq!(job["attemptsMade"], 1, "{queue} {job}");
    assert_eq!(job["attemptsStarted"], 2, "{queue} {job}");
    let of_job = events.of(&id);
    assert!(of_job.contains(&"delayed".to_owned()), "{queue} {of_job:?}");
    assert!(!of_job.contains(&"failed".to_owned()), "{queue} {of_job:?}");
    worker.stop().await;
}
