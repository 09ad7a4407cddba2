//! When a forwarding worker says what, and what it never says.

use serde_json::json;

use crate::forwarder::Forwarder;
use crate::node::{NodeQueue, Receiver};
use crate::stage::Stage;
use crate::steps::steps;

const QUEUE: &str = "told";

/// A paused queue gives nothing out and is not empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_jobs_are_held_back_is_not_told_to_be_drained() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let receiver = Receiver::start(6).await;
    queue.call("pause", json!([])).await;
    let id = queue.add(steps(&[]), json!({})).await;
    // Looks at the queue again and again.
    let arguments = ["--drain-delay", "0.05"];
    let mut forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    crate::wait::eventually("the worker to be seen", async || {
        (queue.call("getWorkersCount", json!([])).await == 1).then_some(())
    })
    .await;
    queue.call("resume", json!([])).await;
    forwarder.until("completed", Some(&id)).await;
    forwarder.until("drained", None).await;
    assert_eq!(forwarder.names(), ["active", "completed", "drained"]);
    forwarder.stop().await;
}

/// Nor is one that is at its limiter.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_at_its_limiter_is_told_to_be_drained_once_at_the_end() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let receiver = Receiver::start(6).await;
    let mut last = String::new();
    for _ in 0..3 {
        last = queue.add(steps(&[]), json!({})).await;
    }
    let arguments = ["--limiter", "1/200", "--concurrency", "2"];
    let mut forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    forwarder.until("completed", Some(&last)).await;
    forwarder.until("drained", None).await;
    let names = forwarder.names();
    let drained = names.iter().position(|name| name == "drained").unwrap();
    let active = names[..drained].iter().filter(|name| *name == "active");
    assert_eq!(active.count(), 3, "{names:?}");
    forwarder.stop().await;
}
