//! A job that takes its worker down, again and again, among innocent ones.

use bullwark::job::JobRequest;
use serde_json::json;

use crate::stage::{Stage, Worker, outcomes, within};

/// A worker's memory, in KiB: enough for its own, and soon used up.
const MEMORY_KIB: u32 = 2 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_kills_its_workers_dies_and_its_neighbours_live() {
    crash_loop("abort").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_overflows_the_stack_dies_and_its_neighbours_live() {
    crash_loop("stack").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_uses_up_the_memory_dies_and_its_neighbours_live() {
    crash_loop("memory").await;
}

async fn start(stage: &Stage, how: &str) -> Worker {
    let arguments = ["--lease-ms", "1000"];
    match how {
        "memory" => stage.small_worker(MEMORY_KIB, &arguments).await,
        _ => stage.worker(&arguments).await,
    }
}

async fn crash_loop(how: &str) {
    let stage = Stage::new().await;
    // Long enough to be running at every crash that happens beside them.
    let mut innocent = stage.sleeps(4, 1_000).await;
    let crash = stage
        .enqueue(vec![JobRequest::new("crash", json!({ "how": how }))])
        .await[0];
    let noops = vec![JobRequest::new("noop", json!({})); 20];
    innocent.extend(stage.enqueue(noops).await);

    // A supervisor: whenever the worker is gone, it starts the next one.
    let mut crashes = 0;
    let mut worker = start(&stage, how).await;
    within("the end of the crash loop", async {
        while stage.job(crash).await.status != "dead_letter" {
            if worker.has_ended() {
                crashes += 1;
                worker = start(&stage, how).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    stage.until_status(&innocent, "completed").await;
    for id in &innocent {
        assert_eq!(
            stage.job(*id).await.attempts,
            0,
            "a neighbour is not blamed"
        );
        let failures = stage.failures(*id).await;
        assert!(
            outcomes(&failures)
                .iter()
                .all(|outcome| *outcome == "lease_lost")
        );
    }
    assert_eq!(crashes, 5);
    let job = stage.job(crash).await;
    let error = job.error_message.unwrap();
    assert!(error.starts_with("crash loop: 5 workers"), "{error}");
    assert_eq!(job.attempts, 0, "a lost lease is no failure of the job");
    let failures = stage.failures(crash).await;
    assert_eq!(
        outcomes(&failures),
        [&["lease_lost"; 5][..], &["dead_letter"]].concat()
    );
    worker.stop().await;
    let (is_good, verdict) = stage.verify().await;
    assert!(is_good, "{verdict}");
    stage.close().await;
}
