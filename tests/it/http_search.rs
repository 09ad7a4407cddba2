//! Lists of jobs by what is in them, and how a search goes on where it stopped.

use bullwark::record::settle::settle_many;
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::server;
use crate::stage::{discarded, failed, settled};
use crate::support::server::{Answer, OTHER_KEY, Server, send};

fn path(query: &[(&str, &str)]) -> String {
    let url = reqwest::Url::parse_with_params("http://x/api/jobs", query).unwrap();
    format!("{}?{}", url.path(), url.query().unwrap())
}

async fn list(server: &Server, query: &[(&str, &str)]) -> Answer {
    server.get(&path(query)).await
}

/// What the payloads of the found jobs call themselves, newest first.
async fn found(server: &Server, query: &[(&str, &str)]) -> Vec<i64> {
    let query = [query, &[("include", "payload")]].concat();
    let answer = list(server, &query).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let jobs = answer.body["jobs"].as_array().unwrap();
    jobs.iter()
        .map(|job| job["payload"]["n"].as_i64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_found_by_their_payload_their_error_their_attempts_and_their_time() {
    let (_sandbox, server) = server().await;
    let before = (bullwark::clock::now() - TimeDelta::seconds(5)).to_rfc3339();
    let mut ids: Vec<Uuid> = Vec::new();
    for n in 0..5 {
        let request = json!({
            "jobType": "noop",
            "queue": (["default", "mails"][n % 2]),
            "delayMs": 3_600_000,
            "payload": { "n": n, "to": { "name": format!("Person {n}"), "vip": n == 3 } },
        });
        let answer = server.post("/api/jobs", request).await;
        ids.push(answer.body["job"]["id"].as_str().unwrap().parse().unwrap());
    }
    let ends = [
        settled(ids[1], 1, "w", failed("Connection REFUSED by 10.0.0.1")),
        settled(ids[2], 1, "w", discarded("no such account: person")),
    ];
    settle_many(&server.app.record, &ends).await.unwrap();
    let after = (bullwark::clock::now() + TimeDelta::seconds(5)).to_rfc3339();

    for (query, expected) in [
        (&[("payload.n", "4")][..], &[4][..]),
        (&[("payload.to.name", "Person 1")], &[1]),
        (&[("payload.to.name", "Person")], &[]),
        (&[("payload.to.vip", "true")], &[3]),
        (
            &[("payload.to.vip", "false"), ("queue", "default")],
            &[4, 2, 0],
        ),
        (&[("error", "refused")], &[1]),
        (&[("error", "person")], &[2]),
        (&[("q", "PERSON 0")], &[0]),
        (&[("q", "10.0.0.1")], &[1]),
        (&[("q", "100%_")], &[]),
        (&[("attempts_min", "1")], &[1]),
        (&[("attempts_min", "1"), ("status", "dead_letter")], &[]),
        (&[("error", "person"), ("status", "dead_letter")], &[2]),
        (
            &[("created_from", before.as_str()), ("limit", "2")],
            &[4, 3],
        ),
        (&[("created_from", after.as_str())], &[]),
        (&[("created_to", before.as_str())], &[]),
        (
            &[("created_to", after.as_str()), ("status", "failed")],
            &[1],
        ),
        (&[("q", "person"), ("limit", "2")], &[4, 3]),
    ] {
        assert_eq!(found(&server, query).await, expected, "{query:?}");
    }
    let theirs = server.anonymous(Method::GET, &path(&[("q", "person")]));
    let theirs = send(theirs.bearer_auth(OTHER_KEY)).await.body;
    assert_eq!(theirs["jobs"], json!([]));

    let long = "x".repeat(201);
    for query in [
        [("created_from", "yesterday")],
        [("attempts_min", "0")],
        [("payload.", "1")],
        [("payload.a..b", "1")],
        [("q", long.as_str())],
        [("q", "a\0b")],
        [("payload.a", "a\0b")],
    ] {
        list(&server, &query)
            .await
            .problem(400, "invalid_parameter");
    }
    let paged = list(&server, &[("q", "x"), ("page", "2")]).await;
    let detail = paged.problem(400, "invalid_parameter");
    assert_eq!(detail, "a search goes on with `before`, not with `page`");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_search_is_made_in_parts_and_leaves_out_nothing() {
    let (_sandbox, server) = server().await;
    let jobs: Vec<Value> = (0..6_000)
        .map(|n| json!({"jobType": "noop", "delayMs": 3_600_000, "payload": {"n": n}}))
        .collect();
    let answer = server.post("/api/jobs/bulk", json!({ "jobs": jobs })).await;
    assert_eq!(answer.body["accepted"], 6_000);
    let (mut next, mut parts, mut found) = (String::new(), 0, Vec::new());
    loop {
        let page = list(&server, &[("payload.n", "3"), ("before", &next)])
            .await
            .body;
        parts += 1;
        found.extend(page["jobs"].as_array().unwrap().iter().cloned());
        match page["pagination"]["next"].as_str() {
            Some(last) => next = last.to_owned(),
            None => break,
        }
        assert!(parts < 10, "{page}");
    }
    assert_eq!((parts, found.len()), (2, 1));
    server.end().await;
}
