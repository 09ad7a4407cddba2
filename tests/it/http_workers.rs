//! Who works, over HTTP, and jobs that wait because nobody does.

#![expect(clippy::disallowed_methods, reason = "tests wait for what they spawn")]

use bullwark::app::worker_id;
use bullwark::record::roster::{self, Announcement};
use bullwark::worker::{Steering, WorkerOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::http::server;
use crate::support::server::Server;
use crate::worker::rig::eventually;

async fn enqueue(server: &Server, queue: &str) -> String {
    let body = json!({ "jobType": "noop", "queue": queue });
    let answer = server.post("/api/jobs", body).await;
    answer.body["job"]["id"].as_str().unwrap().to_owned()
}

/// Why a job waits, once it is in Redis.
async fn waits_for(server: &Server, id: &str) -> Vec<Value> {
    eventually("the job in Redis", async || {
        let shown = server.get(&format!("/api/jobs/{id}")).await.body;
        let is_there = shown["stores"]["redis"]["status"] == "waiting";
        is_there.then(|| shown["waits_for"].as_array().unwrap().clone())
    })
    .await
}

fn no_worker(of_queue: u64) -> Value {
    json!({ "reason": "no_worker", "of_queue": of_queue })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_shown_while_it_works_and_a_job_tells_that_none_does() {
    let (_sandbox, server) = server().await;
    let id = enqueue(&server, "mails").await;
    let waits = waits_for(&server, &id).await;
    assert_eq!(waits[0], no_worker(0));
    assert_eq!(waits[1]["reason"], "in_line");

    let steering = Steering::default();
    steering.pause(true).await;
    let mut options = WorkerOptions::new(worker_id());
    options.queues = vec!["mails".parse().unwrap(), "calls".parse().unwrap()];
    options.slots = 3;
    options.steering = steering.clone();
    let (name, stop) = (options.worker_id.clone(), CancellationToken::new());
    let (app, stopping) = (server.app.clone(), stop.clone());
    let hurry = CancellationToken::new();
    let working = tokio::spawn(async move { app.work(options, stopping, hurry).await });
    let present = async || server.get("/api/workers").await.body["present"].clone();
    let shown = eventually("the worker", async || {
        let shown = present().await;
        (shown != json!([])).then_some(shown)
    })
    .await;
    assert_eq!(shown[0]["id"], name);
    assert_eq!(shown[0]["queues"], json!(["mails", "calls"]));
    assert_eq!(
        (&shown[0]["slots"], &shown[0]["is_paused"]),
        (&json!(3), &json!(true))
    );
    assert!(
        shown[0]["job_types"]
            .as_array()
            .unwrap()
            .contains(&json!("noop"))
    );
    assert_eq!(
        waits_for(&server, &id).await[0],
        no_worker(1),
        "it is paused"
    );

    steering.resume();
    eventually("the end of the job", async || {
        let shown = server.get(&format!("/api/jobs/{id}")).await.body;
        (shown["job"]["status"] == "completed").then_some(())
    })
    .await;
    stop.cancel();
    working.await.unwrap().unwrap();
    assert_eq!(present().await, json!([]), "it has ended");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_the_type_does_not_count_and_one_of_a_client_does() {
    let (sandbox, server) = server().await;
    let id = enqueue(&server, "mails").await;
    let mut worker = Announcement {
        worker_id: "other".to_owned(),
        prefix: sandbox.prefix.clone(),
        queues: vec!["calls".to_owned(), "mails".to_owned()],
        job_types: Some(vec!["enrich_account".to_owned()]),
        slots: 1,
        is_paused: false,
        version: "0".to_owned(),
    };
    let record = &server.app.record;
    roster::announce(record, &worker).await.unwrap();
    assert_eq!(waits_for(&server, &id).await[0], no_worker(1));

    // As BullMQ names the connection of a worker of the queue `mails`.
    let client = redis::Client::open(sandbox.redis_url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut call = redis::cmd("CLIENT");
    call.arg("SETNAME")
        .arg(format!("{}:bWFpbHM=", sandbox.prefix));
    call.exec_async(&mut connection).await.unwrap();
    let waits = waits_for(&server, &id).await;
    assert_eq!((waits.len(), &waits[0]["reason"]), (1, &json!("in_line")));
    drop(connection);

    for job_types in [Some(vec!["noop".to_owned()]), None] {
        worker.worker_id = format!("{job_types:?}");
        worker.job_types = job_types;
        roster::announce(record, &worker).await.unwrap();
        let waits = waits_for(&server, &id).await;
        assert_eq!((waits.len(), &waits[0]["reason"]), (1, &json!("in_line")));
        roster::leave(record, &worker.worker_id).await.unwrap();
    }

    let pool = sandbox.pool().await;
    let silent = "UPDATE bullwark.workers SET seen_at = now() - interval '61 seconds'";
    sqlx::query(silent).execute(&pool).await.unwrap();
    pool.close().await;
    eventually("the end of the connection", async || {
        let waits = waits_for(&server, &id).await;
        (waits[0] == no_worker(0)).then_some(())
    })
    .await;
    assert_eq!(server.get("/api/workers").await.body["present"], json!([]));
    server.end().await;
}
