//! Short runs of `bullwark soak` with fixed seeds: real processes, real stores, real faults.
//!
//! Each run is bounded by its own number of seconds and stops by itself. Nothing is said about
//! speed; what must hold is every invariant of `docs/soak.md`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::process::{Command, Stdio};

use serde_json::Value;

/// Runs the soak; a violation fails the test with all that the report says.
fn soak(seed: &str, seconds: &str, faults: &str, more: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_bullwark"))
        .args(["soak", "--json", "--seed", seed, "--duration", seconds])
        .args(["--faults", faults])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    let report: Value = serde_json::from_str(&said).unwrap();
    println!("{report:#}");
    assert_eq!(report["passed"], true);
    assert_eq!(report["tally"]["lost"], 0);
    assert!(report["tally"]["accepted"].as_u64().unwrap() > 100);
    report
}

fn struck(report: &Value) -> usize {
    report["tally"]["faults"].as_object().unwrap().len()
}

#[test]
fn killed_frozen_and_replaced_workers_lose_and_double_nothing() {
    let faults = "kill,stop,rolling,kill-serve";
    let report = soak(
        "11",
        "35s",
        faults,
        &["--fault-every", "2", "--rate", "300"],
    );
    assert!(struck(&report) >= 3, "too few faults");
}

#[test]
fn a_redis_that_forgets_loses_no_job() {
    let faults = "flush,redis-restart,redis-empty,redis-rollback";
    let report = soak(
        "12",
        "35s",
        faults,
        &["--fault-every", "3", "--rate", "300"],
    );
    assert!(struck(&report) >= 3, "too few faults");
}

#[test]
fn a_record_that_goes_away_and_a_bad_network_lose_nothing() {
    let faults = "pg-restart,pg-terminate,proxy";
    let report = soak(
        "13",
        "40s",
        faults,
        &["--fault-every", "2", "--rate", "300"],
    );
    assert!(struck(&report) >= 4, "too few faults");
}
