//! Either side pauses and resumes what the other works on.

use bullwark::job::QueueChange;
use serde_json::json;

use crate::node::NodeQueue;
use crate::sides::{Client, Running};
use crate::stage::Stage;
use crate::steps::steps;

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_node_paused_rests_for_bullwark() {
    let stage = Stage::new().await;
    // With a client of version 5 its jobs are in the list `paused`, where Bullwark finds them after
    // either side has resumed the queue.
    for (version, is_resumed_by_us) in [(5, false), (5, true), (6, false), (6, true)] {
        let name = format!("rests{version}{is_resumed_by_us}");
        let queue = NodeQueue::open(&stage, version, &name).await;
        let worker = Running::start(&stage, Client::Bullwark, &name, 2).await;
        let before = queue.add(steps(&[]), json!({})).await;
        queue.until_state(&before, "completed").await;

        queue.call("pause", json!([])).await;
        let during = queue.add(steps(&[]), json!({})).await;
        // Another queue of the same worker process goes on: it is not just slow.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert_eq!(queue.state(&during).await, "waiting");
        if is_resumed_by_us {
            // The record hears of this queue's settings for the first time.
            stage.change_queue(&name, &QueueChange::pause(false)).await;
        } else {
            queue.call("resume", json!([])).await;
        }
        queue.until_state(&during, "completed").await;
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_bullwark_paused_rests_for_node() {
    let stage = Stage::new().await;
    for (version, works) in [(5, Client::Node5), (6, Client::Node6)] {
        let name = format!("halts{version}");
        let queue = NodeQueue::open(&stage, version, &name).await;
        let worker = Running::start(&stage, works, &name, 2).await;
        stage.change_queue(&name, &QueueChange::pause(true)).await;
        assert_eq!(queue.call("isPaused", json!([])).await, true);
        let during = queue.add(steps(&[]), json!({})).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert_eq!(queue.state(&during).await, "waiting");
        // Version 5 put it where only version 5 looks; Bullwark merges the lists.
        stage.change_queue(&name, &QueueChange::pause(false)).await;
        queue.until_state(&during, "completed").await;
        worker.stop().await;
    }
}
