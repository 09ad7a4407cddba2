use bullwark::broker::{
    AddedLinked, AddedNode, Broker, BrokerError, FLOW_BYTES_MAX, FLOW_NODES_MAX, Fail, Finish,
    FlowNode, FlowPart, FlowTree, Keep, Refusal,
};
use bullwark::job::bullmq_options::{Deduplication, JobsOptions};

use crate::support::{Bench, ids};

fn node(id: &str, children: Vec<FlowNode>) -> FlowNode {
    FlowNode {
        queue: "q".parse().unwrap(),
        name: "n".to_owned(),
        data: "{}".to_owned(),
        options: JobsOptions {
            job_id: Some(id.to_owned()),
            ..JobsOptions::default()
        },
        children,
        ..FlowNode::default()
    }
}

async fn finish(t: &Bench, id: &str, returnvalue: &str) {
    let finish = Finish {
        id: id.to_owned(),
        token: "t1".to_owned(),
        returnvalue: returnvalue.to_owned(),
        keep: Keep::default(),
    };
    t.broker.finish(&t.queue, &[finish]).await.unwrap();
}

fn refused<T: std::fmt::Debug>(answer: Result<T, BrokerError>) -> &'static str {
    match answer {
        Err(BrokerError::Refused(refusal)) => Refusal::code(&refusal),
        other => panic!("{other:?}"),
    }
}

/// Key without its prefix, standing, children.
fn sketch(prefix: &str, tree: &FlowTree) -> String {
    let children: Vec<String> = tree.children.iter().map(|c| sketch(prefix, c)).collect();
    let key = tree.key.strip_prefix(prefix).unwrap();
    format!("{key} {:?} [{}]", tree.standing, children.join(", "))
}

#[tokio::test]
async fn a_parent_runs_when_its_children_are_done() {
    let t = Bench::new().await;
    let flow = node(
        "root",
        vec![node("a", vec![node("a1", vec![])]), node("b", vec![])],
    );
    let added = t.broker.add_flow(&flow).await.unwrap();
    assert_eq!(added.children[0].children[0].id, "a1");

    let claimed = t.claim(9).await;
    assert_eq!(ids(&claimed), ["b", "a1"], "level by level");
    finish(&t, "b", "1").await;
    assert!(t.claim(9).await.jobs.is_empty());
    finish(&t, "a1", "2").await;
    assert_eq!(ids(&t.claim(9).await), ["a"]);
    finish(&t, "a", "3").await;
    assert_eq!(ids(&t.claim(9).await), ["root"]);
    let part = FlowPart::default();
    let tree = t
        .broker
        .flow(&t.queue, "root", part)
        .await
        .unwrap()
        .unwrap();
    let mut children = tree.children.clone();
    children.sort_by(|a, b| a.key.cmp(&b.key));
    let tree = FlowTree { children, ..tree };
    assert_eq!(
        sketch(&t.key(""), &tree),
        "root Root [a Processed(\"3\") [a1 Processed(\"2\") []], b Processed(\"1\") []]"
    );
    assert_eq!(tree.fields["name"], "n");
}

#[tokio::test]
async fn a_stored_flow_shows_how_each_child_stands() {
    let t = Bench::new().await;
    let mut ignored = node("idle", vec![]);
    ignored.options.ignore_dependency_on_failure = true;
    let mut failed = node("fatal", vec![]);
    failed.options.fail_parent_on_failure = true;
    let flow = node("root", vec![ignored, failed, node("pending", vec![])]);
    t.broker.add_flow(&flow).await.unwrap();
    assert_eq!(ids(&t.claim(2).await), ["idle", "fatal"]);
    for id in ["idle", "fatal"] {
        let fail = Fail {
            id: id.to_owned(),
            token: "t1".to_owned(),
            reason: format!("{id} for a reason"),
            stacktrace: "[]".to_owned(),
            attempts: 1,
            keep: Keep::default(),
        };
        t.broker.fail(&t.queue, &[fail]).await.unwrap();
    }
    let read = async |depth: usize, children_max: usize| {
        let part = FlowPart {
            depth,
            children_max,
        };
        let tree = t.broker.flow(&t.queue, "root", part).await.unwrap();
        sketch(&t.key(""), &tree.unwrap())
    };
    assert_eq!(
        read(10, 20).await,
        "root Root [pending Pending [], fatal Failed [], \
         idle Ignored(\"idle for a reason\") []]"
    );
    assert_eq!(read(1, 20).await, "root Root []");
    assert_eq!(
        t.broker
            .flow(&t.queue, "none", FlowPart::default())
            .await
            .unwrap(),
        None
    );
    t.raws(&["DEL @pending"]).await;
    assert!(!read(2, 20).await.contains("pending"), "it was removed");
}

#[tokio::test]
async fn a_flow_is_refused_whole() {
    let t = Bench::new().await;
    let deduplication = Some(Deduplication {
        id: "d".to_owned(),
        ..Deduplication::default()
    });

    let mut parent = node("p", vec![node("c", vec![])]);
    parent.options.deduplication.clone_from(&deduplication);
    assert_eq!(
        refused(t.broker.add_flow(&parent).await),
        "flow_deduplication"
    );

    let mut child = node("c", vec![]);
    child.options.deduplication = deduplication;
    let flow = node("p", vec![node("first", vec![]), child]);
    assert_eq!(refused(t.broker.add_flow(&flow).await), "options");

    let many = (0..FLOW_NODES_MAX).map(|i| node(&format!("c{i}"), vec![]));
    let flow = node("p", many.collect());
    assert_eq!(refused(t.broker.add_flow(&flow).await), "flow_nodes");

    let heavy = FlowNode {
        data: format!("\"{}\"", "x".repeat(FLOW_BYTES_MAX)),
        ..node("heavy", vec![])
    };
    assert_eq!(refused(t.broker.add_flow(&heavy).await), "flow_bytes");
    t.expect("").await;
}

#[tokio::test]
async fn the_largest_flow_goes_in_as_a_fan_and_as_a_chain() {
    let t = Bench::new().await;
    let children = (1..FLOW_NODES_MAX).map(|i| node(&format!("c{i}"), vec![]));
    let fan = node("fan", children.collect());
    t.broker.add_flow(&fan).await.unwrap();
    let pending: usize = t.raw("SCARD @fan:dependencies").await;
    assert_eq!(pending, FLOW_NODES_MAX - 1);

    let chain = (1..FLOW_NODES_MAX).fold(node("end", vec![]), |below, i| {
        node(&format!("l{i}"), vec![below])
    });
    let added = t.broker.add_flow(&chain).await.unwrap();
    let mut depth = 1;
    let mut at: &AddedNode = &added;
    while let Some(below) = at.children.first() {
        at = below;
        depth += 1;
    }
    assert_eq!((depth, &*at.id), (FLOW_NODES_MAX, "end"));
    let part = FlowPart {
        depth: FLOW_NODES_MAX + 9,
        children_max: 1,
    };
    let read = t.broker.flow(&t.queue, &added.id, part).await.unwrap();
    let mut levels = 1;
    let mut at = &read.unwrap();
    while let Some(below) = at.children.first() {
        at = below;
        levels += 1;
    }
    assert_eq!(levels, FLOW_NODES_MAX);
}

#[tokio::test]
async fn below_a_parent_that_is_gone_nothing_is_written() {
    let t = Bench::new().await;
    let mut flow = node("sub", vec![node("c", vec![])]);
    flow.options.parent = Some(bullwark::job::bullmq_options::ParentOption {
        id: "none".to_owned(),
        queue: format!("{}:q", t.prefix),
    });
    let added = t.broker.add_flow(&flow).await.unwrap();
    assert_eq!(added.added, AddedLinked::ParentMissing);
    assert_eq!(added.children[0].added, AddedLinked::ParentMissing);
    t.expect("").await;
}

#[tokio::test]
async fn a_flow_added_again_changes_nothing_but_its_events() {
    let t = Bench::new().await;
    let flow = node("root", vec![node("a", vec![]), node("b", vec![])]);
    let broker: &Broker = &t.broker;
    broker.add_flow(&flow).await.unwrap();
    t.claim(1).await;
    finish(&t, "a", "1").await;
    t.forget_events().await;
    let before = t.dump().await;
    let again = broker.add_flow(&flow).await.unwrap();
    assert!(matches!(again.added, AddedLinked::Duplicate { .. }));
    let after = t.dump().await;
    let after: Vec<&str> = after.lines().filter(|l| !l.starts_with("events")).collect();
    assert_eq!(after.join("\n").replace("id = 6", "id = 3") + "\n", before);
}
