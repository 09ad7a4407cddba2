//! What each answer of a plain HTTP receiver makes of a job: the table of `docs/forward.md`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use axum::routing::post;
use axum::{Json, Router};
use bullwark::worker::RESULT_MAX_BYTES;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::forwarder::Forwarder;
use crate::node::{NodeEvents, NodeQueue};
use crate::stage::Stage;

const QUEUE: &str = "answered";

/// Status, a header if any, body.
pub(crate) type Scripted = (u16, Option<(&'static str, &'static str)>, String);

/// What a receiver answers, and what it was sent.
#[derive(Default)]
pub(crate) struct Script {
    /// The answers that jobs get, by name; the last one again and again.
    pub(crate) answers: std::collections::HashMap<String, Vec<Scripted>>,
    /// When jobs came, by name.
    arrivals: Vec<(String, Instant)>,
}

pub(crate) type Shared = Arc<Mutex<Script>>;

/// When a job of this name was delivered, each time.
pub(crate) fn arrivals(script: &Shared, name: &str) -> Vec<Instant> {
    let script = script.lock().unwrap();
    let arrivals = script.arrivals.iter().filter(|(of, _)| of == name);
    arrivals.map(|(_, at)| *at).collect()
}

async fn receive(State(script): State<Shared>, Json(delivery): Json<Value>) -> Response<Body> {
    let name = delivery["job"]["name"].as_str().unwrap();
    let mut script = script.lock().unwrap();
    script.arrivals.push((name.to_owned(), Instant::now()));
    let answers = script.answers.get_mut(name).unwrap();
    let (status, header, body) = match answers.len() {
        1 => answers[0].clone(),
        _ => answers.remove(0),
    };
    let mut response = Response::builder().status(status);
    if let Some((name, value)) = header {
        response = response.header(name, value);
    }
    response.body(Body::from(body)).unwrap()
}

pub(crate) async fn serve(script: Shared) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let app = Router::new().route("/", post(receive)).with_state(script);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

fn error(name: &str, message: &str) -> String {
    json!({ "error": { "name": name, "message": message, "stack": "the stack" } }).to_string()
}

/// A job of two attempts: its name, the answers it gets, and what becomes of it.
struct Case {
    name: &'static str,
    answers: Vec<Scripted>,
    state: &'static str,
    /// The result of a completed job, the reason of a failed one.
    end: Value,
    attempts_made: u32,
}

fn cases() -> Vec<Case> {
    let case = |name, answers, state, end, attempts_made| Case {
        name,
        answers,
        state,
        end,
        attempts_made,
    };
    let good = |body: &str| vec![(200, None, body.to_owned())];
    let bad = |status, body: String| vec![(status, None, body)];
    let retried = |first: Scripted| vec![first, (200, None, r#"{"returnvalue":"2nd"}"#.into())];
    vec![
        case(
            "value",
            good(r#"{"returnvalue":{"a":1}}"#),
            "completed",
            json!({ "a": 1 }),
            1,
        ),
        case(
            "null",
            good(r#"{"returnvalue":null}"#),
            "completed",
            json!(null),
            1,
        ),
        case(
            "whole",
            good(r#"{"other":[1]}"#),
            "completed",
            json!({ "other": [1] }),
            1,
        ),
        case("list", good("[1,2]"), "completed", json!([1, 2]), 1),
        case(
            "empty",
            bad(204, String::new()),
            "completed",
            json!(null),
            1,
        ),
        case(
            "nonsense",
            good("<html>"),
            "failed",
            json!("answer is not JSON"),
            2,
        ),
        case(
            "error",
            bad(500, error("Error", "boom")),
            "failed",
            json!("boom"),
            2,
        ),
        case(
            "fatal",
            bad(500, error("UnrecoverableError", "no")),
            "failed",
            json!("no"),
            1,
        ),
        case(
            "plain",
            bad(503, "sorry".into()),
            "failed",
            json!("HTTP 503"),
            2,
        ),
        case(
            "gone",
            bad(410, String::new()),
            "failed",
            json!("HTTP 410"),
            1,
        ),
        case(
            "never",
            bad(
                500,
                r#"{"error":{"name":"E","message":"m","retryInMs":-1}}"#.into(),
            ),
            "failed",
            json!("m"),
            1,
        ),
        case(
            "again",
            retried((500, None, error("E", "once"))),
            "completed",
            json!("2nd"),
            2,
        ),
        case(
            "soon",
            retried((
                500,
                None,
                r#"{"error":{"name":"E","message":"m","retryInMs":50}}"#.into(),
            )),
            "completed",
            json!("2nd"),
            2,
        ),
        case(
            "large",
            good(&format!(
                r#"{{"returnvalue":"{}"}}"#,
                "x".repeat(RESULT_MAX_BYTES - 1)
            )),
            "failed",
            json!("result has 1048577 bytes, at most 1048576 are allowed"),
            1,
        ),
        case(
            "busy",
            retried((429, Some(("retry-after", "1")), String::new())),
            "completed",
            json!("2nd"),
            1,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_of_a_receiver_has_its_effect() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let events = NodeEvents::open(&stage, 6, QUEUE).await;
    let script = Shared::default();
    for case in cases() {
        let mut script = script.lock().unwrap();
        script.answers.insert(case.name.to_owned(), case.answers);
    }
    let url = serve(script).await;
    let forwarder = Forwarder::start(&stage, QUEUE, &url, &["--concurrency", "4"]).await;
    for case in cases() {
        let opts = json!({ "jobId": case.name, "attempts": 2 });
        queue
            .call("add", json!([case.name, { "n": 1 }, opts]))
            .await;
    }
    for case in cases() {
        let name = case.name;
        events.until(case.state, name).await;
        let job = queue.get(name).await;
        let end = match case.state {
            "completed" => &job["returnvalue"],
            _ => &job["failedReason"],
        };
        assert_eq!(*end, case.end, "{name}: {job}");
        assert_eq!(job["attemptsMade"], case.attempts_made, "{name}: {job}");
        let recorded = if case.state == "failed" {
            "dead_letter"
        } else {
            "completed"
        };
        stage.until_recorded(QUEUE, name, recorded).await;
    }
    let stacks = queue.get("error").await["stacktrace"].take();
    assert_eq!(stacks, json!(["the stack", "the stack"]));
    forwarder.stop().await;
}

/// Nobody says for how long: neither the answer nor a limiter. The job spends no attempt, so
/// without a pause it would be delivered again and again, as fast as it can be claimed.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_names_no_time_is_no_tight_loop() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let script = Shared::default();
    let answers = vec![
        (429, None, String::new()),
        (429, Some(("retry-after", "0")), String::new()),
        (200, None, String::new()),
    ];
    script
        .lock()
        .unwrap()
        .answers
        .insert("hot".to_owned(), answers);
    let url = serve(script.clone()).await;
    let forwarder = Forwarder::start(&stage, QUEUE, &url, &["--concurrency", "3"]).await;
    queue
        .call("add", json!(["hot", {}, { "jobId": "hot" }]))
        .await;
    queue.until_state("hot", "completed").await;
    let arrivals = arrivals(&script, "hot");
    assert_eq!(arrivals.len(), 3);
    for pair in arrivals.windows(2) {
        let apart = pair[1] - pair[0];
        assert!(apart >= Duration::from_millis(900), "{apart:?}");
    }
    assert_eq!(queue.get("hot").await["attemptsMade"], 1);
    forwarder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_costs_attempts_only() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    // A port that nobody listens on: it was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{free}/");
    let forwarder = Forwarder::start(&stage, QUEUE, &url, &[]).await;
    let opts = json!({ "jobId": "away", "attempts": 2 });
    queue.call("add", json!(["x", {}, opts])).await;
    queue.until_state("away", "failed").await;
    assert_eq!(queue.get("away").await["attemptsMade"], 2);
    forwarder.stop().await;
}
