//! How long finished jobs stay in Redis: as the job says, whoever runs it. The record keeps all.

use std::sync::Arc;

use serde_json::json;

use crate::node::{NodeEvents, NodeQueue};
use crate::sides::{Client, Pair, Producer, Running, in_pairs};
use crate::stage::Stage;
use crate::steps::steps;

#[tokio::test(flavor = "multi_thread")]
async fn finished_jobs_stay_as_long_as_their_producer_said() {
    use Client::{Bullwark, Linked, Node5, Node6};
    let pairs = vec![
        (Node5, Node5),
        (Node6, Node6),
        (Node5, Bullwark),
        (Node6, Bullwark),
        (Linked, Node5),
        (Linked, Node6),
        (Linked, Bullwark),
    ];
    in_pairs(pairs, kept).await;
}

async fn kept(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let producer = Producer::open(&stage, adds, &queue).await;
    let seen = NodeQueue::open(&stage, 6, &queue).await;
    let events = NodeEvents::open(&stage, 6, &queue).await;
    let worker = Running::start(&stage, works, &queue, 1).await;
    let gone = producer
        .add(steps(&[]), json!({ "removeOnComplete": true }))
        .await;
    let failed = steps(&[json!({ "fatal": "x" })]);
    let failed = producer
        .add(failed, json!({ "removeOnFail": { "count": 0 } }))
        .await;
    events.until("completed", &gone).await;
    events.until("failed", &failed).await;
    assert!(seen.get(&gone).await.is_null(), "{queue}");
    assert!(seen.get(&failed).await.is_null(), "{queue}");

    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(
            producer
                .add(steps(&[]), json!({ "removeOnComplete": 2 }))
                .await,
        );
    }
    for id in &ids {
        events.until("completed", id).await;
    }
    let mut left = 0;
    for id in &ids {
        left += usize::from(!seen.get(id).await.is_null());
    }
    assert_eq!(left, 2, "{queue}");
    if works == Client::Bullwark {
        for id in &ids {
            stage.until_recorded(&queue, id, "completed").await;
        }
    }
    worker.stop().await;
}
