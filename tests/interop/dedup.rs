//! Deduplication by Node's producers holds when Bullwark runs the jobs, and the other way round.

use std::sync::Arc;

use serde_json::json;

use crate::node::{NodeEvents, NodeQueue};
use crate::sides::{Client, Pair, Producer, Running, in_pairs};
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

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_bullwark_s_producer_gave_holds_for_node_too() {
    use Client::{Bullwark, Linked, Node5, Node6};
    let pairs = [Node5, Node6, Bullwark].map(|works| (Linked, works));
    in_pairs(pairs.to_vec(), ours).await;
}

async fn ours(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let version = if works == Client::Node5 { 5 } else { 6 };
    let producer = Producer::open(&stage, adds, &queue).await;
    let node = NodeQueue::open(&stage, version, &queue).await;
    let events = NodeEvents::open(&stage, 6, &queue).await;
    for (id, more) in [("simple", json!({})), ("ttl", json!({ "ttl": 60_000 }))] {
        let mut deduplication = more;
        deduplication["id"] = json!(id);
        let opts = json!({ "deduplication": deduplication });
        let first = producer.add(steps(&[]), opts.clone()).await;
        let owner = node.call("getDeduplicationJobId", json!([id])).await;
        assert_eq!(owner, json!(first), "{queue}");
        assert_eq!(node.add(steps(&[]), opts.clone()).await, first, "{queue}");
        assert_eq!(producer.add(steps(&[]), opts.clone()).await, first);

        let worker = Running::start(&stage, works, &queue, 1).await;
        events.until("completed", &first).await;
        worker.stop().await;
        let after = node.add(steps(&[]), opts).await;
        let is_free = id == "simple";
        assert_eq!(after != first, is_free, "{queue}: {id}");
    }
    let newest = |delay: u64| {
        let deduplication = json!({ "id": "replaced", "replace": true, "ttl": 60_000 });
        json!({ "delay": delay, "deduplication": deduplication })
    };
    let old = node.add(steps(&[]), newest(3_600_000)).await;
    let new = producer.add(steps(&[]), newest(3_600_000)).await;
    assert_ne!(old, new);
    assert!(node.get(&old).await.is_null(), "{queue}: the newest counts");
    assert_eq!(node.state(&new).await, "delayed");
}
