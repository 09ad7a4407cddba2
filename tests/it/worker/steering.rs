//! Steering a worker while it runs.

#![expect(clippy::disallowed_methods, reason = "tests wait for what they spawn")]

use bullwark::worker::{Cancelled, Steering};
use serde_json::json;

use super::rig::{Rig, eventually, within};
use super::script::{Act, scripted};

fn waiting_for(gate: &str) -> Act {
    Act::Wait {
        gate: gate.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_worker_claims_nothing_until_it_is_resumed() {
    let rig = Rig::new().await;
    let steering = Steering::default();
    assert!(
        steering.pause(true).await,
        "it may be paused before it runs"
    );
    let worker = rig.work(|options| options.steering = steering.clone());
    let id = rig.enqueue(scripted("a", &[&[]])).await;
    rig.until_redis(id, "Prioritized").await;
    assert!(steering.is_paused());
    assert_eq!(rig.probe.starts_of("a"), 0);
    steering.resume();
    rig.until(id, "completed").await;
    worker.stop().await;
    rig.close().await;
}

/// Fewer slots, then a pause that waits, while all slots are busy: neither gets in the other's way,
/// and the worker goes on with the new number afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_waits_for_running_jobs_also_when_slots_are_taken_away() {
    let rig = Rig::new().await;
    let steering = Steering::default();
    let worker = rig.work(|options| {
        options.steering = steering.clone();
        options.slots = 4;
    });
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d"] {
        ids.push(rig.enqueue(scripted(name, &[&[waiting_for("open")]])).await);
    }
    rig.probe.starts(4).await;
    steering.set_slots(2);
    let pausing = steering.clone();
    let paused = tokio::spawn(async move { pausing.pause(true).await });
    eventually("the pause", async || steering.is_paused().then_some(())).await;
    assert!(!paused.is_finished(), "jobs run");
    rig.probe.open("open");
    assert!(within("the end of the pause", paused).await.unwrap());
    for id in ids {
        rig.until(id, "completed").await;
    }
    steering.resume();
    for name in ["e", "f", "g"] {
        rig.enqueue(scripted(name, &[&[waiting_for("later")]]))
            .await;
    }
    rig.probe.starts(6).await;
    assert_eq!((steering.size(), steering.running()), (2, 2));
    rig.probe.open("later");
    rig.probe.starts(7).await;
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

/// Somebody who resumes a worker has not to wait for those who wanted it paused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_worker_claims_at_once_and_the_pause_says_that_it_failed() {
    let rig = Rig::new().await;
    let steering = Steering::default();
    let worker = rig.work(|options| {
        options.steering = steering.clone();
        options.slots = 2;
    });
    rig.enqueue(scripted("long", &[&[waiting_for("open")]]))
        .await;
    rig.probe.starts(1).await;
    let pausing = steering.clone();
    let paused = tokio::spawn(async move { pausing.pause(true).await });
    eventually("the pause", async || steering.is_paused().then_some(())).await;
    steering.resume();
    let id = rig.enqueue(scripted("short", &[&[]])).await;
    rig.until(id, "completed").await;
    assert!(!within("the answer", paused).await.unwrap());
    rig.probe.open("open");
    worker.stop().await;
    rig.close().await;
}

/// The number that somebody has set before the worker began goes before its options.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_begins_with_as_many_slots_as_it_was_given_before() {
    let rig = Rig::new().await;
    let steering = Steering::default();
    steering.set_slots(2);
    let worker = rig.work(|options| {
        options.steering = steering.clone();
        options.slots = 5;
    });
    for name in ["a", "b", "c"] {
        rig.enqueue(scripted(name, &[&[waiting_for("open")]])).await;
    }
    rig.probe.starts(2).await;
    assert_eq!((steering.size(), steering.running()), (2, 2));
    rig.probe.open("open");
    rig.probe.starts(3).await;
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_fails_with_the_reason() {
    let rig = Rig::new().await;
    let steering = Steering::default();
    let worker = rig.work(|options| options.steering = steering.clone());
    let mut request = scripted("a", &[&[waiting_for("never")]]);
    request.max_attempts = Some(0);
    let id = rig.enqueue(request).await;
    rig.probe.starts(1).await;
    let (wire_id, why) = (id.to_string(), Some("no longer needed"));
    let cancel = |id: &str, queue| steering.cancel(id, queue, why);
    assert_eq!(cancel("another", None), Cancelled::NotHeld);
    assert_eq!(cancel(&wire_id, Some("another")), Cancelled::NotHeld);
    assert_eq!(cancel(&wire_id, Some("default")), Cancelled::Told);
    let job = rig.until(id, "dead_letter").await;
    assert_eq!(job.error_message.as_deref(), Some("no longer needed"));
    assert_eq!(json!(job.result), json!(null));
    worker.stop().await;
    rig.close().await;
}
