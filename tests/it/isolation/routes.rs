//! What a caller of one workspace gets from every route when it names what is of another.

use reqwest::Method;
use serde_json::{Value, json};

use super::Tenant;
use crate::http::server_with;
use crate::http_openapi::operations;
use crate::http_tokens::{claims, signed, with_secret};
use crate::support::server::{Answer, KEY, send};

/// Every route that answers with something of a workspace, `ID` for the id of a job of another one.
/// A test below tells whoever forgets to add a route here.
fn requests() -> Vec<(Method, &'static str, Value)> {
    let get = |path| (Method::GET, path, Value::Null);
    vec![
        get("/api/jobs"),
        get("/api/jobs?include=payload"),
        get("/api/jobs?status=dead_letter"),
        get("/api/jobs?status=pending"),
        get("/api/jobs?q=foxglove"),
        get("/api/jobs?error=foxglove"),
        get("/api/jobs?payload.of=foxglove"),
        get("/api/jobs?before=ffffffff-ffff-ffff-ffff-ffffffffffff"),
        get("/api/jobs/stats"),
        get("/api/jobs/dashboard"),
        get("/api/jobs/ID"),
        get("/api/jobs/ID/logs"),
        get("/api/jobs/ID/events"),
        get("/api/jobs/ID/report"),
        (
            Method::PATCH,
            "/api/jobs/ID",
            json!({ "status": "cancelled" }),
        ),
        (Method::POST, "/api/jobs/ID/retry", Value::Null),
        (Method::DELETE, "/api/jobs/ID", Value::Null),
        get("/api/imports"),
        get("/api/imports/ID"),
        (Method::POST, "/api/imports/ID/undo", Value::Null),
        get("/api/crm/conflicts"),
        (
            Method::POST,
            "/api/crm/conflicts/ID/resolve",
            json!({ "keep": "ours" }),
        ),
        get("/api/crm/links"),
        get("/api/crm/errors"),
        get("/api/crm/states"),
        get("/api/custom-fields"),
        (Method::DELETE, "/api/custom-fields/ID", Value::Null),
        get("/api/import-templates"),
        (Method::DELETE, "/api/import-templates/ID", Value::Null),
        get("/api/flows/ID"),
        get("/api/data-changes?entity_id=ID"),
        get("/api/data-changes?job_id=ID"),
        get("/api/session"),
        (Method::POST, "/api/session", Value::Null),
        (Method::DELETE, "/api/session", Value::Null),
        get("/api/enrichments/ID"),
        get("/api/exports"),
        get("/api/exports/ID"),
        get("/api/exports/ID/file"),
        (Method::POST, "/api/exports/ID/links", json!({})),
        (Method::DELETE, "/api/exports/ID/links", Value::Null),
        (Method::POST, "/api/jobs/ID/report/links", json!({})),
        (Method::DELETE, "/api/jobs/ID/report/links", Value::Null),
        (Method::POST, "/api/jobs/ID/promote", Value::Null),
        get("/api/jobs/actions"),
        get("/api/jobs/actions/ID"),
        (Method::POST, "/api/jobs/actions/ID/stop", Value::Null),
        (Method::POST, "/api/jobs/actions/ID/undo", Value::Null),
        (
            Method::POST,
            "/api/jobs/actions",
            json!({ "action": "retry", "all": true, "dryRun": true }),
        ),
        get("/api/queues"),
        get("/api/queues/ID"),
        (
            Method::POST,
            "/api/queues/foxglove/drain",
            json!({ "delayed": true }),
        ),
        get("/api/dead-letters"),
        get("/api/dead-letters?queue=foxglove"),
        get("/api/schedules"),
        get("/api/schedules/foxglove/ID"),
        (Method::DELETE, "/api/schedules/foxglove/ID", Value::Null),
        get("/api/workers"),
        get("/api/rate-limits"),
        get("/api/quotas"),
        (Method::DELETE, "/api/quotas/ID", Value::Null),
        get("/api/job-types"),
        get("/api/me"),
        get("/api/limits"),
        get("/api/api-keys"),
        get("/api/retention"),
        get("/api/connections"),
        get("/api/connections/ID"),
        (
            Method::PATCH,
            "/api/connections/ID",
            json!({ "isActive": false }),
        ),
        (Method::DELETE, "/api/connections/ID", Value::Null),
        get("/api/sequences"),
        get("/api/sequences/ID"),
        (
            Method::PATCH,
            "/api/sequences/ID",
            json!({ "isActive": false }),
        ),
        (Method::POST, "/api/sequences/ID/steps", step()),
        (Method::PUT, "/api/sequences/ID/steps/ID", step()),
        get("/api/suppressions"),
        get("/api/email/sends"),
        get("/api/email/sends?job_id=ID"),
        get("/api/email/sends?contact_id=ID"),
        (
            Method::POST,
            "/api/email/sends/ID/resolve",
            json!({ "outcome": "not_sent" }),
        ),
        get("/api/email/domains"),
        get("/api/webhooks"),
        get("/api/webhooks/ID"),
        (
            Method::PATCH,
            "/api/webhooks/ID",
            json!({ "isActive": false }),
        ),
        (Method::POST, "/api/webhooks/ID/rotate", Value::Null),
        (Method::POST, "/api/webhooks/ID/test", Value::Null),
        get("/api/webhooks/ID/deliveries"),
        (
            Method::POST,
            "/api/webhooks/ID/deliveries/ID/replay",
            Value::Null,
        ),
        (Method::DELETE, "/api/webhooks/ID", Value::Null),
        get("/api/audit"),
        get("/api/audit?target_kind=job&target_id=ID"),
        get("/api/audit?target_kind=api_key&target_id=x"),
    ]
}

/// A step whose connection is nobody's.
fn step() -> Value {
    json!({
        "connectionId": uuid::Uuid::nil(), "fromAddress": "a@x.example", "subject": "x",
        "textBody": "x",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_answers_with_anything_of_another_workspace() {
    let (sandbox, server) = server_with(with_secret()).await;
    let pool = sandbox.pool().await;
    let (mine, theirs) = (Tenant::mine(&pool).await, Tenant::theirs(&pool).await);
    let callers = [
        ("a key", KEY.to_owned()),
        ("the owner", signed(&claims(mine.owner))),
        ("a member", signed(&claims(mine.member))),
    ];
    let job = theirs.job.to_string();
    for (who, bearer) in &callers {
        let mut found_own = 0;
        for (method, path, body) in requests() {
            let path = path.replace("ID", &job);
            let mut request = server.anonymous(method.clone(), &path).bearer_auth(bearer);
            if !body.is_null() {
                request = request.json(&body);
            }
            let answer = send(request).await;
            assert!(answer.status < 500, "{who}: {method} {path}: {answer:?}");
            if path.contains(&format!("/{job}")) {
                assert!(
                    matches!(answer.status, 403 | 404),
                    "{who}: {method} {path}: {answer:?}"
                );
            }
            let text = told(&answer, &path);
            for secret in theirs.secrets() {
                let is_leaked = text.contains(&secret);
                assert!(!is_leaked, "{who}: {method} {path} tells {secret}: {text}");
            }
            found_own += usize::from(text.contains(mine.word));
        }
        assert!(found_own >= 6, "{who} sees what is its own: {found_own}");
    }
    let untouched: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM jobs WHERE workspace_id = $1 AND deleted_at IS NULL
           AND status IN ('dead_letter', 'pending')",
    )
    .bind(theirs.workspace)
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(untouched, 2);
    pool.close().await;
    server.end().await;
}

/// The answer without the words that the caller itself sent.
fn told(answer: &Answer, path: &str) -> String {
    let mut text = answer.body.to_string();
    let given = path.split(['/', '=', '&', '?']);
    for word in given.filter(|word| word.len() > 7) {
        text = text.replace(word, "");
    }
    text
}

/// Routes that are not asked above, each with the reason.
const NOT_ASKED: &[(&str, &str)] = &[
    ("post /api/jobs", "makes what is the caller's own"),
    ("post /api/jobs/bulk", "makes what is the caller's own"),
    ("post /api/flows", "makes what is the caller's own"),
    ("post /api/exports", "makes what is the caller's own"),
    ("post /api/enrichments", "makes what is the caller's own"),
    ("post /api/reports", "makes what is the caller's own"),
    ("post /api/uploads", "makes what is the caller's own"),
    ("post /api/api-keys", "makes what is the caller's own"),
    ("post /api/webhooks", "makes what is the caller's own"),
    ("post /api/custom-fields", "makes what is the caller's own"),
    (
        "post /api/import-templates",
        "makes what is the caller's own",
    ),
    ("post /api/connections", "makes what is the caller's own"),
    ("put /api/retention", "makes what is the caller's own"),
    ("post /api/sequences", "makes what is the caller's own"),
    ("post /api/suppressions", "makes what is the caller's own"),
    (
        "delete /api/suppressions/{target}",
        "is of the caller's own, by name; tests/it/email has those of others",
    ),
    (
        "patch /api/email/domains/{domain}",
        "makes what is the caller's own",
    ),
    (
        "put /api/quotas/{service}",
        "makes what is the caller's own",
    ),
    (
        "put /api/schedules/{queue}/{id}",
        "makes what is the caller's own",
    ),
    (
        "post /api/imports/preview",
        "tests/it/http_imports.rs has uploads of others",
    ),
    (
        "delete /api/api-keys/{id}",
        "tests/it/http_keys.rs has keys of others",
    ),
    (
        "get /api/events",
        "does not end; tests/it/http_events.rs listens to others",
    ),
    (
        "patch /api/queues/{name}",
        "is about all workspaces, for operators",
    ),
    (
        "post /api/job-types",
        "is about all workspaces, for operators",
    ),
    (
        "patch /api/workspaces/{id}/limits",
        "is about all workspaces, for operators",
    ),
    ("get /api/alerts", "is about all workspaces, for operators"),
    (
        "post /api/alerts/{id}/resolve",
        "is about all workspaces, for operators",
    ),
    (
        "get /api/consistency",
        "is about all workspaces, for operators",
    ),
    ("get /metrics", "is about all workspaces, for operators"),
    ("get /api/docs/{file}", "the same for everybody"),
    ("get /api/openapi.json", "the same for everybody"),
];

#[tokio::test(flavor = "multi_thread")]
async fn no_route_is_forgotten_here() {
    let document: Value = serde_json::from_str(&bullwark::http::openapi()).unwrap();
    let asked: Vec<String> = requests()
        .iter()
        .map(|(method, path, _)| {
            let path = path.split('?').next().unwrap();
            format!("{} {path}", method.as_str().to_lowercase())
        })
        .collect();
    let is_like = |template: &str, path: &str| {
        let (template, path) = (template.split('/'), path.split('/'));
        let mut parts = template.clone().zip(path.clone());
        template.count() == path.count()
            && parts.all(|(part, given)| part.starts_with('{') || part == given)
    };
    let mut forgotten = Vec::new();
    for (method, template, operation) in operations(&document) {
        let name = format!("{method} {template}");
        let is_secured = operation["security"].is_null();
        let is_asked = asked.iter().any(|asked| is_like(&name, asked));
        let is_excused = NOT_ASKED.iter().any(|(excused, _)| *excused == name);
        if is_secured && !is_asked && !is_excused {
            forgotten.push(name);
        }
    }
    assert_eq!(forgotten, Vec::<String>::new());
}
