//! Jobs that call services with a quota.

use super::rig::Rig;
use super::script::{Act, scripted, succeed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_without_quota_come_back_one_by_one_and_spend_neither_attempts_nor_slots() {
    const JOBS: usize = 60;
    let rig = Rig::new().await;
    let worker = rig.work(|options| options.slots = 4);
    let mut ids = Vec::new();
    for nth in 0..JOBS {
        let call = Act::Call {
            max: 10,
            per_ms: 1000,
        };
        ids.push(rig.enqueue(scripted(&format!("c{nth}"), &[&[call]])).await);
    }
    // There are many more of them than slots, and others run all the same.
    let other = rig
        .enqueue(scripted("other", &[&[succeed(true.into())]]))
        .await;
    let other = rig.until(other, "completed").await;
    let mut calls = Vec::new();
    for id in ids {
        let job = rig.until(id, "completed").await;
        assert_eq!(job.attempts, 0);
        calls.push(job.result.unwrap().as_i64().unwrap());
    }
    calls.sort_unstable();
    let others_end = other.completed_at.unwrap().timestamp_millis();
    assert!(
        others_end < calls[JOBS - 1],
        "it did not wait for their quota"
    );
    for from in &calls {
        let within = calls.iter().filter(|at| (*from..from + 1000).contains(at));
        assert!(within.count() <= 10, "{calls:?}");
    }
    // Five seconds are needed.
    let took = calls[JOBS - 1] - calls[0];
    assert!((5000..9000).contains(&took), "{took}");
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}
