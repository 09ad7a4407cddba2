//! Job schedulers: whoever picks an iteration up makes the next one.

use std::sync::Arc;

use bullwark::control;
use bullwark::job::schedule::{Schedule, Template};
use bullwark::record::access::By;
use serde_json::{Value, json};

use crate::node::{NodeEvents, NodeQueue};
use crate::sides::{Client, Pair, Running, in_pairs};
use crate::stage::Stage;
use crate::steps::{ACT, steps};
use crate::wait::eventually;

const EVERY_MS: i64 = 250;

fn schedule_pairs() -> Vec<Pair> {
    use Client::{Bullwark, Forward, Node5, Node6, Python, Rust};
    let mut pairs = vec![(Node5, Node5), (Node6, Node6)];
    for works in [Bullwark, Forward] {
        pairs.extend([Node5, Node6, Bullwark].map(|adds| (adds, works)));
    }
    pairs.extend([Node5, Node6, Python, Rust].map(|works| (Bullwark, works)));
    pairs
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_of_an_iteration_makes_the_next_one() {
    in_pairs(schedule_pairs(), ticks).await;
}

async fn ticks(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let version = if adds == Client::Node5 { 5 } else { 6 };
    let seen = NodeQueue::open(&stage, version, &queue).await;
    let events = NodeEvents::open(&stage, 6, &queue).await;
    let data = steps(&[json!({ "return": "tick" })]);
    if adds == Client::Bullwark {
        let template = Template {
            name: ACT.to_owned(),
            data: data.to_string(),
            opts: "{}".to_owned(),
        };
        let schedule = Schedule::every(EVERY_MS as u64);
        let queue = queue.parse().unwrap();
        let record = &stage.app.record;
        let made = control::upsert_schedule(
            record,
            stage.broker(),
            &queue,
            "tick",
            &schedule,
            &template,
            &By::OPERATOR,
        );
        made.await.unwrap();
    } else {
        let template = json!({ "name": ACT, "data": data });
        let args = json!(["tick", { "every": EVERY_MS }, template]);
        seen.call("upsertJobScheduler", args).await;
    }
    let worker = Running::start(&stage, works, &queue, 2).await;
    let ends = eventually("four ticks", async || {
        let ends = events.named("completed");
        (ends.len() >= 4).then_some(ends)
    });
    let ends = ends.await;
    let schedulers = seen.call("getJobSchedulers", json!([])).await;
    assert_eq!(schedulers[0]["key"], "tick", "{queue} {schedulers}");
    assert_eq!(schedulers[0]["every"], EVERY_MS, "{queue} {schedulers}");
    if adds == Client::Bullwark {
        let (record, queue) = (&stage.app.record, queue.parse().unwrap());
        let removed =
            control::remove_schedule(record, stage.broker(), &queue, "tick", &By::OPERATOR);
        removed.await.unwrap();
        let left = seen.call("getJobSchedulers", json!([])).await;
        assert_eq!(left, json!([]), "{queue}");
    } else {
        seen.call("removeJobScheduler", json!(["tick"])).await;
    }
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
