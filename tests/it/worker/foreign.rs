//! Jobs that clients of `BullMQ` put straight into Redis.

use serde_json::json;

use super::rig::{Rig, eventually};

/// A job that a `BullMQ` client wrote straight into Redis is adopted, run and recorded; so is one
/// that a foreign worker had tried before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_job_is_adopted_and_run() {
    let rig = Rig::new().await.with_upkeep();
    let worker = rig.work(|_| {});
    let prefix = &rig.app.config.prefix;
    let mut redis = rig.redis().await;
    for (id, ats, atm) in [("foreign-1", 0, 0), ("foreign-2", 2, 2)] {
        let data = json!({ "name": id, "runs": [[{ "act": "succeed", "value": "done" }]] });
        let _: () = redis::pipe()
            .cmd("HSET")
            .arg(format!("{prefix}:default:{id}"))
            .arg(&[
                "name",
                "scripted",
                "data",
                &data.to_string(),
                "opts",
                r#"{"attempts":4}"#,
            ])
            .arg(&["timestamp", "1700000000000", "delay", "0", "priority", "0"])
            .arg("ats")
            .arg(ats)
            .arg("atm")
            .arg(atm)
            .cmd("LPUSH")
            .arg(format!("{prefix}:default:wait"))
            .arg(id)
            .cmd("ZADD")
            .arg(format!("{prefix}:default:marker"))
            .arg(0)
            .arg("0")
            .query_async(&mut redis)
            .await
            .unwrap();
    }
    let find = async || {
        let mut tx = rig.app.record.begin().await.unwrap();
        let rows: Vec<(String, String, i32, i32, Option<serde_json::Value>)> = sqlx::query_as(
            "SELECT redis_id, status, attempts, lease_losses, result FROM jobs
             WHERE status = 'completed' ORDER BY redis_id",
        )
        .fetch_all(tx.connection())
        .await
        .unwrap();
        (rows.len() == 2).then_some(rows)
    };
    let rows = eventually("both foreign jobs to complete", find).await;
    let done = |id: &str, attempts| {
        (
            id.to_owned(),
            "completed".to_owned(),
            attempts,
            0,
            Some(json!("done")),
        )
    };
    assert_eq!(rows, [done("foreign-1", 0), done("foreign-2", 2)]);
    let mut tx = rig.app.record.begin().await.unwrap();
    let lost: i64 = sqlx::query_scalar("SELECT count(*) FROM job_failures")
        .fetch_one(tx.connection())
        .await
        .unwrap();
    assert_eq!(lost, 0, "starts of foreign workers are no lost leases");
    drop(tx);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}

/// A foreign job that the record can never hold fails visibly, and takes no other one along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_job_that_can_not_be_recorded_fails_alone() {
    let rig = Rig::new().await.with_upkeep();
    let prefix = &rig.app.config.prefix;
    let mut redis = rig.redis().await;
    for (id, timestamp) in [("good", "1700000000000"), ("bad", "9200000000000000000")] {
        let data = json!({ "name": id, "runs": [[]] });
        let _: () = redis::pipe()
            .cmd("HSET")
            .arg(format!("{prefix}:default:{id}"))
            .arg(&["name", "scripted", "data", &data.to_string(), "opts", "{}"])
            .arg(&["timestamp", timestamp, "delay", "0", "priority", "0"])
            .cmd("LPUSH")
            .arg(format!("{prefix}:default:wait"))
            .arg(id)
            .query_async(&mut redis)
            .await
            .unwrap();
    }
    let worker = rig.work(|_| {});
    rig.probe.starts_named("good", 1).await;
    let reason = async || rig.hash("default", "bad", "failedReason").await;
    let reason = eventually("the bad one to fail", reason).await;
    assert!(reason.contains("record"), "{reason}");
    assert_eq!(rig.probe.starts_of("bad"), 0);
    worker.stop().await;
    rig.close().await;
}
