//! The slot of all our keys moves to another primary while jobs run.

use std::time::Duration;

use crate::nodes::{Cluster, PREFIX, PRIMARIES};
use crate::rig::{LEASE, Rig};
use crate::server::{Server, eventually};

/// Keys that one step of the move takes along.
const KEYS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_several_queues_end_although_their_slot_moves() {
    let cluster = Cluster::start().await;
    let rig = Rig::new(cluster.url(), PREFIX).await;
    let mut jobs = rig.enqueue(100).await.len();
    let before = rig.app.broker.server_id().await.unwrap();
    rig.work(8);
    rig.until_completed(50).await;

    let moving = Move::begin(&cluster).await;
    // What is accepted meanwhile waits in the record.
    jobs += rig.enqueue(20).await.len();
    moving.finish().await;
    jobs += rig.enqueue(20).await.len();

    rig.all_is_well(jobs).await;
    assert_ne!(rig.app.broker.server_id().await.unwrap(), before);
    moving.all_have_gone().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end_although_their_slot_is_on_its_way_for_longer_than_a_lease() {
    let cluster = Cluster::start().await;
    let rig = Rig::new(cluster.url(), PREFIX).await;
    let mut jobs = rig.enqueue(100).await.len();
    rig.work(8);
    rig.until_completed(50).await;

    let moving = Move::begin(&cluster).await;
    assert!(
        moving.step().await,
        "one part of the keys is here, the other there"
    );
    tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
    jobs += rig.enqueue(20).await.len();
    moving.finish().await;

    rig.all_is_well(jobs).await;
    moving.all_have_gone().await;
    rig.close().await;
}

/// The prefix's slot on its way to another node, as `redis-cli --cluster reshard` does it.
struct Move<'a> {
    cluster: &'a Cluster,
    from: &'a Server,
    to: &'a Server,
    slot: u16,
}

impl<'a> Move<'a> {
    async fn begin(cluster: &'a Cluster) -> Self {
        let owner = cluster.owner_seen_by(&cluster.nodes[0]).await.unwrap();
        let moving = Self {
            cluster,
            from: &cluster.nodes[owner],
            to: &cluster.nodes[(owner + 1) % PRIMARIES],
            slot: cluster.slot().await,
        };
        let Self { from, to, slot, .. } = moving;
        let [from_id, to_id] = [id(from).await, id(to).await];
        to.raw::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"))
            .await;
        from.raw::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"))
            .await;
        moving
    }

    /// Moves some keys; false: none were left.
    async fn step(&self) -> bool {
        let line = format!("CLUSTER GETKEYSINSLOT {} {KEYS}", self.slot);
        let keys: Vec<String> = self.from.raw(&line).await;
        if keys.is_empty() {
            return false;
        }
        // The key is empty, because there are several.
        let (port, keys) = (self.to.port, keys.join(" "));
        let line = format!("MIGRATE 127.0.0.1 {port}  0 5000 KEYS {keys}");
        let _: String = self.from.raw(&line).await;
        true
    }

    async fn finish(&self) {
        eventually("all keys have moved", async || !self.step().await).await;
        let id = id(self.to).await;
        for node in [self.to, self.from].into_iter().chain(&self.cluster.nodes) {
            node.raw::<()>(&format!("CLUSTER SETSLOT {} NODE {id}", self.slot))
                .await;
        }
    }

    async fn all_have_gone(&self) {
        let line = format!("CLUSTER COUNTKEYSINSLOT {}", self.slot);
        assert_eq!(self.from.raw::<i64>(&line).await, 0);
    }
}

async fn id(node: &Server) -> String {
    node.raw("CLUSTER MYID").await
}
