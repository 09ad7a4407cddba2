//! What BullMQ clients do among themselves stands in the record soon, while Bullwark is attached.

use serde_json::json;

use crate::node::{NodeEvents, NodeQueue, NodeWorker, node};
use crate::sides::{Client, Producer, Running};
use crate::stage::Stage;
use crate::steps::steps;

#[tokio::test(flavor = "multi_thread")]
async fn jobs_between_node_clients_are_recorded() {
    let stage = Stage::new().await;
    stage.app.start_upkeep(&stage.tasks);
    for version in [5, 6] {
        let name = format!("among{version}");
        let queue = NodeQueue::open(&stage, version, &name).await;
        let good = queue
            .add(steps(&[json!({ "return": { "n": 1 } })]), json!({}))
            .await;
        let bad = queue
            .add(steps(&[json!({ "fail": "broken" })]), json!({}))
            .await;
        let later = queue.add(steps(&[]), json!({ "delay": 3_600_000 })).await;
        for id in [&good, &bad, &later] {
            stage.until_recorded(&name, id, "pending").await;
        }
        let driver = node(version).await;
        let worker = NodeWorker::start(driver, &stage.prefix, &name, json!({})).await;
        stage.until_recorded(&name, &good, "completed").await;
        stage.until_recorded(&name, &bad, "dead_letter").await;
        assert_eq!(stage.row(&name, &good, "result").await, json!({ "n": 1 }));
        let error = stage.row(&name, &bad, "to_jsonb(error_message)").await;
        assert_eq!(error, "broken");
        queue.job(&later, "remove", json!([])).await;
        stage.until_recorded(&name, &later, "cancelled").await;
        worker.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_worker_s_outcome_of_our_job_is_recorded() {
    let stage = Stage::new().await;
    stage.app.start_upkeep(&stage.tasks);
    for (version, works) in [(5, Client::Node5), (6, Client::Node6)] {
        let name = format!("ours{version}");
        let producer = Producer::open(&stage, Client::Bullwark, &name).await;
        let worker = Running::start(&stage, works, &name, 2).await;
        let good = steps(&[json!({ "progress": 7 }), json!({ "return": "fine" })]);
        let good = producer.add(good, json!({})).await;
        let bad = producer
            .add(steps(&[json!({ "fail": "oh" })]), json!({}))
            .await;
        stage.until_recorded(&name, &good, "completed").await;
        stage.until_recorded(&name, &bad, "dead_letter").await;
        assert_eq!(stage.row(&name, &good, "result").await, "fine");
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_node_added_is_in_the_record_before_bullwark_runs_it() {
    let stage = Stage::new().await;
    // No upkeep: nobody but the worker itself could have adopted it.
    let queue = NodeQueue::open(&stage, 6, "first").await;
    let slow = steps(&[json!({ "progress": 1 }), json!({ "sleep": 2000 })]);
    let id = queue.add(slow, json!({})).await;
    let events = NodeEvents::open(&stage, 6, "first").await;
    let worker = Running::start(&stage, Client::Bullwark, "first", 1).await;
    // Its handler has begun.
    events.until("progress", &id).await;
    let status = stage.status("first", &id).await;
    assert_eq!(status.as_deref(), Some("processing"));
    stage.until_recorded("first", &id, "completed").await;
    worker.stop().await;
}
