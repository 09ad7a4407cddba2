//! What the package's `QueueEvents` hears of jobs that Bullwark adds and runs.

use serde_json::json;

use crate::node::{NodeEvents, NodeQueue};
use crate::sides::{Client, Producer, Running};
use crate::stage::Stage;
use crate::steps::steps;

const QUEUE: &str = "heard";

#[tokio::test(flavor = "multi_thread")]
async fn queue_events_hears_a_whole_life() {
    let stage = Stage::new().await;
    let listeners = [
        NodeEvents::open(&stage, 5, QUEUE).await,
        NodeEvents::open(&stage, 6, QUEUE).await,
    ];
    let producer = Producer::open(&stage, Client::Bullwark, QUEUE).await;
    let lives = steps(&[
        json!({ "progress": 40 }),
        json!({ "sleep": 300 }),
        json!({ "fail": "once", "times": 1 }),
        json!({ "return": { "at": "last" } }),
    ]);
    let opts = json!({ "attempts": 2, "backoff": { "type": "fixed", "delay": 50 } });
    let id = producer.add(lives, opts).await;
    let worker = Running::start(&stage, Client::Bullwark, QUEUE, 1).await;
    for events in listeners {
        let completed = events.until("completed", &id).await;
        assert_eq!(completed["returnvalue"], json!({ "at": "last" }));
        assert_eq!(completed["prev"], "active");
        let mut lived = events.of(&id);
        // Written behind, and at most four times a second.
        lived.retain(|name| name != "progress");
        let expected = [
            "added",
            "waiting",
            "active",
            "delayed",
            "waiting",
            "active",
            "completed",
        ];
        assert_eq!(lived, expected);
        let progress = events.until("progress", &id).await;
        assert_eq!(progress["data"]["percentage"], 40.0);
        events.until_named("drained").await;
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_producer_waits_for_the_end_of_a_job_that_bullwark_runs() {
    let stage = Stage::new().await;
    for version in [5, 6] {
        let queue = format!("awaited{version}");
        let producer = NodeQueue::open(&stage, version, &queue).await;
        let events = NodeEvents::open(&stage, version, &queue).await;
        let good = producer
            .add(steps(&[json!({ "return": 7 })]), json!({}))
            .await;
        let bad = producer
            .add(steps(&[json!({ "fatal": "sorry" })]), json!({}))
            .await;
        let worker = Running::start(&stage, Client::Bullwark, &queue, 2).await;

        let args = json!([{ "$thing": events.handle }, 20_000]);
        let value = producer.job(&good, "waitUntilFinished", args.clone()).await;
        assert_eq!(value, 7);
        let thrown = producer.try_job(&bad, "waitUntilFinished", args).await;
        assert_eq!(thrown.unwrap_err().message, "sorry");
        worker.stop().await;
    }
}
