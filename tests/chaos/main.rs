//! Short runs of `bullwark soak` with fixed seeds: real processes, real stores, real faults.
//!
//! Each run is bounded by its own number of seconds or jobs and stops by itself. Nothing is said
//! about speed; what must hold is every invariant of `docs/soak.md`. One after the other: each of
//! them keeps a small machine busy.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

static TURN: Mutex<()> = Mutex::new(());

/// How long to wait for what must come.
const LIMIT: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(100);

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bullwark"));
    command
        .args(["soak", "--json"])
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// Runs the soak; a violation fails the test with all that the report says.
fn soak(arguments: &[&str]) -> Value {
    let output = command(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    let report: Value = serde_json::from_str(&said).unwrap();
    println!("{report:#}");
    assert_eq!(report["passed"], true);
    assert_eq!(report["tally"]["lost"], 0);
    assert_eq!(report["effects_doubled"], 0);
    assert_eq!(report["drift"], 0);
    assert!(report["tally"]["accepted"].as_u64().unwrap() > 100);
    let sides = report["tally"]["sides"].as_object().unwrap();
    let names: Vec<&str> = sides.keys().map(String::as_str).collect();
    assert_eq!(names, ["flows", "gated", "metered", "neighbour", "ticks"]);
    report
}

/// How many kinds of faults there were.
fn kinds(report: &Value) -> usize {
    report["tally"]["faults"].as_object().unwrap().len()
}

#[test]
fn killed_frozen_and_replaced_workers_lose_and_double_nothing() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let arguments = ["--seed", "11", "--duration", "28s", "--rate", "300"];
    let faults = [
        "--faults",
        "kill,stop,rolling,kill-serve",
        "--fault-every",
        "2",
    ];
    let report = soak(&[&arguments[..], &faults].concat());
    assert!(kinds(&report) >= 3, "too few faults");
    // Each limit was met, and none was passed; and both workspaces were looked at.
    assert_eq!(report["tally"]["most_at_once"], 4);
    assert!(report["tally"]["most_starts"].as_u64().unwrap() >= 40);
    assert!(report["looks"].as_u64().unwrap() > 0);
}

#[test]
fn a_redis_that_forgets_loses_no_job() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let arguments = ["--seed", "12", "--duration", "22s", "--rate", "300"];
    let all = "flush,redis-restart,redis-empty,redis-rollback";
    let faults = ["--faults", all, "--fault-every", "2"];
    let report = soak(&[&arguments[..], &faults].concat());
    assert!(kinds(&report) >= 3, "too few faults");
}

#[test]
fn a_record_that_goes_away_and_a_bad_network_lose_nothing() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let arguments = ["--seed", "13", "--duration", "28s", "--rate", "300"];
    let faults = [
        "--faults",
        "pg-restart,pg-terminate,proxy",
        "--fault-every",
        "2",
    ];
    let report = soak(&[&arguments[..], &faults].concat());
    assert!(kinds(&report) >= 4, "too few faults");
}

#[test]
fn a_run_that_was_killed_leaves_no_process_and_goes_on_where_it_was() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let arguments = [
        "--seed", "14", "--jobs", "4500", "--rate", "600", "--dir", place,
    ];
    let faults = ["--faults", "kill,flush", "--fault-every", "2"];
    let arguments = [&arguments[..], &faults].concat();

    let mut first = command(&arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("a third of the jobs", || next(dir.path()) >= 1_500);
    first.kill().unwrap();
    first.wait().unwrap();
    until("the end of its processes", || processes(place) == 0);
    let before = next(dir.path());
    assert!(before < 4_500, "it was over already");

    let report = soak(&arguments);
    assert_eq!(report["parts"], 2);
    assert_eq!(report["tally"]["accepted"], 4_500);
    assert_eq!(report["tally"]["faults"]["resumed"], 1);
    until("the end of its processes", || processes(place) == 0);
}

/// The checker can fail, and says what it found: the witness knows of a job that the record lacks.
#[test]
fn a_job_that_the_record_has_lost_fails_the_run() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let arguments = [
        "--seed", "15", "--jobs", "900", "--rate", "300", "--faults", "none", "--dir", place,
    ];
    soak(&arguments);

    let ledger = dir.path().join("ledger");
    let mut lines = std::fs::read_to_string(&ledger).unwrap();
    lines.push_str("A 900 0190000000007000800000000000beef\n");
    std::fs::write(&ledger, lines).unwrap();
    let output = command(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["passed"], false);
    assert_eq!(report["seed"], 15);
    assert_eq!(report["tally"]["lost"], 1);
    let violations = report["violations"].as_object().unwrap();
    assert_eq!(violations.len(), 1, "{violations:?}");
    let found = violations["NoLoss"]["examples"][0].as_str().unwrap();
    assert_eq!(found, "job 900 was acknowledged and is not in the record");
    let complained = String::from_utf8(output.stderr).unwrap();
    assert!(complained.contains(place), "{complained}");
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(PAUSE);
    }
}

/// The number below which every job is acknowledged.
fn next(dir: &Path) -> u64 {
    let text = std::fs::read_to_string(dir.join("state.json")).unwrap_or_default();
    let state: Value = serde_json::from_str(&text).unwrap_or_default();
    state["next"].as_u64().unwrap_or(0)
}

/// Processes that were started for a directory; where there is no `/proc`, none are seen.
fn processes(dir: &str) -> usize {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(dir))
        .count()
}
