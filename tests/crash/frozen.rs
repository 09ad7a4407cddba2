//! A worker that was frozen for longer than its lease: when it wakes up it has no say any more.

use bullwark::broker::BrokerState;
use nix::sys::signal::Signal;

use serde_json::json;

use crate::own_worker::write;
use crate::snapshot::Snapshot;
use crate::stage::{Stage, eventually, outcomes};

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

/// Its handler sleeps over the end of its lease, and then tries every way to write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_handler_can_use_none_of_the_ways_to_write() {
    let stage = Stage::new().await;
    stage.serve_writes().await;
    let first = stage.own_worker(false).await;
    let id = stage
        .enqueue(vec![write(json!({ "wait_ms": 1_500 }))])
        .await[0];
    let first_id = Some(first.id.clone());
    stage
        .until_all("running at the first", &[id], |job| {
            job.status == "processing" && job.worker_id == first_id
        })
        .await;
    first.signal(Signal::SIGSTOP);
    let second = stage.own_worker(true).await;
    stage.until_status(&[id], "completed").await;
    eventually("the job to be over in Redis", async || {
        stage.state(id).await == Some(BrokerState::Completed)
    })
    .await;
    assert_eq!(stage.job(id).await.worker_id, Some(second.id.clone()));
    assert_eq!(outcomes(&stage.failures(id).await), ["lease_lost"]);
    let said = second.stop_and_listen().await;
    let good = json!({ "attempt": 2, "answers": vec![None::<String>; 5], "did": true });
    assert_eq!(said, [good]);
    let before = Snapshot::of(&stage).await;

    // It wakes up, and every write is told that it has no say.
    first.signal(Signal::SIGCONT);
    let said = first.stop_and_listen().await;
    let lost = "the lease of this attempt is lost";
    let bad = json!({ "attempt": 1, "answers": vec![lost; 5], "did": false });
    assert_eq!(said, [bad]);
    Snapshot::of(&stage).await.assert_same_as(&before);
    for name in ["checkpoint", "step", "step in tx", "call", "end"] {
        assert_eq!(stage.effects(id, name).await, 1, "{name}");
    }
    let (is_good, verdict) = stage.verify().await;
    assert!(is_good, "{verdict}");
    stage.close().await;
}
