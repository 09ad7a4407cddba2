//! Against `BullMQ`'s own Node client. Needs a directory where `bullmq` and `ioredis` are installed:
//! `BULLMQ_DIR=… cargo test --test broker -- --ignored peer`.

use std::process::Stdio;
use std::time::Duration;

use bullwark::broker::{
    Added, Broker, BrokerOptions, ClaimedJob, Counts, Fail, Finish, Keep, NewJob, Retry, Settled,
};
use bullwark::job::QueueName;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::{claim_options, job, server};

struct Peer {
    lines: Lines<BufReader<ChildStdout>>,
    seen: Vec<Value>,
    _process: Child,
}

impl Peer {
    fn start(mode: &str, prefix: &str, queue: &QueueName) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broker/peer.js");
        let mut process = Command::new("node")
            .args([
                script,
                mode,
                &server().port.to_string(),
                prefix,
                queue.as_str(),
            ])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self {
            lines,
            seen: Vec::new(),
            _process: process,
        }
    }

    /// Reads until a line satisfies, at most half a minute.
    async fn until(&mut self, what: &str, satisfies: impl Fn(&Value) -> bool) -> Value {
        let read = async {
            loop {
                let line = self
                    .lines
                    .next_line()
                    .await
                    .unwrap()
                    .expect("the peer ended");
                let Ok(value) = serde_json::from_str::<Value>(&line) else {
                    continue;
                };
                assert!(value.get("error").is_none(), "the peer failed: {value}");
                self.seen.push(value.clone());
                if satisfies(&value) {
                    return value;
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(30), read).await;
        found.unwrap_or_else(|_| panic!("no {what} in {:#?}", self.seen))
    }

    /// Names of the events of a job, in order.
    fn events_of(&self, id: &str) -> Vec<&str> {
        let of_job = |value: &&Value| value["jobId"] == id;
        self.seen
            .iter()
            .filter(of_job)
            .filter_map(|value| value["event"].as_str())
            .collect()
    }
}

async fn broker(prefix: &str) -> Broker {
    let options = BrokerOptions {
        url: server().url(),
        prefix: prefix.into(),
        ..Default::default()
    };
    Broker::connect(options).await.unwrap()
}

#[tokio::test]
#[ignore = "needs node and BULLMQ_DIR"]
async fn a_node_worker_runs_what_we_add_and_its_listeners_see_every_step() {
    let (broker, queue): (_, QueueName) = (broker("peer1").await, "work".parse().unwrap());
    let mut peer = Peer::start("work", "peer1", &queue);
    peer.until("ready", |value| value["ready"] == true).await;
    let now = broker.server_time_ms().await.unwrap();
    let named = |id: &str, name: &str| NewJob {
        name: name.into(),
        data: r#"{"a":[1,"x/y"]}"#.into(),
        opts: r#"{"attempts":2,"priority":3}"#.into(),
        timestamp_ms: now,
        ..job(id)
    };
    let jobs = [
        named("j-plain", "plain"),
        NewJob {
            priority: 3,
            ..named("j-prio", "plain")
        },
        NewJob {
            due_ms: Some(now + 400),
            ..named("j-later", "plain")
        },
        NewJob {
            priority: 3,
            ..named("j-flaky", "flaky")
        },
        named("j-doomed", "doomed"),
    ];
    assert_eq!(
        broker.add(&queue, &jobs).await.unwrap(),
        [Added::Created; 5]
    );
    for _ in 0..5 {
        peer.until("end", |value| {
            value["event"] == "completed" || value["event"] == "failed"
        })
        .await;
    }
    let counts = broker.counts(&queue).await.unwrap();
    assert_eq!(
        counts,
        Counts {
            completed: 4,
            failed: 1,
            ..Counts::default()
        }
    );
    assert_eq!(
        peer.events_of("j-plain"),
        ["added", "waiting", "active", "progress", "completed"]
    );
    assert_eq!(
        peer.events_of("j-later"),
        [
            "added",
            "delayed",
            "waiting",
            "active",
            "progress",
            "completed"
        ]
    );
    assert_eq!(
        peer.events_of("j-flaky")
            .iter()
            .filter(|event| **event == "active")
            .count(),
        2
    );
    let completed = |value: &&Value| value["event"] == "completed" && value["jobId"] == "j-prio";
    let result = &peer.seen.iter().find(completed).unwrap()["returnvalue"];
    assert_eq!(*result, json!({"got": {"a": [1, "x/y"]}, "priority": 3}));
}

#[tokio::test]
#[ignore = "needs node and BULLMQ_DIR"]
async fn a_node_producer_sees_what_we_make_of_its_jobs() {
    let (broker, queue): (_, QueueName) = (broker("peer2").await, "add".parse().unwrap());
    let mut peer = Peer::start("add", "peer2", &queue);
    peer.until("ready", |value| value["ready"] == true).await;
    let mut order = Vec::new();
    let mut waker = broker.waker();
    while order.len() < 6 {
        let claimed = broker
            .claim(&queue, &claim_options("rust:1", 1))
            .await
            .unwrap();
        for job in &claimed.jobs {
            order.push(job.name.clone());
            settle(&broker, &queue, job).await;
        }
        if claimed.jobs.is_empty() {
            let queues = [queue.clone()];
            waker
                .wait(&queues, Duration::from_millis(500))
                .await
                .unwrap();
        }
    }
    assert_eq!(
        order[..5],
        ["plain", "fails", "retried", "retried", "urgent"]
    );
    assert_eq!(order[5], "later");
    let mut ends = Vec::new();
    for _ in 0..5 {
        ends.push(peer.until("end", |value| value.get("end").is_some()).await);
    }
    assert_eq!(
        ends[0]["end"]["value"],
        json!({"echo": {"text": "größe/\"quoted\""}})
    );
    assert_eq!(ends[0]["state"], "completed");
    assert_eq!(
        (&ends[0]["made"], &ends[0]["started"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(ends[0]["progress"], json!({"pct": 10}));
    assert_eq!(ends[1]["end"]["value"], json!({"echo": {"n": 1.5}}));
    assert_eq!(ends[2]["end"]["value"], json!({"echo": [1, 2]}));
    assert_eq!(ends[3]["end"]["reason"], "for good");
    assert_eq!(
        (&ends[3]["state"], &ends[3]["stack"]),
        (&json!("failed"), &json!(["at x"]))
    );
    assert_eq!(
        (&ends[4]["state"], &ends[4]["made"]),
        (&json!("completed"), &json!(2))
    );
    let done = peer.until("done", |value| value["done"] == true).await;
    assert_eq!(
        (&done["counts"]["completed"], &done["counts"]["failed"]),
        (&json!(4), &json!(1))
    );
    assert_eq!(
        peer.events_of("custom-1"),
        ["added", "waiting", "active", "progress", "completed"]
    );
    assert_eq!(
        peer.events_of("retry-1"),
        [
            "added",
            "waiting",
            "active",
            "waiting",
            "active",
            "progress",
            "completed"
        ]
    );
    assert!(peer.seen.iter().any(|value| value["event"] == "drained"));
}

async fn settle(broker: &Broker, queue: &QueueName, job: &ClaimedJob) {
    let (id, token) = (job.id.clone(), "rust:1".to_owned());
    let settled = match (job.name.as_str(), job.attempts_made) {
        ("fails", _) => {
            let (reason, stacktrace) = ("for good".into(), r#"["at x"]"#.into());
            let fail = Fail {
                id,
                token,
                reason,
                stacktrace,
                attempts: 3,
                keep: Keep::All,
            };
            broker.fail(queue, &[fail]).await
        }
        ("retried", 0) => {
            let retry = Retry {
                id,
                token,
                delay_ms: 0,
                reason: "again".into(),
                stacktrace: "[]".into(),
                count_attempt: true,
                lifo: false,
            };
            broker.retry(queue, &[retry]).await
        }
        _ => {
            let progress = (id.clone(), token.clone(), r#"{"pct":10}"#.to_owned());
            broker.update_progress(queue, &[progress]).await.unwrap();
            let returnvalue = format!(r#"{{"echo":{}}}"#, job.data);
            broker
                .finish(
                    queue,
                    &[Finish {
                        id,
                        token,
                        returnvalue,
                        keep: Keep::All,
                    }],
                )
                .await
        }
    };
    assert_eq!(settled.unwrap(), [Settled::Done]);
}
