//! The API while one of the stores is away.

use bullwark::stores::{Kill, Stores};
use reqwest::Method;
use serde_json::json;

use crate::http::enqueue;
use crate::support::server::{Server, send};
use crate::support::{connect, migrate, own_stores};

async fn server() -> (Stores, Server) {
    let stores = own_stores().await;
    let mut connection = connect(&stores, "bullwark").await;
    migrate(&mut connection).await;
    let server = Server::start(&stores.database_url, &stores.redis_url, "outage").await;
    (stores, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_accepted_while_redis_is_away() {
    let (mut stores, server) = server().await;
    stores.kill_redis(Kill::Immediately).await;
    let ready = send(server.anonymous(Method::GET, "/readyz")).await;
    assert_eq!(
        (ready.status, &ready.body["status"]),
        (200, &json!("degraded"))
    );
    let reason = "it does not answer";
    assert_eq!(
        ready.body["stores"]["redis"],
        json!({"status": "away", "reason": reason})
    );

    let answer = server.post("/api/jobs", json!({"jobType": "noop"})).await;
    assert_eq!(
        answer.status, 202,
        "accepted, and delivered later: {answer:?}"
    );
    let path = answer.header("location").to_owned();
    let shown = server.get(&path).await.body;
    assert_eq!(shown["job"]["status"], "pending");
    assert_eq!(shown["stores"]["redis"]["status"], "unavailable");
    assert_eq!(
        shown["waits_for"],
        json!([{ "reason": "redis_unavailable" }])
    );
    let cancel = server.request(Method::PATCH, &path);
    let answer = send(cancel.json(&json!({"status": "cancelled"}))).await;
    assert_eq!(
        (answer.status, &answer.body["job"]["status"]),
        (200, &json!("cancelled"))
    );
    assert_eq!(server.get("/api/jobs/stats").await.body["queue_depth"], 0);

    stores.start_redis().await.unwrap();
    let ready = send(server.anonymous(Method::GET, "/readyz")).await;
    assert_eq!(ready.body["status"], "ok");
    enqueue(&server).await;
    server.end().await;
    stores.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_accepted_while_the_record_is_away() {
    let (mut stores, server) = server().await;
    let before = enqueue(&server).await;
    stores.kill_postgres(Kill::Immediately).await;

    let live = send(server.anonymous(Method::GET, "/healthz")).await;
    assert_eq!(live.status, 200);
    let ready = send(server.anonymous(Method::GET, "/readyz")).await;
    assert_eq!(
        (ready.status, &ready.body["status"]),
        (503, &json!("unavailable"))
    );
    assert_eq!(ready.body["stores"]["postgres"]["status"], "away");
    assert_eq!(ready.body["stores"]["redis"]["status"], "ok");
    assert!(ready.body["open_alerts"].is_null(), "nobody knows");

    let body = json!({"jobType": "noop", "idempotencyKey": "k"});
    let many = json!({"jobs": [body, body]});
    let stranger = server.anonymous(Method::GET, "/api/jobs");
    let path = format!("/api/jobs/{before}");
    let (one, bulk, read, unknown) = tokio::join!(
        server.post("/api/jobs", body.clone()),
        server.post("/api/jobs/bulk", many),
        server.get(&path),
        send(stranger.bearer_auth("a key that nobody can look up")),
    );
    for answer in [&one, &bulk] {
        let detail = answer.problem(503, "record_unavailable");
        assert!(
            detail.contains("send it again, with an Idempotency-Key"),
            "{detail}"
        );
    }
    for answer in [&read, &unknown] {
        assert_eq!(
            answer.problem(503, "record_unavailable"),
            "the record (PostgreSQL) does not answer right now; try again shortly"
        );
    }
    for answer in [&one, &bulk, &read, &unknown] {
        assert_eq!(answer.header("retry-after"), "2");
    }

    // A key that was known before is still known: only the record itself is missed.
    let upload = server.request(Method::POST, "/api/uploads").body("a,b");
    assert_eq!(send(upload).await.status, 201);

    stores.start_postgres().await.unwrap();
    let list = server.get("/api/jobs").await.body;
    assert_eq!(
        list["jobs"].as_array().unwrap().len(),
        1,
        "nothing was stored: {list}"
    );
    assert_eq!(list["jobs"][0]["id"], before);
    let again = server.post("/api/jobs", body).await;
    assert_eq!(
        again.status, 201,
        "the key was not taken by what was refused: {}",
        again.body
    );
    server.end().await;
    stores.stop().await.unwrap();
}
