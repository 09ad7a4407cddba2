//! A server whose webhooks may call this machine, with workers, and duties that work when told to.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use bullwark::app::worker_id;
use bullwark::http::HttpOptions;
use bullwark::job::webhook;
use bullwark::reconcile;
use bullwark::record::webhook_events::make_deliveries;
use bullwark::tasks::Tasks;
use bullwark::worker::WorkerOptions;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::stage::{PATIENCE, eventually};
use crate::support::Sandbox;
use crate::support::server::{Answer, Server, send};

/// Where links in mails lead.
pub(crate) const PUBLIC_URL: &str = "http://127.0.0.1:9/jobs";
const ALLOW: &str = "BULLWARK_ALLOW_PRIVATE_ADDRESSES";
pub(crate) const MAILING: [(&str, &str); 2] = [(ALLOW, "1"), ("BULLWARK_PUBLIC_URL", PUBLIC_URL)];

pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) pool: PgPool,
    sandbox: Sandbox,
    /// Of the server and of its worker processes.
    settings: Vec<(&'static str, String)>,
}

/// A worker of its own, which may be ended in the middle.
pub(crate) struct Working {
    stop: CancellationToken,
    hurry: CancellationToken,
    tasks: Tasks,
}

impl Working {
    /// Gives back what runs, as a process that is told to hurry.
    pub(crate) async fn hurry(self) {
        self.stop.cancel();
        self.hurry.cancel();
        self.tasks.drained().await;
    }
}

impl Rig {
    /// Webhooks may call loopback addresses.
    pub(crate) async fn new() -> Self {
        Self::with(&[(ALLOW, "1")]).await
    }

    /// The same, and mails have links that lead to this machine.
    pub(crate) async fn mailing() -> Self {
        Self::with(&MAILING).await
    }

    /// They may not, as usual.
    pub(crate) async fn guarded() -> Self {
        Self::with(&[]).await
    }

    /// As usual, with so many jobs an hour.
    pub(crate) async fn limited(jobs_per_hour: u32) -> Self {
        let options = HttpOptions {
            jobs_per_hour: Some(jobs_per_hour),
            ..HttpOptions::default()
        };
        Self::with_options(options, &[]).await
    }

    /// With these settings.
    pub(crate) async fn with(settings: &[(&'static str, &str)]) -> Self {
        Self::with_options(HttpOptions::default(), settings).await
    }

    async fn with_options(options: HttpOptions, settings: &[(&'static str, &str)]) -> Self {
        let settings = settings
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        let settings: Vec<_> = settings.collect();
        let read = |name: &str| {
            let found = settings.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.clone())
        };
        let sandbox = Box::pin(Sandbox::new()).await;
        let (database, redis) = (&sandbox.database_url, &sandbox.redis_url);
        let server = Server::start_as(database, redis, &sandbox.prefix, options, read);
        let server = Box::pin(server).await;
        Self {
            server,
            pool: sandbox.pool().await,
            sandbox,
            settings,
        }
    }

    /// Makes a webhook; its path and its secret.
    pub(crate) async fn webhook(&self, url: &str, events: &[&str]) -> (String, String) {
        let wish = json!({ "url": url, "events": events });
        let answer = self.server.post("/api/webhooks", wish).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let id = answer.body["webhook"]["id"].as_str().unwrap();
        let secret = answer.body["secret"].as_str().unwrap().to_owned();
        (format!("/api/webhooks/{id}"), secret)
    }

    pub(crate) async fn patch(&self, path: &str, change: Value) -> Answer {
        send(self.server.request(Method::PATCH, path).json(&change)).await
    }

    /// Enqueues a job, which may fail; its id.
    pub(crate) async fn enqueue(&self, job: Value) -> String {
        let answer = self.server.post("/api/jobs", job).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["job"]["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn noop(&self) -> String {
        self.enqueue(json!({ "jobType": "noop" })).await
    }

    /// Starts a worker of the default queue and that of deliveries.
    pub(crate) fn work(&self) -> Working {
        self.work_with(50)
    }

    /// The same with so many slots.
    pub(crate) fn work_with(&self, slots: usize) -> Working {
        let mut options = WorkerOptions::new(worker_id());
        let queues = [webhook::QUEUE, "default"];
        options.slots = slots;
        options.queues = queues.map(|name| name.parse().unwrap()).to_vec();
        let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
        let tasks = Tasks::new();
        let app = self.server.app.clone();
        let (stopping, hurrying) = (stop.clone(), hurry.clone());
        tasks.spawn("worker", async move {
            app.work(options, stopping, hurrying).await.unwrap();
        });
        Working { stop, hurry, tasks }
    }

    /// A worker process of deliveries that dies at this point, once it gets there. It may call this
    /// machine, too.
    pub(crate) async fn work_until_it_dies(&self, fault: &str) {
        self.work_on_until_it_dies(webhook::QUEUE, fault).await;
    }

    /// The same of another queue.
    pub(crate) async fn work_on_until_it_dies(&self, queue: &str, fault: &str) {
        let mut worker = self.process(&["--queue", queue, "--lease-ms", "1000"]);
        worker.env("BULLWARK_FAULT", fault);
        let ended = tokio::time::timeout(PATIENCE, worker.status()).await;
        let signal = ended.unwrap().unwrap().signal();
        assert_eq!(signal, Some(nix::libc::SIGABRT), "it died there");
    }

    /// A worker process with these options. It may call this machine.
    pub(crate) fn process(&self, options: &[&str]) -> Command {
        let mut worker = Command::new(env!("CARGO_BIN_EXE_bullwark"));
        worker
            .arg("worker")
            .args(options)
            .env("BULLWARK_DATABASE_URL", &self.sandbox.database_url)
            .env("BULLWARK_REDIS_URL", &self.sandbox.redis_url)
            .env("BULLWARK_PREFIX", &self.sandbox.prefix)
            .env("BULLWARK_DATA_DIR", self.server.data_dir.path())
            .envs(MAILING)
            .envs(self.settings.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        worker
    }

    /// Gives back what dead workers had, until it is dropped.
    pub(crate) fn rescue(&self) -> Tasks {
        let tasks = Tasks::new();
        bullwark::upkeep::start_rescue(&self.server.app.broker, 1, &tasks);
        tasks
    }

    /// Waits until a job is in this status.
    pub(crate) async fn until(&self, job: &str, status: &str) -> Value {
        let what = format!("{job} is {status}");
        let path = format!("/api/jobs/{job}");
        eventually(&what, async || {
            let answer = self.server.get(&path).await;
            let job = answer.body["job"].clone();
            (job["status"] == status).then_some(job)
        })
        .await
    }

    /// Waits until an attempt of a job has ended and the next one is not due: it failed, or, behind
    /// work that is done, it was put off. Then lets it go on.
    pub(crate) async fn let_go_on(&self, job: &str) -> Value {
        let path = format!("/api/jobs/{job}");
        let waiting = eventually("an attempt has ended", async || {
            let job = self.server.get(&path).await.body["job"].clone();
            let is_put_off = job["status"] == "pending" && job["scheduled_for"].is_string();
            (job["status"] == "failed" || is_put_off).then_some(job)
        })
        .await;
        // Redis may hear a moment later than the record that it waits.
        eventually("it goes on", async || {
            let answer = self
                .server
                .post(&format!("{path}/promote"), Value::Null)
                .await;
            assert!([200, 409].contains(&answer.status), "{answer:?}");
            (answer.status == 200).then_some(())
        })
        .await;
        waiting
    }

    /// What the duties do: makes jobs of all that happened, and tells Redis of them.
    pub(crate) async fn tell(&self) {
        let app = &self.server.app;
        while make_deliveries(&app.record).await.unwrap() > 0 {}
        while reconcile::relay_outbox(&app.record, &app.broker)
            .await
            .unwrap()
            > 0
        {}
    }

    /// The deliveries of a webhook, newest first.
    pub(crate) async fn deliveries(&self, webhook: &str) -> Vec<Value> {
        let answer = self.server.get(&format!("{webhook}/deliveries")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["deliveries"].as_array().unwrap().clone()
    }

    /// Waits until the newest delivery is in this status.
    pub(crate) async fn delivery_until(&self, webhook: &str, status: &str) -> Value {
        let what = format!("the newest delivery is {status}");
        eventually(&what, async || {
            let newest = self.deliveries(webhook).await.into_iter().next()?;
            (newest["status"] == status).then_some(newest)
        })
        .await
    }

    pub(crate) async fn sql(&self, sql: String) {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&self.pool)
            .await
            .unwrap();
    }

    pub(crate) async fn end(self) {
        self.pool.close().await;
        self.server.end().await;
    }
}
