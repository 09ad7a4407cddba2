//! Redis has no memory left (`OOM`).

use std::time::Instant;

use serde_json::json;

use super::site::{LEASE, Site, set};

/// Jobs are accepted and wait in the record; outcomes are recorded; whoever runs goes on, for
/// longer than a lease. When there is memory again, everything follows by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_without_room_delays_jobs_and_loses_none() {
    let site = Site::new().await;
    let (rig, caller) = (&site.rig, &site.caller);
    let mut ids = site.running(3, "ends").await;
    ids.extend(site.running(3, "stays").await);
    let mut redis = site.redis().await;
    // Less than it uses, whatever that is.
    set(&mut redis, "maxmemory", "1").await;

    let full = site.until_state("redis", "full").await;
    assert_eq!(
        (full.status, &full.body["status"]),
        (200, &json!("degraded"))
    );
    for n in 0..20 {
        ids.push(caller.accepted(&format!("new{n}")).await);
    }
    rig.probe.open("ends");
    for id in &ids[..3] {
        rig.until(*id, "completed").await;
    }
    let began = Instant::now();
    while began.elapsed() < LEASE * 2 {
        for id in &ids[3..6] {
            assert_eq!(rig.job(*id).await.status, "processing");
        }
        let full = site.ready().await.body;
        assert_eq!(full["stores"]["redis"]["status"], "full");
        tokio::time::sleep(LEASE / 10).await;
    }

    set(&mut redis, "maxmemory", "0").await;
    site.until_well().await;
    for id in &ids[6..] {
        rig.until(*id, "completed").await;
    }
    rig.probe.open("stays");
    site.until_done(&ids).await;
    assert_eq!(site.repeated(), [""; 0]);
    assert_eq!(rig.probe.started().len(), ids.len());
    for id in &ids {
        assert!(rig.failures(*id).await.is_empty());
    }
    site.end().await;
}
