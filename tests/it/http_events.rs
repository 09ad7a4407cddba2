//! Live updates: what is told, to whom, and from where on.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bullwark::tasks::Tasks;
use bullwark::worker::WorkerOptions;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::http::{enqueue, server};
use crate::support::server::{OTHER_KEY, Server, send};
use crate::support::sse::{Event, EventStream};

/// A worker of the queue `default`, in this process.
pub(crate) struct Working {
    tasks: Tasks,
    stop: CancellationToken,
}

impl Working {
    pub(crate) fn start(server: &Server) -> Self {
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        let mut options = WorkerOptions::new(format!("test-{}", Uuid::new_v4()));
        options.slots = 10;
        let (app, until) = (server.app.clone(), stop.clone());
        tasks.spawn("worker", async move {
            app.work(options, until.clone(), until).await.unwrap();
        });
        Self { tasks, stop }
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.tasks.drained().await;
    }
}

pub(crate) fn events(server: &Server) -> RequestBuilder {
    server.request(Method::GET, "/api/events")
}

pub(crate) fn events_of(server: &Server, job: &str) -> RequestBuilder {
    server.request(Method::GET, &format!("/api/jobs/{job}/events"))
}

pub(crate) async fn follow(request: RequestBuilder) -> EventStream {
    let mut stream = EventStream::open(request).await;
    let first = stream.next().await;
    assert_eq!(
        (first.name.as_str(), &first.data["reset"]),
        ("snapshot", &json!(true))
    );
    assert_eq!(first.data["type"], "snapshot");
    stream
}

pub(crate) async fn add(server: &Server, job: Value) -> String {
    let answer = server.post("/api/jobs", job).await;
    assert_eq!(answer.status / 100, 2, "{answer:?}");
    answer.body["job"]["id"].as_str().unwrap().to_owned()
}

/// Reads the names of the events of a job up to this one.
pub(crate) async fn names_up_to(stream: &mut EventStream, job: &str, last: &str) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let event = stream.next_of(job).await;
        assert_eq!(event.data["type"], event.name, "{event:?}");
        names.push(event.name.clone());
        if event.name == last {
            return names;
        }
    }
}

/// A load balancer may send a listener to one server and who acts to another one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_through_one_server_is_told_by_another() {
    let (sandbox, server) = server().await;
    let (database, redis) = (&sandbox.database_url, &sandbox.redis_url);
    let other = Server::start(database, redis, &sandbox.prefix).await;
    let mut stream = follow(events(&other)).await;
    let job = add(&server, json!({"jobType": "noop", "delayMs": 3_600_000})).await;
    assert_eq!(
        names_up_to(&mut stream, &job, "accepted").await,
        ["accepted"]
    );
    let mut of_job = follow(events_of(&other, &job)).await;
    let path = format!("/api/jobs/{job}");
    let cancel = server.request(Method::PATCH, &path);
    let answer = send(cancel.json(&json!({"status": "cancelled"}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for stream in [&mut stream, &mut of_job] {
        let told = stream.next_of(&job).await;
        assert_eq!(
            (told.name.as_str(), &told.data["job"]["status"]),
            ("cancelled", &json!("cancelled"))
        );
    }
    let answer = server.post(&format!("{path}/retry"), json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for stream in [&mut stream, &mut of_job] {
        assert_eq!(stream.next_of(&job).await.data["job"]["status"], "pending");
    }
    server.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_job_is_told_in_its_order_and_to_its_workspace_only() {
    let (_sandbox, server) = server().await;
    let other = server.anonymous(Method::GET, "/api/events");
    let mut other = follow(other.bearer_auth(OTHER_KEY)).await;
    let mut stream = follow(events(&server)).await;
    assert_eq!(stream.parser().retry_ms, Some(2000));

    let job = add(&server, json!({"jobType": "fail"})).await;
    let accepted = stream.next_of(&job).await;
    assert_eq!(
        (accepted.name.as_str(), &accepted.data["job"]["status"]),
        ("accepted", &json!("pending"))
    );
    let working = Working::start(&server);
    assert_eq!(names_up_to(&mut stream, &job, "started").await, ["started"]);
    let failed = stream.next_of(&job).await;
    assert_eq!(failed.name, "failed");
    let shown = &failed.data["job"];
    assert_eq!(
        (&shown["status"], &shown["attempts"]),
        (&json!("failed"), &json!(1))
    );
    assert!(
        shown["next_retry_at"].is_string() && shown["error_message"].is_string(),
        "{shown}"
    );
    assert_eq!(shown.get("payload"), None);
    working.end().await;

    let path = format!("/api/jobs/{job}");
    let cancel = server.request(Method::PATCH, &path);
    let answer = send(cancel.json(&json!({"status": "cancelled", "reason": "enough"}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        names_up_to(&mut stream, &job, "cancelled").await,
        ["cancelled"]
    );
    assert_eq!(
        server
            .post(&format!("{path}/retry"), json!({}))
            .await
            .status,
        200
    );
    assert_eq!(names_up_to(&mut stream, &job, "retried").await, ["retried"]);
    let answer = send(server.request(Method::DELETE, &format!("{path}?reason=done"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(names_up_to(&mut stream, &job, "deleted").await, ["deleted"]);

    let own = server
        .anonymous(Method::POST, "/api/jobs")
        .bearer_auth(OTHER_KEY);
    let own = send(own.json(&json!({"jobType": "noop"}))).await;
    let own = own.body["job"]["id"].as_str().unwrap();
    let first = other.until("accepted").await;
    assert_eq!(
        first.job(),
        own,
        "nothing of the other workspace was told before"
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_is_followed_to_its_end_with_its_log() {
    let (sandbox, server) = server().await;
    let job = add(
        &server,
        json!({"jobType": "sleep", "payload": {"ms": 1500}}),
    )
    .await;
    let noise = add(&server, json!({"jobType": "noop"})).await;
    let mut stream = EventStream::open(events_of(&server, &job)).await;
    let snapshot = stream.next().await;
    assert_eq!(snapshot.data["reason"], "began");
    assert_eq!(snapshot.data["job"]["status"], "pending");
    let pool = sandbox.pool().await;
    let log = "INSERT INTO job_logs (job_id, log_level, message) VALUES ($1::uuid, 'info', $2)";
    let say = async |line: &str| {
        let said = sqlx::query(log).bind(&job).bind(line);
        said.execute(&pool).await.unwrap();
    };
    say("one").await;
    let working = Working::start(&server);
    assert_eq!(stream.next_of(&job).await.name, "started");
    say("two").await;
    let mut rest = stream.rest().await;
    assert!(rest.iter().all(|event| event.job() != noise));
    let end = rest.pop().unwrap();
    assert_eq!(
        (end.name.as_str(), &end.data["reason"]),
        ("end", &json!("job_over"))
    );
    let of_job: Vec<&Event> = rest.iter().filter(|event| event.job() == job).collect();
    let (completed, progress) = of_job.split_last().unwrap();
    assert_eq!(
        (completed.name.as_str(), &completed.data["job"]["status"]),
        ("completed", &json!("completed"))
    );
    assert!(
        (2..=7).contains(&progress.len()),
        "at most four a second: {progress:?}"
    );
    assert!(
        progress.iter().all(|event| event.name == "progress"),
        "{progress:?}"
    );
    let done = |event: &&Event| event.data["job"]["progress"]["processed"].as_i64().unwrap();
    assert!(progress.is_sorted_by_key(done));
    let logs: Vec<&str> = rest
        .iter()
        .filter(|event| event.name == "log")
        .map(|event| event.data["log"]["message"].as_str().unwrap())
        .collect();
    assert_eq!(
        logs.iter().filter(|line| **line == "two").count(),
        1,
        "{logs:?}"
    );
    assert!(
        logs.iter().filter(|line| **line == "one").count() <= 1,
        "{logs:?}"
    );

    // An EventSource comes back, and is told not to.
    let again = events_of(&server, &job).header("last-event-id", &end.id);
    assert_eq!(send(again).await.status, 204);
    let mut late = follow(events_of(&server, &job)).await;
    let rest = late.rest().await;
    assert_eq!(rest.last().unwrap().name, "end", "{rest:?}");
    assert!(
        rest.iter().all(|event| event.name != "completed"),
        "it is in the snapshot"
    );
    // Run again, there is something to wait for.
    let retried = server
        .post(&format!("/api/jobs/{job}/retry"), json!({}))
        .await;
    assert_eq!(retried.status, 200);
    let mut again =
        EventStream::open(events_of(&server, &job).header("last-event-id", &end.id)).await;
    assert_eq!(again.next().await.data["reason"], "too_late");
    let names = names_up_to(&mut again, &job, "completed").await;
    assert!(names.len() > 1, "{names:?}");
    working.end().await;

    let foreign = server.anonymous(Method::GET, &format!("/api/jobs/{job}/events"));
    let answer = send(foreign.bearer_auth(OTHER_KEY)).await;
    let unknown = send(events_of(&server, &Uuid::now_v7().to_string())).await;
    answer.problem(404, "job_not_found");
    unknown.problem(404, "job_not_found");
    send(events_of(&server, "x"))
        .await
        .problem(400, "invalid_id");
    pool.close().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_four_times_a_second_at_most_and_the_last_of_it_always() {
    let (sandbox, server) = server().await;
    let job = enqueue(&server).await;
    let mut stream = follow(events(&server)).await;
    let pool = sandbox.pool().await;
    let client = redis::Client::open(sandbox.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let events = format!("{}:default:events", sandbox.prefix);
    let begin = "UPDATE jobs SET status = 'processing', attempt = 1, started_at = now(),
        worker_id = 'test', progress = $2 WHERE id = $1::uuid";
    let began = Instant::now();
    for n in 1..=60 {
        let set = sqlx::query(begin).bind(&job).bind(json!({"processed": n}));
        set.execute(&pool).await.unwrap();
        let mut cmd = redis::cmd("XADD");
        cmd.arg(&events)
            .arg("*")
            .arg(&["event", "progress", "jobId", &job, "data", "1"]);
        let _: String = cmd.query_async(&mut redis).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut told = 0;
    loop {
        let event = stream.next_of(&job).await;
        told += usize::from(event.name == "progress");
        if event.data["job"]["progress"]["processed"] == 60 {
            break;
        }
    }
    let windows = began.elapsed().as_millis() as usize / 250 + 2;
    assert!(told <= windows, "{told} of {windows}");
    pool.close().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_in_time_misses_nothing_and_who_does_not_gets_a_snapshot() {
    let (_sandbox, server) = server().await;
    let mut stream = follow(events(&server)).await;
    let first = enqueue(&server).await;
    let seen = stream.next_of(&first).await;
    drop(stream);
    let mut missed = Vec::new();
    for _ in 0..10 {
        missed.push(enqueue(&server).await);
    }
    let by_header = events(&server).header("last-event-id", &seen.id);
    let by_query = format!("/api/events?lastEventId={}", seen.id);
    for request in [by_header, server.request(Method::GET, &by_query)] {
        let mut stream = EventStream::open(request).await;
        let mut told = Vec::new();
        while told.len() < missed.len() {
            let event = stream.next().await;
            assert_ne!(event.name, "snapshot", "nothing was lost");
            if event.name == "accepted" {
                told.push(event.job().to_owned());
            }
        }
        assert_eq!(
            told.iter().collect::<HashSet<_>>(),
            missed.iter().collect::<HashSet<_>>()
        );
    }

    let foreign = format!("{}-3", "0".repeat(16));
    for id in [foreign.as_str(), "nonsense", "over-1"] {
        let mut stream = EventStream::open(events(&server).header("last-event-id", id)).await;
        let snapshot = stream.next().await;
        assert_eq!(
            (snapshot.name.as_str(), &snapshot.data["reason"]),
            ("snapshot", &json!("too_late"))
        );
        assert_eq!(snapshot.data["stats"]["queue_depth"], 11);
        let jobs = snapshot.data["jobs"].as_array().unwrap();
        assert_eq!((jobs.len(), &jobs[0]["id"]), (11, &json!(missed[9])));
        assert_ne!(snapshot.id, id, "it goes on from another place");
    }
    server
        .get("/api/events?after=1")
        .await
        .problem(400, "invalid_parameter");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_right_to_it() {
    let (_sandbox, server) = server().await;
    let make = async |wish: Value| {
        let answer = server.post("/api/api-keys", wish).await;
        let id = answer.body["api_key"]["id"].as_str().unwrap().to_owned();
        (answer.body["key"].as_str().unwrap().to_owned(), id)
    };
    let (key, id) = make(json!({"name": "revoked", "scopes": ["read"]})).await;
    let soon = bullwark::clock::now() + chrono::TimeDelta::seconds(2);
    let (short, _) = make(json!({"name": "short", "scopes": ["read"], "expiresAt": soon})).await;
    let (writer, _) = make(json!({"name": "writer", "scopes": ["write"]})).await;
    let stream = |key: &str| {
        server
            .anonymous(Method::GET, "/api/events")
            .bearer_auth(key)
    };
    send(stream(&writer)).await.problem(403, "forbidden");

    let mut lasting = follow(events(&server)).await;
    let (mut revoked, mut expired) = (follow(stream(&key)).await, follow(stream(&short)).await);
    let revoke = server.request(Method::DELETE, &format!("/api/api-keys/{id}"));
    assert_eq!(send(revoke).await.status / 100, 2);
    let began = Instant::now();
    for stream in [&mut revoked, &mut expired] {
        let end = stream.rest().await.pop().unwrap();
        assert_eq!(
            (end.name.as_str(), &end.data["reason"]),
            ("end", &json!("access_ended"))
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    let job = enqueue(&server).await;
    assert_eq!(lasting.next_of(&job).await.name, "accepted", "others go on");
    server.end().await;
}
