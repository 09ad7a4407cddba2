//! Whoever makes the stores agree dies in the middle of it, and the next one begins again.

use std::process::Stdio;
use std::time::Duration;

use bullwark::broker::{ClaimOptions, Finish, Keep, NewJob};
use bullwark::fault::Point;
use bullwark::job::flow::FlowRequest;
use bullwark::job::{JobRequest, QueueName};
use bullwark::reconcile;
use serde_json::json;
use uuid::Uuid;

use super::doomed::REPAIR;
use super::siege::{Part, Siege, end};
use crate::stage::{Stage, eventually};

pub(super) const POINTS: &[Point] = &[
    Point::RebuildSettings,
    Point::RebuildAdopted,
    Point::RebuildEnded,
    Point::RebuildAdded,
    Point::RebuildDone,
    Point::RebuildNoted,
    Point::AfterReadd,
    Point::BeforeMarkTold,
];
pub(super) const FOLLOWED: &[Point] = &[Point::BeforeMirrorCommit, Point::AfterMirrorCopy];
const LEASE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_dies_anywhere_is_begun_again() {
    let stage = Stage::new().await;
    let mut ids = some_jobs(&stage).await;
    let first = stage.worker(&["--lease-ms", "1000"]).await;
    stage.until_status(&ids, "completed").await;
    let over = stage.whole(ids[0]).await;
    let done = ids[0];
    let running = stage.sleeps(3, 3_000).await;
    stage.until_status(&running, "processing").await;
    ids.extend(running);
    first.kill().await;
    ids.extend(some_jobs(&stage).await);

    let siege = Siege::of(&POINTS[..6]);
    let rebuild = async |part: Part| {
        stage.execute("DELETE FROM bullwark.epochs").await;
        // Where only that shows a job that is lacking, and now and then in the middle of it all.
        if part.point == Point::RebuildAdded || part.start.is_multiple_of(3) {
            stage.redis::<()>(&["FLUSHALL"]).await;
        }
        stage.reconcile(&siege, part).await;
    };
    siege.run(1, rebuild).await;
    stage.drain(&ids).await;
    assert_eq!(stage.whole(done).await, over, "what was over did not run");
    assert_eq!(stage.count(REPEATED).await, 0, "nor did anything run twice");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_redis_forgot_come_back_though_whoever_adds_them_dies() {
    let stage = Stage::new().await;
    let ids = some_jobs(&stage).await;
    let siege = Siege::of(&POINTS[6..7]);
    // Old enough to be touched.
    eventually("jobs of an age", async || stage.count(YOUNG).await == 0).await;
    // One at a time: Redis is told that the job is gone, and a parent whose children are all gone
    // would start, before they come back.
    let forget = async |part: Part| {
        let forgotten = ids[part.start % ids.len()].to_string();
        let queue = QueueName::default();
        let broker = &stage.app.broker;
        broker.cancel(&queue, &[forgotten]).await.unwrap();
        stage.reconcile(&siege, part).await;
    };
    siege.run(1, forget).await;
    stage.drain(&ids).await;
    assert_eq!(stage.count(REPEATED).await, 0);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_tail_comes_back_though_whoever_writes_it_dies() {
    let stage = Stage::new().await;
    let ids = some_jobs(&stage).await;
    let (record, broker) = (&stage.app.record, &stage.app.broker);
    for _ in 0..2 {
        reconcile::beat(record, broker).await.unwrap();
    }
    let queue = QueueName::default();
    let last = ids.last().unwrap().to_string();
    eventually("the last job in Redis", async || {
        let states = broker.states(&queue, std::slice::from_ref(&last));
        states.await.unwrap()[0].is_some()
    })
    .await;
    // As if it were restored from a backup of a moment ago.
    stage
        .execute("UPDATE bullwark.beats SET beat = beat - 1")
        .await;
    stage
        .execute("DELETE FROM jobs WHERE id IN (SELECT id FROM jobs ORDER BY id DESC LIMIT 5)")
        .await;
    let siege = Siege::of(&POINTS[7..]);
    siege
        .run(1, async |part| stage.reconcile(&siege, part).await)
        .await;
    stage.drain(&ids).await;
    let alerts = stage.count("SELECT count(*) FROM bullwark.alerts").await;
    assert!(alerts > 0, "somebody is told");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_did_is_copied_once_though_whoever_follows_dies() {
    let stage = Stage::new().await;
    while !reconcile::readmit(&stage.app.record, &stage.app.broker)
        .await
        .unwrap()
    {}
    let siege = Siege::of(FOLLOWED);
    let clients = std::sync::atomic::AtomicI64::new(0);
    let follow = async |part: Part| {
        let nth = clients.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        stage.run_elsewhere(nth).await;
        // It only saves work; the next one need not wait for its end.
        stage.redis::<()>(&["DEL", "bullwark:bull:mirror"]).await;
        let mut command = stage.command("serve");
        command.args(["--http-addr", "127.0.0.1:0"]);
        siege.arm(&mut command, part, 1);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        end(command.spawn().unwrap()).await;
    };
    siege.run(1, follow).await;

    let worker = stage.worker(&[]).await;
    let clients = clients.into_inner();
    eventually("all jobs of clients, each once", async || {
        stage.count(COPIED).await == clients
    })
    .await;
    assert_eq!(stage.count("SELECT count(*) FROM jobs").await, clients);
    stage.until_agreed().await;
    worker.stop().await;
    stage.close().await;
}

/// Jobs that wait: alone, and of a flow.
async fn some_jobs(stage: &Stage) -> Vec<Uuid> {
    let mut ids = stage
        .enqueue(vec![JobRequest::new("noop", json!({})); 20])
        .await;
    let flow = |children| FlowRequest {
        job: JobRequest::new("noop", json!({})),
        children,
        ..FlowRequest::default()
    };
    let flow = flow(vec![flow(vec![]), flow(vec![])]);
    let flow = stage.app.enqueue.enqueue_flow(flow).await.unwrap();
    ids.extend(flow.ids);
    ids
}

impl Stage {
    /// What `bullwark reconcile` does, as far as it gets.
    async fn reconcile(&self, siege: &Siege, part: Part) {
        let mut command = siege.doom(self, REPAIR, part, 1);
        end(command.spawn().unwrap()).await;
    }

    /// Lets a worker run what is left, until everything is over in both stores.
    async fn drain(&self, ids: &[Uuid]) {
        let worker = self.worker(&[]).await;
        self.until_status(ids, "completed").await;
        self.until_agreed().await;
        let jobs = self.count("SELECT count(*) FROM jobs").await;
        assert_eq!(jobs, ids.len() as i64, "nothing was made twice");
        worker.stop().await;
    }

    /// A client adds a job, and a worker of its own runs it, while nobody follows.
    async fn run_elsewhere(&self, nth: i64) {
        let (queue, broker) = (QueueName::default(), &self.app.broker);
        let job = NewJob {
            id: format!("client-{nth}"),
            name: "noop".into(),
            data: "{}".into(),
            opts: "{}".into(),
            timestamp_ms: bullwark::clock::now_ms(),
            ..NewJob::default()
        };
        broker.add(&queue, &[job]).await.unwrap();
        let options = ClaimOptions {
            token: "node:1".into(),
            max: 10,
            lease: LEASE,
            ..ClaimOptions::default()
        };
        let claimed = broker.claim(&queue, &options).await.unwrap().jobs;
        let finish = |id| Finish {
            id,
            token: "node:1".into(),
            returnvalue: nth.to_string(),
            keep: Keep::All,
        };
        let ends: Vec<Finish> = claimed.into_iter().map(|job| finish(job.id)).collect();
        broker.finish(&queue, &ends).await.unwrap();
    }
}

/// No worker died with one of these.
const REPEATED: &str = "SELECT count(*) FROM jobs WHERE job_type <> 'sleep' AND attempt > 1";
const YOUNG: &str = "SELECT count(*) FROM jobs WHERE created_at > now() - interval '2500 ms'";
const COPIED: &str = "SELECT count(*) FROM jobs WHERE status = 'completed'";
