//! Flows that are in the record first: their jobs run in either kind of worker, and both stores
//! agree on how each ended.

use std::sync::Arc;

use bullwark::job::JobRequest;
use bullwark::job::flow::{FlowRequest, OnFailure};
use serde_json::{Value, json};

use crate::node::NodeQueue;
use crate::sides::{Client, Pair, Running, in_pairs};
use crate::stage::Stage;
use crate::steps::{ACT, steps};

/// Who runs the children, and who the parent.
fn pairs() -> Vec<Pair> {
    use Client::{Bullwark, Node5, Node6};
    vec![
        (Node6, Bullwark),
        (Bullwark, Node6),
        (Node5, Bullwark),
        (Bullwark, Node5),
    ]
}

fn request(queue: &str, does: &[Value], on_failure: OnFailure) -> FlowRequest {
    FlowRequest {
        job: JobRequest {
            queue: Some(queue.to_owned()),
            max_attempts: Some(0),
            ..JobRequest::new(ACT, steps(does))
        },
        on_failure,
        children: vec![],
    }
}

/// Enqueues a parent with these children, and returns the ids, the parent's first.
async fn enqueue(stage: &Stage, queue: &str, children: Vec<FlowRequest>) -> Vec<String> {
    let mut flow = request(queue, &[json!({ "return": "root" })], OnFailure::Wait);
    flow.children = children;
    let enqueued = stage.app.enqueue.enqueue_flow(flow).await.unwrap();
    enqueued.ids.iter().map(ToString::to_string).collect()
}

/// What both stores say of the end of a job.
async fn agreed(stage: &Stage, queue: &str, id: &str, status: &str) -> Value {
    stage.until_recorded(queue, id, status).await;
    let redis = NodeQueue::open(stage, 6, queue).await;
    let (state, what, field) = match status {
        "completed" => ("completed", "result", "returnvalue"),
        _ => ("failed", "to_jsonb(error_message)", "failedReason"),
    };
    redis.until_state(id, state).await;
    let recorded = stage.row(queue, id, what).await;
    assert_eq!(recorded, redis.get(id).await[field], "{queue} {id}");
    recorded
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_flow_runs_in_workers_of_both_kinds() {
    in_pairs(pairs(), grows).await;
}

async fn grows(stage: Arc<Stage>, (below, above): Pair, queue: String) {
    stage.app.start_upkeep(&stage.tasks);
    let lower = format!("{queue}_below");
    let leaf = |name: &str, rule| request(&lower, &[json!({ "return": name })], rule);
    let children = vec![
        leaf("one", OnFailure::Wait),
        leaf("two", OnFailure::FailParent),
    ];
    let good = enqueue(&stage, &queue, children).await;
    let children = vec![request(
        &lower,
        &[json!({ "fatal": "bad child" })],
        OnFailure::FailParent,
    )];
    let bad = enqueue(&stage, &queue, children).await;
    let seen = NodeQueue::open(&stage, 6, &queue).await;
    for root in [&good[0], &bad[0]] {
        seen.until_state(root, "waiting-children").await;
        assert_eq!(stage.status(&queue, root).await.as_deref(), Some("pending"));
    }
    let workers = [
        Running::start(&stage, above, &queue, 2).await,
        Running::start(&stage, below, &lower, 2).await,
    ];
    assert_eq!(agreed(&stage, &queue, &good[0], "completed").await, "root");
    for (id, name) in good[1..].iter().zip(["one", "two"]) {
        assert_eq!(agreed(&stage, &lower, id, "completed").await, name);
    }
    let values = seen.job(&good[0], "getChildrenValues", json!([])).await;
    let key = |id: &String| format!("{}:{lower}:{id}", stage.prefix);
    let expected = json!({ key(&good[1]): "one", key(&good[2]): "two" });
    assert_eq!(values, expected, "{queue}");

    let reason = agreed(&stage, &lower, &bad[1], "dead_letter").await;
    assert_eq!(reason, "bad child", "{queue}");
    let reason = agreed(&stage, &queue, &bad[0], "dead_letter").await;
    assert_eq!(reason, format!("child {} failed", key(&bad[1])), "{queue}");
    for worker in workers {
        worker.stop().await;
    }
}
