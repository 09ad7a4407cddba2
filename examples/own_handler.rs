//! A program with job types of its own.
//!
//! ```sh
//! export BULLWARK_DATABASE_URL=postgres://… BULLWARK_REDIS_URL=redis://…
//! bullwark migrate
//! cargo run --example own_handler
//! ```
//!
//! `bullwark stores` prints both addresses of private stores. Enqueues one job, which makes another
//! one, runs both, and ends. Kill it in between and start it again: nothing is done twice.

#![expect(clippy::print_stdout, reason = "an example that people watch")]

use bullwark::app::{App, worker_id};
use bullwark::config::{Config, Given, environment};
use bullwark::job::{JobError, JobRequest, Progress, Status};
use bullwark::record::jobs::{self, JobRow};
use bullwark::record::logs::LogLevel;
use bullwark::tasks::Tasks;
use bullwark::worker::{Handler, Handlers, JobContext, WorkerOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What a request must look like: its JSON Schema is made from this.
#[derive(Debug, Deserialize, JsonSchema)]
struct SignUp {
    #[schemars(length(min = 1))]
    name: String,
}

#[derive(Debug, Serialize)]
struct SignedUp {
    seat: String,
    welcome: Uuid,
}

struct Onboard;

// README: begin
impl Handler for Onboard {
    const TYPE: &'static str = "onboard";
    type Payload = SignUp; // serde and schemars: its JSON Schema checks every request
    type Output = SignedUp;

    async fn run(&self, ctx: JobContext, payload: SignUp) -> Result<SignedUp, JobError> {
        // A step is done once: an attempt after a crash is given what this one found.
        let seat = ctx.step("find a seat", async || find_seat().await).await?;
        ctx.progress(Progress::new(2, 1, 0, "has a seat"));
        ctx.log(LogLevel::Info, "seat found", Some(json!({ "seat": seat })));

        // What is written here, the jobs that are made, and the end of this one: one commit.
        ctx.transaction(async |tx| {
            sqlx::query("INSERT INTO onboarded (name, seat) VALUES ($1, $2)")
                .bind(&payload.name)
                .bind(&seat)
                .execute(tx.connection())
                .await
                .map_err(JobError::retry)?;
            let welcome = JobRequest::new("welcome", json!({ "name": payload.name }));
            let made = ctx.enqueue_in(tx, vec![welcome]).await?;
            Ok(SignedUp {
                seat,
                welcome: made[0],
            })
        })
        .await
    }
}
// README: end

/// Stands for a call to some other system.
async fn find_seat() -> Result<String, JobError> {
    Ok("12A".to_owned())
}

struct Welcome;

impl Handler for Welcome {
    const TYPE: &'static str = "welcome";
    type Payload = SignUp;
    type Output = String;

    async fn run(&self, ctx: JobContext, payload: SignUp) -> Result<String, JobError> {
        // For long loops: after a crash the job goes on behind the last checkpoint.
        let done = ctx.checkpoint().and_then(|at| at["done"].as_u64());
        for part in done.unwrap_or(0) + 1..=2 {
            let mut begun = ctx.begin_checkpoint().await?;
            let _connection = begun.tx().connection(); // write here: it commits with the checkpoint
            let progress = Progress::new(2, part, 0, "greeting");
            begun.commit(json!({ "done": part }), progress).await?;
        }
        Ok(format!("Hello, {}!", payload.name))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Only needed for stores that are reached over TLS.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let mut handlers = Handlers::default();
    handlers.add(Onboard);
    handlers.add(Welcome);
    let config = Config::settle(Given::default(), environment, |_| None)?;
    let app = App::connect(config, handlers).await?;
    let mut tx = app.record.begin().await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS onboarded (name text, seat text)")
        .execute(tx.connection())
        .await?;
    tx.commit().await?;

    let (tasks, stop) = (Tasks::new(), CancellationToken::new());
    app.start_upkeep(&tasks);
    let (worker, stopping) = (app.clone(), stop.clone());
    tasks.spawn("worker", async move {
        let options = WorkerOptions::new(worker_id());
        if let Err(error) = worker
            .work(options, stopping, CancellationToken::new())
            .await
        {
            println!("worker: {error}");
        }
    });

    let request = JobRequest::new("onboard", json!({ "name": "Ada" }));
    let onboarded = ended(&app, app.enqueue.enqueue(request).await?.id).await?;
    println!(
        "{} {}",
        onboarded.status,
        onboarded.result.clone().unwrap_or_default()
    );
    if let Some(result) = onboarded.result {
        let welcome: Uuid = serde_json::from_value(result["welcome"].clone())?;
        let welcomed = ended(&app, welcome).await?;
        println!(
            "{} {}",
            welcomed.status,
            welcomed.result.unwrap_or_default()
        );
    }

    stop.cancel();
    tasks.stop(std::time::Duration::from_secs(30)).await;
    app.close().await;
    Ok(())
}

/// Waits until a job is over.
async fn ended(app: &App, id: Uuid) -> Result<JobRow, Box<dyn std::error::Error>> {
    loop {
        let job = jobs::get(&mut app.record.view().await?, id, None).await?;
        match job.filter(|job| job.status.parse().is_ok_and(Status::is_final)) {
            Some(job) => return Ok(job),
            None => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}
