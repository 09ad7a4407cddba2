//! What ties the jobs of clients to others comes back with them when Redis has lost its memory.

use bullwark::broker::{AddedLinked, BrokerState, FlowNode, Keep, LinkedJob};
use bullwark::job::QueueName;
use bullwark::job::bullmq_options::JobsOptions;
use bullwark::record::adopt::record_id;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Follower, T};
use crate::stage::Stage;

/// As `FlowProducer.add` takes it. Each child begins before its parent by its timestamp, so that
/// nothing but the links tells who comes first.
fn node(id: &str, timestamp: i64, mut opts: Value, children: Vec<FlowNode>) -> FlowNode {
    opts["jobId"] = json!(id);
    opts["timestamp"] = json!(timestamp);
    FlowNode {
        queue: QueueName::default(),
        prefix: None,
        name: "step".into(),
        data: "{}".into(),
        options: JobsOptions::read(&opts.to_string()),
        children,
    }
}

fn leaf(id: &str, opts: Value) -> FlowNode {
    node(id, T - 2, opts, vec![])
}

impl Stage {
    fn record_id(&self, id: &str, timestamp: i64) -> Uuid {
        record_id(&self.prefix, &QueueName::default(), id, timestamp)
    }

    async fn wire_state(&self, id: &str) -> Option<BrokerState> {
        let (queue, ids) = (QueueName::default(), [id.to_owned()]);
        self.broker.states(&queue, &ids).await.unwrap()[0]
    }

    async fn field(&self, id: &str, field: &str) -> Option<String> {
        self.ask(&["HGET", &format!("{}:default:{id}", self.prefix), field])
            .await
    }

    async fn ask(&self, words: &[&str]) -> Option<String> {
        let mut cmd = redis::cmd(words[0]);
        cmd.arg(&words[1..]);
        cmd.query_async(&mut self.redis().await).await.unwrap()
    }

    async fn add_one(&self, id: &str, opts: Value) -> AddedLinked {
        let mut opts = JobsOptions::read(&opts.to_string());
        opts.job_id = Some(id.to_owned());
        let job = LinkedJob::new("step", "{}", &opts).unwrap();
        let queue = QueueName::default();
        self.broker.add_linked(&queue, &[job]).await.unwrap()[0].clone()
    }
}

#[tokio::test]
async fn a_client_s_flow_comes_back_whole_and_its_parents_run_after_their_children() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let middle = node("middle", T - 1, json!({}), vec![leaf("low", json!({}))]);
    let ignored = leaf("ignored", json!({ "ignoreDependencyOnFailure": true }));
    let tree = node(
        "root",
        T,
        json!({}),
        vec![middle, leaf("done", json!({})), ignored],
    );
    stage.broker.add_flow(&tree).await.unwrap();
    follower.until(stage.record_id("root", T), "pending").await;
    follower.catch_up().await;
    let mut claimed = stage.claim_elsewhere().await;
    claimed.retain(|id| !id.starts_with("last-"));
    claimed.sort();
    assert_eq!(claimed, ["done", "ignored", "low"]);
    stage.finish_elsewhere("done", "7", Keep::All).await;
    stage.fail_elsewhere("ignored", "broken").await;
    follower
        .until(stage.record_id("done", T - 2), "completed")
        .await;
    let ignored = stage.record_id("ignored", T - 2);
    follower.until(ignored, "dead_letter").await;

    stage.flush_prefix().await;
    stage.sweep().await;
    // The running one is given back in the record first.
    stage.sweep().await;
    let waits = Some(BrokerState::WaitingChildren);
    assert_eq!(stage.wire_state("root").await, waits);
    assert_eq!(stage.wire_state("middle").await, waits);
    assert_eq!(stage.wire_state("done").await, None, "it is over");
    let key = format!("{}:default:middle", stage.prefix);
    assert_eq!(stage.field("low", "parentKey").await, Some(key));
    for (id, value) in [("low", "1"), ("middle", "2"), ("root", "3")] {
        let mut claimed = stage.claim_elsewhere().await;
        claimed.retain(|id| !id.starts_with("last-"));
        assert_eq!(claimed, [id]);
        if id == "root" {
            let queue = QueueName::default();
            let values = stage.broker.children_values(&queue, id).await;
            let values = values.unwrap().children;
            let of = |id: &str| {
                let key = format!("{}:default:{id}", stage.prefix);
                let found = values.iter().find(|(known, _)| *known == key);
                found.and_then(|(_, value)| value.clone())
            };
            assert_eq!(of("done").as_deref(), Some("7"));
            assert_eq!(of("middle").as_deref(), Some("2"));
        }
        stage.finish_elsewhere(id, value, Keep::All).await;
    }
    assert_eq!(stage.claim_elsewhere().await, [""; 0], "each ran once");
}

#[tokio::test]
async fn a_waiting_parent_is_told_of_a_child_that_ended_while_redis_had_lost_it() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let tree = node("root", T, json!({}), vec![leaf("child", json!({}))]);
    stage.broker.add_flow(&tree).await.unwrap();
    follower.until(stage.record_id("root", T), "pending").await;
    let child = stage.record_id("child", T - 2);
    follower.until(child, "pending").await;
    stage.flush_prefix().await;
    stage.sweep().await;
    let waits = Some(BrokerState::WaitingChildren);
    assert_eq!(stage.wire_state("root").await, waits);
    // Its worker had outlived the loss: the record knows the outcome, and Redis does not.
    stage
        .execute(format!(
            "UPDATE jobs SET status = 'completed', result = '5', completed_at = now(),
               started_at = now(), attempt = 1 WHERE id = '{child}'"
        ))
        .await;
    stage.raw(&["LREM @wait 0 child", "DEL @child"]).await;
    stage.sweep().await;
    assert_eq!(stage.wire_state("root").await, Some(BrokerState::Wait));
}

#[tokio::test]
async fn a_child_whose_parent_is_unknown_comes_back_without_it() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let elsewhere = format!("{}-other:q", stage.prefix);
    let of_parent = format!("{elsewhere}:p");
    stage.raw(&[&format!("HSET {of_parent} name p")]).await;
    let parent = json!({ "parent": { "id": "p", "queue": elsewhere }, "timestamp": T });
    stage.add_one("child", parent).await;
    follower.until(stage.record_id("child", T), "pending").await;
    stage.flush_prefix().await;
    stage
        .raw(&[&format!("DEL {of_parent} {of_parent}:dependencies")])
        .await;
    stage.sweep().await;
    assert_eq!(stage.wire_state("child").await, Some(BrokerState::Wait));
    assert_eq!(stage.field("child", "parentKey").await, None);
}

#[tokio::test]
async fn a_lost_job_holds_its_deduplication_id_again_and_knows_its_schedule() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let now = bullwark::clock::now_ms();
    let simple = json!({ "deduplication": { "id": "s" }, "timestamp": now });
    let timed =
        json!({ "deduplication": { "id": "t", "ttl": 600_000 }, "timestamp": now - 60_000 });
    let past = json!({ "deduplication": { "id": "o", "ttl": 30_000 }, "timestamp": now - 60_000 });
    let ticks = json!({ "repeatJobKey": "hourly", "timestamp": now });
    stage.add_one("simple", simple.clone()).await;
    stage.add_one("timed", timed.clone()).await;
    stage.add_one("past", past.clone()).await;
    stage.add_one("tick", ticks).await;
    for (id, at) in [
        ("simple", now),
        ("timed", now - 60_000),
        ("past", now - 60_000),
    ] {
        follower.until(stage.record_id(id, at), "pending").await;
    }
    let tick = stage.record_id("tick", now);
    follower.until(tick, "pending").await;
    for id in [tick, stage.record_id("simple", now)] {
        stage.age(id, 60).await;
    }
    stage.flush_prefix().await;
    stage.sweep().await;
    assert_eq!(stage.field("tick", "rjk").await.as_deref(), Some("hourly"));
    for (id, opts) in [("simple", simple), ("timed", timed)] {
        let survivor = id.to_owned();
        let again = stage.add_one("another", opts).await;
        assert_eq!(again, AddedLinked::Deduplicated { survivor });
    }
    let of_timed = format!("{}:default:de:t", stage.prefix);
    let left: i64 = redis::cmd("PTTL")
        .arg(of_timed)
        .query_async(&mut stage.redis().await)
        .await
        .unwrap();
    assert!((500_000..=540_000).contains(&left), "{left}");
    assert_eq!(stage.wire_state("past").await, Some(BrokerState::Wait));
    let newcomer = stage.add_one("newcomer", past).await;
    assert!(
        matches!(newcomer, AddedLinked::Created { .. }),
        "{newcomer:?}"
    );
}

#[tokio::test]
async fn a_lost_job_whose_deduplication_id_was_taken_comes_back_all_the_same() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let opts = json!({ "deduplication": { "id": "d", "replace": true }, "timestamp": T });
    stage.add_one("old", opts).await;
    follower.until(stage.record_id("old", T), "pending").await;
    stage.flush_prefix().await;
    let newer = json!({ "deduplication": { "id": "d" }, "timestamp": T + 1, "delay": 1 });
    stage.add_one("new", newer).await;
    stage.sweep().await;
    assert_eq!(stage.wire_state("old").await, Some(BrokerState::Wait));
    assert!(
        stage.wire_state("new").await.is_some(),
        "nobody is replaced"
    );
    let owner = format!("{}:default:de:d", stage.prefix);
    assert_eq!(stage.ask(&["GET", &owner]).await.as_deref(), Some("new"));
}
