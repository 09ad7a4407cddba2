//! A rate limit that a receiver meets closes its queue, and no other one, for all forwarding
//! workers.

use std::time::Duration;

use serde_json::json;

use crate::answers::{Scripted, Shared, arrivals, serve};
use crate::forwarder::Forwarder;
use crate::node::NodeQueue;
use crate::stage::Stage;

fn closes(seconds: &'static str) -> Vec<Scripted> {
    let limited = (429, Some(("retry-after", seconds)), String::new());
    vec![limited, (200, None, String::new())]
}

fn script(answers: Vec<(&str, Vec<Scripted>)>) -> Shared {
    let script = Shared::default();
    for (name, answers) in answers {
        let mut script = script.lock().unwrap();
        script.answers.insert(name.to_owned(), answers);
    }
    script
}

async fn add(queue: &NodeQueue, name: &str) {
    queue
        .call("add", json!([name, {}, { "jobId": name }]))
        .await;
}

/// Neither the queue nor a worker has a limit of its own. The worker that was told sleeps less long
/// than that, and the other one was told nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_a_receiver_closed_stays_closed_for_every_forwarding_worker() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, "closed").await;
    let script = script(vec![
        ("first", closes("2")),
        ("second", vec![(200, None, String::new())]),
    ]);
    let url = serve(script.clone()).await;
    let arguments = ["--maximum-rate-limit-delay", "100", "--drain-delay", "0.1"];
    let told = Forwarder::start(&stage, "closed", &url, &arguments).await;
    add(&queue, "first").await;
    crate::wait::eventually("the limit to be met", async || {
        (arrivals(&script, "first").len() == 1).then_some(())
    })
    .await;
    queue.until_state("first", "waiting").await;
    let other = Forwarder::start(&stage, "closed", &url, &arguments).await;
    add(&queue, "second").await;
    queue.until_state("first", "completed").await;
    queue.until_state("second", "completed").await;
    let closed_at = arrivals(&script, "first")[0];
    for (name, nth) in [("first", 1), ("second", 0)] {
        let after = arrivals(&script, name)[nth] - closed_at;
        assert!(after >= Duration::from_millis(1900), "{name}: {after:?}");
    }
    assert_eq!(arrivals(&script, "first").len(), 2);
    assert_eq!(queue.get("first").await["attemptsMade"], 1);
    told.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_queues_of_a_worker_go_on_while_one_is_closed() {
    let stage = Stage::new().await;
    let limited = NodeQueue::open(&stage, 6, "limited").await;
    let free = NodeQueue::open(&stage, 6, "free").await;
    let good = vec![(200, None, String::new())];
    let script = script(vec![("first", closes("4")), ("other", good)]);
    let url = serve(script.clone()).await;
    let forwarder = Forwarder::start(&stage, "limited", &url, &["--queue", "free"]).await;
    add(&limited, "first").await;
    crate::wait::eventually("the limit to be met", async || {
        (arrivals(&script, "first").len() == 1).then_some(())
    })
    .await;
    limited.until_state("first", "waiting").await;
    add(&free, "other").await;
    free.until_state("other", "completed").await;
    assert_eq!(limited.state("first").await, "waiting", "still closed");
    limited.until_state("first", "completed").await;
    let came = arrivals(&script, "first");
    assert_eq!(came.len(), 2);
    assert!(came[1] - came[0] >= Duration::from_millis(3900));
    forwarder.stop().await;
}
