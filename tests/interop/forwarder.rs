//! `bullwark worker --forward`: a worker process that hands its jobs to a receiver.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::stage::Stage;
use crate::wait::within;

pub(crate) struct Forwarder {
    child: Child,
    /// Where it is controlled, if it was started with `--admin`.
    pub(crate) admin: Option<String>,
    lines: Arc<Mutex<Vec<Value>>>,
    told: watch::Receiver<usize>,
}

impl Forwarder {
    /// Starts it, and returns once it says that it is connected.
    pub(crate) async fn start(stage: &Stage, queue: &str, url: &str, arguments: &[&str]) -> Self {
        Self::start_with(stage, queue, url, arguments, |_| {}).await
    }

    pub(crate) async fn start_with(
        stage: &Stage,
        queue: &str,
        url: &str,
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bullwark"));
        command
            .args(["worker", "--json", "--queue", queue, "--forward", url])
            .args(arguments)
            .args(["--prefix", &stage.prefix])
            .env("BULLWARK_REDIS_URL", &stage.redis_url)
            .env("BULLWARK_DATABASE_URL", &stage.database_url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = within("the forwarder's first line", output.next_line()).await;
        let first = first.unwrap().expect("the forwarder ended at once");
        let first: Value = serde_json::from_str(&first).unwrap();
        assert!(first["worker"].is_string(), "{first}");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (teller, told) = watch::channel(0);
        let kept = lines.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                kept.lock()
                    .unwrap()
                    .push(serde_json::from_str(&line).unwrap());
                teller.send_modify(|count| *count += 1);
            }
        });
        Self {
            child,
            admin: first["admin"].as_str().map(str::to_owned),
            lines,
            told,
        }
    }

    /// The event lines of a job so far.
    pub(crate) fn of(&self, id: &str) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        let of_job = lines.iter().filter(|line| line["jobId"] == id);
        of_job.cloned().collect()
    }

    /// The names of all event lines so far.
    pub(crate) fn names(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let names = lines.iter().map(|line| line["event"].as_str().unwrap());
        names.map(str::to_owned).collect()
    }

    /// The names of all event lines of a worker that has ended.
    pub(crate) async fn all_names(&mut self) -> Vec<String> {
        // The reader drops its end when it has read everything.
        let told = &mut self.told;
        within("the last line", async {
            while told.changed().await.is_ok() {}
        })
        .await;
        self.names()
    }

    /// Waits for an event line, of a job if `id` is given.
    pub(crate) async fn until(&mut self, event: &str, id: Option<&str>) -> Value {
        let (lines, told) = (self.lines.clone(), &mut self.told);
        let what = format!("the forwarder's line {event} of {id:?}");
        within(&what, async move {
            loop {
                told.mark_unchanged();
                let found = lines.lock().unwrap().iter().find_map(|line| {
                    let is_it = line["event"] == event && id.is_none_or(|id| line["jobId"] == id);
                    is_it.then(|| line.clone())
                });
                if let Some(found) = found {
                    return found;
                }
                told.changed().await.expect("the forwarder ended");
            }
        })
        .await
    }

    /// A request to the admin port; its answer must be good.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: Value) -> String {
        let (status, text) = self.ask(method, path, &[], body).await;
        assert!((200..300).contains(&status), "{path}: {status} {text}");
        text
    }

    /// A request to the admin port whose caller hangs up before there is an answer.
    pub(crate) async fn hang_up(&self, path: &str, body: Value, after: Duration) {
        let asked = tokio::time::timeout(after, self.ask("POST", path, &[], body)).await;
        assert!(asked.is_err(), "{path} was answered: {asked:?}");
    }

    /// A request to the admin port that it refuses: with this status and code.
    pub(crate) async fn refused(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> String {
        let (status, text) = self.ask("POST", path, headers, body).await;
        let problem: Value = serde_json::from_str(&text).unwrap();
        format!("{status} {}", problem["code"].as_str().unwrap())
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (u16, String) {
        let url = format!("{}{path}", self.admin.as_deref().unwrap());
        let method = method.parse().unwrap();
        // The client wants one, whatever the address.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        let mut request = client.request(method, url).json(&body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = within(path, request.send()).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Ends it in good order.
    pub(crate) async fn stop(mut self) {
        self.terminate();
        self.ended().await;
    }

    /// Tells it to end in good order.
    pub(crate) fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().unwrap() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    /// Waits for its end, which must be a good one.
    pub(crate) async fn ended(&mut self) {
        let status = within("the end of the forwarder", self.child.wait()).await;
        assert_eq!(status.unwrap().code(), Some(0));
    }
}
