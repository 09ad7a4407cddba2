//! The processes under test: one server and some workers, of the same program as this one.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::Instant;

use super::child::{Guardian, Process};
use super::plan::ORDER_QUEUE;
use super::space::queues;

/// How long the server may take until it answers.
const SERVE_PATIENCE: Duration = Duration::from_secs(60);
/// How long a process may take to end after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// Ports for the server, below those that systems hand out by themselves.
const PORTS: std::ops::Range<u16> = 30_000..32_000;

/// How the processes are started.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) program: PathBuf,
    /// Logs and uploads.
    pub(super) dir: PathBuf,
    pub(super) database_url: String,
    pub(super) redis_url: String,
    pub(super) ledger: String,
    pub(super) workers: usize,
    pub(super) slots: usize,
    pub(super) lease: Duration,
    pub(super) api_key: String,
}

/// Which processes run now.
#[derive(Debug, Clone, Default)]
pub(super) struct Pids {
    pub(super) serve: Option<u32>,
    pub(super) workers: Vec<u32>,
}

/// The running processes.
pub(super) struct Fleet {
    pub(super) setup: Setup,
    guardian: Guardian,
    port: u16,
    serve: Option<Process>,
    workers: Vec<Option<Process>>,
    /// Processes that ended though nobody told them to.
    pub(super) deserters: Vec<String>,
}

impl Fleet {
    pub(super) async fn start(setup: Setup, guardian: &Guardian) -> anyhow::Result<Self> {
        let mut fleet = Self {
            workers: (0..setup.workers).map(|_| None).collect(),
            port: free_port().await?,
            guardian: guardian.clone(),
            serve: None,
            deserters: Vec::new(),
            setup,
        };
        fleet.supervise()?;
        fleet.until_served().await?;
        Ok(fleet)
    }

    /// Where the server listens.
    pub(super) fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn command(&self, name: &str) -> Command {
        let setup = &self.setup;
        let mut command = Command::new(&setup.program);
        command
            .arg(name)
            .args(["--database-url", &setup.database_url])
            .args(["--redis-url", &setup.redis_url])
            .arg("--data-dir")
            .arg(setup.dir.join("data"))
            .env("BULLWARK_API_KEY", &setup.api_key)
            .stdin(Stdio::null());
        command
    }

    /// Starts what is not there.
    pub(super) fn supervise(&mut self) -> anyhow::Result<()> {
        self.notice_ends();
        if self.serve.is_none() {
            let mut command = self.command("serve");
            command.args(["--http-addr", &format!("127.0.0.1:{}", self.port)]);
            let log = self.setup.dir.join("serve.log");
            let serve = Process::start(command, &log, Stdio::null(), &self.guardian);
            self.serve = Some(serve.context("start the server")?);
        }
        for nth in 0..self.workers.len() {
            if self.workers[nth].is_none() {
                self.workers[nth] = Some(self.start_worker(nth, &queues(), self.setup.slots)?);
            }
        }
        Ok(())
    }

    fn start_worker(&self, nth: usize, queues: &[&str], slots: usize) -> anyhow::Result<Process> {
        let mut command = self.command("soak-worker");
        command
            .args(["--ledger", &self.setup.ledger])
            .args(queues.iter().flat_map(|queue| ["--queue", *queue]))
            .args(["--concurrency", &slots.to_string()])
            .args(["--lease-ms", &self.setup.lease.as_millis().to_string()]);
        let log = self.setup.dir.join(format!("worker-{nth}.log"));
        Process::start(command, &log, Stdio::null(), &self.guardian).context("start a worker")
    }

    /// A worker with one slot, for the look at the order.
    pub(super) fn start_single(&self) -> anyhow::Result<Process> {
        self.start_worker(self.workers.len(), &[ORDER_QUEUE], 1)
    }

    fn notice_ends(&mut self) {
        let mut ended = Vec::new();
        for place in self.workers.iter_mut().chain([&mut self.serve]) {
            let Some(process) = place else { continue };
            if let Some(status) = process.ended() {
                ended.push(format!("process {}: {status}", process.pid));
                *place = None;
            }
        }
        for end in ended {
            tracing::warn!(end, "a process ended by itself");
            self.deserters.push(end);
        }
    }

    /// Waits until the server answers.
    pub(super) async fn until_served(&mut self) -> anyhow::Result<()> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(2))
            .build()?;
        let deadline = Instant::now() + SERVE_PATIENCE;
        while Instant::now() < deadline {
            let answer = http.get(format!("{}/healthz", self.base())).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            self.supervise()?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = self.setup.dir.join("serve.log");
        bail!("the server does not answer: see {}", log.display())
    }

    /// The process of the nth worker, if it runs.
    pub(super) fn worker_pid(&mut self, nth: usize) -> Option<u32> {
        self.notice_ends();
        self.workers[nth].as_ref().map(|worker| worker.pid)
    }

    pub(super) fn pids(&self) -> Pids {
        let workers = self.workers.iter().flatten();
        Pids {
            serve: self.serve.as_ref().map(|serve| serve.pid),
            workers: workers.map(|worker| worker.pid).collect(),
        }
    }

    pub(super) async fn kill_worker(&mut self, nth: usize) {
        if let Some(worker) = self.workers[nth].take() {
            worker.kill().await;
        }
    }

    pub(super) async fn kill_serve(&mut self) {
        if let Some(serve) = self.serve.take() {
            serve.kill().await;
        }
    }

    pub(super) fn signal_worker(&mut self, nth: usize, signal: Signal) {
        if let Some(worker) = &mut self.workers[nth] {
            worker.signal(signal);
        }
    }

    /// SIGTERM, and waits for the end.
    pub(super) async fn retire_worker(&mut self, nth: usize) {
        if let Some(worker) = self.workers[nth].take() {
            retire(worker, &mut self.deserters).await;
        }
    }

    pub(super) async fn stop(mut self) -> Vec<String> {
        self.notice_ends();
        for worker in self.workers.iter_mut().flatten() {
            worker.signal(Signal::SIGTERM);
        }
        let all: Vec<Process> = self.workers.drain(..).flatten().collect();
        for process in all.into_iter().chain(self.serve.take()) {
            retire(process, &mut self.deserters).await;
        }
        self.deserters
    }
}

pub(super) async fn retire(process: Process, deserters: &mut Vec<String>) {
    let pid = process.pid;
    let code = process.stop(STOP_PATIENCE).await;
    if code != Some(0) {
        deserters.push(format!("process {pid}: SIGTERM ended it with {code:?}"));
    }
}

/// The ledger process and its address.
pub(super) async fn start_ledger(
    program: &Path,
    dir: &Path,
    guardian: &Guardian,
) -> anyhow::Result<(Process, String)> {
    let mut command = Command::new(program);
    command
        .arg("soak-ledger")
        .arg(dir.join("ledger"))
        .stdin(Stdio::null());
    let log = dir.join("ledger.log");
    let mut process = Process::start(command, &log, Stdio::piped(), guardian)?;
    let stdout = process.take_stdout().context("the ledger's output")?;
    let mut line = String::new();
    let read = tokio::io::BufReader::new(stdout).read_line(&mut line).await;
    read.context("the ledger's address")?;
    if line.trim().is_empty() {
        bail!("the ledger did not start: see {}", log.display());
    }
    Ok((process, line.trim().to_owned()))
}

async fn free_port() -> anyhow::Result<u16> {
    for _ in 0..200 {
        let port = PORTS.start + rand::random::<u16>() % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port was found on 127.0.0.1")
}
