//! Workers over HTTP: what a receiver is sent, what it may do with the job meanwhile, and how the
//! forwarding process is controlled and tells what it does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::forwarder::Forwarder;
use crate::node::{NodeEvents, NodeQueue, Receiver};
use crate::stage::Stage;
use crate::steps::{ACT, steps};

const QUEUE: &str = "forwarded";
const SECRET: &str = "a secret of the receiver";

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_gets_the_whole_job_and_can_check_who_sent_it() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let receiver = Receiver::start(6).await;
    let arguments = ["--name", "me", "--concurrency", "2"];
    let forwarder = Forwarder::start_with(&stage, QUEUE, &receiver.url, &arguments, |command| {
        command.env("BULLWARK_FORWARD_SECRET", SECRET);
    });
    let forwarder = forwarder.await;
    let data = steps(&[json!({ "fail": "once", "times": 1 })]);
    let opts = json!({ "jobId": "j", "attempts": 2, "priority": 5 });
    queue.add(data.clone(), opts).await;
    queue.until_state("j", "completed").await;

    let deliveries = receiver.deliveries().await;
    assert_eq!(deliveries.len(), 2, "{deliveries:#?}");
    for (nth, delivery) in deliveries.iter().enumerate() {
        let start = nth + 1;
        assert_eq!(delivery["queue"], QUEUE);
        assert_eq!(delivery["prefix"], stage.prefix);
        assert_eq!(delivery["attempt"], start);
        let job = &delivery["job"];
        assert_eq!(job["id"], "j");
        assert_eq!(job["name"], ACT);
        assert_eq!(job["data"], data);
        assert_eq!(job["priority"], 5);
        assert_eq!(job["attemptsMade"], nth);
        assert_eq!(job["attemptsStarted"], start);
        assert_eq!(job["parent"], Value::Null);
        assert_eq!(delivery["raw"]["name"], ACT);
        assert_eq!(delivery["raw"]["ats"], start.to_string());

        let header = |name: &str| delivery["headers"][name].as_str().unwrap();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("webhook-id"), format!("j.{start}"));
        let text = delivery["text"].as_str().unwrap();
        let signed = format!("j.{start}.{}.{text}", header("webhook-timestamp"));
        assert_eq!(header("webhook-signature"), signature(&signed));
    }
    assert_eq!(queue.get("j").await["processedBy"], "me");
    forwarder.stop().await;
}

fn signature(signed: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_moves_its_job_with_a_bullmq_library() {
    let stage = Stage::new().await;
    for version in [5, 6] {
        let name = format!("{QUEUE}{version}");
        let queue = NodeQueue::open(&stage, version, &name).await;
        let events = NodeEvents::open(&stage, version, &name).await;
        let receiver = Receiver::start(version).await;
        let mut forwarder = Forwarder::start(&stage, &name, &receiver.url, &[]).await;

        let speaks = steps(&[
            json!({ "progress": 30 }),
            json!({ "log": "a line" }),
            json!({ "data": { "seen": true } }),
        ]);
        let speaks = queue.add(speaks, json!({})).await;
        let later = queue
            .add(steps(&[json!({ "delay": 200 })]), json!({}))
            .await;
        let again = queue
            .add(steps(&[json!({ "wait": true })]), json!({}))
            .await;
        for id in [&speaks, &later, &again] {
            events.until("completed", id).await;
            forwarder.until("completed", Some(id)).await;
        }
        assert_eq!(events.until("progress", &speaks).await["data"], 30);
        let logs = queue.call("getJobLogs", json!([speaks])).await;
        assert_eq!(logs["logs"], json!(["a line"]));
        assert_eq!(stage.logged(&name, &speaks).await, ["a line"]);
        assert_eq!(queue.get(&speaks).await["data"]["seen"], true);
        for id in [&later, &again] {
            let job = queue.get(id).await;
            assert_eq!(job["attemptsMade"], 1, "{job}");
            assert_eq!(job["attemptsStarted"], 2, "{job}");
        }
        assert!(events.of(&later).contains(&"delayed".to_owned()));
        forwarder.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarding_worker_tells_what_it_does() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let receiver = Receiver::start(6).await;
    let mut forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &[]).await;
    let good = queue.add(steps(&[json!({ "return": 3 })]), json!({})).await;
    let bad = steps(&[json!({ "fail": "out" })]);
    let bad = queue.add(bad, json!({ "attempts": 2 })).await;
    forwarder.until("completed", Some(&good)).await;
    forwarder.until("drained", None).await;

    let lines = forwarder.of(&good);
    let told: Vec<&Value> = lines.iter().map(|line| &line["event"]).collect();
    assert_eq!(told, ["active", "completed"], "{lines:#?}");
    assert_eq!(lines[0]["prev"], "waiting");
    assert_eq!(lines[1]["prev"], "active");
    assert_eq!(lines[1]["returnvalue"], 3);
    queue.until_state(&bad, "failed").await;
    let lines = crate::wait::eventually("both failures", async || {
        let lines = forwarder.of(&bad);
        (lines.len() == 4).then_some(lines)
    });
    let lines = lines.await;
    for (nth, line) in lines.iter().enumerate() {
        assert_eq!(line["event"], ["active", "failed"][nth % 2], "{lines:#?}");
    }
    assert_eq!(lines[3]["failedReason"], "out");
    assert_eq!(lines[3]["attemptsMade"], 2);
    forwarder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarding_worker_is_controlled_over_its_admin_port() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let receiver = Receiver::start(6).await;
    let arguments = ["--admin", "127.0.0.1:0", "--paused", "--concurrency", "1"];
    let mut forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    forwarder.admin("GET", "/healthz", json!({})).await;
    let id = queue.add(steps(&[]), json!({})).await;
    assert_eq!(queue.call("getWorkersCount", json!([])).await, 1);
    assert_eq!(queue.state(&id).await, "waiting");

    forwarder.admin("POST", "/resume", json!({})).await;
    forwarder.until("completed", Some(&id)).await;
    let running = queue
        .add(steps(&[json!({ "sleep": 300 })]), json!({}))
        .await;
    queue.until_state(&running, "active").await;
    forwarder
        .admin("POST", "/pause", json!({ "wait": true }))
        .await;
    assert_eq!(queue.state(&running).await, "completed");
    let waits = queue.add(steps(&[]), json!({})).await;
    let metrics = forwarder.admin("GET", "/metrics", json!({})).await;
    assert!(metrics.contains("bullwark_"), "{metrics}");
    assert_eq!(queue.state(&waits).await, "waiting");

    forwarder
        .admin("POST", "/concurrency", json!({ "n": 3 }))
        .await;
    let mut long = Vec::new();
    for _ in 0..3 {
        long.push(
            queue
                .add(steps(&[json!({ "sleep": 20_000 })]), json!({}))
                .await,
        );
    }
    forwarder.admin("POST", "/resume", json!({})).await;
    for id in &long {
        queue.until_state(id, "active").await;
    }
    for id in &long {
        let body = json!({ "jobId": id, "reason": "enough" });
        forwarder.admin("POST", "/cancel", body).await;
        queue.until_state(id, "failed").await;
    }
    forwarder
        .admin("POST", "/close", json!({ "force": false }))
        .await;
    forwarder.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarding_worker_keeps_to_its_limiter() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let events = NodeEvents::open(&stage, 6, QUEUE).await;
    let receiver = Receiver::start(6).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(
            queue
                .add(steps(&[]), json!({ "removeOnComplete": false }))
                .await,
        );
    }
    let arguments = ["--limiter", "2/400", "--concurrency", "6"];
    let forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    for id in &ids {
        events.until("completed", id).await;
    }
    let mut starts = Vec::new();
    for id in &ids {
        let job = queue.get(id).await;
        starts.push(job["processedOn"].as_i64().unwrap());
    }
    starts.sort_unstable();
    // Two windows lie between the first two jobs and the last two.
    assert!(starts[4] - starts[0] >= 800, "{starts:?}");
    forwarder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_closes_the_limiter_of_its_queue() {
    let stage = Stage::new().await;
    for version in [5, 6] {
        let name = format!("{QUEUE}{version}");
        let queue = NodeQueue::open(&stage, version, &name).await;
        let receiver = Receiver::start(version).await;
        let arguments = ["--limiter", "100/1000"];
        let forwarder = Forwarder::start(&stage, &name, &receiver.url, &arguments).await;
        let limited = steps(&[json!({ "rateLimit": 600 })]);
        let id = queue.add(limited, json!({ "attempts": 1 })).await;
        queue.until_state(&id, "completed").await;
        let job = queue.get(&id).await;
        assert_eq!(job["attemptsMade"], 1, "{job}");
        assert_eq!(job["attemptsStarted"], 2, "{job}");
        let waited = job["processedOn"].as_i64().unwrap() - job["timestamp"].as_i64().unwrap();
        assert!(waited >= 600, "{waited} ms: {job}");
        forwarder.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarding_worker_counts_for_dashboards_and_keeps_what_it_is_told() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let events = NodeEvents::open(&stage, 6, QUEUE).await;
    let receiver = Receiver::start(6).await;
    let keep = ["--remove-on-complete", "2", "--remove-on-fail", "true"];
    let arguments = [&keep[..], &["--metrics", "10"]].concat();
    let forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(queue.add(steps(&[]), json!({})).await);
    }
    let bad = queue
        .add(steps(&[json!({ "fatal": "x" })]), json!({}))
        .await;
    for id in &ids {
        events.until("completed", id).await;
    }
    events.until("failed", &bad).await;
    let metrics = queue.call("getMetrics", json!(["completed"])).await;
    assert_eq!(metrics["meta"]["count"], 5, "{metrics}");
    let counts = queue.call("getJobCounts", json!([])).await;
    assert_eq!(counts["completed"], 2, "{counts}");
    assert_eq!(counts["failed"], 0, "{counts}");
    forwarder.stop().await;
}

/// The lock ran out while the receiver worked: its answer counts for nothing, and the record does
/// not take the job for running.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_after_the_lock_was_lost_changes_nothing() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let receiver = Receiver::start(6).await;
    let arguments = [
        "--lock-duration",
        "200",
        "--skip-lock-renewal",
        "--skip-stalled-check",
    ];
    let mut forwarder = Forwarder::start(&stage, QUEUE, &receiver.url, &arguments).await;
    let id = queue
        .add(steps(&[json!({ "sleep": 600 })]), json!({}))
        .await;
    let line = forwarder.until("error", None).await;
    let text = format!("Missing lock for job {id}. moveToFinished");
    assert_eq!(line["message"], text);
    stage.until_recorded(QUEUE, &id, "pending").await;
    assert_eq!(queue.state(&id).await, "active");
    assert!(
        forwarder
            .of(&id)
            .iter()
            .all(|line| line["event"] == "active")
    );
    forwarder.stop().await;
}
