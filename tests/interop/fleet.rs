//! Workers of Node and of Bullwark on one queue, all of them killed again and again: every job ends
//! once, in Redis and in the record.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bullwark::job::JobRequest;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::process::Child;

use crate::driver::Driver;
use crate::node::{NodeEvents, NodeQueue, NodeWorker};
use crate::process::worker;
use crate::stage::Stage;
use crate::wait::eventually_within;

const QUEUE: &str = "fleet";
/// A type that worker processes of Bullwark know, and that takes no time in Node.
const JOB: &str = "sleep";
const SEED: u64 = 0xb0_11_3a_7e;
const KILLING: Duration = Duration::from_secs(12);
/// Each time as many of Node's as of Bullwark's.
const ROUNDS: usize = 20;
const JOBS_PER_ROUND: usize = 8;
const ALL_DONE: Duration = Duration::from_secs(60);

enum Member {
    Node(Arc<Driver>),
    Bullwark(Box<Child>),
}

impl Member {
    async fn start(stage: &Stage, is_node: bool) -> Self {
        if is_node {
            let driver = Driver::node(6, stage.redis_port, None);
            let opts = json!({
                "concurrency": 4, "lockDuration": 1000, "stalledInterval": 400,
                "maxStalledCount": 1000, "drainDelay": 1,
            });
            NodeWorker::start(driver.clone(), &stage.prefix, QUEUE, opts).await;
            return Self::Node(driver);
        }
        let arguments = ["--queue", QUEUE, "--lease-ms", "1000", "--concurrency", "4"];
        Self::Bullwark(Box::new(worker(stage, &arguments, Stdio::null())))
    }

    async fn kill(&mut self) {
        match self {
            Self::Node(driver) => driver.kill(),
            Self::Bullwark(child) => child.kill().await.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_of_a_mixed_fleet_under_kill_ends_once() {
    let stage = Stage::new().await;
    bullwark::upkeep::start_rescue(stage.broker(), 1000, &stage.tasks);
    stage.app.start_upkeep_without_rescue(&stage.tasks);
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let events = NodeEvents::open(&stage, 6, QUEUE).await;
    let mut random = StdRng::seed_from_u64(SEED);
    let mut members = Vec::new();
    for nth in 0..4 {
        members.push(Member::start(&stage, nth % 2 == 0).await);
    }

    let mut ids = Vec::new();
    let start = Instant::now();
    for round in 0..ROUNDS {
        let datas = (0..JOBS_PER_ROUND).map(|_| json!({ "ms": random.random_range(1..80) }));
        let datas: Vec<Value> = datas.collect();
        let theirs = datas
            .iter()
            .map(|data| json!({ "name": JOB, "data": data, "opts": {} }));
        ids.extend(queue.add_bulk(theirs.collect()).await);
        for data in datas {
            let request = JobRequest {
                queue: Some(QUEUE.to_owned()),
                ..JobRequest::new(JOB, data)
            };
            ids.push(
                stage
                    .app
                    .enqueue
                    .enqueue(request)
                    .await
                    .unwrap()
                    .id
                    .to_string(),
            );
        }
        let victim = random.random_range(0..members.len());
        members[victim].kill().await;
        members[victim] = Member::start(&stage, victim % 2 == 0).await;
        let next = KILLING * (round as u32 + 1) / ROUNDS as u32;
        tokio::time::sleep(next.saturating_sub(start.elapsed())).await;
    }

    let done = format!("all {} jobs to complete", ids.len());
    eventually_within(ALL_DONE, &done, async || {
        let counts = queue.call("getJobCounts", json!([])).await;
        (counts["completed"] == ids.len()).then_some(())
    })
    .await;
    for id in &ids {
        events.until("completed", id).await;
    }
    let mut ends: HashMap<String, usize> = HashMap::new();
    for args in events.named("completed") {
        let id = args["jobId"].as_str().unwrap().to_owned();
        *ends.entry(id).or_default() += 1;
    }
    for id in &ids {
        assert_eq!(ends.get(id), Some(&1), "ends of {id}");
        stage.until_recorded(QUEUE, id, "completed").await;
    }
    assert_eq!(events.named("failed"), Vec::<Value>::new());
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE job_queue = $1")
        .bind(QUEUE)
        .fetch_one(&stage.pool)
        .await
        .unwrap();
    assert_eq!(rows, ids.len() as i64);
    for member in &mut members {
        member.kill().await;
    }
}
