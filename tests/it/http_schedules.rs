//! Schedules over HTTP: made, changed, ended; each workspace with names of its own.

use bullwark::control;
use bullwark::job::{QueueName, Schedule, Template};
use bullwark::reconcile::Mirror;
use bullwark::record::access::By;
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::server;
use crate::stage::eventually;
use crate::support::server::{Answer, OTHER_KEY, OTHER_WORKSPACE, Server, send};

pub(crate) async fn put(server: &Server, path: &str, body: Value) -> Answer {
    let path = format!("/api/schedules/{path}");
    send(server.request(Method::PUT, &path).json(&body)).await
}

async fn theirs(server: &Server, method: Method, path: &str, body: Value) -> Answer {
    let path = format!("/api/schedules{path}");
    let request = server.anonymous(method, &path).bearer_auth(OTHER_KEY);
    send(request.json(&body)).await
}

pub(crate) fn every(every_ms: u64) -> Value {
    json!({"everyMs": every_ms, "job": {"jobType": "noop"}})
}

fn ids(answer: &Answer) -> Vec<&str> {
    let schedules = answer.body["schedules"].as_array().unwrap();
    schedules
        .iter()
        .map(|schedule| schedule["id"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_made_shown_changed_and_ended() {
    let (_sandbox, server) = server().await;
    let wish = json!({
        "pattern": "30 8 * * 1-5", "zone": "Europe/Berlin", "limit": 100,
        "job": {"jobType": "sleep", "payload": {"ms": 7}, "priority": 3, "maxAttempts": 2,
                "timeoutSeconds": 60},
    });
    let answer = put(&server, "mails/nightly%20run", wish.clone()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let made = &answer.body["schedule"];
    let told = (&made["queue"], &made["id"], &made["is_told"]);
    assert_eq!(told, (&json!("mails"), &json!("nightly run"), &json!(true)));
    assert_eq!(
        (&made["zone"], &made["limit"]),
        (&json!("Europe/Berlin"), &json!(100))
    );
    assert!(made["words"].as_str().unwrap().contains("08:30"), "{made}");
    let job = json!({"job_type": "sleep", "payload": {"ms": 7}, "priority": 3, "max_attempts": 2,
                     "timeout_seconds": 60});
    assert_eq!(made["job"], job);
    let runs: Vec<&str> = made["next_runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run.as_str().unwrap())
        .collect();
    assert_eq!(runs.len(), 5);
    assert!(
        runs.iter().all(|run| run.contains("T08:30:00+0")),
        "{runs:?}"
    );
    assert!(runs.is_sorted());

    let shown = server.get("/api/schedules/mails/nightly%20run").await;
    assert_eq!(shown.body["schedule"], *made);
    assert_eq!(
        put(&server, "mails/nightly%20run", wish).await.status,
        200,
        "twice is once"
    );
    assert_eq!(
        put(&server, "mails/nightly%20run", every(60_000))
            .await
            .status,
        200
    );
    let list = server.get("/api/schedules").await;
    assert_eq!(ids(&list), ["nightly run"]);
    let listed = &list.body["schedules"][0];
    assert_eq!(
        (&listed["every_ms"], &listed["pattern"]),
        (&json!(60_000), &Value::Null)
    );
    assert_eq!(
        (&listed["words"], &listed["limit"]),
        (&json!("Every minute."), &Value::Null)
    );
    assert!(listed["job"].get("payload").is_none(), "{listed}");

    let path = "/api/schedules/mails/nightly%20run";
    let answer = send(server.request(Method::DELETE, path)).await;
    assert_eq!(
        (answer.status, &answer.body),
        (200, &json!({"success": true}))
    );
    for answer in [
        server.get(path).await,
        send(server.request(Method::DELETE, path)).await,
    ] {
        let detail = answer.problem(404, "schedule_not_found");
        assert_eq!(
            detail,
            "there is no schedule `nightly run` in queue `mails` here"
        );
    }
    let queue: QueueName = "mails".parse().unwrap();
    assert_eq!(server.app.broker.count_schedules(&queue).await.unwrap(), 0);

    let audit = server.get("/api/audit").await.body;
    let told: Vec<_> = audit["audit"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (
                row["action"].as_str().unwrap(),
                row["before"]["every"].clone(),
                row["after"]["every"].clone(),
            )
        })
        .collect();
    let (minute, none) = (json!("60000"), Value::Null);
    assert_eq!(
        told,
        [
            ("schedule.delete", minute.clone(), none.clone()),
            ("schedule.put", none.clone(), minute),
            ("schedule.put", none.clone(), none.clone()),
            ("schedule.put", none.clone(), none),
        ]
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_schedule_is_named() {
    let (_sandbox, server) = server().await;
    let with = |name: &str, value: Value| {
        let mut wish = every(60_000);
        wish[name] = value;
        wish
    };
    let cron = |pattern: &str| json!({"pattern": pattern, "job": {"jobType": "noop"}});
    let job = |job: Value| json!({"everyMs": 1000, "job": job});
    for (wish, code, pointer) in [
        (json!({"everyMs": 1000}), "invalid_request", ""),
        (json!({"job": {"jobType": "noop"}}), "invalid_request", ""),
        (every(999), "invalid_request", "/everyMs"),
        (
            with("pattern", json!("* * * * *")),
            "invalid_request",
            "/everyMs",
        ),
        (with("zone", json!("UTC")), "invalid_request", "/zone"),
        (with("limit", json!(0)), "invalid_request", "/limit"),
        (
            with("endAt", json!("2020-01-01T00:00:00Z")),
            "invalid_request",
            "/endAt",
        ),
        (
            with("endsAt", json!("2020-01-01T00:00:00Z")),
            "invalid_request",
            "/endsAt",
        ),
        (cron("61 * * * *"), "invalid_request", "/pattern"),
        (cron("0 0 31 2 *"), "invalid_request", "/pattern"),
        (
            job(json!({"jobType": "no_such_type"})),
            "unknown_job_type",
            "/job/jobType",
        ),
        (
            job(json!({"jobType": "sleep", "payload": {"ms": "long"}})),
            "invalid_request",
            "/job/payload/ms",
        ),
        (
            job(json!({"jobType": "noop", "delayMs": 5})),
            "invalid_request",
            "/job/delayMs",
        ),
        (
            job(json!({"jobType": "noop", "queue": "other"})),
            "invalid_request",
            "/job/queue",
        ),
    ] {
        let answer = put(&server, "default/tick", wish.clone()).await;
        answer.problem(422, code);
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{wish}");
    }
    let wrong_zone = json!({"pattern": "* * * * *", "zone": "Mars", "job": {"jobType": "noop"}});
    let answer = put(&server, "default/tick", wrong_zone).await;
    answer.problem(422, "invalid_request");
    assert_eq!(answer.body["errors"][0]["pointer"], "/zone");
    put(&server, "default/a:b", every(1000))
        .await
        .problem(400, "invalid_id");
    put(&server, "a:b/tick", every(1000))
        .await
        .problem(400, "invalid_id");
    put(
        &server,
        &format!("default/{}", "x".repeat(164)),
        every(1000),
    )
    .await
    .problem(400, "invalid_id");
    assert_eq!(ids(&server.get("/api/schedules").await).len(), 0);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_workspace_has_names_and_jobs_of_its_own() {
    let (_sandbox, server) = server().await;
    let (record, broker) = (&server.app.record, &server.app.broker);
    assert_eq!(put(&server, "mails/tick", every(60_000)).await.status, 201);
    let (mine, hour) = ("/mails/tick", every(3_600_000));
    theirs(&server, Method::GET, mine, Value::Null)
        .await
        .problem(404, "schedule_not_found");
    theirs(&server, Method::DELETE, mine, Value::Null)
        .await
        .problem(404, "schedule_not_found");
    assert_eq!(
        theirs(&server, Method::PUT, mine, hour).await.status,
        201,
        "a new one"
    );
    let shown = server.get("/api/schedules/mails/tick").await.body;
    assert_eq!(shown["schedule"]["every_ms"], 60_000);
    // By its whole name it is nobody's.
    let whole = format!("/mails/tick@{OTHER_WORKSPACE}?owner=none");
    let answer = server.get(&format!("/api/schedules{whole}")).await;
    answer.problem(404, "schedule_not_found");

    // The runs are jobs of the workspace that wanted them.
    let mut mirror = Mirror::new(record.clone(), broker.clone());
    let mut jobs = async |key: &'static str| {
        mirror.step().await.unwrap();
        let request = server
            .anonymous(Method::GET, "/api/jobs?queue=mails")
            .bearer_auth(key);
        let jobs = send(request).await.body["jobs"].as_array().unwrap().clone();
        (!jobs.is_empty()).then_some(jobs)
    };
    for (key, workspace) in [
        (OTHER_KEY, OTHER_WORKSPACE.to_string()),
        (
            crate::support::server::KEY,
            server.get("/api/me").await.body["workspace_id"]
                .as_str()
                .unwrap()
                .to_owned(),
        ),
    ] {
        let jobs = eventually("the run in the record", async || jobs(key).await).await;
        assert_eq!(
            (jobs.len(), &jobs[0]["workspace_id"]),
            (1, &json!(workspace))
        );
        assert_eq!(jobs[0]["job_type"], "noop");
    }

    // What programs and clients made belongs to nobody, and is the operator's to see.
    let template = Template {
        name: "noop".into(),
        data: "{}".into(),
        opts: "{}".into(),
    };
    let queue: QueueName = "mails".parse().unwrap();
    let rhythm = Schedule::every(60_000);
    control::upsert_schedule(
        record,
        broker,
        &queue,
        "plain",
        &rhythm,
        &template,
        &By::OPERATOR,
    )
    .await
    .unwrap();
    assert_eq!(ids(&server.get("/api/schedules").await), ["tick"]);
    assert_eq!(
        ids(&server.get("/api/schedules?owner=none").await),
        ["plain"]
    );
    server
        .get("/api/schedules?owner=all")
        .await
        .problem(400, "invalid_parameter");
    theirs(&server, Method::GET, "?owner=none", Value::Null)
        .await
        .problem(403, "forbidden");
    let path = "/mails/plain?owner=none";
    theirs(&server, Method::DELETE, path, Value::Null)
        .await
        .problem(403, "forbidden");
    let answer = send(server.request(Method::DELETE, &format!("/api/schedules{path}"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");

    let scopes = json!({"name": "reader", "scopes": ["read"]});
    let reader = server.post("/api/api-keys", scopes).await.body["key"].clone();
    let scopes = json!({"name": "writer", "scopes": ["read", "write"]});
    let writer = server.post("/api/api-keys", scopes).await.body["key"].clone();
    let ask = async |key: &Value, method: Method| {
        let request = server.anonymous(method, "/api/schedules/mails/x");
        let request = request.bearer_auth(key.as_str().unwrap());
        send(request.json(&every(1000))).await
    };
    ask(&reader, Method::PUT).await.problem(403, "forbidden");
    // Who may change a schedule could end it that way.
    assert_eq!(ask(&writer, Method::PUT).await.status, 201);
    ask(&reader, Method::DELETE).await.problem(403, "forbidden");
    assert_eq!(ask(&writer, Method::DELETE).await.status, 200);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_are_listed_page_by_page() {
    let (_sandbox, server) = server().await;
    for path in ["a/x", "a/y", "b/x"] {
        assert_eq!(put(&server, path, every(3_600_000)).await.status, 201);
    }
    let first = server.get("/api/schedules?limit=2").await;
    assert_eq!(ids(&first), ["x", "y"]);
    let next = first.body["next"].as_str().unwrap();
    let second = server
        .get(&format!("/api/schedules?limit=2&after={next}"))
        .await;
    assert_eq!(
        (ids(&second), &second.body["next"]),
        (vec!["x"], &Value::Null)
    );
    assert_eq!(second.body["schedules"][0]["queue"], "b");
    server
        .get("/api/schedules?after=x")
        .await
        .problem(400, "invalid_parameter");
    server.end().await;
}
