//! Plain jobs: added one by one and in bulk, run by somebody else, seen by everybody.

use std::sync::Arc;

use serde_json::json;

use crate::node::NodeQueue;
use crate::sides::{Pair, Producer, Running, in_pairs, pairs};
use crate::stage::Stage;
use crate::steps::steps;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_one_client_adds_is_run_by_another() {
    in_pairs(pairs(), single_and_bulk).await;
}

async fn single_and_bulk(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let producer = Producer::open(&stage, adds, &queue).await;
    let before = producer
        .add(steps(&[json!({ "return": "early" })]), json!({}))
        .await;
    let worker = Running::start(&stage, works, &queue, 3).await;
    let mut ids = vec![before];
    ids.push(
        producer
            .add(
                steps(&[json!({ "return": { "n": [1, "ü", null] } })]),
                json!({}),
            )
            .await,
    );
    let many = (0..20).map(|n| steps(&[json!({ "return": n })]));
    ids.extend(producer.add_bulk(many.collect()).await);

    let seen = NodeQueue::open(&stage, 6, &queue).await;
    for id in &ids {
        seen.until_state(id, "completed").await;
    }
    assert_eq!(seen.get(&ids[0]).await["returnvalue"], "early");
    assert_eq!(
        seen.get(&ids[1]).await["returnvalue"],
        json!({ "n": [1, "ü", null] })
    );
    for (n, id) in ids[2..].iter().enumerate() {
        let job = seen.get(id).await;
        assert_eq!(job["returnvalue"], n);
        assert_eq!(
            (&job["attemptsMade"], &job["attemptsStarted"]),
            (&json!(1), &json!(1))
        );
    }
    worker.stop().await;
}
