//! The example servers for `--forward`, each in its language.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::forwarder::Forwarder;
use crate::node::NodeQueue;
use crate::stage::Stage;
use crate::wait::within;

/// As it stands, and as Standard Webhooks writes secrets.
const SECRETS: [&str; 2] = ["whisper", "whsec_d2hpc3Blcg=="];

/// An example server, and its address.
async fn serve(program: &str, arguments: &[&str], secret: &str) -> (Child, String) {
    let mut child = Command::new(program)
        .args(arguments)
        .arg("0")
        .env("BULLWARK_FORWARD_SECRET", secret)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = within("the example's port", output.next_line()).await;
    let line: Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
    (child, format!("http://127.0.0.1:{}/", line["port"]))
}

async fn try_example(program: &str, arguments: &[&str]) {
    let tries = SECRETS.map(|secret| try_with(program, arguments, secret));
    futures_util::future::join_all(tries).await;
}

/// Runs one job of each kind that the examples know; the deliveries are signed.
async fn try_with(program: &str, arguments: &[&str], secret: &str) {
    let stage = Stage::new().await;
    let (_server, url) = serve(program, arguments, secret).await;
    let node = NodeQueue::open(&stage, 6, "emails").await;
    let add = async |name: &str, data: Value, opts: Value| {
        let job = node.call("add", json!([name, data, opts])).await;
        job["id"].as_str().unwrap().to_owned()
    };
    let welcome = add("welcome", json!({ "to": "ada@example.com" }), json!({})).await;
    let flaky = add(
        "flaky",
        json!({}),
        json!({ "attempts": 2, "backoff": 60_000 }),
    )
    .await;
    let hopeless = add("hopeless", json!({}), json!({ "attempts": 3 })).await;
    let mut forwarder = Forwarder::start_with(&stage, "emails", &url, &[], |command| {
        command.env("BULLWARK_FORWARD_SECRET", secret);
    })
    .await;
    let done = forwarder.until("completed", Some(&welcome)).await;
    assert_eq!(done["returnvalue"], json!({ "sent": "ada@example.com" }));
    // Its own delay of 100 ms replaces the minute of the job's backoff.
    let done = forwarder.until("completed", Some(&flaky)).await;
    assert_eq!(
        (&done["returnvalue"], &done["attemptsMade"]),
        (&json!("at the second attempt"), &json!(2))
    );
    let failed = forwarder.until("failed", Some(&hopeless)).await;
    assert_eq!(
        (&failed["failedReason"], &failed["attemptsMade"]),
        (&json!("no retry can help"), &json!(1))
    );
    forwarder.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_node_works() {
    try_example("node", &["examples/forward/worker.mjs"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_python_works() {
    try_example("python3", &["examples/forward/worker.py"]).await;
}

/// Go is no part of what the tests install: where it is missing, its example is only searched for
/// the names of its jobs, which says nothing of whether it works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_go_works_where_go_is() {
    let version = Command::new("go").arg("version").output().await;
    if version.is_ok_and(|output| output.status.success()) {
        return try_example("go", &["run", "examples/forward/worker.go"]).await;
    }
    let source = tokio::fs::read_to_string("examples/forward/worker.go")
        .await
        .unwrap();
    for name in ["welcome", "flaky", "hopeless"] {
        assert!(source.contains(&format!("\"{name}\"")), "{name}");
    }
}
