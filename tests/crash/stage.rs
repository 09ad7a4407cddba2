//! Stores of a test's own, and worker processes on them.

use std::process::Stdio;
use std::time::Duration;

use bullwark::app::App;
use bullwark::broker::BrokerState;
use bullwark::config::{Config, Given};
use bullwark::handlers::import_csv::SourceOptions;
use bullwark::handlers::{self, BuiltinOptions};
use bullwark::job::{JobRequest, JobType, QueueName};
use bullwark::record::jobs::{self, FailureRow, JobRow};
use bullwark::record::{Record, RecordOptions};
use bullwark::stores::{Stores, StoresOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use uuid::Uuid;

use crate::own_worker::{DATABASE, REDIS, UPKEEP};

/// After so long a wait has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);
/// Ten workers, each with all its connections, and some that are just being replaced.
const CONNECTIONS_MAX: u32 = 400;

pub(crate) struct Stage {
    pub(crate) app: App,
    pub(crate) stores: Stores,
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
            has_diagnostics: true,
            ..BuiltinOptions::new(SourceOptions::new(&config.data_dir))
        });
        let app = App::connect(config, handlers).await.unwrap();
        Self { app, stores }
    }

    pub(crate) fn command(&self, command: &str) -> Command {
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
        let mut command = self.command("worker");
        command.arg("--json").args(arguments);
        Worker::start(command).await
    }

    /// The same, with at most so much memory, in KiB.
    pub(crate) async fn small_worker(&self, memory_kib: u32, arguments: &[&str]) -> Worker {
        let mut command = Command::new("sh");
        let limited = format!("ulimit -v {memory_kib} && exec \"$0\" \"$@\"");
        let worker = self.command("worker");
        command
            .args(["-c", &limited])
            .arg(worker.as_std().get_program())
            .args(worker.as_std().get_args())
            .arg("--json")
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Worker::start(command).await
    }

    /// Makes ready for jobs of [`crate::own_worker`].
    pub(crate) async fn serve_writes(&self) {
        let mut types = self.app.enqueue.types();
        types.add(JobType::new("write", json!(true)).unwrap());
        self.app.enqueue.set_types(types);
        self.execute("CREATE TABLE effects (job_id uuid, name text)")
            .await;
    }

    /// A worker process for such jobs, which may also do the duties of upkeep.
    pub(crate) async fn own_worker(&self, has_upkeep: bool) -> Worker {
        let mut command = self.own_command("own_worker::worker_process");
        if has_upkeep {
            command.env(UPKEEP, "1");
        }
        Worker::start(command).await
    }

    /// A process of these tests on the stage's stores.
    pub(crate) fn own_command(&self, process: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", process, "--nocapture"])
            .env(DATABASE, &self.stores.database_url)
            .env(REDIS, &self.stores.redis_url)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// How often a job took this effect.
    pub(crate) async fn effects(&self, id: Uuid, name: &str) -> i64 {
        let mut tx = self.app.record.begin().await.unwrap();
        sqlx::query_scalar("SELECT count(*) FROM effects WHERE job_id = $1 AND name = $2")
            .bind(id)
            .bind(name)
            .fetch_one(tx.connection())
            .await
            .unwrap()
    }

    /// The state of a job in Redis.
    pub(crate) async fn state(&self, id: Uuid) -> Option<BrokerState> {
        let ids = [id.to_string()];
        let states = self.app.broker.states(&QueueName::default(), &ids).await;
        states.unwrap()[0]
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

    /// Waits until `bullwark verify` finds no difference.
    pub(crate) async fn until_agreed(&self) {
        let mut verdict = (false, json!(null));
        let agreed = tokio::time::timeout(LIMIT, async {
            while !verdict.0 {
                verdict = self.verify().await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        let is_agreed = agreed.await.is_ok();
        assert!(is_agreed, "the stores do not agree: {}", verdict.1);
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
        jobs::get(&mut self.app.record.view().await.unwrap(), id, None)
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn failures(&self, id: Uuid) -> Vec<FailureRow> {
        jobs::failures(&mut self.app.record.view().await.unwrap(), id)
            .await
            .unwrap()
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
        let keys: Vec<String> = self.redis(&["KEYS", pattern]).await;
        keys.len()
    }

    /// A command to Redis.
    pub(crate) async fn redis<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.stores.redis_url.as_str()).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        command.query_async(&mut redis).await.unwrap()
    }

    /// A statement in the record.
    pub(crate) async fn execute(&self, sql: &'static str) {
        let mut tx = self.app.record.begin().await.unwrap();
        sqlx::raw_sql(sql).execute(tx.connection()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The texts that a query gives.
    pub(crate) async fn list(&self, query: &str) -> Vec<String> {
        let mut tx = self.app.record.begin().await.unwrap();
        sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned()))
            .fetch_all(tx.connection())
            .await
            .unwrap()
    }

    /// The number that a query gives.
    pub(crate) async fn count(&self, query: &'static str) -> i64 {
        let mut tx = self.app.record.begin().await.unwrap();
        sqlx::query_scalar(query)
            .fetch_one(tx.connection())
            .await
            .unwrap()
    }

    pub(crate) async fn close(self) {
        self.app.close().await;
        self.stores.stop().await.unwrap();
    }
}

/// A worker process; killed when it is dropped.
pub(crate) struct Worker {
    pub(crate) id: String,
    /// Where it can be watched and steered.
    pub(crate) admin: Option<String>,
    pid: Pid,
    child: Child,
    words: BufReader<ChildStdout>,
}

impl Worker {
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut words = BufReader::new(child.stdout.take().unwrap());
        let said = within("the worker's first words", async {
            loop {
                let mut line = String::new();
                assert_ne!(words.read_line(&mut line).await.unwrap(), 0, "it has ended");
                if let Ok(said @ Value::Object(_)) = serde_json::from_str(&line) {
                    return said;
                }
            }
        });
        let said: Value = said.await;
        Self {
            id: said["worker"].as_str().unwrap().to_owned(),
            admin: said["admin"].as_str().map(str::to_owned),
            pid: Pid::from_raw(child.id().unwrap() as i32),
            child,
            words,
        }
    }

    /// SIGTERM, and what it said until its end, which must be a good one: objects, one a line.
    pub(crate) async fn stop_and_listen(mut self) -> Vec<Value> {
        self.signal(Signal::SIGTERM);
        let mut said = String::new();
        within("all its words", self.words.read_to_string(&mut said))
            .await
            .unwrap();
        assert_eq!(self.end().await, Some(0));
        let objects = said
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        objects.filter(Value::is_object).collect()
    }

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
