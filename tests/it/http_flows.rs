//! Flows over HTTP: accepted whole, or refused with the place of each fault.

use bullwark::job::JobRequest;
use bullwark::job::flow::{FlowRequest, OnFailure};
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use reqwest::Method;
use serde_json::json;

use crate::http::{count, server};
use crate::support::server::send;

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_is_accepted_whole_and_once_per_key() {
    let (_sandbox, server) = server().await;
    let far = 3_600_000;
    let flow = json!({
        "job": { "jobType": "noop", "payload": { "n": 1 } },
        "children": [
            { "job": { "jobType": "noop", "delayMs": far }, "onFailure": "fail_parent" },
            { "job": { "jobType": "noop", "queue": "mails", "delayMs": far } },
        ],
    });
    let post = || {
        let request = server.request(Method::POST, "/api/flows");
        send(request.header("idempotency-key", "tree").json(&flow))
    };
    let answer = post().await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let ids = answer.body["flow"]["ids"].as_array().unwrap();
    assert_eq!(ids.len(), 3);
    let root = answer.body["flow"]["root"].as_str().unwrap();
    assert_eq!(ids[0], root);
    assert_eq!(answer.header("location"), format!("/api/jobs/{root}"));
    let shown = server.get(answer.header("location")).await;
    assert_eq!(shown.body["job"]["payload"], json!({ "n": 1 }));
    assert_eq!(
        shown.body["job"]["status"], "pending",
        "its children are not due"
    );
    let again = post().await;
    assert_eq!(again.status, 200, "{again:?}");
    let of_before = json!({ "root": root, "ids": [root], "created": false });
    assert_eq!(again.body["flow"], of_before);
    assert_eq!(count(&server).await, 3, "nothing was stored twice");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_flow_is_said_with_its_place() {
    let (_sandbox, server) = server().await;
    let child = |job| json!({ "job": { "jobType": "noop" }, "children": [{ "job": job }] });
    for (flow, pointers) in [
        (
            child(json!({ "jobType": "noop", "priority": "high", "colour": 1 })),
            vec!["/children/0/job/colour", "/children/0/job/priority"],
        ),
        (
            json!({ "job": { "jobType": 5 }, "children": 7 }),
            vec!["/job/jobType", "/children"],
        ),
        (json!({ "children": [] }), vec![""]),
        (
            json!({ "job": { "jobType": "noop" }, "onFailure": "cry" }),
            vec!["/onFailure"],
        ),
        (
            child(json!({ "jobType": "noop", "priority": 11 })),
            vec!["/children/0/job/priority"],
        ),
        (
            child(json!({ "jobType": "noop", "idempotencyKey": "k" })),
            vec!["/children/0/job/idempotencyKey"],
        ),
    ] {
        let answer = server.post("/api/flows", flow.clone()).await;
        answer.problem(422, "invalid_request");
        let errors = answer.body["errors"].as_array().unwrap().iter();
        let found: Vec<_> = errors.map(|e| e["pointer"].as_str().unwrap()).collect();
        assert_eq!(found, pointers, "{flow}");
    }
    let broken = server.request(Method::POST, "/api/flows");
    let broken = broken
        .header("content-type", "application/json")
        .body("{\"job\": ");
    send(broken).await.problem(400, "malformed_json");
    assert_eq!(count(&server).await, 0, "nothing was stored");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_is_shown_whole_whichever_of_its_jobs_is_asked_for() {
    let (_sandbox, server) = server().await;
    let leaf = |queue| json!({ "job": { "jobType": "noop", "queue": queue } });
    let flow = json!({
        "job": { "jobType": "noop" },
        "children": [
            { "job": { "jobType": "noop", "queue": "a" }, "children": [leaf("b"), leaf("c")] },
            leaf("d"),
        ],
    });
    let ids = server.post("/api/flows", flow).await.body["flow"]["ids"].clone();
    let ids: Vec<&str> = ids
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    for id in &ids {
        let shown = server.get(&format!("/api/flows/{id}")).await;
        assert_eq!(shown.status, 200, "{shown:?}");
        let flow = &shown.body["flow"];
        assert_eq!(
            (&flow["root"], &flow["is_whole"]),
            (&json!(ids[0]), &json!(true))
        );
        assert_eq!(flow["by_status"], json!({ "pending": 5 }));
        let jobs = flow["jobs"].as_array().unwrap();
        let of = |job: &serde_json::Value| (job["job_queue"].clone(), job["parent_id"].clone());
        let parents: Vec<_> = jobs.iter().map(of).collect();
        let (root, a) = (json!(ids[0]), json!(ids[1]));
        let expected = [
            (json!("default"), json!(null)),
            (json!("a"), root.clone()),
            (json!("d"), root),
            (json!("b"), a.clone()),
            (json!("c"), a),
        ];
        assert_eq!(parents, expected);
    }
    // Without its root the rest is a flow still.
    send(server.request(Method::DELETE, &format!("/api/jobs/{}", ids[0]))).await;
    let shown = server.get(&format!("/api/flows/{}", ids[3])).await;
    assert_eq!(shown.body["flow"]["root"], ids[1], "{shown:?}");
    assert_eq!(shown.body["flow"]["jobs"].as_array().unwrap().len(), 3);

    let alone = crate::http::enqueue(&server).await;
    for path in [
        alone.as_str(),
        "01890000-0000-7000-8000-000000000000",
        ids[0],
    ] {
        let unknown = server.get(&format!("/api/flows/{path}")).await;
        unknown.problem(404, "flow_not_found");
    }
    server.get("/api/flows/x").await.problem(400, "invalid_id");
    let theirs = server.anonymous(Method::GET, &format!("/api/flows/{}", ids[1]));
    let theirs = send(theirs.bearer_auth(crate::support::server::OTHER_KEY)).await;
    theirs.problem(404, "flow_not_found");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_is_too_deep_says_that_some_of_it_is_left_out() {
    let (_sandbox, server) = server().await;
    let node = |children| FlowRequest {
        job: JobRequest {
            workspace_id: Some(DEFAULT_WORKSPACE),
            ..JobRequest::new("noop", json!({}))
        },
        children,
        on_failure: OnFailure::default(),
    };
    // No request nests so deep: this is the library's.
    let flow = (1..130).fold(node(vec![]), |below, _| node(vec![below]));
    let ids = server.app.enqueue.enqueue_flow(flow).await.unwrap().ids;
    for (id, top) in [(ids[0], ids[0]), (ids[129], ids[1])] {
        let shown = server.get(&format!("/api/flows/{id}")).await;
        let flow = &shown.body["flow"];
        assert_eq!(
            (&flow["root"], &flow["is_whole"]),
            (&json!(top), &json!(false))
        );
        assert_eq!(flow["jobs"].as_array().unwrap().len(), 128);
    }
    server.end().await;
}
