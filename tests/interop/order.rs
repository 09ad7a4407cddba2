//! Priorities and LIFO: whoever works takes the jobs in the order that BullMQ promises.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::node::{NodeEvents, NodeQueue};
use crate::sides::{Client, Pair, Producer, Running, in_pairs, pairs};
use crate::stage::Stage;
use crate::steps::steps;

#[tokio::test(flavor = "multi_thread")]
async fn urgent_jobs_go_first_and_equals_in_their_order() {
    in_pairs(pairs(), by_priority).await;
}

async fn by_priority(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let producer = Producer::open(&stage, adds, &queue).await;
    let mut ids = Vec::new();
    for priority in [5, 1, 5, 11, 1] {
        let opts = json!({ "priority": priority });
        ids.push(producer.add(steps(&[]), opts).await);
    }
    let expected = [1, 4, 0, 2, 3].map(|nth| ids[nth].clone());
    started_in_order(&stage, works, &queue, &ids, "prioritized", &expected).await;
}

/// Bullwark's `Enqueue` has no LIFO: its jobs have priorities. Its producer at BullMQ's level has.
#[tokio::test(flavor = "multi_thread")]
async fn lifo_jobs_overtake_those_that_wait() {
    let adds_foreign = |pair: &Pair| pair.0 != Client::Bullwark;
    let mut pairs: Vec<Pair> = pairs().into_iter().filter(adds_foreign).collect();
    use Client::{Bullwark, Linked, Node5, Node6, Python, Rust};
    pairs.extend([Node5, Node6, Python, Rust, Bullwark].map(|works| (Linked, works)));
    in_pairs(pairs, lifo).await;
}

async fn lifo(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let producer = Producer::open(&stage, adds, &queue).await;
    let mut ids = Vec::new();
    for is_lifo in [false, false, true, true] {
        let opts = json!({ "lifo": is_lifo });
        ids.push(producer.add(steps(&[]), opts).await);
    }
    let expected = [3, 2, 0, 1].map(|nth| ids[nth].clone());
    started_in_order(&stage, works, &queue, &ids, "waiting", &expected).await;
}

/// Lets one slot work off what waits in `state`, and looks at the order of the starts.
async fn started_in_order(
    stage: &Arc<Stage>,
    works: Client,
    queue: &str,
    ids: &[String],
    state: &str,
    expected: &[String],
) {
    let seen = NodeQueue::open(stage, 6, queue).await;
    for id in ids {
        seen.until_state(id, state).await;
    }
    let events = NodeEvents::open(stage, 6, queue).await;
    let worker = Running::start(stage, works, queue, 1).await;
    for id in ids {
        seen.until_state(id, "completed").await;
        events.until("completed", id).await;
    }
    let starts: Vec<Value> = events.named("active");
    let starts: Vec<&str> = starts
        .iter()
        .filter_map(|args| args["jobId"].as_str())
        .collect();
    assert_eq!(starts, expected, "{queue}");
    worker.stop().await;
}
