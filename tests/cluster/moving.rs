//! The slot of all our keys moves to another primary while jobs run.

use crate::nodes::{Cluster, PREFIX, PRIMARIES};
use crate::rig::Rig;
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

    let from = cluster.owner_seen_by(&cluster.nodes[0]).await.unwrap();
    let to = (from + 1) % PRIMARIES;
    let slot = begin_move(&cluster, from, to).await;
    // What is accepted meanwhile waits in the record.
    jobs += rig.enqueue(20).await.len();
    finish_move(&cluster, from, to, slot).await;
    jobs += rig.enqueue(20).await.len();

    rig.all_is_well(jobs).await;
    assert_ne!(rig.app.broker.server_id().await.unwrap(), before);
    let left: i64 = cluster.nodes[from]
        .raw(&format!("CLUSTER COUNTKEYSINSLOT {slot}"))
        .await;
    assert_eq!(left, 0);
    rig.close().await;
}

async fn begin_move(cluster: &Cluster, from: usize, to: usize) -> u16 {
    let slot = cluster.slot().await;
    let [from, to] = [&cluster.nodes[from], &cluster.nodes[to]];
    let [from_id, to_id] = [id(from).await, id(to).await];
    to.raw::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"))
        .await;
    from.raw::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"))
        .await;
    slot
}

/// As `redis-cli --cluster reshard` does it.
async fn finish_move(cluster: &Cluster, from: usize, to: usize, slot: u16) {
    let [source, target] = [&cluster.nodes[from], &cluster.nodes[to]];
    eventually("all keys have moved", async || {
        let line = format!("CLUSTER GETKEYSINSLOT {slot} {KEYS}");
        let keys: Vec<String> = source.raw(&line).await;
        if keys.is_empty() {
            return true;
        }
        let port = target.port;
        // The key is empty, because there are several.
        let line = format!("MIGRATE 127.0.0.1 {port}  0 5000 KEYS {}", keys.join(" "));
        let _: String = source.raw(&line).await;
        false
    })
    .await;
    let id = id(target).await;
    for node in [target, source].into_iter().chain(&cluster.nodes) {
        node.raw::<()>(&format!("CLUSTER SETSLOT {slot} NODE {id}"))
            .await;
    }
}

async fn id(node: &Server) -> String {
    node.raw("CLUSTER MYID").await
}
