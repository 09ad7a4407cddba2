//! Limits of a queue as a whole hold for Bullwark's workers and for Node's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bullwark::job::QueueChange;
use serde_json::json;

use crate::node::{NodeEvents, NodeQueue};
use crate::sides::{Client, Pair, Running, in_pairs};
use crate::stage::Stage;
use crate::steps::steps;

/// Who sets the limit, and who works.
fn works() -> Vec<Pair> {
    use Client::{Bullwark, Node5, Node6};
    vec![
        (Node6, Node6),
        (Node5, Bullwark),
        (Node6, Bullwark),
        (Bullwark, Node5),
        (Bullwark, Node6),
    ]
}

fn version(client: Client) -> u8 {
    if client == Client::Node5 { 5 } else { 6 }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_jobs_run_at_once_than_the_queue_allows() {
    in_pairs(works(), concurrency).await;
}

async fn concurrency(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let producer = NodeQueue::open(&stage, version(adds), &queue).await;
    match adds {
        Client::Bullwark => {
            let change = QueueChange {
                concurrency: Some(Some(2)),
                ..QueueChange::default()
            };
            stage.change_queue(&queue, &change).await;
        }
        _ => drop(producer.call("setGlobalConcurrency", json!([2])).await),
    }
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(
            producer
                .add(steps(&[json!({ "sleep": 50 })]), json!({}))
                .await,
        );
    }
    let events = NodeEvents::open(&stage, 6, &queue).await;
    let worker = Running::start(&stage, works, &queue, 8).await;
    for id in &ids {
        events.until("completed", id).await;
    }
    let (mut running, mut most) = (0, 0);
    for name in events.names() {
        match name.as_str() {
            "active" => running += 1,
            "completed" => running -= 1,
            _ => {}
        }
        most = most.max(running);
    }
    assert_eq!(most, 2, "{queue}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_jobs_start_in_a_while_than_the_queue_allows() {
    in_pairs(works(), rate).await;
}

async fn rate(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let window = Duration::from_millis(500);
    let producer = NodeQueue::open(&stage, version(adds), &queue).await;
    let window_ms = window.as_millis() as u64;
    let args = json!([3, window_ms]);
    match adds {
        Client::Bullwark => {
            let change = QueueChange {
                rate_limit: Some(Some((3, window_ms))),
                ..QueueChange::default()
            };
            stage.change_queue(&queue, &change).await;
        }
        _ => drop(producer.call("setGlobalRateLimit", args).await),
    }
    let mut ids = Vec::new();
    for _ in 0..9 {
        ids.push(producer.add(steps(&[]), json!({})).await);
    }
    let events = NodeEvents::open(&stage, 6, &queue).await;
    let start = Instant::now();
    let worker = Running::start(&stage, works, &queue, 9).await;
    for id in &ids {
        events.until("completed", id).await;
    }
    // Three windows: the last three jobs start after two of them.
    let took = start.elapsed();
    assert!(took >= window * 2, "{queue}: {took:?}");
    worker.stop().await;
}
