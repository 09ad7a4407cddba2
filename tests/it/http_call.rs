//! `http_call`, against a small server: what is sent, what becomes of the job, and where
//! credentials go.

use serde_json::{Value, json};

use crate::webhooks::receiver::Receiver;
use crate::webhooks::rig::Rig;

const SECRET: &str = "whsec_bWFkZSBmb3IgdGVzdHMgb25seQ==";

async fn connection(rig: &Rig, base_url: &str) -> String {
    let wish = json!({
        "provider": "http", "name": "receiver", "baseUrl": base_url,
        "credentials": { "authorization": "Bearer hush", "signing_secret": SECRET },
    });
    let made = rig.server.post("/api/connections", wish).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.body["connection"]["id"].as_str().unwrap().to_owned()
}

fn job(payload: Value) -> Value {
    json!({ "jobType": "http_call", "payload": payload })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_is_delivered_signed_and_the_answer_is_the_result() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let working = rig.work();
    let id = connection(&rig, &receiver.url("/v1")).await;
    let payload = json!({
        "url": "/things?x=1", "method": "PUT", "body": { "a": [1, "é"] },
        "headers": { "X-Trace": "7" }, "connection_id": id,
    });
    let called = rig.enqueue(job(payload)).await;
    let done = rig.until(&called, "completed").await;
    assert_eq!(done["result"], "thanks");
    let got = &receiver.got()[0];
    assert_eq!(got.path, "/v1/things?x=1");
    assert_eq!(got.body(), json!({ "a": [1, "é"] }));
    for (name, value) in [
        ("authorization", "Bearer hush"),
        ("content-type", "application/json"),
        ("x-trace", "7"),
        ("idempotency-key", called.as_str()),
        ("webhook-id", called.as_str()),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    assert_eq!(got.signed_by(SECRET), 1);
    let told = rig.server.get(&format!("/api/jobs/{called}")).await.body;
    assert!(!told.to_string().contains("hush"), "{told}");
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_means_what_it_says_for_the_job() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let working = rig.work();
    for (answer, headers, status, words) in [
        ("410 Gone", "", "dead_letter", "answered 410"),
        ("404 Not Found", "", "dead_letter", "answered 404: words"),
        ("401 Unauthorized", "", "dead_letter", "answered 401"),
        ("302 Found", "location: /x\r\n", "dead_letter", "redirects"),
        ("503 Busy", "", "failed", "answered 503"),
        (
            "425 Too Early",
            "retry-after: 77\r\n",
            "failed",
            "answered 425",
        ),
        ("408 Timeout", "", "failed", "answered 408"),
    ] {
        receiver.answer_with(&[(answer, headers)]);
        let called = rig.enqueue(job(json!({ "url": receiver.url("/") }))).await;
        let ended = rig.until(&called, status).await;
        let why = ended["error_message"].as_str().unwrap();
        assert!(why.contains(words), "{answer}: {why}");
        let spent = i32::from(status == "failed");
        assert_eq!(ended["attempts"], spent, "{answer}");
        if headers.starts_with("retry") {
            let time = |name: &str| -> chrono::DateTime<chrono::Utc> {
                ended[name].as_str().unwrap().parse().unwrap()
            };
            let wait = (time("next_retry_at") - time("failed_at")).num_seconds();
            assert!((76..=78).contains(&wait), "{wait}");
        }
    }
    assert_eq!(receiver.got().len(), 7, "each was called once");
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_credentials_are_refused_rests_and_its_jobs_wait() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let working = rig.work();
    let id = connection(&rig, &receiver.url("/")).await;
    receiver.answer_with(&[("401 Unauthorized", "")]);
    let call = || job(json!({ "url": "/", "connection_id": id }));
    let first = rig.enqueue(call()).await;
    let path = format!("/api/connections/{id}");
    let paused = crate::stage::eventually("the connection rests", async || {
        let connection = rig.server.get(&path).await.body["connection"].clone();
        (connection["is_active"] == false).then_some(connection)
    })
    .await;
    let why = paused["paused_reason"].as_str().unwrap();
    assert!(why.contains("refuses its credentials"), "{why}");
    let second = rig.enqueue(call()).await;
    for waiting in [&first, &second] {
        let job = crate::stage::eventually("it waits", async || {
            let job = rig.until(waiting, "pending").await;
            job["scheduled_for"].is_string().then_some(job)
        })
        .await;
        assert_eq!(job["attempts"], 0, "no attempt is spent: {job}");
    }
    assert_eq!(receiver.got().len(), 1, "nobody asks on and on");

    let renewed = json!({ "credentials": { "authorization": "Bearer other" } });
    assert_eq!(
        rig.patch(&path, renewed).await.body["connection"]["is_active"],
        true
    );
    for waiting in [&first, &second] {
        let promote = format!("/api/jobs/{waiting}/promote");
        rig.server.post(&promote, Value::Null).await;
        rig.until(waiting, "completed").await;
    }
    let got = receiver.got();
    assert_eq!(got.last().unwrap().header("authorization"), "Bearer other");
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_called_is_a_dead_letter_and_is_not_called() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let id = connection(&rig, &receiver.url("/v1")).await;
    let other = json!({
        "provider": "apollo", "name": "apollo", "credentials": { "api_key": "hush" },
    });
    let other = rig.server.post("/api/connections", other).await.body;
    let working = rig.work();
    let outside = receiver.url("/v2");
    for (payload, words) in [
        (json!({ "url": outside, "connection_id": id }), "outside of"),
        (json!({ "url": "/x" }), "only a call with a connection"),
        (
            json!({ "url": "/x", "connection_id": uuid::Uuid::now_v7() }),
            "no connection",
        ),
        (
            json!({ "url": "/x", "connection_id": other["connection"]["id"] }),
            "is one to apollo",
        ),
        (
            json!({ "url": outside, "headers": { "Authorization": "hush" } }),
            "belong into a connection",
        ),
        (
            json!({ "url": outside, "method": "GET", "body": 1 }),
            "no `body`",
        ),
        (json!({ "url": "ftp://example.com/" }), "https://"),
    ] {
        let refused = rig.enqueue(job(payload.clone())).await;
        let dead = rig.until(&refused, "dead_letter").await;
        let why = dead["error_message"].as_str().unwrap();
        assert!(why.contains(words), "{payload}: {why}");
        assert!(!why.contains("hush"), "{why}");
    }
    assert!(receiver.got().is_empty());
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_an_address_inside_of_this_network_is_refused() {
    let rig = Rig::guarded().await;
    let receiver = Receiver::start().await;
    let working = rig.work();
    let inside = receiver.url("/").replace("http://", "https://");
    let refused = rig.enqueue(job(json!({ "url": inside }))).await;
    let dead = rig.until(&refused, "dead_letter").await;
    let why = dead["error_message"].as_str().unwrap();
    assert!(why.contains("inside of this network"), "{why}");
    assert!(receiver.got().is_empty());
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_after_the_answer_calls_again_under_the_same_id() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let mut call = job(json!({ "url": receiver.url("/"), "body": {} }));
    call["queue"] = json!("webhooks");
    let called = rig.enqueue(call).await;
    rig.work_until_it_dies("after_handler:abort").await;
    assert_eq!(receiver.got().len(), 1);
    let (rescue, working) = (rig.rescue(), rig.work());
    rig.until(&called, "completed").await;
    let got = receiver.got();
    assert_eq!(got.len(), 2);
    let keys: Vec<&str> = got
        .iter()
        .map(|got| got.header("idempotency-key"))
        .collect();
    assert_eq!(keys, [called.as_str(); 2]);
    rescue.stop(std::time::Duration::from_secs(10)).await;
    working.hurry().await;
    rig.end().await;
}

/// Waits until a job was put off, which spends no attempt; for how many seconds from now.
async fn put_off(rig: &Rig, job: &str) -> i64 {
    let job = crate::stage::eventually("it waits", async || {
        let job = rig.until(job, "pending").await;
        job["scheduled_for"].is_string().then_some(job)
    })
    .await;
    assert_eq!(job["attempts"], 0, "{job}");
    let at = job["scheduled_for"].as_str().unwrap();
    let at: chrono::DateTime<chrono::Utc> = at.parse().unwrap();
    (at - bullwark::clock::now()).num_seconds()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_refuses_for_its_quota_is_called_by_nobody_until_it_may_be() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let other = Receiver::start().await;
    let working = rig.work();
    receiver.answer_with(&[("429 Too Many", "retry-after: 77\r\n")]);
    let call = || job(json!({ "url": receiver.url("/") }));
    let first = rig.enqueue(call()).await;
    let wait = put_off(&rig, &first).await;
    assert!((70..=79).contains(&wait), "{wait}");
    let second = rig.enqueue(call()).await;
    let wait = put_off(&rig, &second).await;
    assert!((70..=79).contains(&wait), "{wait}");
    assert_eq!(receiver.got().len(), 1, "the second was not sent");
    let free = rig.enqueue(job(json!({ "url": other.url("/") }))).await;
    rig.until(&free, "completed").await;
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_above_what_an_admin_allows_a_host() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let url = receiver.url("/");
    let service = url.trim_start_matches("http://").trim_end_matches('/');
    let path = format!("/api/quotas/{}", service.replace(':', "-"));
    let limits = json!({ "windows": [{ "kind": "fixed", "max": 2, "perMs": 3_600_000 }] });
    let request = rig.server.request(reqwest::Method::PUT, &path);
    let set = crate::support::server::send(request.json(&limits)).await;
    assert_eq!(set.status, 200, "{set:?}");
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(rig.enqueue(job(json!({ "url": url }))).await);
    }
    let working = rig.work();
    let left = crate::stage::eventually("all were looked at", async || {
        let mut open = Vec::new();
        for id in &jobs {
            let job = rig.server.get(&format!("/api/jobs/{id}")).await.body["job"].clone();
            match (job["status"].as_str().unwrap(), &job["scheduled_for"]) {
                ("completed", _) => {}
                ("pending", Value::String(_)) => open.push(id.clone()),
                _ => return None,
            }
        }
        Some(open)
    })
    .await;
    assert_eq!((left.len(), receiver.got().len()), (3, 2));
    for id in &left {
        assert!(put_off(&rig, id).await > 3_000);
    }
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_fails_again_and_again_is_left_alone() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let working = rig.work();
    receiver.answer_with(&[("503 Busy", ""); 100]);
    let mut called = 0;
    // A few failures open the breaker; then a job waits without a call.
    let waiting = loop {
        let id = rig.enqueue(job(json!({ "url": receiver.url("/") }))).await;
        let path = format!("/api/jobs/{id}");
        let job = crate::stage::eventually("it was tried or put off", async || {
            let job = rig.server.get(&path).await.body["job"].clone();
            let is_off = job["status"] == "pending" && job["scheduled_for"].is_string();
            (is_off || job["status"] == "failed").then_some(job)
        })
        .await;
        if job["status"] == "pending" {
            break job;
        }
        called += 1;
        assert!(called < 100, "the breaker never opens");
    };
    assert_eq!(waiting["attempts"], 0);
    assert_eq!(receiver.got().len(), called);
    working.hurry().await;
    rig.end().await;
}
