//! A worker that is told to end, in good order.

use bullwark::record::access::By;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::stage::{Stage, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_jobs_finish_after_the_signal() {
    let stage = Stage::new().await;
    let worker = stage.worker(&[]).await;
    let ids = stage.sleeps(5, 1_500).await;
    stage.until_status(&ids, "processing").await;
    worker.stop().await;
    for id in &ids {
        assert_eq!(stage.job(*id).await.status, "completed");
        assert!(stage.failures(*id).await.is_empty());
    }
    let (is_good, verdict) = stage.verify().await;
    assert!(is_good, "{verdict}");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_limit_or_a_second_signal_jobs_go_back_unspent() {
    let stage = Stage::new().await;
    for arguments in [&["--shutdown-limit", "1"][..], &[]] {
        let mut worker = stage.worker(arguments).await;
        let ids = stage.sleeps(3, 60_000).await;
        stage.until_status(&ids, "processing").await;
        worker.signal(Signal::SIGTERM);
        if arguments.is_empty() {
            // The second signal counts only when the first has been seen.
            within("a worker that stops", async {
                while !worker.has_ended() {
                    worker.signal(Signal::SIGTERM);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
            .await;
        }
        assert_eq!(worker.end().await, Some(0));
        for id in &ids {
            let job = stage.job(*id).await;
            assert_eq!((job.status.as_str(), job.attempts), ("pending", 0));
            assert!(stage.failures(*id).await.is_empty());
        }
        let (is_good, verdict) = stage.verify().await;
        assert!(is_good, "{verdict}");
        let (record, broker) = (&stage.app.record, &stage.app.broker);
        bullwark::control::cancel(record, broker, &ids, &By::OPERATOR, "done with it")
            .await
            .unwrap();
    }
    stage.close().await;
}
