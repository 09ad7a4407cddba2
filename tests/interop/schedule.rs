//! Job schedulers: whoever picks an iteration up makes the next one.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::node::{NodeEvents, NodeQueue};
use crate::sides::{Client, Pair, Running, in_pairs};
use crate::stage::Stage;
use crate::steps::{ACT, steps};
use crate::wait::eventually;

const EVERY_MS: i64 = 250;

fn schedule_pairs() -> Vec<Pair> {
    use Client::{Bullwark, Forward, Node5, Node6};
    let mut pairs = vec![(Node5, Node5), (Node6, Node6)];
    for works in [Bullwark, Forward] {
        pairs.extend([Node5, Node6].map(|adds| (adds, works)));
    }
    pairs
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_of_an_iteration_makes_the_next_one() {
    in_pairs(schedule_pairs(), ticks).await;
}

async fn ticks(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let version = if adds == Client::Node5 { 5 } else { 6 };
    let producer = NodeQueue::open(&stage, version, &queue).await;
    let events = NodeEvents::open(&stage, 6, &queue).await;
    let template = json!({ "name": ACT, "data": steps(&[json!({ "return": "tick" })]) });
    let rule = json!({ "every": EVERY_MS });
    producer
        .call("upsertJobScheduler", json!(["tick", rule, template]))
        .await;
    let worker = Running::start(&stage, works, &queue, 2).await;
    let ends = eventually("four ticks", async || {
        let ends = events.named("completed");
        (ends.len() >= 4).then_some(ends)
    });
    let ends = ends.await;
    let schedulers = producer.call("getJobSchedulers", json!([])).await;
    assert_eq!(schedulers[0]["key"], "tick", "{queue} {schedulers}");
    assert_eq!(schedulers[0]["every"], EVERY_MS, "{queue} {schedulers}");
    producer.call("removeJobScheduler", json!(["tick"])).await;
    let mut slots: Vec<i64> = ends.iter().map(slot_of).collect();
    slots.sort_unstable();
    for pair in slots.windows(2) {
        // A slow machine may skip slots, but it never leaves the grid and never repeats one.
        let apart = pair[1] - pair[0];
        assert!(apart > 0 && apart % EVERY_MS == 0, "{queue} {slots:?}");
    }
    worker.stop().await;
}

/// `repeat:tick:<ms>`.
fn slot_of(args: &Value) -> i64 {
    let id = args["jobId"].as_str().unwrap();
    id.rsplit(':').next().unwrap().parse().unwrap()
}
