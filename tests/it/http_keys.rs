//! API keys over HTTP: scopes, expiry, revocation, and what is written down of them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::http::{enqueue, server};
use crate::support::Sandbox;
use crate::support::server::{Answer, OTHER_KEY, Server, send};

async fn make(server: &Server, wish: Value) -> (String, Value) {
    let answer = server.post("/api/api-keys", wish).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let key = answer.body["key"].as_str().unwrap().to_owned();
    (key, answer.body["api_key"].clone())
}

async fn with(server: &Server, key: &str, method: Method, path: &str) -> Answer {
    let request = server.anonymous(method, path).bearer_auth(key);
    send(request.json(&json!({"jobType": "noop"}))).await
}

async fn sql(sandbox: &Sandbox, statement: &'static str) {
    let pool = sandbox.pool().await;
    sqlx::query(statement).execute(&pool).await.unwrap();
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_what_its_scopes_say_and_is_shown_once() {
    let (_sandbox, server) = server().await;
    let job = format!("/api/jobs/{}", enqueue(&server).await);
    let (reader, row) = make(&server, json!({"name": "reader", "scopes": ["read"]})).await;
    assert!(reader.starts_with("bw_") && reader.len() == 46, "{reader}");
    assert_eq!(row["prefix"], reader[..11]);
    let (writer, _) = make(&server, json!({"name": "w", "scopes": ["read", "write"]})).await;
    let (admin, _) = make(
        &server,
        json!({"name": "all", "scopes": ["read", "write", "admin"]}),
    )
    .await;

    assert_eq!(with(&server, &reader, Method::GET, &job).await.status, 200);
    for (method, path) in [
        (Method::POST, "/api/jobs".to_owned()),
        (Method::POST, "/api/jobs/bulk".to_owned()),
        (Method::POST, "/api/flows".to_owned()),
        (Method::POST, "/api/uploads".to_owned()),
        (Method::POST, "/api/import-templates".to_owned()),
        (Method::POST, format!("{job}/retry")),
    ] {
        let answer = with(&server, &reader, method, &path).await;
        let detail = answer.problem(403, "forbidden");
        assert_eq!(detail, "this needs an API key with the scope `write`");
        assert_eq!(answer.body["needed"], "write");
    }
    let added = with(&server, &writer, Method::POST, "/api/jobs").await;
    assert_eq!(added.status, 201);
    let undo = format!("{}/undo", job.replace("/jobs/", "/imports/"));
    for (method, path) in [
        (Method::PATCH, job.as_str()),
        (Method::POST, undo.as_str()),
        (Method::POST, "/api/custom-fields"),
        (Method::DELETE, "/api/custom-fields/x"),
        (Method::DELETE, job.as_str()),
        (Method::POST, "/api/job-types"),
        (Method::GET, "/api/api-keys"),
        (Method::POST, "/api/api-keys"),
        (Method::DELETE, "/api/api-keys/x"),
        (Method::GET, "/api/audit"),
    ] {
        let answer = with(&server, &writer, method, path).await;
        answer.problem(403, "forbidden");
    }
    let me = with(&server, &writer, Method::GET, "/api/me").await.body;
    assert_eq!(me["permissions"], json!(["read", "write"]));
    assert_eq!(me["actor"]["kind"], "api_key");
    let cancel = server.anonymous(Method::PATCH, &job).bearer_auth(&admin);
    let cancelled = send(cancel.json(&json!({"status": "cancelled"}))).await;
    assert_eq!(cancelled.status, 200, "{cancelled:?}");

    let listed = server.get("/api/api-keys").await.body.to_string();
    assert!(listed.contains("reader"), "{listed}");
    assert!(!listed.contains(&reader[11..]) && !listed.contains("hash"));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_no_key_is_refused_with_the_place_of_the_mistake() {
    let (_sandbox, server) = server().await;
    for (wish, pointer) in [
        (json!({"name": " ", "scopes": ["read"]}), "/name"),
        (json!({"name": "a\u{0}b", "scopes": ["read"]}), "/name"),
        (
            json!({"name": "x".repeat(101), "scopes": ["read"]}),
            "/name",
        ),
        (json!({"name": "a", "scopes": []}), "/scopes"),
        (json!({"name": "a", "scopes": ["root"]}), "/scopes"),
        (
            json!({"name": "a", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}),
            "/expires_at",
        ),
    ] {
        let answer = server.post("/api/api-keys", wish).await;
        answer.problem(422, "invalid_request");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{answer:?}");
    }
    assert_eq!(server.get("/api/audit").await.body["audit"], json!([]));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_ends_at_once_and_an_expired_one_by_itself() {
    let (sandbox, server) = server().await;
    let (key, row) = make(&server, json!({"name": "short", "scopes": ["read"]})).await;
    assert_eq!(
        with(&server, &key, Method::GET, "/api/me").await.status,
        200
    );
    let path = format!("/api/api-keys/{}", row["id"].as_str().unwrap());

    // Another workspace has no such key.
    let other = server
        .anonymous(Method::DELETE, &path)
        .bearer_auth(OTHER_KEY);
    send(other).await.problem(404, "api_key_not_found");
    assert_eq!(
        with(&server, &key, Method::GET, "/api/me").await.status,
        200
    );

    let revoked = send(server.request(Method::DELETE, &path)).await;
    assert_eq!(revoked.status, 200);
    assert!(revoked.body["api_key"]["revoked_at"].is_string());
    let again = send(server.request(Method::DELETE, &path)).await;
    assert_eq!(again.body, revoked.body, "once is enough");
    let refused = with(&server, &key, Method::GET, "/api/me").await;
    refused.problem(401, "invalid_api_key");
    assert!(refused.header("www-authenticate").contains("invalid_token"));
    for id in ["x", "01890000-0000-7000-8000-000000000000"] {
        let path = format!("/api/api-keys/{id}");
        let unknown = send(server.request(Method::DELETE, &path)).await;
        unknown.problem(404, "api_key_not_found");
    }

    let (key, _) = make(
        &server,
        json!({"name": "later", "scopes": ["read"], "expiresAt": "2100-01-01T00:00:00Z"}),
    )
    .await;
    sql(
        &sandbox,
        "UPDATE bullwark.api_keys SET expires_at = now() WHERE name = 'later'",
    )
    .await;
    let refused = with(&server, &key, Method::GET, "/api/me").await;
    refused.problem(401, "invalid_api_key");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_made_and_ended_keys_is_written_down_for_the_admins_of_the_workspace() {
    let (_sandbox, server) = server().await;
    let request = server.request(Method::POST, "/api/api-keys");
    let request = request.header("x-request-id", "mine-1");
    let made = send(request.json(&json!({"name": "a", "scopes": ["read"]}))).await;
    let id = made.body["api_key"]["id"].as_str().unwrap().to_owned();
    send(server.request(Method::DELETE, &format!("/api/api-keys/{id}"))).await;

    let audit = server.get("/api/audit").await.body;
    let rows = audit["audit"].as_array().unwrap();
    let actions: Vec<&str> = rows.iter().map(|r| r["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["api_key.revoke", "api_key.create"]);
    let created = &rows[1];
    assert_eq!(
        (&created["target_id"], &created["request_id"]),
        (&json!(id), &json!("mine-1"))
    );
    assert_eq!(created["after"]["scopes"], json!(["read"]));
    assert_eq!(created["actor_kind"], "api_key");
    let me = server.get("/api/me").await.body;
    assert_eq!(created["actor_id"], me["actor"]["id"]);

    let of_target = format!("/api/audit?target_kind=api_key&target_id={id}&limit=1");
    let page = server.get(&of_target).await.body;
    assert_eq!(page["audit"][0]["action"], "api_key.revoke");
    let next = format!(
        "{of_target}&before={}",
        page["next_before"].as_str().unwrap()
    );
    let page = server.get(&next).await.body;
    assert_eq!(page["audit"][0]["action"], "api_key.create");
    let half = server.get("/api/audit?target_kind=job").await;
    half.problem(400, "invalid_parameter");

    let other = server
        .anonymous(Method::GET, "/api/audit")
        .bearer_auth(OTHER_KEY);
    assert_eq!(send(other).await.body["audit"], json!([]));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gives_no_more_than_it_has() {
    let (_sandbox, server) = server().await;
    let (limited, _) = make(
        &server,
        json!({"name": "keeper", "scopes": ["admin"], "expires_at": "2100-01-01T00:00:00Z"}),
    )
    .await;
    let wish = async |scopes: Value, until: Value| {
        let request = server.anonymous(Method::POST, "/api/api-keys");
        let body = json!({"name": "child", "scopes": scopes, "expires_at": until});
        send(request.bearer_auth(&limited).json(&body)).await
    };
    let before = json!("2099-01-01T00:00:00Z");
    for (scopes, until) in [
        (json!(["read"]), before.clone()),
        (json!(["admin", "write"]), before.clone()),
        (json!(["admin"]), json!(null)),
        (json!(["admin"]), json!("2100-01-01T00:00:01Z")),
    ] {
        let refused = wish(scopes, until).await;
        refused.problem(403, "forbidden");
    }
    assert_eq!(wish(json!(["admin"]), before).await.status, 201);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_for_every_workspace_is_for_those_who_run_the_installation() {
    let (_sandbox, server) = server().await;
    let declare = async |key: &str| {
        let request = server.anonymous(Method::POST, "/api/job-types");
        send(request.bearer_auth(key).json(&json!({"name": "theirs"}))).await
    };
    let refused = declare(OTHER_KEY).await;
    refused.problem(403, "forbidden");
    assert_eq!(refused.body["needed"], "operator");
    assert_eq!(declare(crate::support::server::KEY).await.status, 201);
    server.end().await;
}
