//! Flows: trees of jobs over two queues, added by one side and run by the other.

use std::sync::Arc;

use bullwark::broker::FlowNode;
use bullwark::job::bullmq_options::JobsOptions;
use serde_json::{Value, json};

use crate::node::{NodeFlows, NodeQueue};
use crate::sides::{Client, Pair, Running, in_pairs};
use crate::stage::Stage;
use crate::steps::{ACT, steps};

/// Those that add flows: the packages, and Bullwark's broker.
fn flow_pairs() -> Vec<Pair> {
    use Client::{Bullwark, Forward, Node5, Node6, Python, Rust};
    let mut pairs = vec![(Node5, Node5), (Node6, Node6)];
    for works in [Bullwark, Forward] {
        pairs.extend([Node5, Node6, Bullwark].map(|adds| (adds, works)));
    }
    pairs.extend([Node5, Node6, Python, Rust].map(|works| (Bullwark, works)));
    pairs
}

/// Adds a tree, as `FlowProducer.add` takes it.
async fn add_flow(stage: &Stage, adds: Client, tree: &Value) {
    match adds {
        Client::Node5 => NodeFlows::open(stage, 5).await.add(tree).await,
        Client::Node6 => NodeFlows::open(stage, 6).await.add(tree).await,
        Client::Bullwark => {
            let added = stage.broker().add_flow(&node(tree)).await.unwrap();
            assert!(added.added.id().is_some(), "{added:?}");
        }
        other => panic!("{other:?} adds no flows here"),
    }
}

fn node(tree: &Value) -> FlowNode {
    let children = tree["children"].as_array();
    FlowNode {
        queue: tree["queueName"].as_str().unwrap().parse().unwrap(),
        prefix: None,
        name: tree["name"].as_str().unwrap().to_owned(),
        data: tree["data"].to_string(),
        options: JobsOptions::read(&tree["opts"].to_string()),
        children: children.map_or_else(Vec::new, |children| children.iter().map(node).collect()),
    }
}

fn job(queue: &str, id: &str, does: &[Value], mut opts: Value) -> Value {
    opts["jobId"] = json!(id);
    json!({ "name": ACT, "queueName": queue, "data": steps(does), "opts": opts })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_runs_when_its_children_are_done() {
    in_pairs(flow_pairs(), grows).await;
}

async fn grows(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let below = format!("{queue}_below");
    let leaf = |id| job(&below, id, &[json!({ "return": id })], json!({}));
    let mut middle = job(&below, "middle", &[], json!({ "priority": 2 }));
    middle["children"] = json!([leaf("one"), leaf("two")]);
    let mut tree = job(&queue, "root", &[], json!({}));
    tree["children"] = json!([middle, leaf("three")]);
    add_flow(&stage, adds, &tree).await;

    let seen = NodeQueue::open(&stage, 6, &queue).await;
    assert_eq!(seen.state("root").await, "waiting-children", "{queue}");
    for version in [5, 6] {
        let flow = NodeFlows::open(&stage, version)
            .await
            .get(&queue, "root")
            .await;
        assert_eq!(
            ids_of(&flow),
            ["middle", "one", "root", "three", "two"],
            "{queue}"
        );
    }
    let workers = [
        Running::start(&stage, works, &queue, 2).await,
        Running::start(&stage, works, &below, 2).await,
    ];
    seen.until_state("root", "completed").await;
    let values = seen.job("root", "getChildrenValues", json!([])).await;
    let key = format!("{}:{below}:three", stage.prefix);
    assert_eq!(values[key.as_str()], "three", "{queue} {values}");
    assert_eq!(values.as_object().unwrap().len(), 2, "{queue} {values}");
    let lower = NodeQueue::open(&stage, 6, &below).await;
    let values = lower.job("middle", "getChildrenValues", json!([])).await;
    assert_eq!(values.as_object().unwrap().len(), 2, "{queue} {values}");
    for worker in workers {
        worker.stop().await;
    }
}

/// All ids of a tree, sorted.
fn ids_of(flow: &Value) -> Vec<&str> {
    let mut ids = vec![flow["id"].as_str().unwrap()];
    for child in flow["children"].as_array().unwrap() {
        ids.extend(ids_of(child));
    }
    ids.sort_unstable();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_child_does_to_its_parent_what_its_policy_says() {
    in_pairs(flow_pairs(), policies).await;
}

async fn policies(stage: Arc<Stage>, (adds, works): Pair, queue: String) {
    let cases = [
        ("none", "", "waiting-children"),
        ("fails", "failParentOnFailure", "failed"),
        ("ignores", "ignoreDependencyOnFailure", "completed"),
        ("drops", "removeDependencyOnFailure", "completed"),
        ("goes-on", "continueParentOnFailure", "completed"),
    ];
    for (id, policy, _) in cases {
        let child = format!("{id}-child");
        let opts = match policy {
            "" => json!({}),
            policy => json!({ policy: true }),
        };
        let mut tree = job(&queue, id, &[], json!({}));
        let bad = job(&queue, &child, &[json!({ "fatal": "bad child" })], opts);
        let good = job(&queue, &format!("{id}-good"), &[], json!({}));
        // A parent that goes on at once must see to the other children itself.
        tree["children"] = match id {
            "goes-on" => json!([bad]),
            _ => json!([bad, good]),
        };
        add_flow(&stage, adds, &tree).await;
    }
    let worker = Running::start(&stage, works, &queue, 3).await;
    let seen = NodeQueue::open(&stage, 6, &queue).await;
    for (id, policy, state) in cases {
        seen.until_state(&format!("{id}-child"), "failed").await;
        seen.until_state(id, state).await;
        let child_key = format!("{}:{queue}:{id}-child", stage.prefix);
        if policy == "failParentOnFailure" {
            let reason = seen.get(id).await["failedReason"].take();
            assert_eq!(reason, format!("child {child_key} failed"), "{queue}");
        }
        let ignored = seen.job(id, "getIgnoredChildrenFailures", json!([])).await;
        let expects = ["ignoreDependencyOnFailure", "continueParentOnFailure"].contains(&policy);
        let found = ignored[child_key.as_str()] == "bad child";
        assert_eq!(found, expects, "{queue} {id} {ignored}");
    }
    worker.stop().await;
}
