//! A worker that was frozen for longer than its lease: when it wakes up it has no say any more.

use nix::sys::signal::Signal;

use crate::stage::{Stage, outcomes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_frozen_past_its_lease_writes_nothing() {
    let stage = Stage::new().await;
    let mut first = stage.worker(&["--lease-ms", "1000"]).await;
    let ids = stage.sleeps(3, 1_500).await;
    let first_id = Some(first.id.clone());
    stage
        .until_all("running at the first", &ids, |job| {
            job.status == "processing" && job.worker_id == first_id
        })
        .await;
    first.signal(Signal::SIGSTOP);
    let second = stage.worker(&["--lease-ms", "1000"]).await;
    stage.until_status(&ids, "completed").await;
    let second_id = Some(second.id.clone());
    let mut before = Vec::new();
    for id in &ids {
        assert_eq!(stage.job(*id).await.worker_id, second_id);
        assert_eq!(outcomes(&stage.failures(*id).await), ["lease_lost"]);
        before.push(stage.whole(*id).await);
    }
    second.stop().await;

    // Its handlers wake up, report progress and succeed. It ends when it has tried to say so.
    first.signal(Signal::SIGCONT);
    first.signal(Signal::SIGTERM);
    assert_eq!(first.end().await, Some(0));
    for (id, before) in ids.iter().zip(before) {
        assert_eq!(stage.whole(*id).await, before);
    }
    assert_eq!(stage.keys("*:lock").await, 0);
    let (is_good, verdict) = stage.verify().await;
    assert!(is_good, "{verdict}");
    stage.close().await;
}
