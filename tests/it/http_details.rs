//! One job over HTTP: what became of it, its relatives, where it stands, and what it waits for.

use std::time::Duration;

use bullwark::control;
use bullwark::job::{QueueChange, QueueName};
use bullwark::record::access::By;
use bullwark::record::settle::settle_many;
use bullwark::record::start::mark_running;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::server;
use crate::stage::{completed, eventually, failed, running, settled};
use crate::support::server::{OTHER_KEY, Server, send};

async fn enqueue(server: &Server, request: Value) -> String {
    let answer = server.post("/api/jobs", request).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.body["job"]["id"].as_str().unwrap().to_owned()
}

async fn show(server: &Server, id: &str) -> Value {
    let answer = server.get(&format!("/api/jobs/{id}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// Once Redis has it in this state.
async fn show_in(server: &Server, id: &str, state: &str) -> Value {
    eventually("a state in Redis", async || {
        let shown = show(server, id).await;
        (shown["stores"]["redis"]["status"] == state).then_some(shown)
    })
    .await
}

fn reasons(shown: &Value) -> Vec<&str> {
    let waits = shown["waits_for"].as_array().unwrap();
    waits
        .iter()
        .map(|wait| wait["reason"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_tells_what_became_of_it_in_order_and_by_whom() {
    let (_sandbox, server) = server().await;
    let id = enqueue(&server, json!({"jobType": "noop", "delayMs": 3_600_000})).await;
    let (uuid, record): (Uuid, _) = (id.parse().unwrap(), &server.app.record);
    let pause = || tokio::time::sleep(Duration::from_millis(3));
    let run = async |attempt, outcome| {
        pause().await;
        mark_running(record, "w", &[running(uuid, attempt)])
            .await
            .unwrap();
        pause().await;
        let end = settled(uuid, attempt, "w", outcome);
        assert_eq!(settle_many(record, &[end]).await.unwrap().len(), 1);
        pause().await;
    };
    run(1, failed("not now")).await;
    let path = format!("/api/jobs/{id}");
    let cancel = json!({"status": "cancelled", "reason": "too late"});
    let request = server.request(Method::PATCH, &path).json(&cancel);
    assert_eq!(send(request).await.status, 200);
    pause().await;
    let request = server.request(Method::POST, &format!("{path}/retry"));
    assert_eq!(send(request).await.status, 200);
    run(2, completed()).await;

    let shown = show(&server, &id).await;
    let told = |moment: &Value| {
        let text = |name: &str| moment[name].as_str().unwrap_or("-").to_owned();
        let attempt = moment["attempt"].as_i64().unwrap_or_default();
        (
            text("status"),
            attempt,
            text("worker_id"),
            text("reason"),
            text("actor_kind"),
        )
    };
    let told: Vec<_> = shown["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(told)
        .collect();
    let moment = |status: &str, attempt, worker: &str, reason: &str, actor: &str| {
        let text = str::to_owned;
        (
            text(status),
            attempt,
            text(worker),
            text(reason),
            text(actor),
        )
    };
    assert_eq!(
        told,
        [
            moment("pending", 0, "-", "-", "-"),
            moment("processing", 1, "w", "-", "-"),
            moment("failed", 1, "w", "not now", "-"),
            moment("cancelled", 0, "-", "too late", "api_key"),
            moment("pending", 0, "-", "-", "api_key"),
            moment("processing", 2, "w", "-", "-"),
            moment("completed", 2, "w", "-", "-"),
        ]
    );
    assert_eq!(shown["waits_for"], json!([]), "it is over");
    assert_eq!(shown["flow"], Value::Null);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_tells_what_it_waits_for() {
    let (_sandbox, server) = server().await;
    let delayed = json!({"jobType": "noop", "delayMs": 3_600_000});
    let shown = show_in(&server, &enqueue(&server, delayed).await, "delayed").await;
    assert_eq!(reasons(&shown), ["delayed"]);
    assert_eq!(
        shown["waits_for"][0]["until"],
        shown["job"]["scheduled_for"]
    );

    let id = enqueue(&server, json!({"jobType": "noop", "queue": "mails"})).await;
    let shown = show_in(&server, &id, "waiting").await;
    assert_eq!(reasons(&shown), ["no_worker", "in_line"]);
    assert_eq!(shown["waits_for"][1]["waiting"], 1);
    assert_eq!(shown["stores"]["record"]["status"], "pending");

    let (record, broker) = (&server.app.record, &server.app.broker);
    let queue: QueueName = "mails".parse().unwrap();
    let change = QueueChange {
        is_paused: Some(true),
        concurrency: Some(Some(0)),
        ..QueueChange::default()
    };
    control::change_queue(record, broker, &queue, &change, (&By::OPERATOR, None))
        .await
        .unwrap();
    broker
        .rate_limit(&queue, Duration::from_secs(60))
        .await
        .unwrap();
    let shown = show(&server, &id).await;
    let all = [
        "queue_paused",
        "queue_concurrency",
        "rate_limit",
        "no_worker",
        "in_line",
    ];
    assert_eq!(reasons(&shown), all);
    assert!(shown["waits_for"][2]["until"].as_str().is_some(), "{shown}");

    // Redis has forgotten it, and nobody has put it back yet.
    broker
        .cancel(&queue, std::slice::from_ref(&id))
        .await
        .unwrap();
    let shown = show(&server, &id).await;
    assert_eq!(shown["stores"]["redis"]["status"], "absent");
    assert_eq!(reasons(&shown), ["not_in_redis"]);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_flow_shows_its_next_of_kin() {
    let (_sandbox, server) = server().await;
    let far = 3_600_000;
    let flow = json!({
        "job": { "jobType": "noop" },
        "children": [
            { "job": { "jobType": "noop", "delayMs": far } },
            { "job": { "jobType": "noop", "queue": "mails", "delayMs": far } },
        ],
    });
    let answer = server.post("/api/flows", flow).await;
    let ids: Vec<&str> = answer.body["flow"]["ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    let shown = show_in(&server, ids[0], "waiting_children").await;
    assert_eq!(
        shown["waits_for"],
        json!([{ "reason": "children", "open": 2 }])
    );
    let flow = &shown["flow"];
    assert_eq!(
        (&flow["parent"], &flow["children_total"]),
        (&Value::Null, &json!(2))
    );
    assert_eq!(flow["children_by_status"], json!({ "pending": 2 }));
    assert_eq!(flow["children"][1]["id"], ids[2]);
    assert_eq!(flow["children"][1]["job_queue"], "mails");

    let path = format!("/api/jobs/{}", ids[1]);
    let gone = send(server.request(Method::DELETE, &path)).await;
    assert_eq!(gone.status, 200, "{gone:?}");
    let shown = show(&server, ids[0]).await;
    assert_eq!(
        shown["flow"]["children_total"], 1,
        "a deleted one is not there"
    );
    let child = show(&server, ids[2]).await;
    assert_eq!(child["flow"]["parent"]["id"], ids[0]);
    assert_eq!(child["flow"]["children"], json!([]));

    let path = format!("/api/jobs/{}", ids[0]);
    let theirs = server.anonymous(Method::GET, &path).bearer_auth(OTHER_KEY);
    send(theirs).await.problem(404, "job_not_found");
    server.end().await;
}
