//! What people do to jobs and job types over HTTP, and that they do it to their own only.

use std::time::Duration;

use bullwark::record::logs::{self, LogLevel, NewLog};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::{enqueue, server};
use crate::support::server::{Answer, OTHER_KEY, Server, send};

async fn patch(server: &Server, id: &str, body: Value) -> Answer {
    let path = format!("/api/jobs/{id}");
    send(server.request(Method::PATCH, &path).json(&body)).await
}

async fn retry(server: &Server, id: &str) -> Answer {
    let path = format!("/api/jobs/{id}/retry");
    send(server.request(Method::POST, &path)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_cancelled_and_run_again() {
    let (_sandbox, server) = server().await;
    let id = enqueue(&server).await;
    let answer = retry(&server, &id).await;
    let detail = answer.problem(409, "job_state");
    let expected = format!("job {id} is pending and can not be retried: it waits to run anyway");
    assert_eq!(detail, expected);

    let cancel = json!({"status": "cancelled", "reason": "a duplicate"});
    let answer = patch(&server, &id, cancel.clone()).await;
    assert_eq!(
        (answer.status, &answer.body["job"]["status"]),
        (200, &json!("cancelled"))
    );
    assert_eq!(answer.body["job"]["error_message"], "a duplicate");
    assert_eq!(
        patch(&server, &id, cancel.clone()).await.status,
        200,
        "twice is once"
    );
    let shown = server.get(&format!("/api/jobs/{id}")).await.body;
    assert_eq!(shown["logs"][0]["message"], "cancelled: a duplicate");

    let answer = retry(&server, &id).await;
    assert_eq!(
        (answer.status, &answer.body["job"]["status"]),
        (200, &json!("pending"))
    );
    let logs = server
        .get(&format!("/api/jobs/{id}/logs?limit=1"))
        .await
        .body;
    assert_eq!(logs["logs"][0]["message"], "retried by hand");
    assert_eq!(logs["logs"].as_array().unwrap().len(), 1);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_open_job_is_cancelled() {
    let (sandbox, server) = server().await;
    let id = enqueue(&server).await;
    let pool = sandbox.pool().await;
    let set = |status: &'static str| {
        sqlx::query("UPDATE jobs SET status = $1, next_retry_at = '2190-01-01' WHERE id = $2")
            .bind(status)
            .bind(id.parse::<Uuid>().unwrap())
            .execute(&pool)
    };
    set("completed").await.unwrap();
    let answer = patch(&server, &id, json!({"status": "cancelled"})).await;
    let expected = format!("job {id} is completed and can not be cancelled: it is over");
    assert_eq!(answer.problem(409, "job_state"), expected);
    assert_eq!(answer.body["job_status"], "completed");
    set("processing").await.unwrap();
    let detail = "can not be retried: it is running";
    let answer = retry(&server, &id).await;
    assert!(answer.problem(409, "job_state").ends_with(detail));
    set("failed").await.unwrap();
    let detail = "its next attempt is due at 2190-01-01T00:00:00+00:00";
    let answer = retry(&server, &id).await;
    assert!(
        answer.problem(409, "job_state").ends_with(detail),
        "{answer:?}"
    );

    let answer = patch(&server, &id, json!({"status": "completed"})).await;
    let detail = answer.problem(422, "invalid_request");
    let expected =
        "`status` can only be set to `cancelled`; to run a job again, POST to its /retry";
    assert_eq!(detail, expected);
    let answer = patch(&server, &id, json!({"state": "cancelled"})).await;
    assert!(
        answer
            .problem(422, "invalid_request")
            .contains("unknown field `state`")
    );
    let long = json!({"status": "cancelled", "reason": "x".repeat(501)});
    let answer = patch(&server, &id, long).await;
    answer.problem(422, "invalid_request");
    assert_eq!(answer.body["errors"][0]["pointer"], "/reason");
    server.end().await;
}

async fn delete(server: &Server, path: &str) -> Answer {
    send(server.request(Method::DELETE, path)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_does_not_run_is_deleted() {
    let (sandbox, server) = server().await;
    let id = enqueue(&server).await;
    let path = format!("/api/jobs/{id}");
    let pool = sandbox.pool().await;
    let set = |status: &'static str| {
        sqlx::query("UPDATE jobs SET status = $1 WHERE id = $2")
            .bind(status)
            .bind(id.parse::<Uuid>().unwrap())
            .execute(&pool)
    };
    set("processing").await.unwrap();
    let answer = delete(&server, &path).await;
    let expected = format!("job {id} is running: cancel it first");
    assert_eq!(answer.problem(409, "job_state"), expected);
    set("pending").await.unwrap();
    let long = format!("{path}?reason={}", "x".repeat(501));
    delete(&server, &long).await.problem(422, "invalid_request");
    let wrong = delete(&server, &format!("{path}?why=x")).await;
    wrong.problem(400, "invalid_parameter");

    let answer = delete(&server, &format!("{path}?reason=a%20duplicate")).await;
    assert_eq!(
        (answer.status, &answer.body),
        (200, &json!({"success": true}))
    );
    for answer in [
        delete(&server, &path).await,
        server.get(&path).await,
        server.get(&format!("{path}/logs")).await,
        retry(&server, &id).await,
        patch(&server, &id, json!({"status": "cancelled"})).await,
    ] {
        assert_eq!(
            answer.problem(404, "job_not_found"),
            format!("there is no job {id}")
        );
    }
    let list = server.get("/api/jobs").await.body;
    assert_eq!(list["jobs"], json!([]));
    server.end().await;
}

/// Who, what, to what, why, and what it was before and after.
#[tokio::test(flavor = "multi_thread")]
async fn what_people_do_to_jobs_is_written_down() {
    let (_sandbox, server) = server().await;
    let id = enqueue(&server).await;
    let path = format!("/api/jobs/{id}");
    let cancel = json!({"status": "cancelled", "reason": "too early"});
    let cancelled = patch(&server, &id, cancel.clone()).await;
    patch(&server, &id, cancel).await; // changes nothing
    retry(&server, &id).await;
    delete(&server, &path).await;
    let audit = format!("/api/audit?target_kind=job&target_id={id}");
    let audit = server.get(&audit).await.body;
    let me = server.get("/api/me").await.body;
    let told = |row: &Value| {
        assert_eq!(row["actor_kind"], me["actor"]["kind"]);
        assert_eq!(row["actor_id"], me["actor"]["id"]);
        let (before, after) = (&row["before"]["status"], &row["after"]["status"]);
        let texts = [&row["action"], before, after, &row["reason"]];
        texts.map(|text| text.as_str().unwrap_or("-").to_owned())
    };
    let told: Vec<_> = audit["audit"]
        .as_array()
        .unwrap()
        .iter()
        .map(told)
        .collect();
    assert_eq!(
        told,
        [
            ["job.delete", "pending", "deleted", "by request"],
            ["job.retry", "cancelled", "pending", "-"],
            ["job.cancel", "pending", "cancelled", "too early"],
        ]
    );
    assert_eq!(
        audit["audit"][2]["request_id"],
        cancelled.header("x-request-id")
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_workspace_s_job_is_as_unknown_as_none() {
    let (_sandbox, server) = server().await;
    let id = enqueue(&server).await;
    let line = NewLog {
        job_id: id.parse().unwrap(),
        attempt: 0,
        level: LogLevel::Info,
        message: "secret".to_owned(),
        metadata: None,
    };
    logs::insert_many(&server.app.record, &[line])
        .await
        .unwrap();
    let reports = server.data_dir.path().join("reports");
    std::fs::create_dir(&reports).unwrap();
    std::fs::write(reports.join(format!("{id}.csv")), "secret").unwrap();

    let theirs = |method, path: &str| server.anonymous(method, path).bearer_auth(OTHER_KEY);
    for (method, path) in [
        (Method::GET, format!("/api/jobs/{id}")),
        (Method::GET, format!("/api/jobs/{id}/logs")),
        (Method::GET, format!("/api/jobs/{id}/report")),
        (Method::POST, format!("/api/jobs/{id}/retry")),
        (Method::PATCH, format!("/api/jobs/{id}")),
        (Method::DELETE, format!("/api/jobs/{id}")),
    ] {
        let request = theirs(method, &path).json(&json!({"status": "cancelled"}));
        let answer = send(request).await;
        assert_eq!(
            answer.problem(404, "job_not_found"),
            format!("there is no job {id}")
        );
    }
    let list = send(theirs(Method::GET, "/api/jobs")).await.body;
    assert_eq!(list["jobs"], json!([]));
    let stats = send(theirs(Method::GET, "/api/jobs/stats")).await.body;
    assert_eq!(
        (&stats["queue_depth"], &stats["queues"]),
        (&json!(0), &json!({}))
    );
    // The same key of another workspace is another key.
    let keyed = json!({"jobType": "noop", "idempotencyKey": "k"});
    assert_eq!(server.post("/api/jobs", keyed.clone()).await.status, 201);
    let answer = send(theirs(Method::POST, "/api/jobs").json(&keyed)).await;
    assert_eq!(answer.status, 201);
    let ours = server.get(&format!("/api/jobs/{id}")).await.body;
    assert_eq!(ours["job"]["status"], "pending");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_type_is_accepted_at_once() {
    let (_sandbox, server) = server().await;
    let job = |size: Value| json!({"jobType": "resize", "payload": {"size": size}});
    let answer = server.post("/api/jobs", job(json!(1))).await;
    answer.problem(422, "unknown_job_type");
    let schema = json!({"type": "object", "properties": {"size": {"type": "integer"}}});
    let declaration = json!({"name": "resize", "schema": schema});
    let answer = server.post("/api/job-types", declaration.clone()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(server.post("/api/jobs", job(json!(1))).await.status, 201);
    let answer = server.post("/api/jobs", job(json!("big"))).await;
    answer.problem(422, "invalid_request");
    assert_eq!(answer.body["errors"][0]["pointer"], "/payload/size");
    assert_eq!(server.post("/api/job-types", declaration).await.status, 200);
    let types = server.get("/api/job-types").await.body;
    let named = |row: &&Value| row["name"] == "resize";
    let row = types["job_types"].as_array().unwrap().iter().find(named);
    assert_eq!(row.unwrap()["schema"], schema);

    let answer = server.post("/api/job-types", json!({"name": "noop"})).await;
    assert_eq!(
        answer.problem(409, "builtin_job_type"),
        "`noop` is a built-in job type; choose another name"
    );
    let bad = json!({"name": "x", "schema": {"type": "objet"}});
    let answer = server.post("/api/job-types", bad).await;
    answer.problem(422, "invalid_request");
    assert_eq!(answer.body["errors"][0]["pointer"], "/schema");
    let answer = server.post("/api/job-types", json!({"name": ""})).await;
    answer.problem(422, "invalid_request");
    assert_eq!(answer.body["errors"][0]["pointer"], "/name");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_stops_within_seconds() {
    let (sandbox, server) = server().await;
    assert_eq!(server.get("/api/jobs").await.status, 200);
    let revoke = "UPDATE bullwark.api_keys SET revoked_at = now()";
    let pool = sandbox.pool().await;
    sqlx::query(revoke).execute(&pool).await.unwrap();
    // Remembered for five seconds; looked at until then and not much longer.
    let stopped = async {
        while server.get("/api/jobs").await.status == 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, stopped).await.unwrap();
    server
        .get("/api/jobs")
        .await
        .problem(401, "invalid_api_key");
    server.end().await;
}
