//! Quotas over HTTP: who sees what is left, and who sets limits.

use bullwark::quota::{Ask, Limits, QuotaKey, QuotaWindow, Quotas};
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::tasks::Tasks;
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::server;
use crate::stage::PATIENCE;
use crate::support::server::{OTHER_KEY, send};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_and_left_of_a_quota_is_shown_to_its_workspace() {
    let (_sandbox, server) = server().await;
    let (record, broker) = (server.app.record.clone(), server.app.broker.clone());
    let tasks = Tasks::new();
    let quotas = Quotas::start(record, broker, &tasks, tasks.stopping().clone());
    let key = QuotaKey::new("clearbit", DEFAULT_WORKSPACE).unwrap();
    let limits = Limits::of([QuotaWindow::Fixed {
        max: 600,
        per_ms: 60_000,
    }]);
    let ask = Ask::new(&key, &limits)
        .cost(50)
        .host("company.clearbit.com");
    let permit = quotas.take(&ask).await.unwrap().unwrap();

    let shown = server.get("/api/quotas").await.body;
    assert_eq!(
        (&shown["is_known"], &shown["next"]),
        (&json!(true), &Value::Null)
    );
    let quota = &shown["quotas"][0];
    assert_eq!(quota["key"], json!(key.to_string()));
    assert_eq!(
        (&quota["service"], &quota["is_set"]),
        (&json!("clearbit"), &json!(false))
    );
    assert_eq!(quota["limits"]["windows"][0]["max"], 600);
    let now = &quota["now"];
    assert_eq!(
        (&now["under_way"], &now["host"]),
        (&json!(1), &json!("company.clearbit.com"))
    );
    let window = &now["windows"][0];
    assert_eq!(
        (&window["used"], &window["left"], &window["window"]),
        (&json!(50), &json!(550), &json!("fixed:60000"))
    );
    assert!(window["resets_at"].is_string());
    permit.ended().await;

    let others = server
        .anonymous(Method::GET, "/api/quotas")
        .bearer_auth(OTHER_KEY);
    assert_eq!(send(others).await.body["quotas"], json!([]));
    tasks.stop(PATIENCE).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_sets_limits_and_takes_them_away_and_it_is_written_down() {
    let (_sandbox, server) = server().await;
    let path = "/api/quotas/apollo";
    let put = async |body: Value| send(server.request(Method::PUT, path).json(&body)).await;
    let wish = json!({
        "windows": [
            { "kind": "fixed", "max": 200, "perMs": 60_000 },
            { "kind": "daily", "max": 2000, "zone": "UTC" },
        ],
        "concurrency": 5, "reservePercent": 10,
    });
    for _ in 0..2 {
        assert_eq!(put(wish.clone()).await.body, json!({ "success": true }));
    }
    let quota = server.get("/api/quotas").await.body["quotas"][0].clone();
    assert_eq!(
        (&quota["is_set"], &quota["now"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(quota["limits"]["reserve_percent"], 10);
    let audit = server.get("/api/audit").await.body;
    assert_eq!(audit["audit"][0]["action"], "rate_limit.set");
    assert_eq!(audit["audit"][0]["after"]["concurrency"], 5);

    let delete = async || send(server.request(Method::DELETE, path)).await;
    assert_eq!(delete().await.body, json!({ "success": true }));
    delete().await.problem(404, "quota_not_found");
    for (body, place) in [
        (
            json!({ "windows": [{ "kind": "fixed", "max": 0, "perMs": 1000 }] }),
            "/windows",
        ),
        (
            json!({ "windows": [], "reservePercent": 95 }),
            "/reservePercent",
        ),
        (json!({ "windows": [], "concurrency": 0 }), "/concurrency"),
    ] {
        let refused = put(body).await;
        refused.problem(422, "invalid_request");
        assert_eq!(refused.body["errors"][0]["pointer"], place);
    }
    let odd = server.request(Method::PUT, "/api/quotas/A%20B").json(&wish);
    send(odd).await.problem(422, "invalid_request");
    server.end().await;
}
