//! A primary, a replica, and three sentinels that let the replica take over.

use std::time::Duration;

use bullwark::broker::{Broker, BrokerOptions, NewJob};

use crate::rig::Rig;
use crate::server::{Server, eventually, free_port};

const NAME: &str = "jobs-primary";

struct Watched {
    primary: Server,
    replica: Server,
    sentinels: Vec<Server>,
}

impl Watched {
    async fn start() -> Self {
        let kept = ["--save", "", "--repl-diskless-sync-delay", "0"];
        let primary = Server::start(&kept).await;
        let port = primary.port.to_string();
        let copies = ["--replicaof", "127.0.0.1", &port];
        let replica = Server::start(&[&kept[..], &copies[..]].concat()).await;
        eventually("the replica is in step", async || {
            replica.info("master_link_status").await.as_deref() == Some("up")
        })
        .await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let settings = format!(
                "sentinel monitor {NAME} 127.0.0.1 {port} 2\n\
                 sentinel down-after-milliseconds {NAME} 700\n\
                 sentinel failover-timeout {NAME} 3000\n"
            );
            let sentinel = Server::start_with(free_port(), Some(settings), &["--sentinel"]).await;
            sentinels.push(sentinel);
        }
        for sentinel in &sentinels {
            eventually(
                "the sentinels know each other and the replica",
                async || {
                    let line = sentinel.info("master0").await.unwrap_or_default();
                    line.contains("status=ok") && line.ends_with("slaves=1,sentinels=3")
                },
            )
            .await;
        }
        Self {
            primary,
            replica,
            sentinels,
        }
    }

    fn url(&self) -> String {
        let addresses: Vec<String> = self.sentinels.iter().map(Server::address).collect();
        format!("redis-sentinel://{}/{NAME}", addresses.join(","))
    }

    fn options(&self) -> BrokerOptions {
        BrokerOptions {
            url: self.url(),
            ..BrokerOptions::default()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_ends_although_the_primary_is_killed() {
    let mut watched = Watched::start().await;
    let rig = Rig::new(watched.url(), "bull").await;
    let mut jobs = rig.enqueue(100).await.len();
    let before = rig.app.broker.server_id().await.unwrap();
    rig.work(8);
    rig.until_completed(50).await;

    // From now on the replica learns nothing: it will not know what ends or comes meanwhile.
    watched
        .primary
        .raw::<()>("ACL SETUSER default -psync -sync")
        .await;
    watched.primary.raw::<i64>("CLIENT KILL TYPE replica").await;
    rig.until_completed(120).await;
    jobs += rig.enqueue(20).await.len();
    rig.until_completed(130).await;
    watched.primary.kill();
    jobs += rig.enqueue(20).await.len();
    let over = rig.endings().await;
    assert!(over.len() >= 130);
    eventually("the replica takes over", async || {
        watched.replica.info("role").await.as_deref() == Some("master")
    })
    .await;
    jobs += rig.enqueue(20).await.len();

    rig.all_is_well(jobs).await;
    let now = rig.endings().await;
    assert!(over.is_subset(&now), "what was over did not run again");
    assert_ne!(rig.app.broker.server_id().await.unwrap(), before);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_freezes_and_wakes_up_again_does_no_harm() {
    let watched = Watched::start().await;
    let rig = Rig::new(watched.url(), "bull").await;
    let mut jobs = rig.enqueue(100).await.len();
    rig.work(8);
    rig.until_completed(50).await;

    let frozen = watched.primary.freeze().await;
    eventually("the replica takes over", async || {
        watched.replica.info("role").await.as_deref() == Some("master")
    })
    .await;
    jobs += rig.enqueue(20).await.len();
    // Its links are open all the time: only the missing replies tell.
    rig.all_is_well(jobs).await;
    frozen.thaw();
    jobs += rig.enqueue(20).await.len();
    eventually("the old primary copies the new one", async || {
        watched.primary.info("role").await.as_deref() == Some("slave")
    })
    .await;
    rig.all_is_well(jobs).await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_is_followed_by_calls_and_by_waits() {
    let watched = Watched::start().await;
    let broker = Broker::connect(watched.options()).await.unwrap();
    let queues = ["q".parse().unwrap()];
    let mut waker = broker.waker();
    let nothing = waker.wait(&queues, Duration::from_millis(5)).await.unwrap();
    assert_eq!(nothing, None);
    let before = broker.server_id().await.unwrap();

    let asked: String = watched.sentinels[0]
        .raw(&format!("SENTINEL FAILOVER {NAME}"))
        .await;
    assert_eq!(asked, "OK");
    for server in [&watched.primary, &watched.replica] {
        let role = if server.port == watched.primary.port {
            "slave"
        } else {
            "master"
        };
        eventually("the roles are changed", async || {
            server.info("role").await.as_deref() == Some(role)
        })
        .await;
    }
    let job = NewJob {
        id: "1".to_owned(),
        name: "n".to_owned(),
        data: "{}".to_owned(),
        opts: "{}".to_owned(),
        ..NewJob::default()
    };
    // The sentinels need a moment to agree; until then the call says that it is too early.
    eventually("the new primary is found", async || {
        match broker.add(&queues[0], std::slice::from_ref(&job)).await {
            Ok(_) => true,
            Err(error) => {
                assert!(error.is_unavailable(), "{error}");
                false
            }
        }
    })
    .await;
    assert_ne!(broker.server_id().await.unwrap(), before);
    let there: i64 = watched.replica.raw("LLEN bull:q:wait").await;
    assert_eq!(there, 1);
    let woken = waker.wait(&queues, Duration::from_secs(5)).await;
    assert_eq!(woken.unwrap().as_ref(), Some(&queues[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_no_sentinel_knows_is_named() {
    let watched = Watched::start().await;
    let url = watched.url().replace(NAME, "other");
    let options = BrokerOptions {
        url,
        ..BrokerOptions::default()
    };
    let error = Broker::connect(options).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("other"), "{error}");
    // A dead sentinel and one that is none do not matter while another one answers.
    let dead = format!("127.0.0.1:{}", free_port());
    let (sentinel, none) = (watched.sentinels[2].address(), watched.replica.address());
    let options = BrokerOptions {
        url: format!("redis-sentinel://{dead},{none},{sentinel}/{NAME}"),
        ..BrokerOptions::default()
    };
    let broker = Broker::connect(options).await.unwrap();
    broker.ping().await.unwrap();
}
