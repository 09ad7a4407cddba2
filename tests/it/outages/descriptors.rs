//! A server process that has no file descriptor left.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use bullwark::tasks::Tasks;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::site::Caller;
use crate::support::Sandbox;
use crate::support::server::KEY;
use crate::worker::rig::{eventually, within};

/// Enough to start and to serve a few clients.
const DESCRIPTORS: u32 = 64;

/// The lines that the process logged.
type Lines = Arc<Mutex<Vec<Value>>>;

/// `bullwark serve` with so few descriptors.
async fn serve(sandbox: &Sandbox, data_dir: &std::path::Path, tasks: &Tasks) -> (Child, Lines) {
    let few = format!("ulimit -n {DESCRIPTORS} && exec \"$0\" \"$@\"");
    let mut child = Command::new("sh")
        .args(["-c", &few, env!("CARGO_BIN_EXE_bullwark"), "serve"])
        .args(["--http-addr", "127.0.0.1:0", "--diagnostics"])
        .args(["--database-url", &sandbox.database_url])
        .args(["--redis-url", &sandbox.redis_url])
        .args(["--prefix", &sandbox.prefix])
        .env("BULLWARK_DATA_DIR", data_dir)
        .env("BULLWARK_API_KEY", KEY)
        .env("BULLWARK_LOG", "info")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (lines, mut log) = (
        Lines::default(),
        BufReader::new(child.stderr.take().unwrap()).lines(),
    );
    let noted = lines.clone();
    tasks.spawn("log", async move {
        while let Ok(Some(line)) = log.next_line().await {
            let line = serde_json::from_str(&line).unwrap_or_else(|_| json!({ "message": line }));
            noted.lock().unwrap().push(line);
        }
    });
    (child, lines)
}

/// Waits for a line with this message.
async fn line(lines: &Lines, message: &str) -> Value {
    eventually(&format!("`{message}` in the log"), async || {
        let lines = lines.lock().unwrap();
        let found = lines.iter().find(|line| line["message"] == message);
        found.cloned()
    })
    .await
}

/// Clients that open connections and say nothing take the last descriptor: the log says so, and
/// when they go, everything is served again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_descriptors_says_so_and_recovers() {
    let (sandbox, tasks) = (Sandbox::new().await, Tasks::new());
    let data_dir = tempfile::tempdir().unwrap();
    let (mut child, lines) = serve(&sandbox, data_dir.path(), &tasks).await;
    let address = line(&lines, "serving").await["address"]
        .as_str()
        .unwrap()
        .to_owned();
    let caller = Caller::of(&address);
    assert_eq!(caller.ready().await.status, 200);

    let mut idle = Vec::new();
    for _ in 0..DESCRIPTORS {
        idle.push(TcpStream::connect(&address).await.unwrap());
    }
    let refused = line(&lines, "connection not accepted").await;
    let error = refused["error"].as_str().unwrap();
    assert!(error.contains("Too many open files"), "{refused}");
    assert_eq!(refused["level"], "WARN");

    drop(idle);
    eventually("everything to be well", async || {
        (within("an answer", caller.ready()).await.body["status"] == "ok").then_some(())
    })
    .await;
    let answer = caller.post_body(&json!({"jobType": "noop"})).await;
    assert_eq!(answer.status, 201, "{answer:?}");

    let pid = Pid::from_raw(child.id().unwrap() as i32);
    kill(pid, Signal::SIGTERM).unwrap();
    let ended = within("the end of the server", child.wait()).await.unwrap();
    assert!(ended.success(), "{ended}");
    within("the log", tasks.drained()).await;
}
