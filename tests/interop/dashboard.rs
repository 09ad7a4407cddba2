//! What dashboards see of Bullwark: bull-board's pages, the list of workers, metrics.

use serde_json::{Value, json};

use crate::node::NodeQueue;
use crate::sides::{Client, Producer, Running};
use crate::stage::Stage;
use crate::steps::steps;
use crate::wait::eventually;

const QUEUE: &str = "shown";

#[tokio::test(flavor = "multi_thread")]
async fn bull_board_shows_the_jobs_of_bullwark() {
    let stage = Stage::new().await;
    let producer = Producer::open(&stage, Client::Bullwark, QUEUE).await;
    let seen = NodeQueue::open(&stage, 6, QUEUE).await;
    let worker = Running::start(&stage, Client::Bullwark, QUEUE, 2).await;
    let good = producer
        .add(steps(&[json!({ "return": 5 })]), json!({}))
        .await;
    let bad = producer
        .add(steps(&[json!({ "fatal": "broken" })]), json!({}))
        .await;
    seen.until_state(&good, "completed").await;
    seen.until_state(&bad, "failed").await;
    worker.stop().await;
    let waits = producer.add(steps(&[]), json!({ "priority": 3 })).await;
    let later = producer.add(steps(&[]), json!({ "delay": 600_000 })).await;
    seen.until_state(&waits, "prioritized").await;
    seen.until_state(&later, "delayed").await;

    for version in [5, 6] {
        let queue = NodeQueue::open(&stage, version, QUEUE).await;
        let request = json!({ "queues": [queue.handle] });
        let page = queue.driver.ask("board", request).await[QUEUE].take();
        for (state, count) in [
            ("completed", 1),
            ("failed", 1),
            ("prioritized", 1),
            ("delayed", 1),
            ("waiting", 0),
            ("active", 0),
        ] {
            assert_eq!(page["counts"][state], count, "{state} of {page}");
        }
        let job = |id: &str| -> Value {
            let mut jobs = page["jobs"].as_array().unwrap().iter();
            let found = jobs.find(|job| job["id"] == id);
            found.unwrap_or_else(|| panic!("no {id} on {page}")).clone()
        };
        assert_eq!(job(&good)["returnValue"], 5);
        assert_eq!(job(&bad)["failedReason"], "broken");
        assert_eq!(job(&bad)["isFailed"], true);
        assert_eq!(job(&bad)["attempts"], 1);
        assert_eq!(job(&waits)["priority"], 3);
        assert_eq!(job(&later)["delay"], 600_000);
        assert_eq!(job(&later)["data"], json!({ "steps": [] }));
        assert_eq!(page["isPaused"], false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_list_the_workers_of_bullwark() {
    let stage = Stage::new().await;
    let worker = Running::start(&stage, Client::Bullwark, QUEUE, 1).await;
    for version in [5, 6] {
        let queue = NodeQueue::open(&stage, version, QUEUE).await;
        let workers = eventually("a worker on the list", async || {
            let workers = queue.call("getWorkers", json!([])).await;
            (workers.as_array().unwrap().len() == 1).then_some(workers)
        });
        let workers = workers.await;
        assert_eq!(workers[0]["name"], QUEUE, "{workers}");
        assert_eq!(queue.call("getWorkersCount", json!([])).await, 1);
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_says_who_keeps_it() {
    let stage = Stage::new().await;
    let name = QUEUE.parse().unwrap();
    stage.broker().ensure_queue(&name).await.unwrap();
    for version in [5, 6] {
        let queue = NodeQueue::open(&stage, version, QUEUE).await;
        let meta = queue.call("getMeta", json!([])).await;
        assert_eq!(meta["maxLenEvents"], 10_000, "{meta}");
        let kept_by = queue.call("getVersion", json!([])).await;
        // The last client that opened it, as among BullMQ's own.
        assert!(
            kept_by.as_str().unwrap().starts_with("bullmq:"),
            "{kept_by}"
        );
    }
}
