//! Jobs of dead workers: either side rescues those of the other.

use std::process::Stdio;
use std::sync::Arc;

use serde_json::json;

use crate::node::{NodeEvents, NodeQueue, NodeWorker, node};
use crate::process::worker;
use crate::sides::{Client, Producer, Running};
use crate::stage::Stage;
use crate::steps::steps;

#[tokio::test(flavor = "multi_thread")]
async fn bullwark_rescues_the_job_of_a_node_worker() {
    let stage = Stage::new().await;
    stage.app.start_upkeep(&stage.tasks);
    for version in [5, 6] {
        let name = format!("ours{version}");
        let queue = NodeQueue::open(&stage, version, &name).await;
        let events = NodeEvents::open(&stage, version, &name).await;
        let opts = json!({ "lockDuration": 500, "skipStalledCheck": true });
        let driver = node(version).await;
        let doomed = NodeWorker::start(driver, &stage.prefix, &name, opts).await;
        let id = queue
            .add(steps(&[json!({ "sleep": 60_000 })]), json!({}))
            .await;
        queue.until_state(&id, "active").await;
        doomed.abandon().await;
        queue.job(&id, "updateData", json!([steps(&[])])).await;

        let worker = Running::start(&stage, Client::Bullwark, &name, 1).await;
        queue.until_state(&id, "completed").await;
        let job = queue.get(&id).await;
        assert_eq!(job["stalledCounter"], 1, "{job}");
        assert_eq!(job["attemptsStarted"], 2, "{job}");
        assert_eq!(job["returnvalue"]["by"], "bullwark", "{job}");
        events.until("stalled", &id).await;
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_rescues_the_job_of_a_bullwark_worker() {
    let stage = Stage::new().await;
    for version in [5, 6] {
        let name = format!("theirs{version}");
        let queue = NodeQueue::open(&stage, version, &name).await;
        let arguments = ["--queue", &name, "--lease-ms", "1000"];
        let mut doomed = worker(&stage, &arguments, Stdio::null());
        // A type that a worker process of Bullwark knows, and that is nothing to Node.
        let args = json!(["sleep", { "ms": 60_000 }, { "jobId": "long" }]);
        queue.call("add", args).await;
        queue.until_state("long", "active").await;
        doomed.kill().await.unwrap();

        let opts = json!({ "stalledInterval": 300, "drainDelay": 1 });
        let driver = node(version).await;
        let rescuer = NodeWorker::start(driver, &stage.prefix, &name, opts).await;
        queue.until_state("long", "completed").await;
        let job = queue.get("long").await;
        assert_eq!(job["stalledCounter"], 1, "{job}");
        assert_eq!(job["returnvalue"]["by"], "node", "{job}");
        rescuer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_s_job_that_stalls_too_often_fails_as_its_client_expects() {
    let stage = Stage::new().await;
    stage.app.start_upkeep(&stage.tasks);
    for version in [5, 6] {
        let name = format!("often{version}");
        let queue = NodeQueue::open(&stage, version, &name).await;
        let events = NodeEvents::open(&stage, version, &name).await;
        let long = steps(&[json!({ "sleep": 60_000 })]);
        let id = queue.add(long, json!({ "attempts": 5 })).await;
        for round in 1..=2 {
            let opts = json!({ "lockDuration": 500, "skipStalledCheck": true });
            let driver = node(version).await;
            let doomed = NodeWorker::start(driver, &stage.prefix, &name, opts).await;
            queue.until_state(&id, "active").await;
            doomed.abandon().await;
            queue.until_state(&id, "waiting").await;
            assert_eq!(queue.get(&id).await["stalledCounter"], round);
        }
        let worker = Running::start(&stage, Client::Bullwark, &name, 1).await;
        events.until("failed", &id).await;
        let job = queue.get(&id).await;
        let reason = "job stalled more than allowable limit";
        assert_eq!(job["failedReason"], reason, "{job}");
        stage.until_recorded(&name, &id, "dead_letter").await;
        worker.stop().await;
    }
}

/// Bullwark has added it, and only Node's checkers look: its first stall is forgiven or fatal, as
/// the checker says, and the record hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_bullwark_that_stalls_among_node_workers_ends_in_the_record() {
    let stage = Stage::new().await;
    stage.app.start_upkeep_without_rescue(&stage.tasks);
    let tries = [(5, 0), (6, 0), (5, 1), (6, 1)];
    let tries = tries.map(|(version, stalls_max)| stalls(&stage, version, stalls_max));
    futures_util::future::join_all(tries).await;
}

async fn stalls(stage: &Arc<Stage>, version: u8, stalls_max: u32) {
    let name = format!("recorded{version}{stalls_max}");
    let queue = NodeQueue::open(stage, version, &name).await;
    let producer = Producer::open(stage, Client::Bullwark, &name).await;
    let long = steps(&[json!({ "sleep": 60_000 })]);
    let id = producer.add(long, json!({ "attempts": 5 })).await;
    let opts = json!({ "lockDuration": 500, "skipStalledCheck": true, "drainDelay": 1 });
    let doomed = NodeWorker::start(node(version).await, &stage.prefix, &name, opts).await;
    queue.until_state(&id, "active").await;
    doomed.abandon().await;
    queue.job(&id, "updateData", json!([steps(&[])])).await;

    let opts = json!({
        "stalledInterval": 300, "maxStalledCount": stalls_max, "drainDelay": 1,
    });
    let checker = NodeWorker::start(node(version).await, &stage.prefix, &name, opts).await;
    let (state, status) = match stalls_max {
        0 => ("failed", "dead_letter"),
        _ => ("completed", "completed"),
    };
    queue.until_state(&id, state).await;
    stage.until_recorded(&name, &id, status).await;
    let job = queue.get(&id).await;
    assert_eq!(job["stalledCounter"], 1, "{job}");
    if stalls_max == 0 {
        let reason = "job stalled more than allowable limit";
        assert_eq!(job["failedReason"], reason, "{job}");
        let recorded = stage.row(&name, &id, "to_jsonb(error_message)").await;
        assert_eq!(recorded, reason);
    }
    checker.close().await;
}
