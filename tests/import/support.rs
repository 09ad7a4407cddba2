//! A throw-away PostgreSQL for this test process, a database per test, and short ways to say
//! things.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bullwark::handlers::import_csv::{ImportCsv, ImportCsvHandler, SourceOptions, Summary};
use bullwark::job::JobError;
use bullwark::record::{Record, RecordOptions};
use bullwark::storage::Storage;
use bullwark::uploads::Uploads;
use bullwark::worker::{Detached, Handler, JobContext};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const WORKER: &str = "test";

/// The address of the server without a database name, and the directory that ends with the process.
struct Server {
    url: String,
}

/// One test's database and data directory.
pub(crate) struct World {
    pub(crate) record: Record,
    pub(crate) pool: PgPool,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let server = tokio::task::spawn_blocking(server).await.unwrap();
        let name = format!("import_{number}");
        let mut admin = PgConnection::connect(&format!("{}/postgres", server.url))
            .await
            .unwrap();
        let create = format!("CREATE DATABASE {name}");
        sqlx::raw_sql(AssertSqlSafe(create))
            .execute(&mut admin)
            .await
            .unwrap();
        admin.close().await.unwrap();
        let url = format!("{}/{name}", server.url);
        let record = Record::connect(&RecordOptions::new(url.clone())).unwrap();
        record.migrate().await.unwrap();
        let pool = PgPool::connect(&url).await.unwrap();
        Self {
            record,
            pool,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Stores a file as an upload and returns its address.
    pub(crate) async fn upload(&self, bytes: impl AsRef<[u8]>) -> String {
        self.upload_of(None, bytes).await
    }

    /// A file that this workspace uploaded.
    pub(crate) async fn upload_of(
        &self,
        workspace: Option<Uuid>,
        bytes: impl AsRef<[u8]>,
    ) -> String {
        let uploads = Uploads::new(&Storage::local(self.dir.path()));
        let workspace = workspace.unwrap_or_default();
        let mut incoming = uploads.begin(workspace, "list.csv").await.unwrap();
        incoming.write(bytes.as_ref()).await.unwrap();
        incoming.finish().await.unwrap().url()
    }

    pub(crate) fn handler(&self) -> ImportCsvHandler {
        ImportCsvHandler {
            source: SourceOptions::new(self.dir.path()),
        }
    }

    /// Writes the row of a job that runs as attempt 1.
    pub(crate) async fn job(&self, workspace: Option<Uuid>) -> Uuid {
        let id = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO jobs (id, workspace_id, job_type, payload, status, attempt, worker_id)
             VALUES ($1, $2, 'import_csv', '{}', 'processing', 1, $3)",
        )
        .bind(id)
        .bind(workspace)
        .bind(WORKER)
        .execute(&self.pool)
        .await
        .unwrap();
        id
    }

    /// The context of an attempt, as the worker would make it: with the job's checkpoint.
    pub(crate) async fn context(&self, job: Uuid, attempt: i32) -> JobContext {
        let (workspace, checkpoint): (Option<Uuid>, Option<serde_json::Value>) =
            sqlx::query_as("SELECT workspace_id, checkpoint FROM jobs WHERE id = $1")
                .bind(job)
                .fetch_one(&self.pool)
                .await
                .unwrap();
        JobContext::detached(Detached {
            record: self.record.clone(),
            job_id: job,
            attempt,
            worker_id: WORKER.to_owned(),
            workspace_id: workspace,
            checkpoint,
            cancelled: CancellationToken::new(),
        })
    }

    /// Runs a new job to its end.
    pub(crate) async fn run(&self, payload: serde_json::Value) -> Result<Summary, JobError> {
        self.run_in(None, payload).await
    }

    pub(crate) async fn run_in(
        &self,
        workspace: Option<Uuid>,
        payload: serde_json::Value,
    ) -> Result<Summary, JobError> {
        let job = self.job(workspace).await;
        let context = self.context(job, 1).await;
        self.handler().run(context, parse(payload)).await
    }

    /// Imports a text as accounts with these options.
    pub(crate) async fn accounts(&self, text: &str, options: serde_json::Value) -> Summary {
        let url = self.upload(text).await;
        let payload =
            serde_json::json!({"file_url": url, "entity_type": "accounts", "options": options});
        self.run(payload).await.unwrap()
    }

    /// One value from the database.
    pub(crate) async fn one<T>(&self, sql: &'static str) -> T
    where
        T: Send + Unpin + sqlx::Type<sqlx::Postgres>,
        for<'r> T: sqlx::Decode<'r, sqlx::Postgres>,
    {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// One text per row, sorted.
    pub(crate) async fn texts(&self, sql: &'static str) -> Vec<String> {
        let mut found: Vec<String> = sqlx::query_scalar(sql).fetch_all(&self.pool).await.unwrap();
        found.sort();
        found
    }

    pub(crate) async fn workspace(&self, name: &str) -> Uuid {
        sqlx::query_scalar("INSERT INTO workspaces (name) VALUES ($1) RETURNING id")
            .bind(name)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    pub(crate) fn report(&self, summary: &Summary) -> String {
        let name = summary.report.as_ref().unwrap();
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }
}

pub(crate) fn parse(payload: serde_json::Value) -> ImportCsv {
    serde_json::from_value(payload).unwrap()
}

/// Starts the server once; it gets a signal from the kernel when this process ends.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        forget_ended();
        let dir = std::env::temp_dir().join(format!("bullwark-import-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let is_root = nix::unistd::geteuid().is_root();
        if is_root {
            run(Command::new("chown").arg("postgres").arg(&dir));
        }
        let data = dir.join("data");
        let bin = programs();
        run(as_user(is_root, &bin.join("initdb"))
            .current_dir(&dir)
            .args([
                "-D",
                data.to_str().unwrap(),
                "-U",
                "postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ]));
        let port = free_port();
        let mut command = as_user(is_root, &bin.join("postgres"));
        command
            .current_dir(&dir)
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "fsync=off",
            "shared_buffers=128MB",
            "max_wal_size=2GB",
            "max_connections=200",
            "unix_socket_directories=",
        ] {
            command.args(["-c", setting]);
        }
        command
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("log")).unwrap());
        // The kernel's signal comes when the *thread* ends that started the server.
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let child = command.spawn().unwrap();
            sender.send(()).unwrap();
            let _child = child;
            loop {
                std::thread::park();
            }
        });
        receiver.recv().unwrap();
        let ready = || {
            let mut check = Command::new(bin.join("pg_isready"));
            check.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]);
            check.status().unwrap().success()
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !ready() {
            assert!(
                std::time::Instant::now() < deadline,
                "PostgreSQL does not start"
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Server {
            url: format!("postgres://postgres@127.0.0.1:{port}"),
        }
    })
}

/// A command as the server's user, which gets SIGQUIT when its parent ends.
fn as_user(is_root: bool, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "QUIT"]).arg(program);
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn programs() -> PathBuf {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_default()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Removes directories of test processes that have ended.
fn forget_ended() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("bullwark-import-") else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
