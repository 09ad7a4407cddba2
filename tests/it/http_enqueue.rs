//! The way in over HTTP: each status, each message.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::http::{count, server};
use crate::support::server::{Answer, send};

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_an_enqueue_is_the_row_of_the_record() {
    let (_sandbox, server) = server().await;
    for request in [
        json!({"jobType": "noop"}),
        json!({"job_type": "noop", "job_queue": "mails",
            "payload": {"b": [1, 2.5, "é"], "a": null},
            "max_attempts": 0, "retry_delay_seconds": 7, "delay_ms": 3_600_000}),
        json!({"jobType": "sleep", "payload": {"ms": 1}, "priority": 10, "maxAttempts": 3,
            "scheduledFor": "2190-01-02T03:04:05.123456Z", "timeoutSeconds": 9,
            "backoff": {"type": "fixed", "delay_ms": 1000}, "idempotencyKey": "k"}),
    ] {
        let answer = server.post("/api/jobs", request).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let id = answer.body["job"]["id"].as_str().unwrap();
        assert_eq!(answer.header("location"), format!("/api/jobs/{id}"));
        let shown = server.get(answer.header("location")).await;
        assert_eq!(shown.body["job"], answer.body["job"]);
        assert_eq!(shown.body["failures"], json!([]));
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_said() {
    let (_sandbox, server) = server().await;
    let unknown = server.post("/api/jobs", json!({"jobType": "noob"})).await;
    let detail = unknown.problem(422, "unknown_job_type");
    assert_eq!(
        detail,
        "unknown job type `noob`; known types: cleanup_data, crash, deliver_export, \
         deliver_webhook, enrich_account, enrich_contact, enrich_page, enrich_records, \
         export_csv, export_data, fail, generate_report, http_call, import_csv, noop, \
         send_email_batch, sleep, sync_crm, undo_import, verify_email"
    );
    assert_eq!(
        unknown.body["known_types"],
        json!([
            "cleanup_data",
            "crash",
            "deliver_export",
            "deliver_webhook",
            "enrich_account",
            "enrich_contact",
            "enrich_page",
            "enrich_records",
            "export_csv",
            "export_data",
            "fail",
            "generate_report",
            "http_call",
            "import_csv",
            "noop",
            "send_email_batch",
            "sleep",
            "sync_crm",
            "undo_import",
            "verify_email",
        ])
    );

    let wrong = json!({"jobType": "sleep", "payload": {"ms": "x"}, "priority": 11, "queue": "a:b"});
    let answer = server.post("/api/jobs", wrong).await;
    answer.problem(422, "invalid_request");
    let errors = answer.body["errors"].as_array().unwrap();
    let pointers: Vec<&str> = errors
        .iter()
        .map(|e| e["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(pointers, ["/payload/ms", "/queue", "/priority"]);

    let wrong = json!({"jobType": "noop", "priority": "high", "scheduledFor": "soon"});
    let answer = server.post("/api/jobs", wrong).await;
    let detail = answer.problem(422, "invalid_request");
    assert!(
        detail.contains("/priority: invalid type: string \"high\""),
        "{detail}"
    );
    assert_eq!(answer.body["errors"][1]["pointer"], "/scheduledFor");

    let json_type = ("content-type", "application/json");
    let post = || server.request(Method::POST, "/api/jobs");
    let answer = send(
        post()
            .header(json_type.0, json_type.1)
            .body("{\"jobType\": "),
    )
    .await;
    let detail = answer.problem(400, "malformed_json");
    assert!(
        detail.starts_with("this is not JSON: EOF while parsing"),
        "{detail}"
    );
    assert_eq!(
        (&answer.body["line"], &answer.body["column"]),
        (&json!(1), &json!(12))
    );
    let answer = send(post().body("{}")).await;
    assert_eq!(
        answer.problem(415, "unsupported_media_type"),
        "send the header `Content-Type: application/json`; none was given"
    );

    let large = json!({"jobType": "noop", "payload": "x".repeat(1024 * 1024)});
    let answer = server.post("/api/jobs", large).await;
    assert_eq!(
        answer.problem(413, "payload_too_large"),
        "payload has 1048578 bytes, at most 1048576 are allowed"
    );
    let huge = json!({"jobType": "noop", "payload": "x".repeat(5 * 1024 * 1024)});
    let answer = server.post("/api/jobs", huge).await;
    assert_eq!(
        answer.problem(413, "body_too_large"),
        "the body is too large: at most 4194304 bytes are allowed here"
    );
    assert_eq!(count(&server).await, 0, "nothing was stored");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_gives_the_same_job_back() {
    let (_sandbox, server) = server().await;
    let post = |key: &str, body: Value| {
        let request = server.request(Method::POST, "/api/jobs");
        send(request.header("idempotency-key", key).json(&body))
    };
    let first = post("order-1", json!({"jobType": "noop"})).await;
    assert_eq!(first.status, 201);
    let again = post("order-1", json!({"jobType": "noop"})).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    let field = json!({"jobType": "noop", "idempotencyKey": "order-1"});
    let again = post("order-1", field.clone()).await;
    assert_eq!((again.status, &again.body), (200, &first.body));

    let other = post("order-1", json!({"jobType": "noop", "payload": {"n": 1}})).await;
    let detail = other.problem(409, "idempotency_key_reused");
    let id = first.body["job"]["id"].as_str().unwrap();
    assert!(
        detail.ends_with(&format!("which made job {id}")),
        "{detail}"
    );
    assert_eq!(other.body["job_id"], id);
    let differ = post("order-2", field).await;
    let detail = differ.problem(400, "idempotency_key_mismatch");
    assert!(detail.contains("`idempotencyKey` differ"), "{detail}");
    let empty = post("", json!({"jobType": "noop"})).await;
    empty.problem(422, "invalid_request");
    assert_eq!(empty.body["errors"][0]["pointer"], "/idempotencyKey");
    assert_eq!(count(&server).await, 1);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_callers_with_one_key_make_one_job() {
    let (_sandbox, server) = server().await;
    let call = |_| {
        let request = server.request(Method::POST, "/api/jobs");
        let body = json!({"jobType": "noop", "payload": {"order": 7}});
        send(request.header("idempotency-key", "order-7").json(&body))
    };
    let answers: Vec<Answer> = futures_util::future::join_all((0..100).map(call)).await;
    let ids: HashSet<&Value> = answers.iter().map(|a| &a.body["job"]["id"]).collect();
    assert_eq!(ids.len(), 1);
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 99);
    assert_eq!(count(&server).await, 1);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_requests_with_one_key_at_the_same_moment_one_is_told_of_the_other() {
    let (_sandbox, server) = server().await;
    for round in 0..10 {
        let call = |nth: usize| {
            let request = server.request(Method::POST, "/api/jobs");
            let body = json!({"jobType": "noop", "payload": {"which": nth % 2}});
            send(
                request
                    .header("idempotency-key", format!("order-{round}"))
                    .json(&body),
            )
        };
        let answers: Vec<Answer> = futures_util::future::join_all((0..20).map(call)).await;
        let first = answers
            .iter()
            .position(|answer| answer.status == 201)
            .unwrap();
        let id = &answers[first].body["job"]["id"];
        for (nth, answer) in answers.iter().enumerate() {
            // None waits in vain, and none is told to come back: the key is taken or it is not.
            match (nth == first, nth % 2 == first % 2) {
                (true, _) => {}
                (false, true) => {
                    assert_eq!((answer.status, &answer.body["job"]["id"]), (200, id));
                }
                (false, false) => {
                    answer.problem(409, "idempotency_key_reused");
                    assert_eq!(&answer.body["job_id"], id);
                }
            }
        }
    }
    assert_eq!(count(&server).await, 10);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bulk_and_the_same_flow_at_the_same_moment_make_their_jobs_once() {
    let (_sandbox, server) = server().await;
    let keyed = |key: usize| json!({"jobType": "noop", "idempotencyKey": format!("job-{key}")});
    let bulk = |nth: usize| {
        // In another order each time: none waits for one that waits for it.
        let mut jobs: Vec<Value> = (0..20).map(keyed).collect();
        jobs.rotate_left(nth);
        server.post("/api/jobs/bulk", json!({ "jobs": jobs }))
    };
    let answers: Vec<Answer> = futures_util::future::join_all((0..10).map(bulk)).await;
    let results = answers.iter().flat_map(|answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["results"].as_array().unwrap()
    });
    let (new, old): (Vec<&Value>, Vec<&Value>) = results.partition(|one| one["created"] == true);
    assert_eq!((new.len(), old.len()), (20, 180));
    let ids: HashSet<&Value> = new.iter().chain(&old).map(|one| &one["id"]).collect();
    assert_eq!(ids.len(), 20);

    let flow = json!({ "job": {"jobType": "noop"}, "children": [{ "job": {"jobType": "noop"} }] });
    let call = |_| {
        let request = server.request(Method::POST, "/api/flows");
        send(request.header("idempotency-key", "tree").json(&flow))
    };
    let answers: Vec<Answer> = futures_util::future::join_all((0..20).map(call)).await;
    let roots: HashSet<&Value> = answers.iter().map(|a| &a.body["flow"]["root"]).collect();
    assert_eq!(roots.len(), 1, "{answers:?}");
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    let found = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((made, found), (1, 19));
    assert_eq!(count(&server).await, 22);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_request_answers_each_job_in_order() {
    let (_sandbox, server) = server().await;
    let noop = json!({"jobType": "noop", "idempotencyKey": "a"});
    let jobs = json!([noop, {"jobType": "x"}, {"jobType": "noop", "priority": "high"}, 5, noop]);
    let answer = server.post("/api/jobs/bulk", json!({ "jobs": jobs })).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    assert_eq!(
        (&answer.body["accepted"], &answer.body["refused"]),
        (&json!(2), &json!(3))
    );
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!(results[0]["created"], true);
    assert_eq!(results[1]["problem"]["code"], "unknown_job_type");
    assert_eq!(results[2]["problem"]["errors"][0]["pointer"], "/priority");
    assert_eq!(
        results[3]["problem"]["detail"],
        "expected a JSON object, found a number"
    );
    assert_eq!(
        results[4],
        json!({"id": results[0]["id"], "created": false})
    );

    let lines = "{\"jobType\":\"noop\"}\r\n\n{\"jobType\":\"noop\"}";
    let post = |body: String| {
        let request = server.request(Method::POST, "/api/jobs/bulk");
        send(
            request
                .header("content-type", "application/x-ndjson")
                .body(body),
        )
    };
    let answer = post(lines.to_owned()).await;
    assert_eq!((answer.status, &answer.body["accepted"]), (200, &json!(2)));
    let answer = post("{\"jobType\":\"noop\"}\n{\"jobType\":".to_owned()).await;
    assert_eq!(answer.status, 207);
    assert_eq!(
        answer.body["results"][1]["problem"]["code"],
        "malformed_json"
    );
    assert_eq!(count(&server).await, 4);

    assert_eq!(
        post(" \n".to_owned()).await.problem(422, "invalid_request"),
        "there are no jobs in the body"
    );
    let many = "{\"jobType\":\"noop\"}\n".repeat(10_001);
    let answer = post(many).await;
    let detail = answer.problem(413, "too_many_jobs");
    assert_eq!(
        detail,
        "more than 10000 jobs in one request; send them in several"
    );
    let answer = post("x".repeat(33 * 1024 * 1024)).await;
    answer.problem(413, "body_too_large");
    let answer = server.post("/api/jobs/bulk", json!({"jbos": []})).await;
    let detail = answer.problem(422, "invalid_request");
    assert!(
        detail.contains("/jbos: unknown field `jbos`, expected `jobs`"),
        "{detail}"
    );
    let answer = server.post("/api/jobs/bulk", json!({"jobs": {}})).await;
    answer.problem(422, "invalid_request");
    assert_eq!(answer.body["errors"][0]["pointer"], "/jobs");
    let keyed = server.request(Method::POST, "/api/jobs/bulk");
    let answer = send(
        keyed
            .header("idempotency-key", "k")
            .json(&json!({"jobs": [noop]})),
    )
    .await;
    let detail = answer.problem(400, "idempotency_key_mismatch");
    assert!(
        detail.contains("give each job a field `idempotencyKey`"),
        "{detail}"
    );
    assert_eq!(count(&server).await, 4);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_jobs_fit_into_one_request() {
    let (_sandbox, server) = server().await;
    let jobs: Vec<Value> = (0..10_000)
        .map(|n| json!({"jobType": "noop", "payload": {"n": n}}))
        .collect();
    let answer = server.post("/api/jobs/bulk", json!({ "jobs": jobs })).await;
    assert_eq!(
        (answer.status, &answer.body["accepted"]),
        (200, &json!(10_000))
    );
    let stats = server.get("/api/jobs/stats").await.body;
    assert_eq!(stats["queue_depth"], 10_000);
    let queues = json!({"default": {"depth": 10_000, "processing": 0}});
    assert_eq!(
        (&stats["queues"], &stats["is_exact"]),
        (&queues, &json!(true))
    );
    server.end().await;
}
