//! How many jobs a workspace may create in an hour: exactly so many, on however many servers.

use std::collections::HashSet;

use bullwark::http::HttpOptions;
use bullwark::record::creations;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::{count, server_with};
use crate::support::Sandbox;
use crate::support::server::{Answer, OTHER_KEY, OTHER_WORKSPACE, Server, send};
use crate::worker::rig::eventually;

fn limited(jobs_per_hour: u32) -> HttpOptions {
    HttpOptions {
        jobs_per_hour: Some(jobs_per_hour),
        ..HttpOptions::default()
    }
}

async fn post(server: &Server, key: Option<&str>, body: Value) -> Answer {
    let request = server.request(Method::POST, "/api/jobs").json(&body);
    let request = match key {
        Some(key) => request.header("idempotency-key", key),
        None => request,
    };
    send(request).await
}

async fn noop(server: &Server) -> Answer {
    post(server, None, json!({ "jobType": "noop" })).await
}

/// `"jobs";r=2;t=3600` → 2 and 3600.
fn standing(answer: &Answer) -> (u64, Option<u64>) {
    let mut parts = answer.header("ratelimit").split(';');
    assert_eq!(parts.next(), Some("\"jobs\""), "{answer:?}");
    let number = |part: &str, name: &str| part.strip_prefix(name).unwrap().parse().unwrap();
    let remaining = number(parts.next().unwrap(), "r=");
    (remaining, parts.next().map(|part| number(part, "t=")))
}

/// Moves what was created back in time.
async fn let_minutes_pass(sandbox: &Sandbox, minutes: i64) {
    let pool = sandbox.pool().await;
    let done = sqlx::query(
        "UPDATE bullwark.creations SET minutes = (SELECT array_agg(m - $1) FROM unnest(minutes) m)
         WHERE workspace_id = $2",
    )
    .bind(minutes)
    .bind(DEFAULT_WORKSPACE)
    .execute(&pool)
    .await
    .unwrap();
    assert_eq!(done.rows_affected(), 1);
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_the_limit_is_refused_until_an_hour_has_passed() {
    let (sandbox, server) = server_with(limited(3)).await;
    let first = post(&server, Some("first"), json!({ "jobType": "noop" })).await;
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(first.header("ratelimit-policy"), "\"jobs\";q=3;w=3600");
    let (remaining, restored_in) = standing(&first);
    assert_eq!(remaining, 2);
    // It counts until 60 minutes after its own minute.
    assert!((3600..=3660).contains(&restored_in.unwrap()), "{first:?}");

    // What is refused, or was there before, is not created.
    let wrong = post(&server, None, json!({ "jobType": "x" })).await;
    wrong.problem(422, "unknown_job_type");
    let again = post(&server, Some("first"), json!({ "jobType": "noop" })).await;
    assert_eq!((again.status, standing(&again).0), (200, 2));

    assert_eq!(noop(&server).await.status, 201);
    let last = noop(&server).await;
    assert_eq!((last.status, standing(&last).0), (201, 0));
    let refused = noop(&server).await;
    let detail = refused.problem(429, "creation_limit");
    assert_eq!(
        detail,
        "the workspace may create 3 jobs an hour; 0 are left"
    );
    assert_eq!(refused.header("ratelimit-policy"), "\"jobs\";q=3;w=3600");
    assert_eq!(standing(&refused).0, 0);
    let retry_after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=3660).contains(&retry_after), "{refused:?}");
    assert_eq!(refused.body["limit"], 3);
    let again = post(&server, Some("first"), json!({ "jobType": "noop" })).await;
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(again.body, first.body);
    let other = post(
        &server,
        Some("first"),
        json!({ "jobType": "noop", "priority": 1 }),
    )
    .await;
    other.problem(409, "idempotency_key_reused");
    assert_eq!(count(&server).await, 3);

    // Another workspace has its own.
    let request = server
        .anonymous(Method::POST, "/api/jobs")
        .bearer_auth(OTHER_KEY);
    let other = send(request.json(&json!({ "jobType": "noop" }))).await;
    assert_eq!((other.status, standing(&other).0), (201, 2));

    let_minutes_pass(&sandbox, 61).await;
    // A refusal is believed for five seconds.
    let accepted = eventually("the hour is over", async || {
        let answer = noop(&server).await;
        (answer.status == 201).then_some(answer)
    })
    .await;
    assert_eq!(standing(&accepted).0, 2);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_count_as_one_and_a_restart_forgets_nothing() {
    const LIMIT: usize = 50;
    let (sandbox, server) = server_with(limited(LIMIT as u32)).await;
    let start = || {
        let (database, redis) = (&sandbox.database_url, &sandbox.redis_url);
        Server::start_with(database, redis, &sandbox.prefix, limited(LIMIT as u32))
    };
    let other = start().await;
    let call = |nth: usize| {
        noop(if nth.is_multiple_of(2) {
            &server
        } else {
            &other
        })
    };
    let answers = join_all((0..3 * LIMIT).map(call)).await;
    let of = |status| {
        answers
            .iter()
            .filter(|answer| answer.status == status)
            .count()
    };
    assert_eq!((of(201), of(429)), (LIMIT, 2 * LIMIT));
    assert_eq!(count(&server).await, LIMIT);
    let ids: HashSet<&str> = answers
        .iter()
        .filter_map(|answer| answer.body["job"]["id"].as_str())
        .collect();
    assert_eq!(ids.len(), LIMIT);
    server.end().await;
    other.end().await;

    let restarted = start().await;
    noop(&restarted).await.problem(429, "creation_limit");
    restarted.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_goes_in_as_far_as_the_limit_lets_it_and_a_flow_whole_or_not() {
    let (_sandbox, server) = server_with(limited(6)).await;
    let keyed = json!({ "jobType": "noop", "idempotencyKey": "a" });
    let new = json!({ "jobType": "noop" });
    let bulk = async |jobs: Value| server.post("/api/jobs/bulk", json!({ "jobs": jobs })).await;
    let answer = bulk(json!([keyed, { "jobType": "x" }, new, keyed])).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    assert_eq!(standing(&answer).0, 4, "two were created");

    let child = json!({ "job": new });
    let flow = async |key: &str, children: usize| {
        let body = json!({ "job": new, "children": vec![child.clone(); children] });
        let request = server.request(Method::POST, "/api/flows");
        send(request.header("idempotency-key", key).json(&body)).await
    };
    let whole = flow("f", 1).await;
    assert_eq!((whole.status, standing(&whole).0), (201, 2), "{whole:?}");
    let too_large = flow("g", 2).await;
    too_large.problem(429, "creation_limit");
    assert_eq!((count(&server).await, standing(&too_large).0), (4, 2));
    assert_ne!(too_large.header("retry-after"), "");
    let never = flow("h", 6).await;
    let detail = never.problem(429, "creation_limit");
    assert_eq!(
        detail,
        "7 jobs at once are more than the workspace may create an hour"
    );
    assert_eq!(never.header("retry-after"), "", "waiting is of no use");

    let answer = bulk(json!([new, new, new, keyed, new])).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    let results = answer.body["results"].as_array().unwrap();
    let codes: Vec<&Value> = results.iter().map(|one| &one["problem"]["code"]).collect();
    let refused = json!("creation_limit");
    assert_eq!(
        codes,
        [&Value::Null, &Value::Null, &refused, &Value::Null, &refused]
    );
    assert_eq!(results[3]["created"], false);
    assert!(
        results[4]["problem"]["retry_after_seconds"]
            .as_u64()
            .unwrap()
            > 0
    );
    assert_eq!(
        (&answer.body["accepted"], standing(&answer).0),
        (&json!(3), 0)
    );

    bulk(json!([new, new])).await.problem(429, "creation_limit");
    let replayed = bulk(json!([keyed])).await;
    assert_eq!(replayed.status, 200, "{replayed:?}");
    let replayed = flow("f", 1).await;
    assert_eq!(replayed.status, 200, "{replayed:?}");
    assert_eq!(count(&server).await, 6);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_gives_workspaces_their_plans() {
    let (_sandbox, server) = server_with(HttpOptions::default()).await;
    let path = format!("/api/workspaces/{OTHER_WORKSPACE}/limits");
    let change =
        async |path: &str, body: Value| send(server.request(Method::PATCH, path).json(&body)).await;
    let theirs = async |method, path: &str| {
        send(
            server
                .anonymous(method, path)
                .bearer_auth(OTHER_KEY)
                .json(&json!({})),
        )
        .await
    };
    let free = theirs(Method::GET, "/api/limits").await;
    assert_eq!(free.status, 200, "{free:?}");
    let none = json!({ "workspace_id": OTHER_WORKSPACE, "plan": null, "jobs_per_hour": null,
        "remaining": null, "restored_in_seconds": null });
    assert_eq!(free.body, none);
    let unlimited = noop(&server).await;
    assert_eq!(
        unlimited.header("ratelimit"),
        "",
        "without a limit nothing is said"
    );

    let changed = change(&path, json!({ "plan": "free" })).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let expected = json!({ "workspace_id": OTHER_WORKSPACE, "plan": "free", "jobs_per_hour": 100,
        "remaining": 100, "restored_in_seconds": null });
    assert_eq!(changed.body, expected);
    let request = server
        .anonymous(Method::POST, "/api/jobs")
        .bearer_auth(OTHER_KEY);
    let job = send(request.json(&json!({ "jobType": "noop" }))).await;
    assert_eq!((job.status, standing(&job).0), (201, 99));
    assert_eq!(
        theirs(Method::GET, "/api/limits").await.body["remaining"],
        99
    );

    // The workspace's own number goes before the plan's.
    let own = change(&path, json!({ "jobsPerHour": 1 })).await;
    assert_eq!(
        (&own.body["plan"], &own.body["remaining"]),
        (&json!("free"), &json!(0))
    );
    theirs(Method::POST, "/api/jobs")
        .await
        .problem(422, "invalid_request");
    let request = server
        .anonymous(Method::POST, "/api/jobs")
        .bearer_auth(OTHER_KEY);
    let job = send(request.json(&json!({ "jobType": "noop" }))).await;
    job.problem(429, "creation_limit");
    let away = change(&path, json!({ "plan": null, "jobs_per_hour": null })).await;
    assert_eq!(away.body, none);

    for (wrong, pointer) in [
        (json!({ "plan": "gold" }), "/plan"),
        (json!({ "jobsPerHour": 2_000_000_000 }), "/jobsPerHour"),
        (json!({ "jobsPerHour": -1 }), "/jobsPerHour"),
        (json!({ "limit": 1 }), "/limit"),
    ] {
        let answer = change(&path, wrong).await;
        assert_eq!(answer.status, 422, "{answer:?}");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer);
    }
    let unknown = "/api/workspaces/0192f5a1-7c3e-7d00-8000-3b9aca000000/limits";
    change(unknown, json!({}))
        .await
        .problem(404, "workspace_not_found");
    change("/api/workspaces/x/limits", json!({}))
        .await
        .problem(400, "invalid_id");
    theirs(Method::PATCH, &path).await.problem(403, "forbidden");

    let target = format!("/api/audit?target_kind=workspace&target_id={OTHER_WORKSPACE}");
    let audit = theirs(Method::GET, &target).await.body;
    let actions = audit["audit"].as_array().unwrap();
    assert_eq!(actions.len(), 3, "{audit}");
    assert_eq!(actions[2]["action"], "workspace.limit");
    assert_eq!(
        actions[2]["before"],
        json!({ "plan": null, "jobs_per_hour": null })
    );
    assert_eq!(
        actions[2]["after"],
        json!({ "plan": "free", "jobs_per_hour": null })
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_took_in_advance_is_given_back_when_it_stops() {
    let (sandbox, server) = server_with(limited(500_000)).await;
    for _ in 0..3 {
        assert_eq!(noop(&server).await.status, 201);
    }
    let used = async || {
        let pool = sandbox.pool().await;
        let used: Option<i64> = sqlx::query_scalar(
            "SELECT sum(c)::bigint FROM bullwark.creations, unnest(counts) c
             WHERE workspace_id = $1",
        )
        .bind(DEFAULT_WORKSPACE)
        .fetch_one(&pool)
        .await
        .unwrap();
        pool.close().await;
        used.unwrap()
    };
    // A thousandth of the limit at once: the next two cost no statement.
    assert_eq!(used().await, 501);
    server.end().await;
    assert_eq!(used().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_counts_until_an_hour_after_its_end() {
    let (sandbox, server) = server_with(HttpOptions::default()).await;
    let pool = sandbox.pool().await;
    let this_minute = async || {
        let minute = "SELECT floor(extract(epoch FROM clock_timestamp()) / 60)::bigint";
        sqlx::query_scalar::<_, i64>(minute)
            .fetch_one(&pool)
            .await
            .unwrap()
    };
    // The one in the future is of a clock that was wrong: it counts as this minute.
    let taken = eventually("all within one minute", async || {
        let this = this_minute().await;
        sqlx::query(
            "INSERT INTO bullwark.creations (workspace_id, minutes, counts)
             VALUES ($1, ARRAY[$2 - 61, $2 - 60, $2 - 1, $2 + 500], '{1, 2, 4, 8}')
             ON CONFLICT (workspace_id) DO UPDATE
             SET minutes = excluded.minutes, counts = excluded.counts",
        )
        .bind(DEFAULT_WORKSPACE)
        .bind(this)
        .execute(&pool)
        .await
        .unwrap();
        let record = &server.app.record;
        let taken = creations::take(record, DEFAULT_WORKSPACE, 20, 9, 6)
            .await
            .unwrap();
        let later = creations::take(record, DEFAULT_WORKSPACE, 20, 9, 6)
            .await
            .unwrap();
        (this_minute().await == this).then_some((taken, later))
    })
    .await;
    let (first, later) = taken;
    assert_eq!(
        (first.granted, first.used),
        (6, 20),
        "14 were used, six are left"
    );
    assert!((1..=60).contains(&first.restored_in.unwrap()), "{first:?}");
    assert_eq!((later.granted, later.used), (0, 20));
    // Two and four are not enough for six but together; the four are a minute old.
    let retry_in = later.retry_in.unwrap();
    assert!((59 * 60 + 1..=60 * 60).contains(&retry_in), "{later:?}");
    pool.close().await;
    server.end().await;
}
