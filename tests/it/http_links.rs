//! Links that open a file without a key.

use reqwest::Method;
use serde_json::{Value, json};

use crate::http::{enqueue, server, server_with};
use crate::http_events::Working;
use crate::http_exports::{exported, fill};
use crate::http_tokens::{claims, signed, with_secret};
use crate::support::Sandbox;
use crate::support::server::{Answer, KEY, Server, send};

async fn open(server: &Server, url: &str) -> Answer {
    send(server.anonymous(Method::GET, url)).await
}

async fn link(server: &Server, path: &str, wish: Value) -> (String, Value) {
    let answer = server.post(path, wish).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let url = answer.body["url"].as_str().unwrap().to_owned();
    (url, answer.body["expires_at"].clone())
}

async fn sql(sandbox: &Sandbox, statement: &'static str) {
    let pool = sandbox.pool().await;
    sqlx::query(statement).execute(&pool).await.unwrap();
    pool.close().await;
}

/// An export of this server, and where its links are made.
async fn export(sandbox: &Sandbox, server: &Server) -> (Value, String) {
    fill(sandbox).await;
    let worker = Working::start(server);
    let payload = json!({"entity_type": "accounts", "fields": ["name"]});
    let export = exported(server, KEY, payload).await;
    worker.end().await;
    let path = format!("/api/exports/{}/links", export["id"].as_str().unwrap());
    (export, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_its_file_until_it_is_over_or_revoked() {
    let (sandbox, server) = server().await;
    let (export, path) = export(&sandbox, &server).await;
    let (first, until) = link(&server, &path, json!({"expires_in_seconds": 60})).await;
    let (second, longest) = link(&server, &path, Value::Null).await;
    assert!(until.as_str().unwrap() < longest.as_str().unwrap());
    assert_eq!(longest, export["expires_at"], "no longer than the file");
    let (_, token) = first.rsplit_once('/').unwrap();
    assert_eq!(token.len(), 43);

    let opened = open(&server, &first).await;
    assert_eq!(
        (opened.status, &opened.body),
        (200, &json!("name\r\nAcme\r\n'=1+1\r\n"))
    );
    assert_eq!(opened.header("cache-control"), "private, no-store");
    assert_eq!(opened.header("referrer-policy"), "no-referrer");
    assert!(
        opened
            .header("content-disposition")
            .starts_with("attachment; filename=\"accounts-")
    );
    // It is written down, and is no change of the job.
    let job = format!("/api/jobs/{}", export["id"].as_str().unwrap());
    let shown = server.get(&job).await;
    assert_eq!(shown.status, 200, "{shown:?}");
    let timeline = shown.body["timeline"].as_array().unwrap();
    assert!(timeline.iter().all(|moment| moment["status"].is_string()));
    let part = server
        .anonymous(Method::GET, &second)
        .header("range", "bytes=0-3");
    let part = send(part).await;
    assert_eq!((part.status, part.body), (206, json!("name")));

    sql(
        &sandbox,
        "UPDATE bullwark.download_links SET expires_at = now()
        WHERE last_used_at = (SELECT min(last_used_at) FROM bullwark.download_links)",
    )
    .await;
    let over = open(&server, &first).await;
    let told = over.problem(404, "link_not_found").to_owned();
    assert_eq!(open(&server, &second).await.status, 200);
    let revoked = send(server.request(Method::DELETE, &path)).await;
    assert_eq!(revoked.body, json!({"revoked": 1}));
    let again = send(server.request(Method::DELETE, &path)).await;
    assert_eq!(again.body, json!({"revoked": 0}));
    // Whatever is wrong with a link, it looks the same.
    let unknown = format!("/api/downloads/{}", "A".repeat(43));
    for url in [&second, &unknown, "/api/downloads/x", "/api/downloads/%ff"] {
        let closed = open(&server, url).await;
        assert_eq!(closed.problem(404, "link_not_found"), told);
        assert!(
            !closed
                .body
                .to_string()
                .contains(url.rsplit('/').next().unwrap())
        );
    }

    let audit = server.get("/api/audit").await.body;
    let made = audit["audit"].as_array().unwrap().iter();
    let actions: Vec<&str> = made
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    let expected = [
        "download_link.revoke",
        "download_link.create",
        "download_link.create",
    ];
    assert_eq!(actions, expected);
    assert!(!audit.to_string().contains(token));
    let pool = sandbox.pool().await;
    let kept: Vec<String> = sqlx::query_scalar(
        "SELECT row_to_json(l)::text FROM bullwark.download_links l
         UNION ALL SELECT row_to_json(a)::text FROM bullwark.audit_log a",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(kept.iter().all(|row| !row.contains(token)), "{kept:?}");
    pool.close().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_ends_with_its_file() {
    let (sandbox, server) = server().await;
    let (export, path) = export(&sandbox, &server).await;
    let (url, _) = link(&server, &path, json!({"expiresInSeconds": 604_800})).await;
    sql(&sandbox, "UPDATE exports SET expires_at = now()").await;
    open(&server, &url).await.problem(404, "link_not_found");
    server
        .post(&path, json!({}))
        .await
        .problem(410, "export_expired");
    sql(
        &sandbox,
        "UPDATE exports SET expires_at = now() + interval '1 day'",
    )
    .await;
    assert_eq!(open(&server, &url).await.status, 200);
    let file = server.data_dir.path().join("exports");
    let file = file.join(format!("{}.csv", export["id"].as_str().unwrap()));
    std::fs::rename(&file, file.with_extension("away")).unwrap();
    let elsewhere = open(&server, &url).await;
    elsewhere.problem(404, "link_not_found");
    std::fs::rename(file.with_extension("away"), &file).unwrap();
    let job = format!("/api/jobs/{}", export["id"].as_str().unwrap());
    let deleted = send(server.request(Method::DELETE, &job)).await;
    assert_eq!(deleted.status, 200, "{deleted:?}");
    open(&server, &url).await.problem(404, "link_not_found");
    server
        .post(&path, json!({}))
        .await
        .problem(404, "export_not_found");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_ends_with_the_rights_of_who_made_it() {
    let (sandbox, server) = server().await;
    let (_, path) = export(&sandbox, &server).await;
    let wish = json!({"name": "writer", "scopes": ["write"]});
    let writer = server.post("/api/api-keys", wish).await.body;
    let request = server.anonymous(Method::POST, &path);
    let request = request.bearer_auth(writer["key"].as_str().unwrap());
    let of_key = send(request).await.body["url"].clone();
    let of_key = of_key.as_str().unwrap();
    let (of_user, _) = link(&server, &path, json!({})).await;
    assert_eq!(open(&server, of_key).await.status, 200);
    let id = writer["api_key"]["id"].as_str().unwrap();
    let revoke = server.request(Method::DELETE, &format!("/api/api-keys/{id}"));
    assert_eq!(send(revoke).await.status, 200);
    open(&server, of_key).await.problem(404, "link_not_found");

    assert_eq!(open(&server, &of_user).await.status, 200);
    let member = "WITH made AS (UPDATE bullwark.download_links SET created_by_kind = 'user',
        created_by = '01890000-0000-7000-8000-000000000000' RETURNING workspace_id, created_by),
      person AS (INSERT INTO auth.users (id) SELECT DISTINCT created_by FROM made RETURNING id)
      INSERT INTO workspace_members (workspace_id, user_id, role)
      SELECT DISTINCT made.workspace_id, person.id, 'member' FROM made, person";
    sql(&sandbox, member).await;
    assert_eq!(open(&server, &of_user).await.status, 200);
    sql(&sandbox, "DELETE FROM workspace_members").await;
    let closed = open(&server, &of_user).await;
    closed.problem(404, "link_not_found");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_report_is_the_same() {
    let (_sandbox, server) = server().await;
    let id = enqueue(&server).await;
    let path = format!("/api/jobs/{id}/report/links");
    server
        .post(&path, json!({}))
        .await
        .problem(404, "report_not_found");
    let reports = server.data_dir.path().join("reports");
    std::fs::create_dir_all(&reports).unwrap();
    std::fs::write(reports.join(format!("{id}.csv")), "email,_row\r\n").unwrap();
    let (url, _) = link(&server, &path, json!({})).await;
    let opened = open(&server, &url).await;
    assert_eq!(
        (opened.status, &opened.body),
        (200, &json!("email,_row\r\n"))
    );
    let revoked = send(server.request(Method::DELETE, &path)).await;
    assert_eq!(revoked.body, json!({"revoked": 1}));
    open(&server, &url).await.problem(404, "link_not_found");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_for_those_who_may_write_and_have_bounds() {
    let (sandbox, server) = server_with(with_secret()).await;
    let (_, path) = export(&sandbox, &server).await;
    let wish = json!({"name": "reader", "scopes": ["read"]});
    let reader = server.post("/api/api-keys", wish).await.body;
    let reader = reader["key"].as_str().unwrap();
    for method in [Method::POST, Method::DELETE] {
        let request = server.anonymous(method, &path).bearer_auth(reader);
        send(request).await.problem(403, "forbidden");
    }
    let request = server
        .anonymous(Method::POST, "/api/exports")
        .bearer_auth(reader);
    let refused = send(request.json(&json!({"entity_type": "accounts"}))).await;
    refused.problem(403, "forbidden");
    let stranger = signed(&claims(uuid::Uuid::now_v7()));
    let request = server.anonymous(Method::POST, &path).bearer_auth(stranger);
    send(request).await.problem(403, "forbidden");

    for wish in [
        json!({"expires_in_seconds": 59}),
        json!({"expires_in_seconds": 604_801}),
        json!({"expires_in_seconds": "long"}),
        json!({"forever": true}),
    ] {
        let answer = server.post(&path, wish).await;
        answer.problem(422, "invalid_request");
        assert_eq!(answer.body["errors"].as_array().unwrap().len(), 1);
    }
    sql(
        &sandbox,
        "INSERT INTO bullwark.download_links (token_hash, workspace_id, job_id, kind,
           created_by_kind, expires_at)
         SELECT sha256(n::text::bytea), e.workspace_id, e.id, 'export', 'service',
           now() + interval '1 hour'
         FROM exports e, generate_series(1, 99) n",
    )
    .await;
    link(&server, &path, json!({})).await;
    let more = server.post(&path, json!({})).await;
    more.problem(409, "too_many_links");
    sql(
        &sandbox,
        "UPDATE bullwark.download_links SET expires_at = now()",
    )
    .await;
    link(&server, &path, json!({})).await;
    server.end().await;
}
