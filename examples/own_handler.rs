//! A program with a job type of its own.
//!
//! ```sh
//! export BULLWARK_DATABASE_URL=postgres://… BULLWARK_REDIS_URL=redis://…
//! bullwark migrate
//! cargo run --example own_handler
//! ```
//!
//! `bullwark stores` prints both addresses of private stores. Enqueues one job, runs it in two
//! parts that survive a crash, and ends.

#![expect(clippy::print_stdout, reason = "an example that people watch")]

use bullwark::app::{App, worker_id};
use bullwark::config::{Config, Given, environment};
use bullwark::job::{JobError, JobRequest, Progress, Status};
use bullwark::record::jobs;
use bullwark::tasks::Tasks;
use bullwark::worker::{Handler, Handlers, JobContext, WorkerOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// What a request must look like: its JSON Schema is made from this.
#[derive(Debug, Deserialize, JsonSchema)]
struct Greeting {
    #[schemars(length(min = 1))]
    name: String,
}

#[derive(Debug, Serialize)]
struct Greeted {
    text: String,
}

struct Greet;

impl Handler for Greet {
    const TYPE: &'static str = "greet";
    type Payload = Greeting;
    type Output = Greeted;

    async fn run(&self, ctx: JobContext, payload: Greeting) -> Result<Greeted, JobError> {
        // After a crash the job goes on behind the last checkpoint.
        let done = ctx.checkpoint().and_then(|at| at["done"].as_u64());
        for part in done.unwrap_or(0) + 1..=2 {
            let mut begun = ctx.begin_checkpoint().await?;
            let _connection = begun.tx().connection(); // write here: it commits with the checkpoint
            let progress = Progress::new(2, part, 0, "greeting");
            begun
                .commit(serde_json::json!({ "done": part }), progress)
                .await?;
        }
        let text = format!("Hello, {}!", payload.name);
        Ok(Greeted { text })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Only needed for stores that are reached over TLS.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let mut handlers = Handlers::default();
    handlers.add(Greet);
    let config = Config::settle(Given::default(), environment, |_| None)?;
    let app = App::connect(config, handlers).await?;

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

    let request = JobRequest::new("greet", serde_json::json!({ "name": "Ada" }));
    let accepted = app.enqueue.enqueue(request).await?;
    let job = loop {
        let job = jobs::get(&mut app.record.view().await?, accepted.id, None).await?;
        match job.filter(|job| job.status.parse().is_ok_and(Status::is_final)) {
            Some(job) => break job,
            None => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    };
    println!("{} {}", job.status, job.result.unwrap_or_default());

    stop.cancel();
    tasks.stop(std::time::Duration::from_secs(30)).await;
    app.close().await;
    Ok(())
}
