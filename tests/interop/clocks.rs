//! Clocks that are wrong: due times and leases are judged by the clock of the Redis server.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::driver::Driver;
use crate::forwarder::Forwarder;
use crate::node::{NodeQueue, Receiver};
use crate::stage::Stage;
use crate::steps::steps;
use crate::wait::within;

const HOUR_MS: i64 = 3_600_000;
const DELAY_MS: i64 = 1500;

/// A client writes its own clock and its delay into the job: that is when it is due, on the clock
/// of the server. One whose clock is an hour ahead has asked for an hour more; one whose clock is
/// an hour behind, for an hour less.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_client_with_a_wrong_clock_starts_when_the_server_says_so() {
    let stage = Stage::new().await;
    let receiver = Receiver::start(6).await;
    let ahead = Driver::node_off(stage.redis_port, HOUR_MS);
    let behind = Driver::node_off(stage.redis_port, -HOUR_MS);
    let ahead = NodeQueue::on(ahead, &stage.prefix, "wrong").await;
    let behind = NodeQueue::on(behind, &stage.prefix, "wrong").await;
    let forwarder = Forwarder::start(&stage, "wrong", &receiver.url, &[]).await;
    let late = ahead.add(steps(&[]), json!({ "delay": DELAY_MS })).await;
    let soon = json!({ "delay": HOUR_MS + DELAY_MS });
    let soon = behind.add(steps(&[]), soon).await;
    let at_once = behind.add(steps(&[]), json!({ "delay": 1000 })).await;
    for id in [&soon, &at_once] {
        behind.until_state(id, "completed").await;
    }
    let job = behind.get(&soon).await;
    let due_ms = job["timestamp"].as_i64().unwrap() + HOUR_MS + DELAY_MS;
    let started_ms = job["processedOn"].as_i64().unwrap();
    assert!(started_ms >= due_ms, "{} ms early", due_ms - started_ms);
    assert_eq!(ahead.state(&late).await, "delayed");
    assert_eq!(receiver.deliveries().await.len(), 2);
    forwarder.stop().await;
}

/// Every process of Bullwark with a clock that is an hour off, at work where others are.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_a_wrong_clock_starts_nothing_early_and_takes_no_job_away() {
    for off in ["+3600s", "-3600s"] {
        wrong_by(off).await;
    }
}

async fn wrong_by(off: &str) {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, "clocks").await;
    let receiver = Receiver::start(6).await;
    let right = ["--lock-duration", "1000", "--skip-stalled-check"];
    let right = Forwarder::start(&stage, "clocks", &receiver.url, &right).await;
    let long = queue
        .add(steps(&[json!({ "sleep": 8000 })]), json!({}))
        .await;
    stage.until_recorded("clocks", &long, "processing").await;

    let arguments = ["--stalled-interval", "200"];
    let wrong = Forwarder::start_with(&stage, "clocks", &receiver.url, &arguments, |command| {
        put_off(command, off).env("BULLWARK_FORWARD_SECRET", "tells the time");
    });
    let wrong = wrong.await;
    let mut keeper = keeper(&stage, off).await;
    let delayed = queue.add(steps(&[]), json!({ "delay": DELAY_MS })).await;
    assert_eq!(queue.state(&delayed).await, "delayed", "{off}");
    assert_eq!(queue.state(&long).await, "active", "{off}");
    let status = stage.status("clocks", &long).await;
    assert_eq!(status.as_deref(), Some("processing"), "{off}");

    // The other worker is busy: the one with the wrong clock runs it.
    queue.until_state(&delayed, "completed").await;
    let job = queue.get(&delayed).await;
    let waited = job["processedOn"].as_i64().unwrap() - job["timestamp"].as_i64().unwrap();
    assert!(waited >= DELAY_MS, "{off}: {waited} ms, not {DELAY_MS}");
    queue.until_state(&long, "completed").await;
    let deliveries = receiver.deliveries().await;
    let ids: Vec<&Value> = deliveries.iter().map(|sent| &sent["job"]["id"]).collect();
    assert_eq!(ids, [&long, &delayed], "{off}: each was delivered once");
    assert!(!wrong.names().contains(&"stalled".to_owned()), "{off}");
    // Its clock was wrong indeed.
    let signed = deliveries[1]["headers"]["webhook-timestamp"].as_str();
    let signed_ms = signed.unwrap().parse::<i64>().unwrap() * 1000;
    let off_ms = signed_ms - job["processedOn"].as_i64().unwrap();
    assert!(off_ms.abs() > HOUR_MS / 2, "{off}: {off_ms} ms off");
    assert!(
        keeper.try_wait().unwrap().is_none(),
        "{off}: it was there all the time"
    );
    wrong.stop().await;
    right.stop().await;
}

/// A worker process of another queue, whose duties are for all queues.
async fn keeper(stage: &Stage, off: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bullwark"));
    command
        .args(["worker", "--json", "--queue", "another"])
        .args(["--prefix", &stage.prefix])
        .env("BULLWARK_REDIS_URL", &stage.redis_url)
        .env("BULLWARK_DATABASE_URL", &stage.database_url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut keeper = put_off(&mut command, off).spawn().unwrap();
    let mut output = BufReader::new(keeper.stdout.take().unwrap()).lines();
    let first = within("the first line of the keeper", output.next_line()).await;
    assert!(first.unwrap().is_some(), "it ended at once");
    keeper
}

/// Makes a process see another time than it is. How long something takes stays right.
fn put_off<'a>(command: &'a mut Command, off: &str) -> &'a mut Command {
    let library = library();
    command
        .env("FAKETIME", off)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1");
    match cfg!(target_os = "macos") {
        true => command.env("DYLD_INSERT_LIBRARIES", library),
        false => command.env("LD_PRELOAD", library),
    }
}

/// Where `scripts/setup.sh tests` puts libfaketime.
fn library() -> PathBuf {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/faketime/libfaketime.so.1",
        "/usr/lib64/faketime/libfaketime.so.1",
        "/opt/homebrew/lib/faketime/libfaketime.1.dylib",
        "/usr/local/lib/faketime/libfaketime.1.dylib",
    ];
    let mut found = places.into_iter().map(PathBuf::from);
    found.find(|place| place.exists()).unwrap_or_else(|| {
        panic!("libfaketime is missing: `sh scripts/setup.sh tests` installs it")
    })
}
