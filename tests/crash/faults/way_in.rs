//! Whoever takes jobs in, or does something to them by hand, dies between the record and Redis.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Mutex;

use bullwark::fault::Point;
use bullwark::job::QueueName;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use uuid::Uuid;

use super::caller::{CALLS_MAX, DEED, FIRST, SETTLED, is_retried, key};
use super::doomed::CALL;
use super::siege::{Part, Siege, end};
use crate::stage::{Stage, eventually, within};

pub(super) const POINTS: &[Point] = &[
    Point::AfterRecordCommit,
    Point::BeforeAnswer,
    Point::BeforeAdd,
    Point::AfterAdd,
    Point::AfterFlowCommit,
    Point::AfterControlCommit,
    Point::AfterOutboxTold,
    Point::AfterSettingsCommit,
    Point::AfterSettingsTold,
];
const AT_ONCE: usize = 3;

fn deed(point: Point) -> &'static str {
    match point {
        Point::AfterFlowCommit => "flow",
        Point::AfterControlCommit | Point::AfterOutboxTold => "control",
        Point::AfterSettingsCommit | Point::AfterSettingsTold => "settings",
        _ => "enqueue",
    }
}

/// What callers were told, and what is to be called again.
#[derive(Default)]
struct Calls {
    /// The first number that nobody has, per deed.
    fresh: HashMap<&'static str, u64>,
    unanswered: HashMap<&'static str, Vec<u64>>,
    answered: Vec<(&'static str, u64, Uuid)>,
}

impl Calls {
    fn first(&mut self, deed: &'static str) -> u64 {
        if let Some(nth) = self.unanswered.entry(deed).or_default().pop() {
            return nth;
        }
        let fresh = self.fresh.entry(deed).or_default();
        *fresh += 2 * CALLS_MAX;
        *fresh - 2 * CALLS_MAX
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_die_anywhere_lose_nothing_and_double_nothing() {
    let stage = Stage::new().await;
    let worker = stage.worker(&[]).await;
    let (siege, calls) = (Siege::of(POINTS), Mutex::new(Calls::default()));
    siege
        .run(AT_ONCE, async |part| {
            call(&stage, &siege, &calls, part).await
        })
        .await;

    eventually("the end of all jobs", async || stage.count(OPEN).await == 0).await;
    eventually("Redis to know all settings", async || {
        stage.count(UNTOLD).await == 0
    })
    .await;
    let calls = calls.into_inner().unwrap();
    assert!(calls.answered.len() > POINTS.len() * 10, "hardly any calls");
    for (deed, nth, id) in calls.answered {
        let key = key(deed, nth);
        assert_eq!(stage.id_of(&key).await, Some(id), "{key}");
        let status = match deed {
            "control" if !is_retried(nth) => "cancelled",
            _ => "completed",
        };
        assert_eq!(stage.job(id).await.status, status, "{key}");
    }
    assert_eq!(stage.count(DOUBLE).await, 0, "a key has one job");
    assert_eq!(stage.count(WRONG).await, 0, "jobs end as they should");
    assert_eq!(stage.count(RUN_AGAIN).await, 0, "no job ran twice");
    assert_eq!(stage.count("SELECT count(*) FROM job_failures").await, 0);
    let queue: QueueName = SETTLED.parse().unwrap();
    let shown = stage.app.broker.queue_meta(&queue).await.unwrap();
    let known = stage
        .count("SELECT concurrency FROM bullwark.queues WHERE job_queue = 'settled'")
        .await;
    assert_eq!(shown.concurrency.map(|limit| limit as i64), Some(known));
    stage.until_agreed().await;
    worker.stop().await;
    stage.close().await;
}

/// One caller: goes on where the last one was cut off, until it dies.
async fn call(stage: &Stage, siege: &Siege, calls: &Mutex<Calls>, part: Part) {
    let deed = deed(part.point);
    let first = calls.lock().unwrap().first(deed);
    let mut command = siege.doom(stage, CALL, part, 1 + part.start % 2);
    command
        .env(DEED, deed)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut next, mut answered) = (first, Vec::new());
    while let Some(line) = within("a caller", lines.next_line()).await.unwrap() {
        let Ok(said) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let Some(nth) = said["nth"].as_u64() else {
            continue;
        };
        next = nth + 1;
        if let Some(id) = said["ids"][0].as_str() {
            answered.push((deed, nth, id.parse().unwrap()));
        }
    }
    end(child).await;
    let mut calls = calls.lock().unwrap();
    calls.unanswered.entry(deed).or_default().push(next);
    calls.answered.extend(answered);
}

impl Stage {
    /// The job that a key gave.
    async fn id_of(&self, key: &str) -> Option<Uuid> {
        let mut tx = self.app.record.begin().await.unwrap();
        sqlx::query_scalar("SELECT id FROM jobs WHERE payload->>'key' = $1")
            .bind(key)
            .fetch_optional(tx.connection())
            .await
            .unwrap()
    }
}

/// The jobs of the schedule wait for their hour.
const OPEN: &str = "SELECT count(*) FROM jobs WHERE job_queue <> 'settled'
  AND status NOT IN ('completed', 'dead_letter', 'cancelled')";
const UNTOLD: &str = "SELECT (SELECT count(*) FROM bullwark.queues WHERE NOT is_told)
  + (SELECT count(*) FROM bullwark.schedules WHERE NOT is_told)";
const DOUBLE: &str = "SELECT count(payload->>'key') - count(DISTINCT payload->>'key') FROM jobs";
/// Also of jobs of which nobody was told.
const WRONG: &str = "SELECT count(*) FROM jobs
  WHERE job_queue <> 'settled' AND status <> 'completed'
    AND NOT (status = 'cancelled' AND payload->>'key' LIKE 'control-%')";
/// Retries by hand have numbers of their own.
const RUN_AGAIN: &str = "SELECT count(*) FROM jobs
  WHERE job_queue <> 'settled' AND attempt > 1
    AND (payload->>'key' IS NULL OR payload->>'key' NOT LIKE 'control-%')";
