//! Keys, routes and the reading of jobs over HTTP.

use bullwark::http::HttpOptions;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Sandbox;
use crate::support::server::{OTHER_KEY, Server, send};

pub(crate) async fn server() -> (Sandbox, Server) {
    server_with(HttpOptions::default()).await
}

pub(crate) async fn server_with(options: HttpOptions) -> (Sandbox, Server) {
    let sandbox = Sandbox::new().await;
    let (database, redis) = (&sandbox.database_url, &sandbox.redis_url);
    let server = Server::start_with(database, redis, &sandbox.prefix, options).await;
    (sandbox, server)
}

pub(crate) async fn enqueue(server: &Server) -> String {
    let answer = server.post("/api/jobs", json!({"jobType": "noop"})).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.body["job"]["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn count(server: &Server) -> usize {
    let answer = server.get("/api/jobs?limit=200").await;
    answer.body["jobs"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_open_and_everything_else_needs_a_key() {
    let (_sandbox, server) = server().await;
    let live = send(server.anonymous(Method::GET, "/healthz")).await;
    assert_eq!(live.status, 200);
    let ready = send(server.anonymous(Method::GET, "/readyz")).await;
    assert_eq!((ready.status, &ready.body["status"]), (200, &json!("ok")));
    assert!(
        ready.body["stores"]["redis"]["latency_ms"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    assert_eq!(ready.body["stores"]["postgres"]["status"], "ok");

    for (method, path) in [
        (Method::GET, "/api/jobs"),
        (Method::POST, "/api/jobs"),
        (Method::POST, "/api/jobs/bulk"),
        (Method::GET, "/api/jobs/stats"),
        (Method::GET, "/api/jobs/dashboard"),
        (Method::DELETE, "/api/jobs/x"),
        (Method::GET, "/api/jobs/x"),
        (Method::PATCH, "/api/jobs/x"),
        (Method::GET, "/api/jobs/x/logs"),
        (Method::GET, "/api/jobs/x/report"),
        (Method::POST, "/api/jobs/x/retry"),
        (Method::POST, "/api/jobs/x/promote"),
        (Method::GET, "/api/jobs/actions"),
        (Method::POST, "/api/jobs/actions"),
        (Method::GET, "/api/jobs/actions/x"),
        (Method::POST, "/api/jobs/actions/x/stop"),
        (Method::POST, "/api/jobs/actions/x/undo"),
        (Method::GET, "/api/jobs/x/events"),
        (Method::GET, "/api/events"),
        (Method::GET, "/api/job-types"),
        (Method::POST, "/api/job-types"),
        (Method::GET, "/api/queues"),
        (Method::GET, "/api/queues/x"),
        (Method::PATCH, "/api/queues/x"),
        (Method::POST, "/api/queues/x/drain"),
        (Method::GET, "/api/dead-letters"),
        (Method::GET, "/api/schedules"),
        (Method::GET, "/api/schedules/x/y"),
        (Method::PUT, "/api/schedules/x/y"),
        (Method::DELETE, "/api/schedules/x/y"),
        (Method::GET, "/api/workers"),
        (Method::GET, "/api/rate-limits"),
        (Method::GET, "/api/quotas"),
        (Method::PUT, "/api/quotas/x"),
        (Method::DELETE, "/api/quotas/x"),
        (Method::GET, "/api/alerts"),
        (Method::POST, "/api/alerts/x/resolve"),
        (Method::GET, "/api/consistency"),
        (Method::GET, "/api/me"),
        (Method::GET, "/api/session"),
        (Method::POST, "/api/session"),
        (Method::DELETE, "/api/session"),
        (Method::GET, "/api/flows/x"),
        (Method::GET, "/api/data-changes"),
        (Method::GET, "/api/api-keys"),
        (Method::POST, "/api/api-keys"),
        (Method::DELETE, "/api/api-keys/x"),
        (Method::GET, "/api/audit"),
        (Method::GET, "/api/retention"),
        (Method::PUT, "/api/retention"),
        (Method::GET, "/api/connections"),
        (Method::POST, "/api/connections"),
        (Method::GET, "/api/connections/x"),
        (Method::PATCH, "/api/connections/x"),
        (Method::DELETE, "/api/connections/x"),
        (Method::GET, "/api/sequences"),
        (Method::POST, "/api/sequences"),
        (Method::GET, "/api/sequences/x"),
        (Method::PATCH, "/api/sequences/x"),
        (Method::POST, "/api/sequences/x/steps"),
        (Method::PUT, "/api/sequences/x/steps/y"),
        (Method::GET, "/api/suppressions"),
        (Method::POST, "/api/suppressions"),
        (Method::DELETE, "/api/suppressions/x"),
        (Method::GET, "/api/email/sends"),
        (Method::POST, "/api/email/sends/x/resolve"),
        (Method::GET, "/api/email/domains"),
        (Method::PATCH, "/api/email/domains/x"),
        (Method::GET, "/api/webhooks"),
        (Method::POST, "/api/webhooks"),
        (Method::GET, "/api/webhooks/x"),
        (Method::PATCH, "/api/webhooks/x"),
        (Method::DELETE, "/api/webhooks/x"),
        (Method::POST, "/api/webhooks/x/rotate"),
        (Method::POST, "/api/webhooks/x/test"),
        (Method::GET, "/api/webhooks/x/deliveries"),
        (Method::POST, "/api/webhooks/x/deliveries/y/replay"),
        (Method::GET, "/api/limits"),
        (Method::PATCH, "/api/workspaces/x/limits"),
        (Method::POST, "/api/uploads"),
        (Method::GET, "/api/imports"),
        (Method::GET, "/api/imports/x"),
        (Method::POST, "/api/imports/preview"),
        (Method::POST, "/api/imports/x/undo"),
        (Method::GET, "/api/crm/conflicts"),
        (Method::POST, "/api/crm/conflicts/x/resolve"),
        (Method::GET, "/api/crm/links"),
        (Method::GET, "/api/crm/errors"),
        (Method::GET, "/api/crm/states"),
        (Method::GET, "/api/custom-fields"),
        (Method::POST, "/api/custom-fields"),
        (Method::DELETE, "/api/custom-fields/x"),
        (Method::GET, "/api/import-templates"),
        (Method::POST, "/api/import-templates"),
        (Method::DELETE, "/api/import-templates/x"),
        (Method::POST, "/api/enrichments"),
        (Method::GET, "/api/enrichments/x"),
        (Method::GET, "/api/exports"),
        (Method::POST, "/api/exports"),
        (Method::POST, "/api/reports"),
        (Method::GET, "/api/exports/x"),
        (Method::GET, "/api/exports/x/file"),
        (Method::POST, "/api/exports/x/links"),
        (Method::DELETE, "/api/exports/x/links"),
        (Method::POST, "/api/jobs/x/report/links"),
        (Method::DELETE, "/api/jobs/x/report/links"),
    ] {
        let answer = send(server.anonymous(method.clone(), path).body("{}")).await;
        let detail = answer.problem(401, "missing_api_key");
        assert!(
            detail.contains("`Authorization: Bearer <API key or token>`"),
            "{path}: {detail}"
        );
        assert_eq!(
            answer.header("www-authenticate"),
            "Bearer realm=\"bullwark\""
        );
        let wrong = server.anonymous(method, path).bearer_auth("wrong");
        let answer = send(wrong).await;
        assert_eq!(
            answer.problem(401, "invalid_api_key"),
            "the API key is unknown, revoked or expired"
        );
    }
    let basic = server.anonymous(Method::GET, "/api/jobs");
    let answer = send(basic.basic_auth("a", Some("b"))).await;
    assert_eq!(
        answer.problem(401, "missing_api_key"),
        "the Authorization header must read `Bearer <API key or token>`"
    );
    let header = server.anonymous(Method::GET, "/api/jobs");
    assert_eq!(
        send(header.header("x-api-key", OTHER_KEY)).await.status,
        200
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_and_methods_are_problems_too() {
    let (_sandbox, server) = server().await;
    let answer = server.get("/api/jbos").await;
    assert_eq!(
        answer.problem(404, "route_not_found"),
        "there is no `/api/jbos` here"
    );
    for (path, allowed) in [("/api/jobs", "GET,HEAD,POST"), ("/api/uploads", "POST")] {
        let answer = send(server.request(Method::DELETE, path)).await;
        let detail = answer.problem(405, "method_not_allowed");
        assert!(detail.contains("does not take DELETE"), "{detail}");
        assert_eq!(answer.header("allow"), allowed);
    }

    let given = server.get("/healthz");
    let fresh = given.await;
    assert_eq!(fresh.header("x-request-id").len(), 36);
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("access-control-allow-origin", ""),
    ] {
        assert_eq!(fresh.header(name), value);
    }
    let own = server
        .request(Method::GET, "/api/x")
        .header("x-request-id", "mine-1");
    let answer = send(own).await;
    answer.problem(404, "route_not_found");
    assert_eq!(answer.header("x-request-id"), "mine-1");
    let forged = server
        .request(Method::GET, "/healthz")
        .header("x-request-id", "a b\"c");
    assert_eq!(send(forged).await.header("x-request-id").len(), 36);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_walked_by_cursor_or_by_page() {
    let (_sandbox, server) = server().await;
    let jobs: Vec<Value> = (0..25)
        .map(|n| match n {
            7 => json!({"jobType": "sleep", "queue": "slow", "payload": {"ms": 1}}),
            _ => json!({"jobType": "noop"}),
        })
        .collect();
    let answer = server.post("/api/jobs/bulk", json!({ "jobs": jobs })).await;
    let results = answer.body["results"].as_array().unwrap();
    let made: Vec<&Value> = results.iter().rev().map(|result| &result["id"]).collect();

    let mut walked = Vec::new();
    let mut path = "/api/jobs?limit=10".to_owned();
    loop {
        let body = server.get(&path).await.body;
        walked.extend(
            body["jobs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|job| job["id"].clone()),
        );
        let next = &body["pagination"]["next"];
        assert_eq!(body["pagination"]["hasMore"], !next.is_null());
        let Some(next) = next.as_str() else { break };
        path = format!("/api/jobs?limit=10&before={next}");
    }
    assert_eq!(
        walked.iter().collect::<Vec<_>>(),
        made,
        "newest first, each once"
    );
    let third = server.get("/api/jobs?limit=10&page=3").await.body;
    assert_eq!(third["jobs"].as_array().unwrap().len(), 5);
    let pagination = json!({"limit": 10, "next": null, "hasMore": false, "page": 3});
    assert_eq!(third["pagination"], pagination);

    for filter in ["jobType=sleep", "job_type=sleep", "queue=slow"] {
        let found = server
            .get(&format!("/api/jobs?{filter}&status=pending"))
            .await
            .body;
        assert_eq!(found["jobs"].as_array().unwrap().len(), 1, "{filter}");
        assert_eq!(&found["jobs"][0]["id"], made[24 - 7]);
        assert!(found["jobs"][0].get("payload").is_none());
    }
    let found = server
        .get("/api/jobs?queue=slow&include=payload")
        .await
        .body;
    assert_eq!(found["jobs"][0]["payload"], json!({"ms": 1}));
    let none = server.get("/api/jobs?status=dead_letter").await.body;
    assert_eq!(none["jobs"], json!([]));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_parameter_is_named_with_what_is_allowed() {
    let (_sandbox, server) = server().await;
    for (query, detail) in [
        (
            "status=waiting",
            "`status`: `waiting` is no status; one of pending, processing, failed, completed, \
             dead_letter, cancelled",
        ),
        (
            "limit=201",
            "`limit` is `201`; it must be a whole number from 1 to 200",
        ),
        (
            "include=payload&limit=26",
            "`limit` is `26`; it must be a whole number from 1 to 25",
        ),
        (
            "page=101",
            "`page` is `101`; it must be a whole number from 1 to 100",
        ),
        (
            "before=last",
            "`before` is `last`; it must be the `next` of a page, which is a job id",
        ),
        (
            "queue=a:b",
            "`queue`: queue name contains `:`, which is not allowed",
        ),
        (
            "include=all",
            "`include` is `all`; only `payload` is known (payload and result)",
        ),
        (
            "type=noop",
            "unknown parameter `type`; allowed are status, jobType, job_type, queue, created_from, \
             created_to, attempts_min, fingerprint, error, q, payload.*, page, limit, before, \
             include",
        ),
    ] {
        let answer = server.get(&format!("/api/jobs?{query}")).await;
        assert_eq!(answer.problem(400, "invalid_parameter"), detail);
    }
    let answer = server.get("/api/jobs/123").await;
    assert_eq!(
        answer.problem(400, "invalid_id"),
        "`123` is no job id; one looks like 0192f5a1-7c3e-7d00-8000-3b9aca000000"
    );
    server.get("/api/jobs/%ff").await.problem(400, "invalid_id");
    let id = "0192f5a1-7c3e-7d00-8000-3b9aca000000";
    let answer = server.get(&format!("/api/jobs/{id}")).await;
    assert_eq!(
        answer.problem(404, "job_not_found"),
        format!("there is no job {id}")
    );
    server.end().await;
}
