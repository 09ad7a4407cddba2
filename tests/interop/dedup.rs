//! Deduplication by Node's producers holds when Bullwark runs the jobs, and the other way round.

use std::sync::Arc;

use serde_json::json;

use crate::node::{NodeEvents, NodeQueue};
use crate::sides::{Client, Pair, Running, in_pairs};
use crate::stage::Stage;
use crate::steps::steps;

fn dedup_pairs() -> Vec<Pair> {
    use Client::{Bullwark, Forward, Node5, Node6};
    let mut pairs = vec![(Node5, Node5), (Node6, Node6)];
    for works in [Bullwark, Forward] {
        pairs.extend([Node5, Node6].map(|adds| (adds, works)));
    }
    pairs
}

#[tokio::test(flavor = "multi_thread")]
async fn alike_jobs_run_once_until_the_first_has_ended() {
    in_pairs(dedup_pairs(), simple_and_last).await;
}

async fn simple_and_last(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let version = if adds == Client::Node5 { 5 } else { 6 };
    let producer = NodeQueue::open(&stage, version, &queue).await;
    let events = NodeEvents::open(&stage, 6, &queue).await;
    let worker = Running::start(&stage, works, &queue, 2).await;
    for keeps_last in [false, true] {
        let opts = json!({ "deduplication": { "id": "d", "keepLastIfActive": keeps_last } });
        let slow = steps(&[json!({ "sleep": 1500 })]);
        let first = producer.add(slow, opts.clone()).await;
        producer.until_state(&first, "active").await;
        for n in 0..3 {
            let alike = steps(&[json!({ "return": n })]);
            assert_eq!(producer.add(alike, opts.clone()).await, first, "{queue}");
        }
        events.until("deduplicated", &first).await;
        events.until("completed", &first).await;
        let expected = if keeps_last { 2 } else { 1 };
        let ends = || events.named("completed");
        if keeps_last {
            // The newest of those that came while it ran.
            let ended = crate::wait::eventually("the one that was kept", async || {
                ends().into_iter().find(|end| end["returnvalue"] == 2)
            });
            ended.await;
        }
        let after = producer.add(steps(&[]), opts).await;
        assert_ne!(after, first, "{queue}");
        events.until("completed", &after).await;
        let all = ends().len();
        assert_eq!(
            all,
            if keeps_last { 5 } else { expected + 1 },
            "{queue}: {:?}",
            ends()
        );
    }
    worker.stop().await;
}
