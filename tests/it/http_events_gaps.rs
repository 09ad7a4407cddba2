//! Live updates when there is too much of them, when nobody reads, while a store is away, and when
//! the server stops.

use std::time::{Duration, Instant};

use bullwark::http::HttpOptions;
use bullwark::stores::{Kill, Stores};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::http::{enqueue, server, server_with};
use crate::http_events::{Working, add, events, events_of, follow, names_up_to};
use crate::stage::eventually;
use crate::support::server::{KEY, OTHER_KEY, Server, send};
use crate::support::sse::{EventStream, Parser};
use crate::support::{connect, migrate, own_stores};

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_summed_up_and_counted() {
    let (_sandbox, server) = server().await;
    let mut stream = follow(events(&server)).await;
    let jobs = vec![json!({"jobType": "noop", "queue": "flood"}); 3000];
    let answer = server.post("/api/jobs/bulk", json!({ "jobs": jobs })).await;
    assert_eq!(answer.body["accepted"], 3000);
    let (mut told, mut summed) = (0, 0);
    let stats = loop {
        let event = stream.next().await;
        match event.name.as_str() {
            "accepted" => told += 1,
            "changed" => summed += event.data["jobs"].as_u64().unwrap(),
            "stats" if event.data["queue_depth"] == 3000 => break event,
            _ => {}
        }
    };
    assert!(summed > 0 && told < 1500, "{told} told, {summed} summed up");
    assert_eq!(
        stats.data["queues"]["flood"],
        json!({"depth": 3000, "processing": 0})
    );
    assert_eq!(
        stats.data["by_status"],
        json!({"pending": 3000, "dead_letter": 0})
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_holds_up_nobody_and_begins_anew() {
    let (sandbox, server) = server().await;
    // A client with next to no room for what it is sent.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket
        .connect(server.address.parse().unwrap())
        .await
        .unwrap();
    let request = format!(
        "GET /api/events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {KEY}\r\n\r\n",
        server.address
    );
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut quick = follow(events(&server)).await;

    // Jobs whose events are large.
    let pool = sandbox.pool().await;
    let made = "INSERT INTO jobs (workspace_id, job_type, job_queue, payload, progress)
        SELECT workspace_id, 'noop', 'default', '{}',
          jsonb_build_object('message', repeat('x', 4000))
        FROM jobs, generate_series(1, 30) WHERE id = $1::uuid";
    let first = enqueue(&server).await;
    let mut told = 0;
    // More than the system holds back for a connection, and than a ring has.
    while told < 6_000_000 {
        sqlx::query(made).bind(&first).execute(&pool).await.unwrap();
        let mut jobs = 0;
        while jobs < 30 {
            let event = quick.next().await;
            match event.name.as_str() {
                "accepted" => jobs += 1,
                "changed" => jobs += event.data["jobs"].as_u64().unwrap(),
                _ => continue,
            }
            told += event.data.to_string().len();
        }
    }
    let mut parser = Chunked::default();
    let snapshot = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let mut bytes = vec![0; 64 * 1024];
            let count = slow.read(&mut bytes).await.unwrap();
            assert!(count > 0, "it was not cut off");
            parser.feed(&bytes[..count]);
            while let Some(event) = parser.events.take() {
                if event.data["reason"] == "gap" {
                    return event;
                }
            }
        }
    })
    .await
    .expect("a snapshot");
    assert_eq!(snapshot.name, "snapshot");
    assert_eq!(snapshot.data["jobs"].as_array().unwrap().len(), 50);
    pool.close().await;
    server.end().await;
}

/// Takes the chunks of an HTTP answer apart.
#[derive(Default)]
struct Chunked {
    bytes: Vec<u8>,
    has_begun: bool,
    events: Parser,
}

impl Chunked {
    fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let place = |bytes: &[u8], end: &[u8]| bytes.windows(end.len()).position(|w| w == end);
        if !self.has_begun {
            let Some(head) = place(&self.bytes, b"\r\n\r\n") else {
                return;
            };
            assert!(self.bytes.starts_with(b"HTTP/1.1 200"));
            self.bytes.drain(..head + 4);
            self.has_begun = true;
        }
        while let Some(line) = place(&self.bytes, b"\r\n") {
            let size = std::str::from_utf8(&self.bytes[..line]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            if self.bytes.len() < line + 2 + size + 2 {
                return;
            }
            self.events.feed(&self.bytes[line + 2..line + 2 + size]);
            self.bytes.drain(..line + 2 + size + 2);
        }
    }
}

async fn on_own_stores() -> (Stores, Server) {
    let stores = own_stores().await;
    let mut connection = connect(&stores, "bullwark").await;
    migrate(&mut connection).await;
    let server = Server::start(&stores.database_url, &stores.redis_url, "live").await;
    (stores, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_stay_while_redis_is_away_and_begin_anew_when_it_is_back() {
    let (mut stores, server) = on_own_stores().await;
    let job = enqueue(&server).await;
    let mut stream = follow(events(&server)).await;
    let mut one = follow(events_of(&server, &job)).await;
    stores.kill_redis(Kill::Immediately).await;

    // What the record knows is told all the same.
    let away = add(&server, json!({"jobType": "noop"})).await;
    assert_eq!(stream.next_of(&away).await.name, "accepted");
    let path = format!("/api/jobs/{job}");
    let cancel = server
        .request(Method::PATCH, &path)
        .json(&json!({"status": "cancelled"}));
    assert_eq!(send(cancel).await.status, 200);
    names_up_to(&mut stream, &job, "cancelled").await;
    assert_eq!(one.next_of(&job).await.name, "cancelled");
    assert_eq!(one.rest().await.last().unwrap().name, "end");

    stores.start_redis().await.unwrap();
    let snapshot = stream.until("snapshot").await;
    assert_eq!(
        (&snapshot.data["reason"], &snapshot.data["reset"]),
        (&json!("gap"), &json!(true))
    );
    assert_eq!(snapshot.data["stats"]["queue_depth"], 1);
    let next = add(&server, json!({"jobType": "noop"})).await;
    assert_eq!(stream.next_of(&next).await.name, "accepted");
    server.end().await;
    stores.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_stay_while_the_record_is_away() {
    let (mut stores, server) = on_own_stores().await;
    let job = enqueue(&server).await;
    let mut stream = follow(events(&server)).await;
    let mut one = follow(events_of(&server, &job)).await;
    stores.kill_postgres(Kill::Immediately).await;
    send(events_of(&server, &job))
        .await
        .problem(503, "record_unavailable");
    // Whoever comes now waits for its snapshot.
    let mut waiting = EventStream::open(events(&server)).await;
    stores.start_postgres().await.unwrap();
    assert_eq!(waiting.next().await.name, "snapshot");
    let working = Working::start(&server);
    for stream in [&mut stream, &mut one, &mut waiting] {
        let names = names_up_to(stream, &job, "completed").await;
        assert_eq!(names.last().unwrap(), "completed");
    }
    working.end().await;
    server.end().await;
    stores.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_counted_and_a_place_is_free_when_its_client_leaves() {
    let (_sandbox, server) = server_with(HttpOptions {
        streams_max: 3,
        workspace_streams_max: 2,
        heartbeat_every: Duration::from_millis(100),
        ..HttpOptions::default()
    })
    .await;
    let job = enqueue(&server).await;
    let first = follow(events(&server)).await;
    let mut second = follow(events_of(&server, &job)).await;
    let answer = send(events(&server)).await;
    answer.problem(429, "too_many_streams");
    assert_eq!(answer.header("retry-after"), "5");
    let other = || {
        server
            .anonymous(Method::GET, "/api/events")
            .bearer_auth(OTHER_KEY)
    };
    let third = follow(other()).await;
    let answer = send(other()).await;
    answer.problem(503, "overloaded");
    assert_eq!(answer.header("retry-after"), "2");

    drop((first, third));
    eventually("a place is free", async || {
        let response = events(&server).send().await.unwrap();
        (response.status() == 200).then_some(())
    })
    .await;
    while second
        .parser()
        .comments
        .iter()
        .filter(|line| *line == "heartbeat")
        .count()
        < 3
    {
        second.read_on().await.unwrap();
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_at_once_when_the_server_stops() {
    let (_sandbox, server) = server().await;
    let job = enqueue(&server).await;
    let (mut one, mut all) = (
        follow(events_of(&server, &job)).await,
        follow(events(&server)).await,
    );
    let began = Instant::now();
    server.stop.cancel();
    for stream in [&mut one, &mut all] {
        let end = stream.rest().await.pop().unwrap();
        assert_eq!(
            (end.name.as_str(), &end.data["reason"]),
            ("end", &json!("stopping"))
        );
    }
    server.end().await;
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
}
