//! A job that takes its worker down, again and again, among innocent ones.

use bullwark::job::JobRequest;
use serde_json::json;

use crate::stage::{Stage, outcomes, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_kills_its_workers_dies_and_its_neighbours_live() {
    let stage = Stage::new().await;
    // Long enough to be running at every crash that happens beside them.
    let mut innocent = stage.sleeps(4, 1_000).await;
    let crash = stage
        .enqueue(vec![JobRequest::new("crash", json!({}))])
        .await[0];
    let noops = vec![JobRequest::new("noop", json!({})); 20];
    innocent.extend(stage.enqueue(noops).await);

    // A supervisor: whenever the worker is gone, it starts the next one.
    let mut crashes = 0;
    let mut worker = stage.worker(&["--lease-ms", "1000"]).await;
    within("the end of the crash loop", async {
        while stage.job(crash).await.status != "dead_letter" {
            if worker.has_ended() {
                crashes += 1;
                worker = stage.worker(&["--lease-ms", "1000"]).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    stage.until_status(&innocent, "completed").await;
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
