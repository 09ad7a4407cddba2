//! A worker process with a job type of these tests, which writes in every way that there is and may
//! kill its process in between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bullwark::app::{App, worker_id};
use bullwark::config::{Config, Given, environment};
use bullwark::job::{JobError, JobRequest, Progress};
use bullwark::record::Tx;
use bullwark::record::logs::LogLevel;
use bullwark::tasks::Tasks;
use bullwark::worker::{CallError, Handler, Handlers, IfUnknown, JobContext, WorkerOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The addresses of the stores for [`worker_process`], and whether it does the duties of upkeep.
pub(crate) const DATABASE: &str = "BULLWARK_TEST_DATABASE";
pub(crate) const REDIS: &str = "BULLWARK_TEST_REDIS";
pub(crate) const UPKEEP: &str = "BULLWARK_TEST_UPKEEP";
/// The queue that it serves, if not the default one.
pub(crate) const QUEUE: &str = "BULLWARK_TEST_QUEUE";

const LEASE: Duration = Duration::from_secs(1);

/// Not a test: the process that tests kill and freeze. Does nothing when run with the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_process() {
    let (Some(database_url), Some(redis_url)) = (environment(DATABASE), environment(REDIS)) else {
        return;
    };
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let given = Given {
        database_url: Some(database_url),
        redis_url: Some(redis_url),
        ..Given::default()
    };
    let config = Config::settle(given, |_| None, |_| None).unwrap();
    let mut handlers = Handlers::default();
    handlers.add(Write);
    let app = App::connect(config, handlers).await.unwrap();
    let (tasks, stop) = (Tasks::new(), CancellationToken::new());
    if environment(UPKEEP).is_some() {
        app.start_upkeep(&tasks);
    }
    let mut options = WorkerOptions::new(worker_id());
    options.lease = LEASE;
    if let Some(queue) = environment(QUEUE) {
        options.queues = vec![queue.parse().unwrap()];
    }
    println!("\n{}", json!({ "worker": options.worker_id }));
    let worker = app.clone();
    let work = worker.work(options, stop.clone(), CancellationToken::new());
    tokio::pin!(work);
    tokio::select! {
        worked = &mut work => worked.unwrap(),
        _ = terminated.recv() => {
            stop.cancel();
            work.await.unwrap();
        }
    }
    tasks.stop(Duration::from_secs(20)).await;
    app.close().await;
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Plan {
    /// The first attempt waits so long before it writes.
    #[serde(default)]
    wait_ms: u64,
    /// Where the first attempt kills its process.
    #[serde(default)]
    killed: String,
}

pub(crate) struct Write;

/// A job of this type.
pub(crate) fn write(plan: Value) -> JobRequest {
    JobRequest::new(Write::TYPE, plan)
}

impl Handler for Write {
    const TYPE: &'static str = "write";
    type Payload = Plan;
    type Output = &'static str;

    async fn run(&self, ctx: JobContext, plan: Plan) -> Result<&'static str, JobError> {
        let id = ctx.job_id();
        let die_at = |point: &str| {
            if ctx.attempt() == 1 && plan.killed == point {
                kill(Pid::this(), Signal::SIGKILL).unwrap();
            }
        };
        if ctx.attempt() == 1 {
            tokio::time::sleep(Duration::from_millis(plan.wait_ms)).await;
        }
        let did = AtomicBool::new(false);
        let work = || did.store(true, Ordering::SeqCst);
        ctx.progress(Progress::new(3, 1, 0, format!("attempt {}", ctx.attempt())));
        ctx.log(LogLevel::Info, &format!("attempt {}", ctx.attempt()), None);
        let checkpoint = async {
            let mut begun = ctx.begin_checkpoint().await?;
            work();
            effect(begun.tx(), id, "checkpoint").await?;
            let progress = Progress::new(3, 2, 0, "checkpoint");
            begun.commit(json!({ "at": 1 }), progress).await
        };
        let checkpoint = match ctx.checkpoint() {
            None => checkpoint.await.err(),
            Some(_) => None,
        };
        let step = ctx.step("step", async || {
            work();
            alone(&ctx, "step").await
        });
        let step = step.await.err();
        let step_in_tx = ctx.step_in_tx("step in tx", async |tx| {
            work();
            effect(tx, id, "step in tx").await
        });
        let step_in_tx = step_in_tx.await.err();
        let once = ctx.once("call", &7, IfUnknown::Repeat, async |_key| {
            work();
            alone(&ctx, "call").await.map_err(CallError::Unknown)
        });
        let once = once.await.err();
        die_at("before the fence");
        let end = ctx.transaction(async |tx| {
            work();
            effect(tx, id, "end").await?;
            die_at("in the transaction");
            Ok("written")
        });
        let end = end.await;
        die_at("after the commit");
        let answers = [checkpoint, step, step_in_tx, once, end.clone().err()];
        let answers = answers.map(|error| error.map(|error| error.to_string()));
        let did = did.load(Ordering::SeqCst);
        println!(
            "\n{}",
            json!({ "attempt": ctx.attempt(), "answers": answers, "did": did })
        );
        end
    }
}

async fn effect(tx: &mut Tx, id: Uuid, name: &str) -> Result<(), JobError> {
    sqlx::query("INSERT INTO effects VALUES ($1, $2)")
        .bind(id)
        .bind(name)
        .execute(tx.connection())
        .await
        .map_err(JobError::retry)?;
    Ok(())
}

/// An effect that nothing fences, as one in the outside world.
async fn alone(ctx: &JobContext, name: &str) -> Result<(), JobError> {
    let mut tx = ctx.record().begin().await.map_err(JobError::retry)?;
    effect(&mut tx, ctx.job_id(), name).await?;
    tx.commit().await.map_err(JobError::retry)
}
