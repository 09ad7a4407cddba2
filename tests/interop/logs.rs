//! What a worker logs is in the record and in Redis, whoever it is.

use serde_json::json;

use crate::node::NodeQueue;
use crate::sides::{Client, Producer, Running};
use crate::stage::Stage;
use crate::steps::steps;
use crate::wait::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn what_foreign_workers_log_is_recorded_each_row_once() {
    let stage = Stage::new().await;
    stage.app.start_upkeep(&stage.tasks);
    for works in [Client::Node5, Client::Node6, Client::Python, Client::Rust] {
        let name = format!("logs-{works:?}").to_lowercase();
        let ours = Producer::open(&stage, Client::Bullwark, &name).await;
        let theirs = NodeQueue::open(&stage, 6, &name).await;
        let speaks = || steps(&[json!({ "log": "one" }), json!({ "log": "two" })]);
        let worker = Running::start(&stage, works, &name, 1).await;
        let ids = [
            ours.add(speaks(), json!({})).await,
            theirs.add(speaks(), json!({})).await,
        ];
        for id in ids {
            stage.until_recorded(&name, &id, "completed").await;
            // A job that is adopted when it is over is there a moment before its log is.
            let logged = eventually("the log to be copied", async || {
                let mut logged = stage.logged(&name, &id).await;
                logged.retain(|row| row.len() == 3);
                (!logged.is_empty()).then_some(logged)
            })
            .await;
            assert_eq!(logged, ["one", "two"], "{works:?}");
        }
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_bullwark_s_worker_logs_is_shown_to_node_and_not_recorded_twice() {
    let stage = Stage::new().await;
    stage.app.start_upkeep(&stage.tasks);
    for version in [5, 6] {
        let name = format!("shown{version}");
        let queue = NodeQueue::open(&stage, version, &name).await;
        let speaks = steps(&[json!({ "log": "one" }), json!({ "log": "two" })]);
        let id = queue.add(speaks, json!({})).await;
        let worker = Running::start(&stage, Client::Bullwark, &name, 1).await;
        stage.until_recorded(&name, &id, "completed").await;
        worker.stop().await; // it has written what it had to say
        let logs = queue.call("getJobLogs", json!([id])).await;
        assert_eq!(logs["logs"], json!(["bullwark: one", "bullwark: two"]));
        assert_eq!(stage.logged(&name, &id).await, ["one", "two"]);
    }
}
