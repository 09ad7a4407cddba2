//! Programs that drive other clients for the tests: a JSON request per line, a JSON line per answer
//! and per event.
//!
//! A driver belongs to no runtime: threads move its lines, so that tests share it. It ends when its
//! input does, which is at the latest when this process ends, however that ends.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::wait::{LIMIT, within};

/// An error that the other library gave.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Thrown {
    pub(crate) name: String,
    pub(crate) message: String,
}

type Answer = Result<Value, Thrown>;

/// Something that a worker or an event reader of a driver told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heard {
    pub(crate) event: String,
    pub(crate) args: Value,
}

impl Heard {
    /// The job that it is about: the first argument is its id, or has it.
    pub(crate) fn job_id(&self) -> Option<&str> {
        let first = &self.args[0];
        first.as_str().or_else(|| first["jobId"].as_str())
    }
}

pub(crate) struct Driver {
    name: String,
    child: Mutex<Child>,
    input: Mutex<Option<ChildStdin>>,
    next: AtomicU64,
    open: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    heard: Mutex<HashMap<String, Vec<Heard>>>,
    /// Counts lines, so that whoever waits for an event looks again.
    lines: watch::Sender<u64>,
}

impl Driver {
    /// A Node process with version 5 or 6 of the package; with `now_ms` its clock stands.
    pub(crate) fn node(version: u8, redis_port: u16, now_ms: Option<i64>) -> Arc<Self> {
        let mut command = Command::new("node");
        command
            .arg(sources().join("node/driver.mjs"))
            .arg(clients().join("node"))
            .args([version.to_string(), redis_port.to_string()])
            .args(now_ms.map(|now| now.to_string()));
        Self::start(&format!("node{version}"), command)
    }

    /// A Node process of version 6 whose clock is off by so much.
    pub(crate) fn node_off(redis_port: u16, off_ms: i64) -> Arc<Self> {
        let mut command = Command::new("node");
        command
            .arg(sources().join("node/driver.mjs"))
            .arg(clients().join("node"))
            .args([
                "6".to_owned(),
                redis_port.to_string(),
                format!("off:{off_ms}"),
            ]);
        Self::start("node with a wrong clock", command)
    }

    pub(crate) fn python(redis_port: u16) -> Arc<Self> {
        let mut command = Command::new(clients().join("python/bin/python"));
        command
            .arg(sources().join("python/driver.py"))
            .arg(redis_port.to_string());
        Self::start("python", command)
    }

    fn start(name: &str, mut command: Command) -> Arc<Self> {
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn();
        let mut child = spawned.unwrap_or_else(|error| {
            panic!("{name} does not start ({error}): `make clients` installs what is needed")
        });
        let output = BufReader::new(child.stdout.take().unwrap());
        let driver = Arc::new(Self {
            name: name.to_owned(),
            input: Mutex::new(child.stdin.take()),
            child: Mutex::new(child),
            next: AtomicU64::new(1),
            open: Mutex::default(),
            heard: Mutex::default(),
            lines: watch::Sender::new(0),
        });
        let reader = Arc::downgrade(&driver);
        std::thread::spawn(move || {
            for line in output.lines() {
                let (Ok(line), Some(driver)) = (line, reader.upgrade()) else {
                    return;
                };
                driver.receive(&line);
            }
            // Nobody will answer any more: whoever waits sees it at once.
            if let Some(driver) = reader.upgrade() {
                driver.open.lock().unwrap().clear();
            }
        });
        driver
    }

    fn receive(&self, line: &str) {
        let mut line: Value = match serde_json::from_str(line) {
            Ok(line) => line,
            Err(error) => panic!("{} said {line:?}: {error}", self.name),
        };
        if let Some(from) = line["from"].as_str() {
            let heard = Heard {
                event: line["event"].as_str().unwrap().to_owned(),
                args: line["args"].clone(),
            };
            let from = from.to_owned();
            let mut all = self.heard.lock().unwrap();
            all.entry(from).or_default().push(heard);
        } else {
            let id = line["id"].as_u64().unwrap();
            let answer = match line.get("error") {
                Some(error) => Err(Thrown {
                    name: error["name"].as_str().unwrap_or_default().to_owned(),
                    message: error["message"].as_str().unwrap_or_default().to_owned(),
                }),
                None => Ok(line["value"].take()),
            };
            if let Some(asker) = self.open.lock().unwrap().remove(&id) {
                let _ = asker.send(answer);
            }
        }
        self.lines.send_modify(|lines| *lines += 1);
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn try_ask(&self, op: &str, mut request: Value) -> Answer {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        request["id"] = json!(id);
        request["op"] = json!(op);
        let (asker, answer) = oneshot::channel();
        self.open.lock().unwrap().insert(id, asker);
        let line = format!("{request}\n");
        if let Some(input) = self.input.lock().unwrap().as_mut() {
            // A closed pipe shows itself by the missing answer.
            let _ = input.write_all(line.as_bytes());
        }
        match within(&format!("{} to answer {line}", self.name), answer).await {
            Ok(answer) => answer,
            Err(_) => panic!(
                "{} ended before it answered {line}: `make clients` installs what it may lack",
                self.name
            ),
        }
    }

    pub(crate) async fn ask(&self, op: &str, request: Value) -> Value {
        match self.try_ask(op, request.clone()).await {
            Ok(value) => value,
            Err(thrown) => panic!("{}: {op} {request}: {thrown:?}", self.name),
        }
    }

    /// What `from` told so far.
    pub(crate) fn heard(&self, from: &str) -> Vec<Heard> {
        let heard = self.heard.lock().unwrap();
        heard.get(from).cloned().unwrap_or_default()
    }

    /// Waits until what `from` told is enough for `find`.
    pub(crate) async fn until_heard<T>(
        &self,
        from: &str,
        what: &str,
        find: impl Fn(&[Heard]) -> Option<T>,
    ) -> T {
        let mut lines = self.lines.subscribe();
        let waiting = async {
            loop {
                lines.mark_unchanged();
                if let Some(found) = find(&self.heard(from)) {
                    return found;
                }
                lines.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(LIMIT, waiting).await {
            Ok(found) => found,
            Err(_) => panic!(
                "{}: waited in vain for {what}; {from} told {:#?}",
                self.name,
                self.heard(from)
            ),
        }
    }

    /// Ends the process as a crash does.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.input.lock().unwrap().take());
        let _ = self.child.lock().unwrap().wait();
    }
}

pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// Where `scripts/interop_clients.sh` puts what it installs: beside the tests' own scratch folder.
pub(crate) fn clients() -> PathBuf {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    scratch.parent().unwrap().join("interop")
}
