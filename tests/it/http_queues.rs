//! Queues over HTTP: what there is, settings that hold for all, and draining one's own.

use std::time::Duration;

use bullwark::job::QueueName;
use bullwark::record::start::mark_running;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::server;
use crate::stage::running;
use crate::support::server::{Answer, OTHER_KEY, Server, send};

async fn theirs(server: &Server, method: Method, path: &str, body: Value) -> Answer {
    let request = server.anonymous(method, path).bearer_auth(OTHER_KEY);
    send(request.json(&body)).await
}

async fn patch(server: &Server, queue: &str, body: Value) -> Answer {
    let path = format!("/api/queues/{queue}");
    send(server.request(Method::PATCH, &path).json(&body)).await
}

async fn enqueue(server: &Server, job: Value) -> Uuid {
    let answer = server.post("/api/jobs", job).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.body["job"]["id"].as_str().unwrap().parse().unwrap()
}

fn names(answer: &Answer) -> Vec<&str> {
    let queues = answer.body["queues"].as_array().unwrap();
    queues
        .iter()
        .map(|queue| queue["name"].as_str().unwrap())
        .collect()
}

/// A key of the default workspace with these scopes.
async fn key(server: &Server, scopes: &[&str]) -> String {
    let wish = json!({"name": "some", "scopes": scopes});
    let made = server.post("/api/api-keys", wish).await.body;
    made["key"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_shown_with_one_s_own_jobs() {
    let (_sandbox, server) = server().await;
    for job in [
        json!({"jobType": "noop", "queue": "mails"}),
        json!({"jobType": "noop", "queue": "mails", "delayMs": 3_600_000}),
        json!({"jobType": "noop", "queue": "calls"}),
    ] {
        enqueue(&server, job).await;
    }
    let answer = theirs(
        &server,
        Method::POST,
        "/api/jobs",
        json!({"jobType": "noop"}),
    )
    .await;
    assert_eq!(answer.status, 201);
    let answer = patch(&server, "unused", json!({"paused": true})).await;
    assert_eq!(answer.status, 200, "{answer:?}");

    let all = server.get("/api/queues").await;
    assert_eq!(names(&all), ["calls", "mails", "unused"]);
    assert_eq!(
        (&all.body["is_exact"], &all.body["next"]),
        (&json!(true), &Value::Null)
    );
    let mails = &all.body["queues"][1];
    let expected = json!({"pending": 2, "processing": 0, "failed": 0, "dead_letter": 0});
    assert_eq!(mails["jobs"], expected);
    let redis = &mails["redis"];
    assert_eq!(redis["waiting"], 1);
    assert_eq!(
        (&redis["delayed"], &redis["workers"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(all.body["queues"][2]["paused"], true);

    let first = server.get("/api/queues?limit=2").await;
    assert_eq!(
        (names(&first), &first.body["next"]),
        (vec!["calls", "mails"], &json!("mails"))
    );
    let second = server.get("/api/queues?limit=2&after=mails").await;
    assert_eq!(
        (names(&second), &second.body["next"]),
        (vec!["unused"], &Value::Null)
    );
    let answer = server.get("/api/queues?limit=0").await;
    answer.problem(400, "invalid_parameter");

    // Another workspace sees its own queue, with its own job, and no figures of all.
    let other = theirs(&server, Method::GET, "/api/queues", Value::Null).await;
    assert_eq!(names(&other), ["default"]);
    assert_eq!(other.body["queues"][0]["jobs"]["pending"], 1);
    assert_eq!(other.body["queues"][0]["redis"], Value::Null);
    for name in ["mails", "unused", "none"] {
        let answer = theirs(
            &server,
            Method::GET,
            &format!("/api/queues/{name}"),
            Value::Null,
        )
        .await;
        let detail = answer.problem(404, "queue_not_found");
        assert_eq!(detail, format!("there is no queue `{name}` here"));
    }
    let one = server.get("/api/queues/mails").await;
    assert_eq!(one.body["queue"]["jobs"], expected);
    server
        .get("/api/queues/none")
        .await
        .problem(404, "queue_not_found");
    server
        .get("/api/queues/a:b")
        .await
        .problem(400, "invalid_id");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_queue_are_changed_in_both_stores_and_written_down() {
    let (_sandbox, server) = server().await;
    let change = json!({
        "paused": true, "concurrency": 4, "rateLimit": {"max": 10, "durationMs": 60_000},
        "reason": "the provider is down", "fair": true,
    });
    let answer = patch(&server, "mails", change).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let limit = json!({"max": 10, "duration_ms": 60_000});
    let queue = &answer.body["queue"];
    assert_eq!(
        (&queue["paused"], &queue["concurrency"]),
        (&json!(true), &json!(4))
    );
    assert_eq!(
        (&queue["rate_limit"], &queue["settings_are_told"]),
        (&limit, &json!(true))
    );
    assert_eq!(queue["redis"]["rate_limit_max"], 10);
    assert_eq!(queue["fair"], true);
    // What is not named stays; null takes away.
    let changed = answer.header("x-request-id").to_owned();
    let answer = patch(
        &server,
        "mails",
        json!({"concurrency": null, "paused": false}),
    )
    .await;
    let queue = &answer.body["queue"];
    assert_eq!(
        (&queue["paused"], &queue["concurrency"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(queue["rate_limit"], limit);
    let name: QueueName = "mails".parse().unwrap();
    let meta = server.app.broker.queue_meta(&name).await.unwrap();
    assert_eq!(
        (meta.is_paused, meta.concurrency, meta.rate_max),
        (false, None, Some(10))
    );

    let audit = server
        .get("/api/audit?target_kind=queue&target_id=mails")
        .await
        .body;
    let rows = audit["audit"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let first = &rows[1];
    assert_eq!(
        (&first["action"], &first["request_id"]),
        (&json!("queue.change"), &json!(changed))
    );
    assert_eq!(first["reason"], "the provider is down");
    let none = json!({"paused": false, "concurrency": null, "rate_limit": null, "fair": false});
    assert_eq!(first["before"], none);
    let all = json!({"paused": true, "concurrency": 4, "rate_limit": limit, "fair": true});
    assert_eq!((&first["after"], &rows[0]["before"]), (&all, &all));

    for (body, pointer) in [
        (json!({}), ""),
        (json!({"concurrency": 0}), "/concurrency"),
        (
            json!({"rateLimit": {"max": 0, "durationMs": 1}}),
            "/rateLimit/max",
        ),
        (
            json!({"rateLimit": {"max": 1, "durationMs": 0}}),
            "/rateLimit/durationMs",
        ),
        (json!({"rateLimit": {"max": 1}}), "/rateLimit"),
        (json!({"pause": true}), "/pause"),
        (
            json!({"paused": true, "reason": "x".repeat(501)}),
            "/reason",
        ),
    ] {
        let answer = patch(&server, "mails", body.clone()).await;
        answer.problem(422, "invalid_request");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{body}");
    }
    // Queues are shared: whoever is no operator leaves them alone.
    let pause = json!({"paused": true});
    let answer = theirs(&server, Method::PATCH, "/api/queues/mails", pause.clone()).await;
    answer.problem(403, "forbidden");
    assert_eq!(answer.body["needed"], "operator");
    let writer = key(&server, &["read", "write"]).await;
    let request = server
        .anonymous(Method::PATCH, "/api/queues/mails")
        .bearer_auth(writer);
    send(request.json(&pause)).await.problem(403, "forbidden");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_cancels_what_waits_of_one_s_own_and_nothing_else() {
    let (_sandbox, server) = server().await;
    let job = json!({"jobType": "noop", "queue": "mails"});
    let later = json!({"jobType": "noop", "queue": "mails", "delayMs": 3_600_000});
    let waiting = [
        enqueue(&server, job.clone()).await,
        enqueue(&server, job.clone()).await,
    ];
    let (begun, delayed) = (
        enqueue(&server, job.clone()).await,
        enqueue(&server, later).await,
    );
    let elsewhere = enqueue(&server, json!({"jobType": "noop"})).await;
    let other = theirs(&server, Method::POST, "/api/jobs", job).await;
    let other = other.body["job"]["id"].as_str().unwrap().to_owned();
    let record = &server.app.record;
    let marked = mark_running(record, "w", &[running(begun, 1)])
        .await
        .unwrap();
    assert_eq!(marked, [begun]);

    let drain = async |body: Value| server.post("/api/queues/mails/drain", body).await;
    let answer = drain(json!({"reason": "a wrong list"})).await;
    assert_eq!(
        (answer.status, &answer.body),
        (200, &json!({"cancelled": 2, "more": false}))
    );
    let status = async |id: Uuid| {
        let shown = server.get(&format!("/api/jobs/{id}")).await.body;
        shown["job"]["status"].as_str().unwrap().to_owned()
    };
    for id in waiting {
        assert_eq!(status(id).await, "cancelled");
    }
    for (id, expected) in [
        (begun, "processing"),
        (delayed, "pending"),
        (elsewhere, "pending"),
    ] {
        assert_eq!(status(id).await, expected);
    }
    let path = format!("/api/jobs/{other}");
    let shown = theirs(&server, Method::GET, &path, Value::Null).await.body;
    assert_eq!(shown["job"]["status"], "pending");
    let name: QueueName = "mails".parse().unwrap();
    let counts = server.app.broker.counts(&name).await.unwrap();
    assert_eq!(
        (counts.prioritized, counts.delayed),
        (2, 1),
        "theirs and the one that runs"
    );

    let answer = drain(json!({})).await;
    assert_eq!(
        answer.body,
        json!({"cancelled": 0, "more": false}),
        "twice is once"
    );
    let path = "/api/queues/mails/drain";
    let answer = send(server.request(Method::POST, path)).await;
    assert_eq!(answer.status, 200, "a body is not needed: {answer:?}");
    let answer = drain(json!({"delayed": true})).await;
    assert_eq!(answer.body["cancelled"], 1);
    assert_eq!(status(delayed).await, "cancelled");

    let audit = server
        .get("/api/audit?target_kind=queue&target_id=mails")
        .await
        .body;
    let told: Vec<_> = audit["audit"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            assert_eq!(row["action"], "queue.drain");
            (
                row["after"]["cancelled"].as_i64().unwrap(),
                row["reason"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [(1, "queue mails was drained"), (2, "a wrong list")]);
    let id = waiting[0];
    let audit = server
        .get(&format!("/api/audit?target_kind=job&target_id={id}"))
        .await
        .body;
    assert_eq!(audit["audit"][0]["action"], "job.cancel");

    let answer = drain(json!({"all": true})).await;
    answer.problem(422, "invalid_request");
    let writer = key(&server, &["read", "write"]).await;
    let request = server.anonymous(Method::POST, path).bearer_auth(writer);
    send(request).await.problem(403, "forbidden");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_bounded_and_goes_on_when_it_is_asked_again() {
    let (_sandbox, server) = server().await;
    const MOST: usize = 10_000;
    for count in [5_000, 5_000, 40] {
        let job = json!({"jobType": "noop", "queue": "bulk"});
        let jobs = vec![job; count];
        let answer = server.post("/api/jobs/bulk", json!({"jobs": jobs})).await;
        assert_eq!(answer.status, 200);
    }
    let path = "/api/queues/bulk/drain";
    let (mut all, mut calls) = (0, 0);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        let answer = server.post(path, json!({})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let cancelled = answer.body["cancelled"].as_u64().unwrap() as usize;
        assert!(cancelled <= MOST, "{cancelled}");
        (all, calls) = (all + cancelled, calls + 1);
        if answer.body["more"] == false {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
    }
    assert_eq!(all, MOST + 40);
    assert!(calls > 1, "one call is not enough");
    let queue = server.get("/api/queues/bulk").await.body;
    assert_eq!(queue["queue"]["jobs"]["pending"], 0);
    server.end().await;
}
