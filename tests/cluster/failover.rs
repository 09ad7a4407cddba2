//! The node that has our slot dies while jobs run: it comes back, or its replica takes over.

use crate::nodes::{Cluster, PREFIX, PRIMARIES};
use crate::rig::{QUEUES, Rig};
use crate::server::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end_although_their_node_is_killed_and_started_again() {
    let mut cluster = Cluster::start().await;
    let rig = Rig::new(cluster.url(), PREFIX).await;
    let mut jobs = rig.enqueue(100).await.len();
    rig.work(8);
    rig.until_completed(50).await;

    let owner = cluster.owner_seen_by(&cluster.nodes[0]).await.unwrap();
    cluster.nodes[owner].kill();
    jobs += rig.enqueue(20).await.len();
    cluster.nodes[owner].start_again().await;
    cluster.until_agreed(PRIMARIES).await;

    rig.all_is_well(jobs).await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end_although_their_node_is_killed_and_a_replica_takes_over() {
    let mut cluster = Cluster::start().await;
    cluster.add_replica().await;
    let rig = Rig::new(cluster.url(), PREFIX).await;
    let mut jobs = rig.enqueue(100).await.len();
    let before = rig.app.broker.server_id().await.unwrap();
    rig.work(8);
    rig.until_completed(50).await;

    let owner = cluster.owner_seen_by(&cluster.nodes[0]).await.unwrap();
    let bystander = (owner + 1) % PRIMARIES;
    cluster.nodes[owner].kill();
    jobs += rig.enqueue(20).await.len();
    eventually("the replica takes over", async || {
        let now = cluster.owner_seen_by(&cluster.nodes[bystander]).await;
        now == Some(PRIMARIES)
    })
    .await;
    jobs += rig.enqueue(20).await.len();

    rig.all_is_well(jobs).await;
    assert_ne!(rig.app.broker.server_id().await.unwrap(), before);
    let mut queues = rig.app.broker.queues().await.unwrap();
    queues.retain(|queue| QUEUES.contains(&queue.as_str()));
    assert_eq!(queues.len(), QUEUES.len());
    rig.close().await;
}
