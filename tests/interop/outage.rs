//! Redis goes away while a forwarding worker shuts down.

use bullwark::stores::{Kill, Stores, StoresOptions};
use serde_json::json;

use crate::driver::Driver;
use crate::forwarder::Forwarder;
use crate::node::{NodeQueue, Receiver};
use crate::stage::Stage;
use crate::steps::steps;

const QUEUE: &str = "cut_off";

/// The record has taken the outcome, and Redis can not be told any more: the worker ends in good
/// order and says what it could not do. The lock ends, and whoever claims the job finishes it in
/// Redis; it is not delivered again.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_only_the_record_knows_at_the_shutdown_is_finished_by_the_next_worker() {
    let mut stores = Stores::start(StoresOptions::temporary()).await.unwrap();
    let stage = Stage::on(&stores).await;
    let node = Driver::node(6, stores.redis_port(), None);
    let queue = NodeQueue::on(node, &stage.prefix, QUEUE).await;
    let receiver = Receiver::start(6).await;
    let arguments = ["--lock-duration", "1500", "--stalled-interval", "500"];
    let mut forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    let work = steps(&[json!({ "sleep": 1500 }), json!({ "return": 3 })]);
    let id = queue.add(work, json!({})).await;
    stage.until_recorded(QUEUE, &id, "processing").await;
    // The outcome, which Redis has confirmed, is held up on its way into the record.
    let lock = stage.lock_row(QUEUE, &id).await;
    stage.until_somebody_waits_for_a_lock().await;
    stores.kill_redis(Kill::Cleanly).await;
    forwarder.terminate();
    lock.rollback().await.unwrap();
    forwarder.ended().await;
    stage.until_recorded(QUEUE, &id, "completed").await;
    let names = forwarder.all_names().await;
    assert_eq!(names.last().unwrap(), "closed", "{names:?}");
    let told: Vec<_> = forwarder.of(&id);
    let told: Vec<_> = told.iter().map(|line| &line["event"]).collect();
    assert_eq!(told, ["active", "completed"], "{names:?}");
    let untold = forwarder.until("error", None).await;
    assert!(untold["message"].is_string());

    stores.start_redis().await.unwrap();
    let forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    queue.until_state(&id, "completed").await;
    assert_eq!(queue.get(&id).await["returnvalue"], 3);
    assert_eq!(receiver.deliveries().await.len(), 1, "nothing ran twice");
    forwarder.stop().await;
    stores.stop().await.unwrap();
}

/// The outcome could not be confirmed: nothing of it counts, and the job runs again. The worker
/// still ends within its limit.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_redis_could_not_confirm_at_the_shutdown_runs_again() {
    let mut stores = Stores::start(StoresOptions::temporary()).await.unwrap();
    let stage = Stage::on(&stores).await;
    let node = Driver::node(6, stores.redis_port(), None);
    let queue = NodeQueue::on(node, &stage.prefix, QUEUE).await;
    let receiver = Receiver::start(6).await;
    let limit = ["--lock-duration", "1500", "--stalled-interval", "500"];
    let arguments = [&limit[..], &["--shutdown-limit", "2"]].concat();
    let mut forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    let work = steps(&[json!({ "sleep": 700 }), json!({ "return": 3 })]);
    let id = queue.add(work, json!({})).await;
    stage.until_recorded(QUEUE, &id, "processing").await;
    stores.kill_redis(Kill::Cleanly).await;
    forwarder.until("error", None).await;
    forwarder.terminate();
    forwarder.ended().await;
    let names = forwarder.all_names().await;
    assert_eq!(names.last().unwrap(), "closed", "{names:?}");
    assert!(!names.contains(&"completed".to_owned()), "{names:?}");

    stores.start_redis().await.unwrap();
    let forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    queue.until_state(&id, "completed").await;
    stage.until_recorded(QUEUE, &id, "completed").await;
    assert_eq!(receiver.deliveries().await.len(), 2);
    forwarder.stop().await;
    stores.stop().await.unwrap();
}
