//! One Redis process on a loopback port, ended with the test process.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue};
use tempfile::TempDir;

/// After so long a wait has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// Nodes of a cluster talk to each other so much above their port.
const BUS: u16 = 10_000;

pub(crate) struct Server {
    pub(crate) port: u16,
    directory: TempDir,
    arguments: Vec<String>,
    /// A shell that ends the server when this process, which holds its input, ends.
    shell: Option<Child>,
}

impl Server {
    /// Starts it and returns once it answers.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_with(free_port(), None, arguments).await
    }

    /// Starts it with a settings file, which it may rewrite.
    pub(crate) async fn start_with(
        port: u16,
        settings: Option<String>,
        arguments: &[&str],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut all = Vec::new();
        if let Some(settings) = settings {
            let file: PathBuf = directory.path().join("settings.conf");
            std::fs::write(&file, settings).unwrap();
            all.push(file.to_str().unwrap().to_owned());
        }
        all.extend(["--port", &port.to_string(), "--bind", "127.0.0.1"].map(str::to_owned));
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let mut server = Self {
            port,
            directory,
            arguments: all,
            shell: None,
        };
        server.start_again().await;
        server
    }

    /// The same server after its end, with what it kept on disk.
    pub(crate) async fn start_again(&mut self) {
        let shell = Command::new("sh")
            .arg("-c")
            .arg("redis-server \"$@\" & server=$!; read -r _; kill -9 $server; wait")
            .arg("redis-server")
            .args(&self.arguments)
            .arg("--dir")
            .arg(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell, and redis-server on PATH");
        self.shell = Some(shell);
        let answers = async || {
            let pong = self.try_raw::<String>(&redis::cmd("PING")).await;
            pong.is_ok_and(|pong| pong == "PONG")
        };
        eventually("the server answers", answers).await;
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let mut shell = self.shell.take().unwrap();
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }

    /// Stops it in mid-air: its connections stay open and nothing answers.
    pub(crate) async fn freeze(&self) -> Frozen {
        let pid = self.info("process_id").await.unwrap();
        let pid = Pid::from_raw(pid.parse().unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        Frozen(pid)
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) async fn connection(&self) -> redis::RedisResult<MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://{}", self.address()))?;
        // The library's own limit of half a second is short for a machine with other work.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(LIMIT))
            .set_response_timeout(Some(LIMIT));
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    async fn try_raw<T: FromRedisValue>(&self, cmd: &Cmd) -> redis::RedisResult<T> {
        cmd.query_async(&mut self.connection().await?).await
    }

    /// A plain command, its words parted by blanks.
    pub(crate) async fn raw<T: FromRedisValue>(&self, line: &str) -> T {
        let mut words = line.split(' ');
        let mut cmd = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            cmd.arg(word);
        });
        self.try_raw(&cmd).await.unwrap()
    }

    /// One line of `INFO`.
    pub(crate) async fn info(&self, name: &str) -> Option<String> {
        let info: redis::InfoDict = self.try_raw(&redis::cmd("INFO")).await.ok()?;
        info.get(name)
    }
}

/// A process that was stopped.
pub(crate) struct Frozen(Pid);

impl Frozen {
    pub(crate) fn thaw(self) {
        kill(self.0, Signal::SIGCONT).unwrap();
    }
}

/// A port that is free, and the port of its cluster bus, too.
pub(crate) fn free_port() -> u16 {
    for _ in 0..1000 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bus = port.checked_add(BUS);
        if bus.is_some_and(|bus| std::net::TcpListener::bind(("127.0.0.1", bus)).is_ok()) {
            return port;
        }
    }
    panic!("no port with a free one {BUS} above");
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// Looks again and again until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    })
    .await;
}
