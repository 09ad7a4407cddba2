//! What `/readyz` tells, state by state.

use std::time::Duration;

use bullwark::periodic::{Next, every};
use bullwark::record::alerts::{self, AlertKind};
use bullwark::tasks::Tasks;
use reqwest::Method;
use serde_json::json;

use crate::support::server::{Answer, Server, send};
use crate::support::{Sandbox, connect, execute, shared_stores};
use crate::worker::rig::eventually;

async fn ready(server: &Server) -> Answer {
    send(server.anonymous(Method::GET, "/readyz")).await
}

async fn server() -> (Sandbox, Server) {
    let sandbox = Sandbox::new().await;
    let server = Server::start(&sandbox.database_url, &sandbox.redis_url, &sandbox.prefix).await;
    (sandbox, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_of_redis_that_is_not_compared_yet_is_told() {
    let (_sandbox, server) = server().await;
    let broker = &server.app.broker;
    assert_eq!(ready(&server).await.body["status"], "ok", "nobody compares");

    // Somebody does, and has not done it yet.
    broker.stop_serving();
    let comparing = ready(&server).await;
    assert_eq!(
        (comparing.status, &comparing.body["status"]),
        (200, &json!("degraded"))
    );
    assert_eq!(comparing.body["stores"]["redis"]["status"], "comparing");
    let epoch = broker.epoch().await.unwrap();
    broker.serve(&epoch);
    assert_eq!(ready(&server).await.body["status"], "ok");

    // Redis forgot which memory it had.
    broker.forget_epoch().await.unwrap();
    let redis = &ready(&server).await.body["stores"]["redis"];
    assert_eq!(redis["status"], "comparing");
    assert!(redis["reason"].as_str().unwrap().contains("compared"));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_duties_and_open_alerts_are_told() {
    let (_sandbox, server) = server().await;
    let well = ready(&server).await.body;
    assert_eq!(
        (&well["duties_failing"], &well["open_alerts"]),
        (&json!([]), &json!(0))
    );
    assert!(well["held_outcomes"].is_u64());
    assert!(
        well["stores"]["redis"].get("reason").is_none(),
        "nothing is wrong"
    );

    let kind = AlertKind::RecordLostItsTail;
    alerts::raise(&server.app.record, kind, "a test", &json!({}))
        .await
        .unwrap();
    let alerted = ready(&server).await.body;
    assert_eq!(
        (&alerted["status"], &alerted["open_alerts"]),
        (&json!("ok"), &json!(1))
    );

    let duties = Tasks::new().with_failing(&server.app.services().failing);
    every(&duties, "broken", Duration::from_millis(10), || async {
        Err::<Next, _>("on purpose")
    });
    let told = eventually("the failing duty", async || {
        let body = ready(&server).await.body;
        (body["duties_failing"] == json!(["broken"])).then_some(body)
    });
    assert_eq!(told.await["status"], "degraded");
    assert!(duties.stop(Duration::from_secs(10)).await);
    assert_eq!(ready(&server).await.body["duties_failing"], json!([]));
    server.end().await;
}

/// As after a failover that left the old primary as a standby.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_takes_no_writes_is_told_and_takes_no_jobs() {
    let (sandbox, server) = server().await;
    let mut own = connect(shared_stores().await, "bullwark").await;
    let database = sandbox.database();
    // Those that are connected are not asked again.
    let begin_anew = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    );
    let read_only = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    execute(&mut own, &format!("{read_only}; {begin_anew}")).await;

    let told = eventually("a record that takes no writes", async || {
        let ready = ready(&server).await;
        (ready.body["stores"]["postgres"]["status"] == "read_only").then_some(ready)
    })
    .await;
    assert_eq!(
        (told.status, &told.body["status"]),
        (503, &json!("unavailable"))
    );
    let body = json!({"jobType": "noop"});
    let refused = server.post("/api/jobs", body.clone()).await;
    refused.problem(503, "record_unavailable");
    assert_eq!(refused.header("retry-after"), "2");

    let writable = format!("ALTER DATABASE {database} RESET default_transaction_read_only");
    execute(&mut own, &format!("{writable}; {begin_anew}")).await;
    eventually("a record that takes writes", async || {
        (ready(&server).await.body["status"] == "ok").then_some(())
    })
    .await;
    assert_eq!(server.post("/api/jobs", body).await.status, 201);
    server.end().await;
}
