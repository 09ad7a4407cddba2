//! Stores of a test's own, and worker processes on them.

use std::process::Stdio;
use std::time::Duration;

use bullwark::app::App;
use bullwark::config::{Config, Given};
use bullwark::handlers::import_csv::SourceOptions;
use bullwark::handlers::{self, BuiltinOptions};
use bullwark::job::JobRequest;
use bullwark::record::jobs::{self, FailureRow, JobRow};
use bullwark::record::{Record, RecordOptions};
use bullwark::stores::{Stores, StoresOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use uuid::Uuid;

/// After so long a wait has failed.
const LIMIT: Duration = Duration::from_secs(90);
/// Ten workers, each with all its connections, and some that are just being replaced.
const CONNECTIONS_MAX: u32 = 400;

pub(crate) struct Stage {
    pub(crate) app: App,
    stores: Stores,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let stores = Stores::start(StoresOptions {
            max_connections: CONNECTIONS_MAX,
            ..StoresOptions::throwaway()
        })
        .await
        .unwrap();
        let record = Record::connect(&RecordOptions::new(&stores.database_url)).unwrap();
        record.migrate().await.unwrap();
        let given = Given {
            database_url: Some(stores.database_url.clone()),
            redis_url: Some(stores.redis_url.clone()),
            has_diagnostics: true,
            ..Given::default()
        };
        let config = Config::settle(given, |_| None, |_| None).unwrap();
        let handlers = handlers::builtin(&BuiltinOptions {
            source: SourceOptions::new(&config.data_dir),
            has_diagnostics: true,
        });
        let app = App::connect(config, handlers).await.unwrap();
        Self { app, stores }
    }

    fn command(&self, command: &str) -> Command {
        let mut bullwark = Command::new(env!("CARGO_BIN_EXE_bullwark"));
        bullwark
            .arg(command)
            .arg("--diagnostics")
            .args(["--database-url", &self.stores.database_url])
            .args(["--redis-url", &self.stores.redis_url])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        bullwark
    }

    /// Starts a worker process and returns once it says that it works.
    pub(crate) async fn worker(&self, arguments: &[&str]) -> Worker {
        let mut child = self
            .command("worker")
            .arg("--json")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let read = tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line);
        within("the worker's first words", read).await.unwrap();
        let words: Value = serde_json::from_str(&line).unwrap();
        Worker {
            id: words["worker"].as_str().unwrap().to_owned(),
            pid: Pid::from_raw(child.id().unwrap() as i32),
            child,
        }
    }

    /// What `bullwark verify --json` says, and whether it ended with 0.
    pub(crate) async fn verify(&self) -> (bool, Value) {
        let output = self.command("verify").arg("--json").output().await.unwrap();
        let verdict = serde_json::from_slice(&output.stdout);
        (
            output.status.success(),
            verdict.unwrap_or_else(|_| json!(format!("{output:?}"))),
        )
    }

    pub(crate) async fn enqueue(&self, requests: Vec<JobRequest>) -> Vec<Uuid> {
        let answers = self.app.enqueue.enqueue_many(requests).await.unwrap();
        answers
            .into_iter()
            .map(|answer| answer.unwrap().id)
            .collect()
    }

    pub(crate) async fn sleeps(&self, count: usize, ms: u64) -> Vec<Uuid> {
        self.enqueue(vec![JobRequest::new("sleep", json!({ "ms": ms })); count])
            .await
    }

    pub(crate) async fn job(&self, id: Uuid) -> JobRow {
        jobs::get(&self.app.record, id, None)
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn failures(&self, id: Uuid) -> Vec<FailureRow> {
        jobs::failures(&self.app.record, id).await.unwrap()
    }

    /// Waits until each of these jobs looks right.
    pub(crate) async fn until_all(
        &self,
        what: &str,
        ids: &[Uuid],
        is_it: impl Fn(&JobRow) -> bool,
    ) {
        for id in ids {
            eventually(what, async || is_it(&self.job(*id).await)).await;
        }
    }

    pub(crate) async fn until_status(&self, ids: &[Uuid], status: &str) {
        self.until_all(status, ids, |job| job.status == status)
            .await;
    }

    /// Everything that the record has about a job.
    pub(crate) async fn whole(&self, id: Uuid) -> Value {
        let mut tx = self.app.record.begin().await.unwrap();
        sqlx::query_scalar(
            "SELECT jsonb_build_object('job', to_jsonb(j),
               'logs', (SELECT jsonb_agg(l ORDER BY l.id) FROM job_logs l WHERE job_id = $1),
               'failures', (SELECT jsonb_agg(f ORDER BY attempt) FROM job_failures f
                            WHERE job_id = $1))
             FROM jobs j WHERE id = $1",
        )
        .bind(id)
        .fetch_one(tx.connection())
        .await
        .unwrap()
    }

    /// How many keys of Redis match.
    pub(crate) async fn keys(&self, pattern: &str) -> usize {
        let client = redis::Client::open(self.stores.redis_url.as_str()).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg(pattern)
            .query_async(&mut redis)
            .await
            .unwrap();
        keys.len()
    }

    pub(crate) async fn close(self) {
        self.app.close().await;
        self.stores.stop().await.unwrap();
    }
}

/// A worker process; killed when it is dropped.
pub(crate) struct Worker {
    pub(crate) id: String,
    pid: Pid,
    child: Child,
}

impl Worker {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    /// Waits for its end; the exit code, none after a signal.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        within("the end of the worker", self.child.wait())
            .await
            .unwrap()
            .code()
    }

    /// SIGKILL, and waits for its end.
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        assert_eq!(self.end().await, None);
    }

    /// SIGTERM, and waits for its end, which must be a good one.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.end().await, Some(0));
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Looks again and again until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// The outcomes of a job's attempts that did not complete.
pub(crate) fn outcomes(failures: &[FailureRow]) -> Vec<&str> {
    failures
        .iter()
        .map(|failure| failure.outcome.as_str())
        .collect()
}
