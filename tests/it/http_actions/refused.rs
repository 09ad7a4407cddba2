//! Actions that nobody meant, or that the caller may not start, see or stop.

use bullwark::job::Change;
use bullwark::record::filter::JobFilter;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{PATH, done, ended, jobs, start, written_down};
use crate::http::server;
use crate::support::server::{OTHER_KEY, send};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_meant_or_not_allowed_is_refused() {
    let (_sandbox, server) = server().await;
    let refused = async |body: Value, pointer: &str| {
        let answer = start(&server, body).await;
        answer.problem(422, "invalid_request");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{answer:?}");
    };
    refused(json!({"action": "cancel"}), "/filter").await;
    refused(
        json!({"action": "cancel", "filter": {}, "dryRun": true}),
        "/filter",
    )
    .await;
    refused(json!({"action": "undo", "all": true}), "/action").await;
    refused(
        json!({"action": "retry", "filter": {"state": "x"}}),
        "/filter",
    )
    .await;
    refused(
        json!({"action": "retry", "filter": {"status": "x"}}),
        "/filter/status",
    )
    .await;
    refused(
        json!({"action": "retry", "all": true, "limit": 0}),
        "/limit",
    )
    .await;
    let long = "x".repeat(501);
    refused(
        json!({"action": "retry", "all": true, "reason": long}),
        "/reason",
    )
    .await;
    refused(
        json!({"action": "retry", "all": true, "force": true}),
        "/force",
    )
    .await;
    let ids: Vec<Uuid> = (0..1001).map(|_| Uuid::now_v7()).collect();
    refused(
        json!({"action": "retry", "filter": {"ids": ids}}),
        "/filter/ids",
    )
    .await;
    let request = server.request(Method::POST, PATH).body("{}");
    send(request).await.problem(415, "unsupported_media_type");

    let mut keys = Vec::new();
    for scopes in [json!(["read"]), json!(["read", "write"])] {
        let made = server
            .post("/api/api-keys", json!({"name": "k", "scopes": scopes}))
            .await;
        keys.push(made.body["key"].as_str().unwrap().to_owned());
    }
    let with = async |key: &str, method: Method, path: &str, body: Value| {
        send(server.anonymous(method, path).bearer_auth(key).json(&body)).await
    };
    for action in ["retry", "promote", "cancel", "delete"] {
        for dry_run in [true, false] {
            let body = json!({"action": action, "all": true, "dryRun": dry_run});
            let answer = with(&keys[0], Method::POST, PATH, body.clone()).await;
            answer.problem(403, "forbidden");
            let answer = with(&keys[1], Method::POST, PATH, body).await;
            match action {
                "retry" | "promote" => assert!(answer.status < 300, "{answer:?}"),
                _ => drop(answer.problem(403, "forbidden")),
            }
        }
    }
    let cancel = written_down(&server, Change::Cancel, &JobFilter::default()).await;
    let retry = written_down(&server, Change::Retry, &JobFilter::default()).await;
    let [stop, undo] = ["stop", "undo"].map(|what| format!("{PATH}/{cancel}/{what}"));
    for path in [&stop, &undo] {
        for key in &keys {
            let answer = with(key, Method::POST, path, json!({})).await;
            answer.problem(403, "forbidden");
        }
        let answer = with(OTHER_KEY, Method::POST, path, json!({})).await;
        answer.problem(404, "action_not_found");
    }
    let path = format!("{PATH}/{cancel}");
    let other = with(OTHER_KEY, Method::GET, &path, json!({})).await;
    assert_eq!(
        other.problem(404, "action_not_found"),
        "there is no such action here"
    );
    server
        .get(&format!("{PATH}/x"))
        .await
        .problem(404, "action_not_found");
    let other = with(OTHER_KEY, Method::GET, PATH, json!({})).await;
    assert_eq!(other.body["actions"], json!([]));
    let shown = with(&keys[0], Method::GET, &path, json!({})).await;
    assert_eq!(shown.body["action"]["actor_id"], Value::Null);
    let stopped = format!("{PATH}/{retry}/stop");
    assert_eq!(
        with(&keys[1], Method::POST, &stopped, json!({}))
            .await
            .status,
        200
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gives_the_same_action_back_and_only_some_run_at_once() {
    let (_sandbox, server) = server().await;
    let ids = jobs(&server, 2, json!({})).await;
    let keyed = async |key: &str, body: Value| {
        let request = server
            .request(Method::POST, PATH)
            .header("idempotency-key", key);
        send(request.json(&body)).await
    };
    let cancel = json!({"action": "cancel", "filter": {"ids": [ids[0]]}});
    let first = keyed("k1", cancel.clone()).await;
    assert_eq!(first.status, 202, "{first:?}");
    ended(&server, &first.body["action"]).await;
    let again = keyed("k1", cancel).await;
    assert_eq!(
        (again.status, &again.body["action"]["id"]),
        (200, &first.body["action"]["id"])
    );
    let other = json!({"action": "cancel", "filter": {"ids": [ids[1]]}});
    let reused = keyed("k1", other.clone()).await;
    reused.problem(409, "idempotency_key_reused");
    assert_eq!(reused.body["action_id"], first.body["action"]["id"]);
    keyed(&"k".repeat(256), other.clone())
        .await
        .problem(422, "invalid_request");
    let theirs = server.anonymous(Method::POST, PATH).bearer_auth(OTHER_KEY);
    let theirs = theirs.header("idempotency-key", "k1").json(&other);
    assert_eq!(
        send(theirs).await.status,
        202,
        "another workspace's keys are its own"
    );

    let mut written = Vec::new();
    for _ in 0..3 {
        written.push(written_down(&server, Change::Retry, &JobFilter::default()).await);
    }
    let answer = start(&server, other.clone()).await;
    answer.problem(409, "too_many_actions");
    let stopped = format!("{PATH}/{}/stop", written[0]);
    for _ in 0..2 {
        let stopped = send(server.request(Method::POST, &stopped)).await;
        assert_eq!(
            (stopped.status, &stopped.body["action"]["state"]),
            (200, &json!("stopped"))
        );
    }
    done(&server, other).await;
    let path = format!(
        "{PATH}/{}/stop",
        first.body["action"]["id"].as_str().unwrap()
    );
    let over = send(server.request(Method::POST, &path)).await;
    over.problem(409, "action_state");

    let page = server.get(&format!("{PATH}?limit=2")).await.body;
    assert_eq!(page["actions"].as_array().unwrap().len(), 2);
    let rest = format!("{PATH}?before={}", page["next_before"].as_str().unwrap());
    let rest = server.get(&rest).await.body;
    assert_eq!(rest["actions"].as_array().unwrap().len(), 3);
    assert_eq!(rest["next_before"], Value::Null);
    server
        .get(&format!("{PATH}?limit=201"))
        .await
        .problem(400, "invalid_parameter");
    server.end().await;
}
