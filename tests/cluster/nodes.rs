//! A cluster of three primaries, put together by hand; a replica for the one that has our slot.

use std::fmt::Write as _;

use crate::server::{Server, eventually};

const SLOTS: usize = 16384;
pub(crate) const PRIMARIES: usize = 3;
/// The prefix of tests that have the cluster to themselves.
pub(crate) const PREFIX: &str = "{bull}";

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..PRIMARIES {
            nodes.push(node().await);
        }
        let share = SLOTS.div_ceil(PRIMARIES);
        for (nth, node) in nodes.iter().enumerate() {
            let mut add = "CLUSTER ADDSLOTS".to_owned();
            for slot in nth * share..SLOTS.min((nth + 1) * share) {
                write!(add, " {slot}").unwrap();
            }
            node.raw::<()>(&add).await;
            node.raw::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", nth + 1))
                .await;
        }
        let cluster = Self { nodes };
        for node in &cluster.nodes[1..] {
            cluster.meet(node).await;
        }
        cluster.until_agreed(PRIMARIES).await;
        cluster
    }

    async fn meet(&self, node: &Server) {
        let first = self.nodes[0].port;
        node.raw::<()>(&format!("CLUSTER MEET 127.0.0.1 {first}"))
            .await;
    }

    /// A new node that copies the owner of the prefix's slot; returns once it has.
    pub(crate) async fn add_replica(&mut self) {
        let replica = node().await;
        self.meet(&replica).await;
        self.nodes.push(replica);
        self.until_agreed(PRIMARIES + 1).await;
        let replica = &self.nodes[PRIMARIES];
        let id: String = self.owner().await.raw("CLUSTER MYID").await;
        replica.raw::<()>(&format!("CLUSTER REPLICATE {id}")).await;
        eventually("the replica is in step", async || {
            replica.info("master_link_status").await.as_deref() == Some("up")
        })
        .await;
    }

    /// Every node knows all others, and that all slots are served.
    pub(crate) async fn until_agreed(&self, size: usize) {
        for node in &self.nodes {
            eventually("the nodes agree", async || {
                let info: String = node.raw("CLUSTER INFO").await;
                let known = format!("cluster_known_nodes:{size}\r");
                info.contains("cluster_state:ok") && info.contains(&known)
            })
            .await;
        }
    }

    /// Which node serves the prefix's slot, as the nodes that are named here see it.
    pub(crate) async fn owner_seen_by(&self, node: &Server) -> Option<usize> {
        let slot = self.slot().await;
        let rows: Vec<(u16, u16, (String, u16))> = first_three(node).await;
        let (_, _, (_, port)) = rows
            .into_iter()
            .find(|(first, last, _)| (*first..=*last).contains(&slot))?;
        self.nodes.iter().position(|node| node.port == port)
    }

    pub(crate) async fn owner(&self) -> &Server {
        let owner = self.owner_seen_by(&self.nodes[0]).await.unwrap();
        &self.nodes[owner]
    }

    pub(crate) async fn slot(&self) -> u16 {
        let key = format!("CLUSTER KEYSLOT {PREFIX}:q:meta");
        self.nodes[0].raw(&key).await
    }

    pub(crate) fn url(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(Server::address).collect();
        format!("redis-cluster://{}", addresses.join(","))
    }
}

/// The rows of `CLUSTER SLOTS` without replicas.
async fn first_three(node: &Server) -> Vec<(u16, u16, (String, u16))> {
    let rows: Vec<Vec<redis::Value>> = node.raw("CLUSTER SLOTS").await;
    rows.into_iter()
        .map(|mut row| {
            let mut take = |at: usize| std::mem::replace(&mut row[at], redis::Value::Nil);
            let (first, last, primary) = (take(0), take(1), take(2));
            let primary: Vec<redis::Value> = redis::from_redis_value(primary).unwrap();
            let mut parts = primary.into_iter();
            let host = redis::from_redis_value(parts.next().unwrap()).unwrap();
            let port = redis::from_redis_value(parts.next().unwrap()).unwrap();
            let number = |value| redis::from_redis_value(value).unwrap();
            (number(first), number(last), (host, port))
        })
        .collect()
}

async fn node() -> Server {
    let arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"];
    let kept = ["--appendonly", "yes", "--save", ""];
    Server::start(&[arguments, kept].concat()).await
}
