//! Figures over HTTP: how much there is to do, how it goes, and what failed last.

use std::time::Duration;

use bullwark::http::{Exposition, HttpOptions};
use bullwark::job::QueueName;
use bullwark::record::settle::settle_many;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::{server, server_with};
use crate::stage::{completed, discarded, eventually, failed, settled};
use crate::support::server::{OTHER_KEY, Server, send};

async fn enqueue(server: &Server, queue: &str) -> Uuid {
    let body = json!({"jobType": "noop", "queue": queue, "delayMs": 3_600_000});
    let answer = server.post("/api/jobs", body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.body["job"]["id"].as_str().unwrap().parse().unwrap()
}

fn numbers(period: &Value) -> [i64; 4] {
    ["completed", "failed", "dead_letter", "cancelled"].map(|name| period[name].as_i64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_tell_what_is_open_and_what_ended_by_period_queue_and_type() {
    let (_sandbox, server) = server().await;
    let mut ids = Vec::new();
    for queue in ["default", "default", "mails", "mails", "mails"] {
        ids.push(enqueue(&server, queue).await);
    }
    let ends = [
        settled(ids[0], 1, "w", completed()),
        settled(ids[2], 1, "w", completed()),
        settled(ids[3], 1, "w", failed("not now")),
        settled(ids[4], 1, "w", discarded("never")),
    ];
    let record = &server.app.record;
    assert_eq!(settle_many(record, &ends).await.unwrap().len(), 4);

    let stats = server.get("/api/jobs/stats").await.body;
    assert_eq!(
        stats["queue_depth"], 2,
        "one waits, one will be tried again"
    );
    assert_eq!(
        (&stats["processing"], &stats["is_exact"]),
        (&json!(0), &json!(true))
    );
    assert_eq!(
        (&stats["completed_last_hour"], &stats["failed_last_hour"]),
        (&json!(2), &json!(2))
    );
    assert!(stats["average_duration_ms"].as_f64().unwrap() >= 0.0);
    assert!(stats["throughput_per_minute"].as_f64().is_some());
    assert!(stats["drain_eta_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(stats["by_status"]["dead_letter"], 1);
    for period in ["5m", "1h", "24h"] {
        let all = &stats["periods"][period];
        assert_eq!(numbers(all), [2, 1, 1, 0], "{period}");
        assert_eq!(all["success_rate"], 0.5);
        assert!(all["run_ms"]["p99"].as_f64().unwrap() >= all["run_ms"]["p50"].as_f64().unwrap());
        assert!(all["wait_ms"]["p95"].as_f64().is_some());
        let mails = &stats["queues"]["mails"]["periods"][period];
        assert_eq!(numbers(mails), [1, 1, 1, 0], "{period}");
        assert_eq!(
            numbers(&stats["types"]["noop"]["periods"][period]),
            [2, 1, 1, 0]
        );
    }
    assert_eq!(stats["queues"]["default"]["depth"], 1);

    let theirs = server
        .anonymous(Method::GET, "/api/jobs/stats")
        .bearer_auth(OTHER_KEY);
    let theirs = send(theirs).await.body;
    assert_eq!(
        (&theirs["queues"], &theirs["types"]),
        (&json!({}), &json!({}))
    );
    assert_eq!(numbers(&theirs["periods"]["24h"]), [0; 4]);
    assert_eq!(theirs["periods"]["24h"]["success_rate"], Value::Null);
    assert_eq!(theirs["average_duration_ms"], Value::Null);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_shows_queues_the_last_failures_and_the_last_hour() {
    let (_sandbox, server) = server().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(enqueue(&server, "default").await);
    }
    let record = &server.app.record;
    // The oldest job failed last.
    for (nth, outcome) in [
        (1, failed("not now")),
        (2, completed()),
        (0, discarded("never")),
    ] {
        let end = [settled(ids[nth], 1, "w", outcome)];
        assert_eq!(settle_many(record, &end).await.unwrap().len(), 1);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let shown = server.get("/api/jobs/dashboard").await.body;
    assert_eq!(
        shown["queues"],
        json!({"default": {"depth": 1, "processing": 0}})
    );
    let failures = shown["recent_failures"].as_array().unwrap();
    let told: Vec<_> = failures
        .iter()
        .map(|job| {
            (
                job["id"].as_str().unwrap(),
                job["error_message"].as_str().unwrap(),
            )
        })
        .collect();
    let (last, first) = (ids[0].to_string(), ids[1].to_string());
    assert_eq!(
        told,
        [(last.as_str(), "never"), (first.as_str(), "not now")]
    );
    assert!(failures[0].get("payload").is_none());
    let metrics = &shown["performance_metrics"];
    assert_eq!(numbers(&metrics["periods"]["1h"]), [1, 1, 1, 0]);
    let minutes = metrics["minutes"].as_array().unwrap();
    assert_eq!(minutes.len(), 60);
    let ended: i64 = minutes
        .iter()
        .map(|minute| minute["completed"].as_i64().unwrap())
        .sum();
    assert_eq!(ended, 1);
    assert!(minutes[0]["at"].as_str().unwrap() < minutes[59]["at"].as_str().unwrap());

    let theirs = server
        .anonymous(Method::GET, "/api/jobs/dashboard")
        .bearer_auth(OTHER_KEY);
    let theirs = send(theirs).await.body;
    assert_eq!(
        (&theirs["queues"], &theirs["recent_failures"]),
        (&json!({}), &json!([]))
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_callers_of_the_default_workspace() {
    let options = HttpOptions {
        metrics: Some(Exposition::install().unwrap()),
        ..HttpOptions::default()
    };
    let (_sandbox, server) = server_with(options).await;
    let queue = format!("q{}", Uuid::new_v4().simple());
    enqueue(&server, &queue).await;
    let dead = enqueue(&server, &queue).await;
    let end = [settled(dead, 1, "w", discarded("never"))];
    settle_many(&server.app.record, &end).await.unwrap();
    let ready = server
        .post("/api/jobs", json!({"jobType": "noop", "queue": queue}))
        .await;
    assert_eq!(ready.status, 201);
    let scrape = async || {
        let answer = server
            .request(Method::GET, "/metrics")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let kind = answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        answer.text().await.unwrap()
    };
    let value = |text: &str, name: &str| -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.rsplit_once(' ')?.1.parse().ok()
    };
    let jobs = |state: &str| format!("bullwark_queue_jobs{{queue=\"{queue}\",state=\"{state}\"}} ");
    let text = eventually("gauges of the queue", async || {
        let text = scrape().await;
        let oldest = format!("bullwark_oldest_ready_seconds{{queue=\"{queue}\"}}");
        // One look sets them one after the other.
        let is_there = value(&text, &jobs("waiting")) == Some(1.0)
            && value(&text, "bullwark_dead_letters ") == Some(1.0)
            && text.contains(&oldest);
        is_there.then_some(text)
    })
    .await;
    assert_eq!(value(&text, &jobs("delayed")), Some(2.0), "{text}");
    assert_eq!(value(&text, "bullwark_dead_letters "), Some(1.0));
    for name in [
        "bullwark_http_request_seconds_bucket{route=\"/api/jobs\",le=\"0.005\"}",
        "bullwark_http_requests_total{status=\"201\"}",
        "bullwark_drift_jobs ",
        "bullwark_untold_jobs ",
        "bullwark_enqueue_batch_jobs_bucket{le=\"10\"}",
        "bullwark_record_connections{pool=\"shared\",state=\"idle\"}",
        "bullwark_store_state{store=\"redis\",state=\"ok\"}",
    ] {
        assert!(value(&text, name).is_some(), "{name}\n{text}");
    }
    // A queue that is gone shows nothing more.
    let gone: QueueName = queue.parse().unwrap();
    let broker = &server.app.broker;
    broker.pause(&gone).await.unwrap();
    broker.obliterate(&gone, true).await.unwrap();
    eventually("gauges of no queue", async || {
        let text = scrape().await;
        let left = ["waiting", "delayed"].map(|state| value(&text, &jobs(state)));
        (left == [Some(0.0); 2]).then_some(())
    })
    .await;
    let anonymous = send(server.anonymous(Method::GET, "/metrics")).await;
    anonymous.problem(401, "missing_api_key");
    let theirs = server
        .anonymous(Method::GET, "/metrics")
        .bearer_auth(OTHER_KEY);
    send(theirs).await.problem(403, "forbidden");
    server.end().await;
}
