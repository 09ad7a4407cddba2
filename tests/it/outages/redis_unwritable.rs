//! Redis takes no writes: it became a replica (`READONLY`), or can not save (`MISCONF`).

use redis::InfoDict;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use uuid::Uuid;

use super::site::{Site, set};
use crate::worker::rig::eventually;

/// While Redis is in this state, jobs are accepted and outcomes recorded.
async fn goes_on(site: &Site, state: &str, ends: &[Uuid]) -> Vec<Uuid> {
    let seen = site.until_state("redis", state).await;
    assert_eq!(
        (seen.status, &seen.body["status"]),
        (200, &json!("degraded"))
    );
    let mut accepted = Vec::new();
    for n in 0..10 {
        accepted.push(site.caller.accepted(&format!("new{n}")).await);
    }
    let started = site.rig.probe.started().len();
    site.rig.probe.open("ends");
    for id in ends {
        site.rig.until(*id, "completed").await;
    }
    assert_eq!(site.rig.probe.started().len(), started, "nothing is begun");
    accepted
}

/// Redis is well again: all that was accepted is done, once.
async fn ends_well(site: Site, ids: &[Uuid]) {
    site.until_well().await;
    site.rig.probe.open("stays");
    site.until_done(ids).await;
    assert_eq!(site.repeated(), [""; 0]);
    assert_eq!(site.rig.probe.started().len(), ids.len());
    for id in ids {
        assert!(site.rig.failures(*id).await.is_empty());
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_a_replica_for_a_while_delays_jobs_and_loses_none() {
    let site = Site::new().await;
    let mut ids = site.running(3, "ends").await;
    let ends = ids.clone();
    ids.extend(site.running(3, "stays").await);
    let mut redis = site.redis().await;
    // Of nobody: it keeps what it has, and takes no writes.
    let mut demote = redis::cmd("REPLICAOF");
    demote.arg("127.0.0.1").arg("1");
    demote.exec_async(&mut redis).await.unwrap();
    ids.extend(goes_on(&site, "read_only", &ends).await);

    let mut promote = redis::cmd("REPLICAOF");
    promote.arg("NO").arg("ONE");
    promote.exec_async(&mut redis).await.unwrap();
    Box::pin(ends_well(site, &ids)).await;
}

async fn info(redis: &mut MultiplexedConnection, field: &str) -> String {
    let mut cmd = redis::cmd("INFO");
    let info: InfoDict = cmd.arg("persistence").query_async(redis).await.unwrap();
    info.get(field).unwrap()
}

/// Saves, and waits for how that ends.
async fn save(redis: &mut MultiplexedConnection, ending: &str) {
    redis::cmd("BGSAVE").exec_async(redis).await.unwrap();
    eventually(&format!("a save that ends {ending}"), async || {
        let status = info(redis, "rdb_last_bgsave_status").await;
        let is_over = info(redis, "rdb_bgsave_in_progress").await == "0";
        (is_over && status == ending).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_can_not_save_delays_jobs_and_loses_none() {
    let site = Site::new().await;
    let mut ids = site.running(3, "ends").await;
    let ends = ids.clone();
    ids.extend(site.running(3, "stays").await);
    let mut redis = site.redis().await;
    set(&mut redis, "stop-writes-on-bgsave-error", "yes").await;
    set(&mut redis, "save", "3600 1000000").await;
    let mut ask = redis::cmd("CONFIG");
    ask.arg("GET").arg("dir");
    let (_, dir): (String, String) = ask.query_async(&mut redis).await.unwrap();
    // Where the file should go is a directory, which not even root can replace.
    let in_the_way = std::path::Path::new(&dir).join("dump.rdb/in-the-way");
    std::fs::create_dir_all(&in_the_way).unwrap();
    save(&mut redis, "err").await;
    ids.extend(goes_on(&site, "misconfigured", &ends).await);

    std::fs::remove_dir_all(in_the_way.parent().unwrap()).unwrap();
    save(&mut redis, "ok").await;
    Box::pin(ends_well(site, &ids)).await;
}
