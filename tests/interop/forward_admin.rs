//! What the admin port of a forwarding worker refuses, and what it takes before the worker begins.

use serde_json::{Value, json};

use crate::forwarder::Forwarder;
use crate::node::{NodeQueue, Receiver};
use crate::stage::Stage;
use crate::steps::steps;

const QUEUE: &str = "steered";

fn sleeps(ms: u32) -> Value {
    steps(&[json!({ "sleep": ms })])
}

/// Ids are unique in a queue only: whoever means one of two jobs must say of which queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_delivery_is_named_by_its_queue_too_where_its_id_is_not_enough() {
    let stage = Stage::new().await;
    let receiver = Receiver::start(6).await;
    let arguments = [
        "--admin",
        "127.0.0.1:0",
        "--concurrency",
        "4",
        "--queue",
        "second",
    ];
    let forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    let first = NodeQueue::open(&stage, 6, QUEUE).await;
    let second = NodeQueue::open(&stage, 6, "second").await;
    for queue in [&first, &second] {
        queue.add(sleeps(20_000), json!({ "jobId": "same" })).await;
        queue.until_state("same", "active").await;
    }
    let cancel = json!({ "jobId": "same", "reason": "enough" });
    let refused = async |body: Value| forwarder.refused("/cancel", &[], body).await;
    crate::wait::eventually("both to be delivered", async || {
        (receiver.deliveries().await.len() == 2).then_some(())
    })
    .await;
    assert_eq!(refused(cancel.clone()).await, "409 ambiguous_job");
    let elsewhere = json!({ "jobId": "same", "queue": "third" });
    assert_eq!(refused(elsewhere).await, "404 job_not_found");
    assert_eq!(
        refused(json!({ "jobId": "other" })).await,
        "404 job_not_found"
    );
    assert_eq!(first.state("same").await, "active");
    let body = json!({ "jobId": "same", "queue": "second", "reason": "enough" });
    forwarder.admin("POST", "/cancel", body).await;
    second.until_state("same", "failed").await;
    assert_eq!(second.get("same").await["failedReason"], "enough");
    assert_eq!(first.state("same").await, "active", "its namesake goes on");
    forwarder.admin("POST", "/cancel", cancel).await;
    first.until_state("same", "failed").await;
    forwarder.stop().await;
}

/// The handler has ended, and its outcome waits for the record: too late, and nothing is touched.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_outcome_is_on_its_way_can_not_be_cancelled() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let receiver = Receiver::start(6).await;
    let arguments = ["--admin", "127.0.0.1:0"];
    let forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    let id = queue
        .add(
            steps(&[json!({ "sleep": 1500 }), json!({ "return": 3 })]),
            json!({}),
        )
        .await;
    stage.until_recorded(QUEUE, &id, "processing").await;
    let lock = stage.lock_row(QUEUE, &id).await;
    stage.until_somebody_waits_for_a_lock().await;
    let refused = forwarder
        .refused("/cancel", &[], json!({ "jobId": id }))
        .await;
    assert_eq!(refused, "409 job_state");
    lock.rollback().await.unwrap();
    queue.until_state(&id, "completed").await;
    assert_eq!(queue.get(&id).await["returnvalue"], 3);
    forwarder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_resized_before_it_began_keeps_that_size() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let receiver = Receiver::start(6).await;
    let arguments = ["--admin", "127.0.0.1:0", "--paused"];
    let mut forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    forwarder
        .admin("POST", "/concurrency", json!({ "n": 2 }))
        .await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(queue.add(sleeps(20_000), json!({})).await);
    }
    forwarder.admin("POST", "/resume", json!({})).await;
    for id in &ids {
        queue.until_state(id, "active").await;
    }
    let health = forwarder.admin("GET", "/healthz", json!({})).await;
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!(health["concurrency"], 2);
    forwarder
        .admin("POST", "/close", json!({ "force": true }))
        .await;
    forwarder.ended().await;
}

/// The caller may hang up while the pause waits for a running job, and may ask twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_told_once_whoever_asked_for_it_and_however_often() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let receiver = Receiver::start(6).await;
    let arguments = ["--admin", "127.0.0.1:0"];
    let mut forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    let id = queue.add(sleeps(1500), json!({})).await;
    forwarder.until("active", Some(&id)).await;
    let soon = std::time::Duration::from_millis(200);
    forwarder.hang_up("/pause", json!({}), soon).await;
    assert_eq!(forwarder.names(), ["active"], "the job still runs");
    forwarder.until("completed", Some(&id)).await;
    forwarder.until("paused", None).await;
    for _ in 0..2 {
        let answer = forwarder.admin("POST", "/pause", json!({})).await;
        assert_eq!(answer, r#"{"paused":true}"#);
    }
    forwarder.admin("POST", "/resume", json!({})).await;
    forwarder.until("resumed", None).await;
    let mut names = forwarder.names();
    names.retain(|name| name != "drained"); // resumed, it looks at once
    assert_eq!(names, ["active", "completed", "paused", "resumed"]);
    forwarder
        .admin("POST", "/pause", json!({ "wait": false }))
        .await;
    forwarder.terminate();
    let names = forwarder.all_names().await;
    let paused = names.iter().filter(|name| *name == "paused");
    assert_eq!(paused.count(), 2, "{names:?}");
    forwarder.ended().await;
}

/// A browser on the same machine reaches the port, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_steers_nothing() {
    let stage = Stage::new().await;
    let receiver = Receiver::start(6).await;
    let arguments = ["--admin", "127.0.0.1:0"];
    let forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    let refused = async |name, value| {
        forwarder
            .refused("/pause", &[(name, value)], json!({}))
            .await
    };
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        assert_eq!(refused("origin", origin).await, "403 foreign_origin");
    }
    assert_eq!(refused("host", "evil.example:80").await, "403 foreign_host");
    let health = forwarder.admin("GET", "/healthz", json!({})).await;
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!(health["paused"], false);
    forwarder.stop().await;
}
