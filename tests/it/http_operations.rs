//! What those see over HTTP who run the installation: workers, limits, alerts, consistency.

use std::time::Duration;

use bullwark::job::QueueName;
use bullwark::reconcile::{self, Mirror, Sweep};
use bullwark::record::alerts::{self, AlertKind};
use bullwark::record::start::mark_running;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::server;
use crate::stage::{eventually, running};
use crate::support::server::{OTHER_KEY, Server, send};

async fn forbidden_to_others(server: &Server, path: &str) {
    let theirs = server.anonymous(Method::GET, path).bearer_auth(OTHER_KEY);
    let answer = send(theirs).await;
    answer.problem(403, "forbidden");
    assert_eq!(answer.body["needed"], "operator", "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_shown_by_their_connections_and_by_their_running_jobs() {
    let (sandbox, server) = server().await;
    let client = redis::Client::open(sandbox.redis_url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    // As BullMQ names the connection of a worker called `w1` of the queue `mails`.
    redis::cmd("CLIENT")
        .arg("SETNAME")
        .arg(format!("{}:bWFpbHM=:w:w1", sandbox.prefix))
        .exec_async(&mut connection)
        .await
        .unwrap();
    let mut ids: Vec<Uuid> = Vec::new();
    for queue in ["mails", "mails", "calls"] {
        let body = json!({"jobType": "noop", "queue": queue});
        let answer = server.post("/api/jobs", body).await;
        ids.push(answer.body["job"]["id"].as_str().unwrap().parse().unwrap());
    }
    let starts: Vec<_> = ids.iter().map(|id| running(*id, 1)).collect();
    let record = &server.app.record;
    assert_eq!(
        mark_running(record, "host-7", &starts).await.unwrap().len(),
        3
    );

    let seen = server.get("/api/workers").await.body;
    let connected = seen["connected"].as_array().unwrap();
    assert_eq!(connected.len(), 1, "{seen}");
    assert_eq!(
        (&connected[0]["queue"], &connected[0]["name"]),
        (&json!("mails"), &json!("w1"))
    );
    assert!(connected[0]["address"].as_str().unwrap().contains(':'));
    let workers = seen["running"].as_array().unwrap();
    assert_eq!(workers.len(), 1);
    assert_eq!(
        (&workers[0]["id"], &workers[0]["running"]),
        (&json!("host-7"), &json!(3))
    );
    assert_eq!(workers[0]["queues"], json!({"calls": 1, "mails": 2}));
    assert!(workers[0]["last_heartbeat_at"].is_string());
    let queue = server.get("/api/queues/mails").await.body;
    assert_eq!(queue["queue"]["redis"]["workers"], 1);
    forbidden_to_others(&server, "/api/workers").await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limits_are_shown_with_their_open_windows() {
    let (_sandbox, server) = server().await;
    let limit = json!({"rateLimit": {"max": 10, "durationMs": 60_000}});
    for (queue, change) in [("mails", limit), ("calls", json!({"paused": true}))] {
        let request = server.request(Method::PATCH, &format!("/api/queues/{queue}"));
        assert_eq!(send(request.json(&change)).await.status, 200);
    }
    let shown = async || server.get("/api/rate-limits").await.body;
    let limited = json!({"queue": "mails", "rate_limit": {"max": 10, "duration_ms": 60_000},
                         "window": null});
    let expected = json!({"rate_limits": [limited], "windows_are_known": true, "next": null});
    assert_eq!(shown().await, expected);
    let calls: QueueName = "calls".parse().unwrap();
    let broker = &server.app.broker;
    broker
        .rate_limit(&calls, Duration::from_secs(60))
        .await
        .unwrap();
    let all = shown().await;
    let closed = &all["rate_limits"][0];
    assert_eq!(
        (&closed["queue"], &closed["rate_limit"]),
        (&json!("calls"), &Value::Null)
    );
    let window = &closed["window"];
    assert_eq!(
        (&window["started"], &window["is_closed"]),
        (&Value::Null, &json!(true))
    );
    assert!(
        (50_000..=60_000).contains(&window["left_ms"].as_u64().unwrap()),
        "{window}"
    );
    server
        .get("/api/rate-limits?queue=x")
        .await
        .problem(400, "invalid_parameter");
    forbidden_to_others(&server, "/api/rate-limits").await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_stays_open_until_somebody_has_seen_to_it() {
    let (_sandbox, server) = server().await;
    let record = &server.app.record;
    for message in ["first", "second"] {
        let details = json!({"jobs": 3});
        alerts::raise(record, AlertKind::RecordLostItsTail, message, &details)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let listed = async |query: &str| {
        let page = server.get(&format!("/api/alerts{query}")).await.body;
        let alerts = page["alerts"].as_array().unwrap().clone();
        let told: Vec<_> = alerts
            .iter()
            .map(|a| a["message"].as_str().unwrap().to_owned())
            .collect();
        (told, alerts, page["next_before"].clone())
    };
    let (told, all, next) = listed("").await;
    assert_eq!(
        (told, next),
        (vec!["second".to_owned(), "first".to_owned()], Value::Null)
    );
    assert_eq!(all[0]["kind"], "record_lost_its_tail");
    let (told, _, next) = listed("?limit=1").await;
    assert_eq!(told, ["second"]);
    let before = next.as_str().unwrap();
    assert_eq!(
        listed(&format!("?limit=1&before={before}")).await.0,
        ["first"]
    );

    let id = all[1]["id"].as_str().unwrap();
    let path = format!("/api/alerts/{id}/resolve");
    let seen = json!({"reason": "looked through all of them"});
    let answer = server.post(&path, seen.clone()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let resolved = answer.body["alert"]["resolved_at"].clone();
    assert!(resolved.is_string());
    let again = send(server.request(Method::POST, &path)).await;
    assert_eq!(
        again.body["alert"]["resolved_at"], resolved,
        "twice is once"
    );
    assert_eq!(listed("?status=open").await.0, ["second"]);
    assert_eq!(listed("?status=resolved").await.0, ["first"]);
    let audit = format!("/api/audit?target_kind=alert&target_id={id}");
    let audit = server.get(&audit).await.body;
    assert_eq!(audit["audit"].as_array().unwrap().len(), 1);
    assert_eq!(audit["audit"][0]["action"], "alert.resolve");
    assert_eq!(audit["audit"][0]["reason"], "looked through all of them");

    server
        .get("/api/alerts?status=new")
        .await
        .problem(400, "invalid_parameter");
    for id in [Uuid::now_v7().to_string(), "x".to_owned()] {
        let answer = server
            .post(&format!("/api/alerts/{id}/resolve"), json!({}))
            .await;
        answer.problem(404, "alert_not_found");
    }
    forbidden_to_others(&server, "/api/alerts").await;
    let theirs = server.anonymous(Method::POST, &path).bearer_auth(OTHER_KEY);
    send(theirs.json(&seen)).await.problem(403, "forbidden");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consistency_tells_of_the_last_passes_and_of_what_differs() {
    let (_sandbox, server) = server().await;
    let (record, broker) = (&server.app.record, &server.app.broker);
    let shown = async || server.get("/api/consistency").await.body;
    let before = shown().await;
    assert_eq!(
        (&before["passes"], &before["epoch"]["agree"]),
        (&json!([]), &json!(false))
    );
    assert_eq!(before["recovery_is_running"], false);
    let body = json!({"jobType": "noop", "queue": "mails"});
    let answer = server.post("/api/jobs", body).await;
    let id = answer.body["job"]["id"].as_str().unwrap().to_owned();

    while !reconcile::readmit(record, broker).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    reconcile::keep_queues(record, broker).await.unwrap();
    let now = shown().await;
    assert_eq!(now["epoch"]["agree"], true, "{now}");
    assert_eq!(now["epoch"]["redis"], now["epoch"]["compared"]);
    let drift = json!({"untold": 0, "open_in_record": 1, "live_in_redis": 1, "jobs": 0});
    assert_eq!(now["drift"], drift);
    let pass = |all: &Value, kind: &str, queue: Value| {
        let passes = all["passes"].as_array().unwrap();
        let found = passes
            .iter()
            .find(|pass| pass["kind"] == kind && pass["queue"] == queue);
        found.cloned()
    };
    assert!(pass(&now, "rebuild", Value::Null).is_some(), "{now}");
    assert!(pass(&now, "queues", Value::Null).is_some(), "{now}");

    // Redis loses the job alone: that is drift, until the sweep has put it back.
    let queue: QueueName = "mails".parse().unwrap();
    let ids = [id.clone()];
    broker.cancel(&queue, &ids).await.unwrap();
    assert_eq!(shown().await["drift"]["jobs"], 1);
    let mut sweep = Sweep::default();
    let swept = eventually("the sweep to have put it back", async || {
        sweep.step(record, broker).await.unwrap();
        let all = shown().await;
        pass(&all, "sweep", Value::Null).filter(|pass| pass["repaired_total"] == 1)
    })
    .await;
    assert!(swept["repaired_at"].is_string(), "{swept}");
    assert_eq!(shown().await["drift"], drift);

    let mut mirror = Mirror::new(record.clone(), broker.clone());
    let scanned = eventually("the scan of the queue", async || {
        mirror.step().await.unwrap();
        pass(&shown().await, "scan", json!("mails"))
    })
    .await;
    assert_eq!(
        (&scanned["copied"], &scanned["ended"]),
        (&json!(0), &json!(0))
    );

    // Whoever rebuilds holds the turn.
    let turn = bullwark::record::rebuild::take_turn(record, broker.prefix())
        .await
        .unwrap();
    assert_eq!(shown().await["recovery_is_running"], true);
    turn.unwrap().rollback().await.unwrap();
    assert_eq!(shown().await["recovery_is_running"], false);
    forbidden_to_others(&server, "/api/consistency").await;
    server.end().await;
}
