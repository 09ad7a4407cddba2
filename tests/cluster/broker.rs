//! The broker alone, on one cluster that these tests share; each has a prefix of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use bullwark::broker::{
    Added, Broker, BrokerError, BrokerOptions, ClaimOptions, NewJob, Refusal, SCRIPTS,
};
use bullwark::job::QueueName;
use tokio::sync::OnceCell;

use crate::nodes::Cluster;
use crate::server::{Server, eventually};

const LONG: Duration = Duration::from_secs(10);

async fn cluster() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER.get_or_init(Cluster::start).await
}

fn options(url: &str, prefix: &str) -> BrokerOptions {
    BrokerOptions {
        url: url.to_owned(),
        prefix: prefix.to_owned(),
        ..BrokerOptions::default()
    }
}

fn job(id: &str) -> NewJob {
    NewJob {
        id: id.to_owned(),
        name: "n".to_owned(),
        data: "{}".to_owned(),
        opts: "{}".to_owned(),
        ..NewJob::default()
    }
}

fn queue(name: &str) -> QueueName {
    name.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_prefix_works_wherever_its_slot_is() {
    let cluster = cluster().await;
    // Slots on each of the three nodes.
    for prefix in ["{bull}", "a{foo}", "{1}x"] {
        let broker = Broker::connect(options(&cluster.url(), prefix))
            .await
            .unwrap();
        let names = [queue("a"), queue("b"), queue("c")];
        for name in &names {
            broker.ensure_queue(name).await.unwrap();
            let jobs = [job("1"), job("2")];
            assert_eq!(broker.add(name, &jobs).await.unwrap(), [Added::Created; 2]);
            assert_eq!(
                broker.add(name, &jobs[..1]).await.unwrap(),
                [Added::Duplicate]
            );
        }
        assert_eq!(broker.queues().await.unwrap(), names);
        let pages = async |look: &str| {
            let (mut found, mut cursor) = (BTreeSet::new(), Some(0));
            while let Some(at) = cursor {
                let page = match look {
                    "keys" => broker.scan_keys(&names[0], at).await,
                    _ => broker.locks(&names[0], at).await,
                };
                let page = page.unwrap();
                found.extend(page.keys);
                cursor = page.next;
            }
            Vec::from_iter(found)
        };
        let keys = ["1", "2", "events", "id", "marker", "meta", "wait"];
        assert_eq!(pages("keys").await, keys);
        let claim = ClaimOptions {
            token: "t".to_owned(),
            max: 9,
            lease: LONG,
            ..ClaimOptions::default()
        };
        let claimed = broker.claim(&names[0], &claim).await.unwrap();
        assert_eq!(claimed.jobs.len(), 2);
        assert_eq!(pages("locks").await, ["1", "2"]);
        let lease = [("1".to_owned(), "t".to_owned())];
        let kept = broker.extend(&names[0], &lease, LONG).await.unwrap();
        assert_eq!(kept, [true]);
        assert_eq!(broker.counts(&names[1]).await.unwrap().wait, 2);
        assert_eq!(broker.server_id().await.unwrap().len(), 40);
        broker.ping().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_are_on_every_primary_and_come_back_when_they_are_forgotten() {
    let cluster = Cluster::start().await;
    let broker = Broker::connect(options(&cluster.url(), "{bull}"))
        .await
        .unwrap();
    for node in &cluster.nodes {
        for script in SCRIPTS {
            let hash = redis::Script::new(script.source).get_hash().to_owned();
            let known: Vec<bool> = node.raw(&format!("SCRIPT EXISTS {hash}")).await;
            assert_eq!(known, [true], "{} at {}", script.name, node.address());
        }
        node.raw::<()>("SCRIPT FLUSH").await;
    }
    let added = broker.add(&queue("q"), &[job("1")]).await.unwrap();
    assert_eq!(added, [Added::Created]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_worker_is_woken_by_any_of_its_queues() {
    let cluster = cluster().await;
    let prefix = "{waker}";
    let broker = Broker::connect(options(&cluster.url(), prefix))
        .await
        .unwrap();
    let queues = [queue("one"), queue("two")];
    let mut waker = broker.waker();
    for woken in &queues {
        let wait = waker.wait(&queues, LONG);
        let add = async {
            eventually("it blocks", async || {
                is_blocked(&cluster.nodes, prefix).await
            })
            .await;
            broker.add(woken, &[job("1")]).await.unwrap();
        };
        let (woke, ()) = tokio::join!(wait, add);
        assert_eq!(woke.unwrap().as_ref(), Some(woken));
    }
}

async fn is_blocked(nodes: &[Server], name: &str) -> bool {
    for node in nodes {
        let clients: String = node.raw("CLIENT LIST").await;
        let is_it =
            |line: &str| line.contains(&format!("name={name}:")) && line.contains("flags=b");
        if clients.lines().any(is_it) {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_without_a_hash_tag_is_refused_before_anything_is_written() {
    let cluster = cluster().await;
    let error = Broker::lazy(options(&cluster.url(), "bull")).unwrap_err();
    let BrokerError::Refused(refusal) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*refusal, Refusal::Prefix("bull".to_owned()));
    assert!(error.to_string().contains("`{bull}`"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_of_the_wrong_kind_is_answered_with_the_right_one() {
    let cluster = cluster().await;
    let alone = Server::start(&["--save", ""]).await;
    let (node, alone) = (cluster.nodes[0].address(), alone.address());
    for (url, remedy) in [
        (format!("redis://{node}"), "redis-cluster://"),
        (format!("redis-cluster://{alone}"), "redis://host:port"),
        (format!("redis-sentinel://{alone}/main"), "no sentinel"),
    ] {
        let error = Broker::connect(options(&url, "{bull}")).await.unwrap_err();
        assert!(
            matches!(error, BrokerError::Refused(Refusal::Url(_))),
            "{url}: {error:?}"
        );
        assert!(error.to_string().contains(remedy), "{url}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_primary_that_may_evict_jobs_is_a_reason_to_refuse() {
    let cluster = Cluster::start().await;
    for node in &cluster.nodes {
        node.raw::<()>("CONFIG SET maxmemory-policy allkeys-lru")
            .await;
        let refused = Broker::connect(options(&cluster.url(), "{bull}"))
            .await
            .unwrap_err();
        let BrokerError::Refused(Refusal::EvictionPolicy(policy)) = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!(policy, "allkeys-lru");
        node.raw::<()>("CONFIG SET maxmemory-policy noeviction")
            .await;
    }
    Broker::connect(options(&cluster.url(), "{bull}"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_living_node_in_the_url_is_enough() {
    let cluster = cluster().await;
    let dead = format!("127.0.0.1:{}", crate::server::free_port());
    for node in &cluster.nodes {
        let url = format!("redis-cluster://{dead},{}", node.address());
        let broker = Broker::connect(options(&url, "{bull}")).await.unwrap();
        assert!(broker.server_time_ms().await.unwrap() > 0);
    }
    let gone = Broker::lazy(options(&format!("redis-cluster://{dead}"), "{bull}")).unwrap();
    let error = gone.check().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
}
