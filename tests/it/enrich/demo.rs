//! `bullwark dev --enrichment`: one command, and accounts are filled.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::stage::PATIENCE;

#[tokio::test(flavor = "multi_thread")]
async fn one_command_imports_and_enriches_companies_with_simulated_providers() {
    let data_dir = tempfile::tempdir().unwrap();
    let mut dev = Command::new(env!("CARGO_BIN_EXE_bullwark"))
        .args([
            "dev",
            "--json",
            "--enrichment=80",
            "--http-addr",
            "127.0.0.1:0",
        ])
        .arg("--data-dir")
        .arg(data_dir.path())
        .env_remove("BULLWARK_DATABASE_URL")
        .env_remove("BULLWARK_REDIS_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut output = BufReader::new(dev.stdout.take().unwrap()).lines();
    let summary = async {
        while let Some(line) = output.next_line().await.unwrap() {
            let said: Value = serde_json::from_str(&line).unwrap();
            if said.get("above_limit").is_some() {
                return said;
            }
        }
        panic!("it ended before the last account was enriched");
    };
    // On a machine that is so busy that the story begins, some companies are looked for twice.
    let summary = tokio::time::timeout(PATIENCE * 6, summary).await.unwrap();
    assert_eq!(summary["accounts"], 80, "{summary}");
    assert_eq!(summary["above_limit"], 0, "{summary}");
    assert_eq!(summary["dead_letters"], 0, "{summary}");
    assert_eq!(summary["unknown"], 2, "{summary}");
    assert!(summary["found"].as_u64() >= Some(78), "{summary}");
    let process = nix::unistd::Pid::from_raw(dev.id().unwrap().cast_signed());
    kill(process, Signal::SIGINT).unwrap();
    let ended = tokio::time::timeout(PATIENCE, dev.wait()).await.unwrap();
    assert!(ended.unwrap().success(), "it stops as it was told");
}
