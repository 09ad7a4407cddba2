//! Connections over HTTP: who may make them, what is refused, and that credentials never come out.

use bullwark::job::connection::Provider;
use bullwark::record::connections;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::server::{Answer, OTHER_KEY, send};
use crate::webhooks::rig::Rig;

fn wish() -> Value {
    json!({
        "provider": "apollo", "name": "Apollo of sales",
        "credentials": { "api_key": "hush-hush" },
    })
}

async fn made(rig: &Rig, wish: Value) -> (String, Value) {
    let made = rig.server.post("/api/connections", wish).await;
    assert_eq!(made.status, 201, "{made:?}");
    let connection = made.body["connection"].clone();
    let id = connection["id"].as_str().unwrap();
    (format!("/api/connections/{id}"), connection)
}

async fn deleted(rig: &Rig, path: &str) -> Answer {
    send(rig.server.request(Method::DELETE, path)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_made_changed_and_deleted_and_its_credentials_are_told_to_nobody() {
    let rig = Rig::guarded().await;
    let (path, connection) = made(&rig, wish()).await;
    assert_eq!(connection["credential_names"], json!(["api_key"]));
    assert_eq!(
        (&connection["is_active"], &connection["base_url"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(rig.server.get(&path).await.body["connection"], connection);
    let listed = rig.server.get("/api/connections").await.body;
    assert_eq!(listed["connections"], json!([connection]));

    let renamed = rig.patch(&path, json!({ "name": "Apollo" })).await;
    assert_eq!(renamed.body["connection"]["name"], "Apollo", "{renamed:?}");
    let change = json!({
        "baseUrl": "https://apollo.example.com/", "credentials": { "api_key": "hush-again" },
    });
    let moved = rig.patch(&path, change).await;
    let url = &moved.body["connection"]["base_url"];
    assert_eq!(url, "https://apollo.example.com", "{moved:?}");
    let audit = rig.server.get("/api/audit").await.body.to_string();
    let stored: String = sqlx::query_scalar("SELECT credentials FROM connections")
        .fetch_one(&rig.pool)
        .await
        .unwrap();
    for text in [
        connection.to_string(),
        listed.to_string(),
        moved.body.to_string(),
        audit.clone(),
        stored,
    ] {
        assert!(!text.contains("hush"), "{text}");
    }
    for action in ["connection.create", "connection.change"] {
        assert!(audit.contains(action), "{audit}");
    }

    assert_eq!(deleted(&rig, &path).await.status, 200);
    deleted(&rig, &path)
        .await
        .problem(404, "connection_not_found");
    let gone = rig.server.get(&path).await;
    gone.problem(404, "connection_not_found");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_go_to_no_other_address_than_the_one_they_were_given_for() {
    let rig = Rig::guarded().await;
    let (path, _) = made(&rig, wish()).await;
    let elsewhere = json!({ "baseUrl": "https://elsewhere.example" });
    let refused = rig.patch(&path, elsewhere).await;
    refused.problem(422, "invalid_request");
    assert_eq!(refused.body["errors"][0]["pointer"], "/credentials");
    let smtp = json!({
        "provider": "smtp", "name": "mail", "settings": { "host": "mx.example.com" },
        "credentials": { "username": "ada", "password": "hush" },
    });
    let (path, _) = made(&rig, smtp).await;
    let elsewhere = json!({ "settings": { "host": "mx.elsewhere.example" } });
    rig.patch(&path, elsewhere)
        .await
        .problem(422, "invalid_request");
    let port = json!({ "settings": { "host": "mx.example.com", "port": 2525 } });
    assert_eq!(rig.patch(&path, port).await.status, 200);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_no_connection_is_refused_with_the_place_of_the_mistake() {
    let rig = Rig::guarded().await;
    for (pointer, field, value) in [
        ("/provider", "provider", json!("fax")),
        ("/name", "name", json!("")),
        ("/name", "name", json!("a\nb")),
        ("/name", "name", json!("x".repeat(101))),
        ("/baseUrl", "baseUrl", json!("http://api.example.com")),
        ("/baseUrl", "baseUrl", json!("https://127.0.0.1")),
        ("/baseUrl", "baseUrl", json!("https://x.example.com/?key=1")),
        ("/credentials", "credentials", json!({})),
        (
            "/credentials/token",
            "credentials",
            json!({ "token": "hush" }),
        ),
        (
            "/credentials/api_key",
            "credentials",
            json!({ "api_key": "" }),
        ),
        ("/credentials", "credentials", json!({ "api_key": 7 })),
        ("/settings/region", "settings", json!({ "region": "eu" })),
        ("/colour", "colour", json!("red")),
    ] {
        let mut wish = wish();
        wish[field] = value.clone();
        let refused = rig.server.post("/api/connections", wish).await;
        refused.problem(422, "invalid_request");
        assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{value}");
        assert!(!refused.body.to_string().contains("hush"), "{refused:?}");
    }
    let http = json!({ "provider": "http", "name": "x", "credentials": { "authorization": "x" } });
    let refused = rig.server.post("/api/connections", http).await;
    assert_eq!(refused.body["errors"][0]["pointer"], "/baseUrl");

    made(&rig, wish()).await;
    let taken = rig.server.post("/api/connections", wish()).await;
    taken.problem(409, "connection_name_taken");
    let mut other = wish();
    other["name"] = json!("other");
    let (path, _) = made(&rig, other).await;
    let taken = rig.patch(&path, json!({ "name": "Apollo of sales" })).await;
    taken.problem(409, "connection_name_taken");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_has_so_many_connections_and_another_sees_none_of_them() {
    let rig = Rig::guarded().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "INSERT INTO connections (workspace_id, provider, name, credential_names, credentials)
         SELECT '{DEFAULT_WORKSPACE}', 'apollo', 'n' || n, '{{}}', 'x'
         FROM generate_series(1, 100) n"
    )))
    .execute(&rig.pool)
    .await
    .unwrap();
    let refused = rig.server.post("/api/connections", wish()).await;
    refused.problem(409, "too_many_connections");
    let path = "/api/connections";
    let request = rig
        .server
        .anonymous(Method::GET, path)
        .bearer_auth(OTHER_KEY);
    assert_eq!(send(request).await.body["connections"], json!([]));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_and_a_refreshed_token_count_only_for_the_credentials_that_were_read() {
    let rig = Rig::guarded().await;
    let (path, _) = made(&rig, wish()).await;
    let record = &rig.server.app.record;
    let read = || connections::for_use(record, DEFAULT_WORKSPACE, Provider::Apollo, None);
    let before = read().await.unwrap().unwrap();
    let about = (before.id, before.version);
    let sealed = connections::Sealed {
        names: vec!["api_key".to_owned()],
        text: before.credentials.clone(),
    };
    assert!(connections::refresh(record, about, &sealed).await.unwrap());
    assert!(!connections::refresh(record, about, &sealed).await.unwrap());
    assert!(!connections::pause(record, about, "stale").await.unwrap());
    let now = read().await.unwrap().unwrap();
    assert!(now.is_active);

    let about = (now.id, now.version);
    assert!(connections::pause(record, about, "401").await.unwrap());
    assert!(!connections::pause(record, about, "401").await.unwrap());
    let paused = rig.server.get(&path).await.body["connection"].clone();
    assert_eq!(
        (&paused["is_active"], &paused["paused_reason"]),
        (&json!(false), &json!("401"))
    );
    let renewed = json!({ "credentials": { "api_key": "other" } });
    let renewed = rig.patch(&path, renewed).await.body["connection"].clone();
    assert_eq!(
        (&renewed["is_active"], &renewed["paused_reason"]),
        (&json!(true), &Value::Null)
    );
    let audit = rig.server.get("/api/audit").await.body.to_string();
    assert!(audit.contains("connection.pause"), "{audit}");
    rig.end().await;
}
