//! Exports over HTTP: asked for, shown, and their files downloaded.

use bullwark::record::exports::KEPT_BYTES_MAX;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::server;
use crate::http_events::Working;
use crate::support::Sandbox;
use crate::support::server::{KEY, OTHER_KEY, OTHER_WORKSPACE, Server, send};
use crate::worker::rig::eventually;

/// The same account in both workspaces, and one more in the first.
pub(crate) async fn fill(sandbox: &Sandbox) {
    let pool = sandbox.pool().await;
    let rows = [
        (DEFAULT_WORKSPACE, "Acme", "mine"),
        (DEFAULT_WORKSPACE, "=1+1", "mine"),
        (OTHER_WORKSPACE, "Acme", "theirs"),
    ];
    for (workspace, name, description) in rows {
        let insert = "INSERT INTO accounts (workspace_id, name, description) VALUES ($1, $2, $3)";
        let insert = sqlx::query(insert)
            .bind(workspace)
            .bind(name)
            .bind(description);
        insert.execute(&pool).await.unwrap();
    }
    pool.close().await;
}

/// An export that has ended.
pub(crate) async fn exported(server: &Server, key: &str, payload: Value) -> Value {
    let request = server
        .anonymous(Method::POST, "/api/exports")
        .bearer_auth(key);
    let answer = send(request.json(&payload)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let export = &answer.body["export"];
    assert_eq!(export["status"], "pending");
    let path = format!("/api/exports/{}", export["id"].as_str().unwrap());
    assert_eq!(answer.header("location"), path);
    eventually("the end of the export", async || {
        let request = server.anonymous(Method::GET, &path).bearer_auth(key);
        let export = send(request).await.body["export"].clone();
        (!export["finished_at"].is_null()).then_some(export)
    })
    .await
}

fn names(csv: &str) -> Vec<&str> {
    csv.lines().skip(1).collect()
}

fn file(server: &Server, export: &Value) -> RequestBuilder {
    let path = format!("/api/exports/{}/file", export["id"].as_str().unwrap());
    server.request(Method::GET, &path)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_asked_for_and_its_file_downloaded() {
    let (sandbox, server) = server().await;
    fill(&sandbox).await;
    let worker = Working::start(&server);
    let payload = json!({"entity_type": "accounts", "fields": ["name", "description"],
        "file_name": "Kunden für \"Zoë\".csv"});
    let export = exported(&server, KEY, payload).await;
    assert_eq!(
        (&export["status"], &export["rows"]),
        (&json!("completed"), &json!(2))
    );

    let response = file(&server, &export).send().await.unwrap();
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    for (name, value) in [
        ("content-type", "text/csv; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "private, no-store"),
        ("referrer-policy", "no-referrer"),
        ("accept-ranges", "bytes"),
        (
            "content-disposition",
            "attachment; filename=\"Kunden f_r _Zo__.csv\"; \
             filename*=UTF-8''Kunden%20f%C3%BCr%20%22Zo%C3%AB%22.csv",
        ),
    ] {
        assert_eq!(header(name), value);
    }
    assert_eq!(header("content-length"), export["bytes"].to_string());
    let tag = header("etag");
    let content = response.text().await.unwrap();
    assert_eq!(content, "name,description\r\nAcme,mine\r\n'=1+1,mine\r\n");

    let head = file(&server, &export).build().unwrap();
    let head = server.request(Method::HEAD, head.url().path());
    let head = head.send().await.unwrap();
    assert_eq!(
        head.headers()["content-length"],
        content.len().to_string().as_str()
    );
    assert_eq!(head.text().await.unwrap(), "");
    let part = file(&server, &export).header("range", "bytes=5-10");
    let part = send(part).await;
    assert_eq!((part.status, &part.body), (206, &json!(content[5..=10])));
    let range = format!("bytes 5-10/{}", content.len());
    assert_eq!(part.header("content-range"), range);
    let changed = file(&server, &export).header("range", "bytes=5-10");
    let changed = send(changed.header("if-range", "\"another\"")).await;
    assert_eq!(changed.status, 200);
    let beyond = send(file(&server, &export).header("range", "bytes=5000-")).await;
    beyond.problem(416, "range_not_satisfiable");
    assert_eq!(
        beyond.header("content-range"),
        format!("bytes */{}", content.len())
    );
    let same = send(file(&server, &export).header("if-none-match", &tag)).await;
    assert_eq!(same.status, 304);
    let other = send(file(&server, &export).header("if-match", "\"x\"")).await;
    other.problem(412, "precondition_failed");
    worker.end().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_exports_and_sees_its_own_only() {
    let (sandbox, server) = server().await;
    fill(&sandbox).await;
    let worker = Working::start(&server);
    let payload = json!({"entity_type": "accounts", "fields": ["name", "description"],
        "filters": {"name": "Acme"}});
    let mine = exported(&server, KEY, payload.clone()).await;
    let theirs = exported(&server, OTHER_KEY, payload).await;
    assert_eq!((&mine["rows"], &theirs["rows"]), (&json!(1), &json!(1)));
    let content = send(file(&server, &mine)).await.body;
    assert_eq!(names(content.as_str().unwrap()), ["Acme,mine"]);
    let id = theirs["id"].as_str().unwrap();
    for (method, path) in [
        (Method::GET, format!("/api/exports/{id}")),
        (Method::GET, format!("/api/exports/{id}/file")),
        (Method::POST, format!("/api/exports/{id}/links")),
        (Method::DELETE, format!("/api/exports/{id}/links")),
    ] {
        let answer = send(server.request(method, &path)).await;
        answer.problem(404, "export_not_found");
    }
    let request = server.anonymous(Method::GET, &format!("/api/exports/{id}/file"));
    let content = send(request.bearer_auth(OTHER_KEY)).await.body;
    assert_eq!(names(content.as_str().unwrap()), ["Acme,theirs"]);
    let listed = server.get("/api/exports").await.body;
    assert_eq!(listed["exports"], json!([mine]));
    worker.end().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_are_listed_page_by_page_and_a_key_makes_one() {
    let (sandbox, server) = server().await;
    fill(&sandbox).await;
    let worker = Working::start(&server);
    let mut ids = Vec::new();
    for format in ["json", "ndjson", "xlsx"] {
        let payload = json!({"entity_type": "accounts", "format": format});
        let export = exported(&server, KEY, payload).await;
        assert_eq!(
            (&export["format"], &export["rows"]),
            (&json!(format), &json!(2))
        );
        ids.push(export["id"].clone());
    }
    ids.reverse();
    let page = server.get("/api/exports?limit=2").await.body;
    let next = page["next_before"].as_str().unwrap();
    let rest = server
        .get(&format!("/api/exports?limit=2&before={next}"))
        .await;
    let listed = [&page["exports"], &rest.body["exports"]];
    let listed = listed.into_iter().flat_map(|page| page.as_array().unwrap());
    assert_eq!(listed.map(|e| e["id"].clone()).collect::<Vec<_>>(), ids);
    assert_eq!(rest.body["next_before"], Value::Null);

    let ask = async |entity: &str| {
        let request = server.request(Method::POST, "/api/exports");
        let request = request.header("idempotency-key", "of monday");
        send(request.json(&json!({"entity_type": entity}))).await
    };
    let (first, again) = (ask("accounts").await, ask("accounts").await);
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.body["export"]["id"], again.body["export"]["id"]);
    ask("contacts").await.problem(409, "idempotency_key_reused");
    worker.end().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_export_is_refused_with_the_place_of_each_mistake() {
    let (_sandbox, server) = server().await;
    for (payload, pointers) in [
        (json!({"entity_type": "deals"}), vec!["/entity_type"]),
        (
            json!({"entity_type": "accounts", "limit": 5}),
            vec!["/limit"],
        ),
        (
            json!({"entity_type": "accounts", "fields": ["name", "workspace_id"],
                "filters": [{"field": "name", "op": "lt", "value": "x"},
                    {"field": "created_at", "op": "lt", "value": "soon"}]}),
            vec!["/fields/1", "/filters/0/op", "/filters/1/value"],
        ),
        (
            json!({"entity_type": "accounts", "filters": {"employee_count": "many"}}),
            vec!["/filters/employee_count"],
        ),
        (
            json!({"entity_type": "accounts", "options": {"page_size": 0}}),
            vec!["/options/page_size"],
        ),
    ] {
        let answer = server.post("/api/exports", payload.clone()).await;
        answer.problem(422, "invalid_request");
        let errors = answer.body["errors"].as_array().unwrap().iter();
        let found: Vec<&str> = errors.map(|e| e["pointer"].as_str().unwrap()).collect();
        assert_eq!(found, pointers, "{payload}");
    }
    let text = server
        .request(Method::POST, "/api/exports")
        .body("entity_type=accounts");
    send(text).await.problem(415, "unsupported_media_type");
    // A job of the type is looked at by its schema before it is accepted, too.
    let job = json!({"jobType": "export_data", "payload": {"entity_type": "accounts", "x": 1}});
    server
        .post("/api/jobs", job)
        .await
        .problem(422, "invalid_request");
    server
        .get("/api/exports/x")
        .await
        .problem(400, "invalid_id");
    assert_eq!(server.get("/api/jobs").await.body["jobs"], json!([]));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_is_told_by_its_reason() {
    let (sandbox, server) = server().await;
    fill(&sandbox).await;
    let answer = server
        .post("/api/exports", json!({"entity_type": "accounts"}))
        .await;
    let waiting = answer.body["export"].clone();
    let id: Uuid = waiting["id"].as_str().unwrap().parse().unwrap();
    let shown = server.get(&format!("/api/exports/{id}")).await.body;
    assert_eq!(shown["export"]["status"], "pending");
    let early = send(file(&server, &waiting)).await;
    early.problem(409, "export_state");
    assert_eq!(early.body["export_status"], "pending");
    let link = server
        .post(&format!("/api/exports/{id}/links"), json!({}))
        .await;
    link.problem(409, "export_state");

    let worker = Working::start(&server);
    let export = eventually("the end of the export", async || {
        let export = server.get(&format!("/api/exports/{id}")).await.body["export"].clone();
        (export["status"] == "completed").then_some(export)
    })
    .await;
    worker.end().await;
    let pool = sandbox.pool().await;
    let path = server
        .data_dir
        .path()
        .join("exports")
        .join(format!("{id}.csv"));
    std::fs::rename(&path, path.with_extension("away")).unwrap();
    let lost = send(file(&server, &export)).await;
    lost.problem(404, "file_not_found");
    std::fs::rename(path.with_extension("away"), &path).unwrap();
    let expire = "UPDATE exports SET expires_at = now()";
    sqlx::query(expire).execute(&pool).await.unwrap();
    let over = send(file(&server, &export)).await;
    over.problem(410, "export_expired");
    let shown = server.get(&format!("/api/exports/{id}")).await.body;
    assert_eq!(shown["export"]["status"], "expired");
    // What is kept for the workspace leaves no room, until its days are over.
    let days = "UPDATE exports SET expires_at = now() + interval '1 day', bytes = $1";
    let days = sqlx::query(days).bind(KEPT_BYTES_MAX).execute(&pool);
    days.await.unwrap();
    let wish = json!({"entity_type": "accounts"});
    let full = server.post("/api/exports", wish).await;
    full.problem(409, "exports_full");
    sqlx::query(expire).execute(&pool).await.unwrap();

    let excel = json!({"entity_type": "accounts", "format": "excel"});
    let answer = server.post("/api/exports", excel).await;
    let cancelled = answer.body["export"].clone();
    let shown = format!("/api/exports/{}", cancelled["id"].as_str().unwrap());
    let shown = server.get(&shown).await.body;
    assert_eq!(
        (&cancelled["format"], &shown["export"]["format"]),
        (&json!("xlsx"), &json!("xlsx"))
    );
    let path = format!("/api/jobs/{}", cancelled["id"].as_str().unwrap());
    let cancel = server.request(Method::PATCH, &path);
    send(cancel.json(&json!({"status": "cancelled"}))).await;
    let none = send(file(&server, &cancelled)).await;
    let detail = none.problem(409, "export_state");
    assert!(detail.contains("is cancelled: it has no file"), "{detail}");
    let noop = crate::http::enqueue(&server).await;
    let no_export = server.get(&format!("/api/exports/{noop}")).await;
    no_export.problem(404, "export_not_found");
    pool.close().await;
    server.end().await;
}
