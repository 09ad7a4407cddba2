//! Queues in which workspaces take turns, worked on by clients that know nothing of turns.

use std::sync::Arc;

use bullwark::job::{JobRequest, QueueChange};
use serde_json::json;
use uuid::Uuid;

use crate::node::{NodeEvents, NodeQueue};
use crate::sides::{Client, Pair, Running, in_pairs};
use crate::stage::Stage;
use crate::steps::{ACT, steps};

const MANY: Uuid = Uuid::from_u128(0xa1);
const FEW: Uuid = Uuid::from_u128(0xa2);

#[tokio::test(flavor = "multi_thread")]
async fn unmodified_workers_give_each_workspace_its_turn() {
    use Client::{Bullwark, Forward, Node5, Node6, Python, Rust};
    let all = [Node5, Node6, Python, Rust, Forward, Bullwark];
    in_pairs(all.map(|works| (Bullwark, works)).to_vec(), turns).await;
}

async fn enqueue(stage: &Stage, queue: &str, owner: Uuid) -> String {
    let request = JobRequest {
        queue: Some(queue.to_owned()),
        workspace_id: Some(owner),
        ..JobRequest::new(ACT, steps(&[]))
    };
    let enqueued = stage.app.enqueue.enqueue(request).await.unwrap();
    enqueued.id.to_string()
}

async fn turns(stage: Arc<Stage>, (_, works): Pair, queue: String) {
    for id in [MANY, FEW] {
        sqlx::query("INSERT INTO workspaces (id, name) VALUES ($1, 'x') ON CONFLICT DO NOTHING")
            .bind(id)
            .execute(&stage.pool)
            .await
            .unwrap();
    }
    let change = QueueChange {
        is_fair: Some(true),
        ..QueueChange::default()
    };
    stage.change_queue(&queue, &change).await;
    let mut many = Vec::new();
    for _ in 0..30 {
        many.push(enqueue(&stage, &queue, MANY).await);
    }
    let mut few = Vec::new();
    for _ in 0..3 {
        few.push(enqueue(&stage, &queue, FEW).await);
    }
    let looks = NodeQueue::open(&stage, 6, &queue).await;
    for id in many.iter().chain(&few) {
        looks.until_state(id, "prioritized").await;
    }
    let events = NodeEvents::open(&stage, 6, &queue).await;
    let worker = Running::start(&stage, works, &queue, 1).await;
    for id in many.iter().chain(&few) {
        events.until("completed", id).await;
    }
    worker.stop().await;
    let began = events.named("active");
    let began: Vec<_> = began
        .iter()
        .map(|args| args["jobId"].as_str().unwrap())
        .collect();
    assert_eq!(began.len(), 33, "{queue}: each began once");
    let place = |id: &String| began.iter().position(|begun| begun == id).unwrap();
    let places: Vec<usize> = few.iter().map(place).collect();
    assert!(
        places.iter().all(|place| *place < 8) && places.is_sorted(),
        "{queue}: behind each other's first jobs, and in their order: {places:?}"
    );
    assert!(
        many.iter().map(place).is_sorted(),
        "{queue}: in their order"
    );
    assert_eq!(looks.call("getCompletedCount", json!([])).await, json!(33));
}
