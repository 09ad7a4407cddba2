//! A killed worker's jobs run again elsewhere.

use std::time::{Duration, Instant};

use crate::stage::{Stage, outcomes};

/// The promise for short jobs, with the default lease of ten seconds.
const RECOVERY: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jobs_of_a_killed_worker_run_elsewhere_within_fifteen_seconds() {
    let stage = Stage::new().await;
    let first = stage.worker(&[]).await;
    let ids = stage.sleeps(5, 3_000).await;
    let (first_id, status) = (Some(first.id.clone()), "processing");
    stage
        .until_all("running at the first", &ids, |job| {
            job.status == status && job.worker_id == first_id
        })
        .await;
    let second = stage.worker(&[]).await;
    let killed = Instant::now();
    first.kill().await;

    let second_id = Some(second.id.clone());
    stage
        .until_all("running at the second", &ids, |job| {
            job.worker_id == second_id
        })
        .await;
    let recovery = killed.elapsed();
    assert!(recovery < RECOVERY, "{recovery:?}");
    println!("recovered in {recovery:?}");
    stage.until_status(&ids, "completed").await;
    for id in &ids {
        assert_eq!(stage.job(*id).await.attempts, 0);
        let failures = stage.failures(*id).await;
        assert_eq!(outcomes(&failures), ["lease_lost"]);
        assert_eq!(failures[0].worker_id, first_id);
    }
    second.stop().await;
    let (is_good, verdict) = stage.verify().await;
    assert!(is_good, "{verdict}");
    stage.close().await;
}
