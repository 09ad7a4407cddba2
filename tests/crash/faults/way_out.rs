//! Workers die between claiming a job and knowing that both stores have its end.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bullwark::broker::NewJob;
use bullwark::fault::Point;
use bullwark::job::{Backoff, JobRequest, QueueName};
use bullwark::reconcile;
use serde_json::json;
use tokio::sync::Mutex;

use super::doomed::WORK;
use super::siege::{Part, Siege, end};
use crate::own_worker::{QUEUE, write};
use crate::stage::{Stage, Worker, eventually};
use crate::storm::{UNLISTED, WRONG_END, WRONG_HISTORY};

pub(super) const POINTS: &[Point] = &[
    Point::AfterClaim,
    Point::AfterAdoption,
    Point::BeforeHandler,
    Point::AfterHandler,
    Point::AfterOutcomeCommit,
    Point::AfterOutcomeTold,
];
pub(super) const PAID: &[Point] = &[
    Point::BeforeTransactionCommit,
    Point::AfterTransactionCommit,
];
const AT_ONCE: usize = 2;
/// A client's job may lose its worker more than once here.
const STALLS_MAX: u32 = 1_000;
/// New jobs for each worker that is to die.
const PORTION: usize = 4;
/// Deaths at one of the points between two rescues: what is lost comes back into the fire, and not
/// so often that a job counts as the cause.
const RESCUE_EVERY: usize = 30;
/// Jobs looked at by one of them.
const RESCUE_MAX: usize = 10_000;
/// Between two jobs of a client: soon one is claimed that nobody has adopted yet.
const CLIENT_EVERY: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_whose_workers_die_anywhere_end_once() {
    let stage = Stage::new().await;
    stage.serve_writes().await;
    while !reconcile::readmit(&stage.app.record, &stage.app.broker)
        .await
        .unwrap()
    {}
    let (siege, paid) = (Siege::of(POINTS), Siege::of(PAID));
    let (clients, written) = (AtomicI64::new(0), Mutex::new(Vec::new()));
    tokio::join!(
        siege.run(AT_ONCE, async |part| match part.point {
            Point::AfterAdoption => adopt(&stage, &siege, &clients, part).await,
            _ => work(&stage, &siege, part).await,
        }),
        paid.run(AT_ONCE, async |part| {
            let ids = pay(&stage, &paid, part).await;
            written.lock().await.extend(ids);
        }),
    );

    let mut worker = stage.command("worker");
    worker
        .args(["--json", "--queue", "default", "--queue", "clients"])
        .env("BULLWARK_MAX_STALLED_COUNT", STALLS_MAX.to_string());
    let mut payer = stage.own_command("own_worker::worker_process");
    payer.env(QUEUE, "paid");
    let (worker, payer) = tokio::join!(Worker::start(worker), Worker::start(payer));
    eventually("the end of all jobs", async || stage.count(OPEN).await == 0).await;
    assert_eq!(
        stage.list(&WRONG_END.replace("count(*)", LINE)).await,
        Vec::<String>::new()
    );
    assert_eq!(stage.count(WRONG_HISTORY).await, 0);
    assert_eq!(stage.count(UNLISTED).await, 0);
    let clients = clients.into_inner();
    let adopted = stage.count("SELECT count(*) FROM jobs WHERE job_queue = 'clients'");
    assert_eq!(adopted.await, clients, "each job of a client is one row");
    let written = written.into_inner();
    for id in &written {
        for name in ["checkpoint", "step in tx", "end"] {
            assert_eq!(stage.effects(*id, name).await, 1, "{name} of {id}");
        }
    }
    stage.until_agreed().await;
    eventually("no lock to be left", async || {
        stage.keys("*:lock").await == 0
    })
    .await;
    worker.stop().await;
    payer.stop().await;
    stage.close().await;
}

/// Every third one fails as often as it may.
fn request(nth: usize) -> JobRequest {
    let mut request = match nth % 3 {
        0 => JobRequest::new("fail", json!({})),
        _ => JobRequest::new("noop", json!({})),
    };
    request.max_attempts = Some(1 + (nth % 2) as u32);
    request.backoff = Some(Backoff::Fixed {
        delay_ms: 100,
        jitter: 0.0,
    });
    request
}

async fn work(stage: &Stage, siege: &Siege, part: Part) {
    if part.point == Point::AfterClaim && part.start.is_multiple_of(RESCUE_EVERY) {
        stage.rescue_all().await;
    }
    stage.enqueue((0..PORTION).map(request).collect()).await;
    let mut command = siege.doom(stage, WORK, part, 1 + part.start % 3);
    end(command.env(QUEUE, "default").spawn().unwrap()).await;
}

/// Jobs come from a client until one of them is claimed before anybody has adopted it.
async fn adopt(stage: &Stage, siege: &Siege, clients: &AtomicI64, part: Part) {
    let queue: QueueName = "clients".parse().unwrap();
    let mut command = siege.doom(stage, WORK, part, 1);
    let child = command.env(QUEUE, "clients").spawn().unwrap();
    let is_dead = Cell::new(false);
    let add = async {
        while !is_dead.get() {
            let nth = clients.fetch_add(1, Ordering::Relaxed);
            let job = NewJob {
                id: format!("client-{nth}"),
                name: "noop".into(),
                data: "{}".into(),
                opts: "{}".into(),
                timestamp_ms: bullwark::clock::now_ms(),
                ..NewJob::default()
            };
            stage.app.broker.add(&queue, &[job]).await.unwrap();
            tokio::time::sleep(CLIENT_EVERY).await;
        }
    };
    let die = async {
        end(child).await;
        is_dead.set(true);
    };
    tokio::join!(add, die);
}

async fn pay(stage: &Stage, siege: &Siege, part: Part) -> Vec<uuid::Uuid> {
    let mut request = write(json!({}));
    request.queue = Some("paid".into());
    let ids = stage.enqueue(vec![request; 2]).await;
    let mut command = siege.doom(stage, WORK, part, 1 + part.start % 2);
    end(command.env(QUEUE, "paid").spawn().unwrap()).await;
    ids
}

impl Stage {
    /// Gives back what the dead had in hand and has no lease any more.
    async fn rescue_all(&self) {
        for queue in ["default", "clients", "paid"] {
            let queue: QueueName = queue.parse().unwrap();
            for _ in 0..2 {
                // The first look makes suspects, the next one gives them back.
                let every = Duration::from_millis(1);
                let rescue = self
                    .app
                    .broker
                    .rescue(&queue, every, STALLS_MAX, RESCUE_MAX);
                rescue.await.unwrap();
                tokio::time::sleep(every * 2).await;
            }
        }
    }
}

const LINE: &str = "id || ' ' || job_type || ' is ' || status || ' after ' || attempts || ': ' ||
  coalesce(error_message, '')";
const OPEN: &str = "SELECT count(*) FROM jobs
  WHERE status NOT IN ('completed', 'dead_letter', 'cancelled')";
