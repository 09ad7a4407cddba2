//! A private Redis per test process, a prefix per test, and a printout of all keys of a prefix.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bullwark::broker::{Broker, BrokerOptions, ClaimOptions, Claimed, NewJob};
use bullwark::job::QueueName;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue};

/// The time of tests: all scores follow from it.
pub(crate) const NOW: i64 = 1_700_000_000_000;
/// `NOW` as a score of `delayed`.
pub(crate) const NOW_SCORE: i64 = NOW * 4096;
/// 2^32, a priority's step in scores.
pub(crate) const STEP: i64 = 4_294_967_296;

pub(crate) struct Server {
    pub(crate) port: u16,
    directory: tempfile::TempDir,
    options: Vec<String>,
    /// A shell that ends the server when this process, which holds its input, ends.
    shell: Child,
}

impl Server {
    pub(crate) fn start(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let options = strings(options);
        let shell = launch(port, directory.path(), &options);
        let server = Self {
            port,
            directory,
            options,
            shell,
        };
        server.await_ready();
        server
    }

    /// The same address with another process, which has lost everything.
    pub(crate) fn start_again(&mut self) {
        self.shell = launch(self.port, self.directory.path(), &self.options);
        self.await_ready();
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends the server and waits until it is gone.
    pub(crate) fn stop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().unwrap();
    }

    fn await_ready(&self) {
        let client = redis::Client::open(self.url()).unwrap();
        for _ in 0..1000 {
            let pong = client
                .get_connection()
                .and_then(|mut c| redis::cmd("PING").exec(&mut c));
            if pong.is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server does not answer");
    }
}

fn launch(port: u16, directory: &std::path::Path, options: &[String]) -> Child {
    Command::new("sh")
        .arg("-c")
        .arg("redis-server \"$@\" & server=$!; read -r _; kill -9 $server; wait")
        .arg("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .args(["--appendonly", "no", "--daemonize", "no", "--dir"])
        .arg(directory)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("a shell, and redis-server on PATH")
}

pub(crate) fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&[]))
}

/// One test's queue.
pub(crate) struct Bench {
    pub(crate) broker: Broker,
    pub(crate) queue: QueueName,
    pub(crate) prefix: String,
    connection: MultiplexedConnection,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut BrokerOptions)) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut options = BrokerOptions {
            url: server().url(),
            prefix: prefix.clone(),
            ..Default::default()
        };
        change(&mut options);
        let client = redis::Client::open(options.url.as_str()).unwrap();
        // A busy machine is slow, not broken.
        let patient =
            AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
        let connection = client
            .get_multiplexed_async_connection_with_config(&patient)
            .await
            .unwrap();
        let broker = Broker::connect(options).await.unwrap().with_test_clock(NOW);
        Self {
            broker,
            queue: "q".parse().unwrap(),
            prefix,
            connection,
        }
    }

    /// The same queue at another time.
    pub(crate) fn at(&self, now_ms: i64) -> Broker {
        self.broker.with_test_clock(now_ms)
    }

    /// The same queue as production sees it.
    pub(crate) async fn broker_with_server_clock(&self) -> Broker {
        let prefix = self.prefix.clone();
        let options = BrokerOptions {
            url: server().url(),
            prefix,
            ..Default::default()
        };
        Broker::connect(options).await.unwrap()
    }

    pub(crate) fn key(&self, suffix: &str) -> String {
        format!("{}:q:{suffix}", self.prefix)
    }

    pub(crate) async fn send<T: FromRedisValue>(&self, cmd: &Cmd) -> T {
        cmd.query_async(&mut self.connection.clone()).await.unwrap()
    }

    /// A plain command; words with `@` in front are suffixes of keys of the queue.
    pub(crate) async fn raw<T: FromRedisValue>(&self, line: &str) -> T {
        let mut cmd = Cmd::new();
        for word in line.split_whitespace() {
            match word.strip_prefix('@') {
                Some(suffix) => cmd.arg(self.key(suffix)),
                None => cmd.arg(word),
            };
        }
        self.send(&cmd).await
    }

    pub(crate) async fn raws(&self, lines: &[&str]) {
        for line in lines {
            let _: redis::Value = self.raw(line).await;
        }
    }

    /// Adds jobs without priority with these ids.
    pub(crate) async fn add(&self, ids: &[&str]) {
        let jobs: Vec<NewJob> = ids.iter().map(|id| job(id)).collect();
        self.broker.add(&self.queue, &jobs).await.unwrap();
    }

    pub(crate) async fn claim(&self, max: usize) -> Claimed {
        self.broker
            .claim(&self.queue, &claim_options("t1", max))
            .await
            .unwrap()
    }

    /// Forgets what was announced so far, so that a test sees its own events only.
    pub(crate) async fn forget_events(&self) {
        let _: i64 = self.raw("DEL @events").await;
    }

    /// All keys of the test's prefix, one per line, events one per line.
    pub(crate) async fn dump(&self) -> String {
        let mut keys: Vec<String> = self
            .send(redis::cmd("KEYS").arg(format!("{}:*", self.prefix)))
            .await;
        keys.sort();
        let mut lines = String::new();
        for key in keys {
            let name = key.strip_prefix(&self.key("")).unwrap_or(&key).to_owned();
            let kind: String = self.send(redis::cmd("TYPE").arg(&key)).await;
            let value = self.value(&kind, &key).await;
            for value in value {
                writeln!(lines, "{name} {value}").unwrap();
            }
        }
        lines
    }

    async fn value(&self, kind: &str, key: &str) -> Vec<String> {
        let cmd = |line: &str| {
            let mut words = line.split(' ');
            let mut cmd = redis::cmd(words.next().unwrap());
            cmd.arg(key);
            words.for_each(|word| {
                cmd.arg(word);
            });
            cmd
        };
        let pairs = |flat: Vec<(String, String)>| {
            let pairs: Vec<String> = flat.into_iter().map(|(a, b)| format!("{a}={b}")).collect();
            pairs
        };
        match kind {
            "string" => {
                let value: String = self.send(&cmd("GET")).await;
                let ttl_ms: i64 = self.send(&cmd("PTTL")).await;
                // Rounded up: a slow test still sees the time to live that was asked for.
                let bucket = (ttl_ms + 9_999) / 10_000 * 10;
                let ttl = if ttl_ms > 0 {
                    format!(" ttl<={bucket}s")
                } else {
                    String::new()
                };
                vec![format!("= {value}{ttl}")]
            }
            "list" => {
                let items: Vec<String> = self.send(&cmd("LRANGE 0 -1")).await;
                vec![format!("[{}]", items.join(" "))]
            }
            "set" => {
                let mut items: Vec<String> = self.send(&cmd("SMEMBERS")).await;
                items.sort();
                vec![format!("{{{}}}", items.join(" "))]
            }
            "zset" => {
                let items: Vec<(String, f64)> = self.send(&cmd("ZRANGE 0 -1 WITHSCORES")).await;
                let items: Vec<String> = items.iter().map(|(m, s)| format!("{m}={s}")).collect();
                vec![format!("<{}>", items.join(" "))]
            }
            "hash" => {
                let mut fields = pairs(self.send(&cmd("HGETALL")).await);
                fields.sort();
                vec![format!("{{{}}}", fields.join(" "))]
            }
            "stream" => {
                let entries: Vec<(String, Vec<(String, String)>)> =
                    self.send(&cmd("XRANGE - +")).await;
                entries
                    .into_iter()
                    .map(|(_, fields)| pairs(fields).join(" "))
                    .collect()
            }
            other => panic!("{key} is a {other}"),
        }
    }

    /// Compares every key of the prefix with these lines. The settings that every add writes
    /// are left out when they are as always.
    #[track_caller]
    pub(crate) fn expect(&self, expected: &str) -> impl Future<Output = ()> + '_ {
        let place = std::panic::Location::caller();
        let expected = lines(expected);
        async move {
            let found = lines(&self.dump().await);
            let found: Vec<&String> = found
                .iter()
                .filter(|line| *line != "meta {opts.maxLenEvents=10000}")
                .collect();
            let expected: Vec<&String> = expected.iter().collect();
            assert_eq!(found, expected, "at {place}\nfound:\n{found:#?}");
        }
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

pub(crate) fn job(id: &str) -> NewJob {
    NewJob {
        id: id.to_owned(),
        name: "n".to_owned(),
        data: "{}".to_owned(),
        opts: "{}".to_owned(),
        timestamp_ms: NOW,
        ..NewJob::default()
    }
}

pub(crate) fn claim_options(token: &str, max: usize) -> ClaimOptions {
    let lease = Duration::from_secs(30);
    ClaimOptions {
        token: token.to_owned(),
        max,
        lease,
        worker_name: None,
        ..Default::default()
    }
}

pub(crate) fn ids(claimed: &Claimed) -> Vec<&str> {
    claimed.jobs.iter().map(|job| job.id.as_str()).collect()
}

pub(crate) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
