//! The npm packages as tests say them: a queue, a worker, a reader of events. Everything that a
//! method does happens in the package itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::driver::{Driver, Heard, Thrown};
use crate::stage::{Stage, redis_port};
use crate::steps::ACT;

/// The process that all tests share for version 5 or 6.
pub(crate) async fn node(version: u8) -> Arc<Driver> {
    static FIVE: OnceCell<Arc<Driver>> = OnceCell::const_new();
    static SIX: OnceCell<Arc<Driver>> = OnceCell::const_new();
    let cell = if version == 5 { &FIVE } else { &SIX };
    let start = || async { Driver::node(version, redis_port().await, None) };
    cell.get_or_init(start).await.clone()
}

/// A name for a thing of a driver that no other thing has.
pub(crate) fn handle(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A `Queue`, which also reaches single jobs.
#[derive(Clone)]
pub(crate) struct NodeQueue {
    pub(crate) driver: Arc<Driver>,
    pub(crate) handle: String,
}

impl NodeQueue {
    pub(crate) async fn open(stage: &Stage, version: u8, queue: &str) -> Self {
        Self::on(node(version).await, &stage.prefix, queue).await
    }

    pub(crate) async fn on(driver: Arc<Driver>, prefix: &str, queue: &str) -> Self {
        let handle = handle("queue");
        let opts = json!({ "prefix": prefix });
        let request = json!({ "as": handle, "name": queue, "opts": opts });
        driver.ask("queue", request).await;
        Self { driver, handle }
    }

    pub(crate) async fn add(&self, data: Value, opts: Value) -> String {
        let job = self.call("add", json!([ACT, data, opts])).await;
        job["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn add_bulk(&self, jobs: Vec<Value>) -> Vec<String> {
        let jobs = self.call("addBulk", json!([jobs])).await;
        let jobs = jobs.as_array().unwrap().iter();
        jobs.map(|job| job["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A method of the queue.
    pub(crate) async fn call(&self, method: &str, args: Value) -> Value {
        let request = json!({ "on": self.handle, "method": method, "args": args });
        self.driver.ask("call", request).await
    }

    /// A method of a job of this queue.
    pub(crate) async fn job(&self, id: &str, method: &str, args: Value) -> Value {
        match self.try_job(id, method, args).await {
            Ok(value) => value,
            Err(thrown) => panic!("job {id}: {method}: {thrown:?}"),
        }
    }

    pub(crate) async fn try_job(
        &self,
        id: &str,
        method: &str,
        args: Value,
    ) -> Result<Value, Thrown> {
        let request = json!({ "on": self.handle, "jobId": id, "method": method, "args": args });
        self.driver.try_ask("job", request).await
    }

    /// All that the package reads of a job; null if there is none.
    pub(crate) async fn get(&self, id: &str) -> Value {
        self.call("getJob", json!([id])).await
    }

    pub(crate) async fn state(&self, id: &str) -> String {
        let state = self.call("getJobState", json!([id])).await;
        state.as_str().unwrap().to_owned()
    }

    /// Waits until the package says that a job is in this state.
    pub(crate) async fn until_state(&self, id: &str, state: &str) {
        let what = format!("job {id} of {} to be {state}", self.handle);
        crate::wait::eventually(&what, async || {
            (self.state(id).await == state).then_some(())
        })
        .await;
    }
}

/// A `FlowProducer`.
pub(crate) struct NodeFlows {
    driver: Arc<Driver>,
    handle: String,
}

impl NodeFlows {
    pub(crate) async fn open(stage: &Stage, version: u8) -> Self {
        let (driver, handle) = (node(version).await, handle("flows"));
        let opts = json!({ "prefix": stage.prefix });
        driver
            .ask("flows", json!({ "as": handle, "opts": opts }))
            .await;
        Self { driver, handle }
    }

    pub(crate) async fn add(&self, tree: &Value) {
        let request = json!({ "on": self.handle, "method": "add", "args": [tree] });
        self.driver.ask("call", request).await;
    }

    /// The flow below a job: `{id, children}` of each.
    pub(crate) async fn get(&self, queue: &str, id: &str) -> Value {
        let which = json!({ "queueName": queue, "id": id });
        let request = json!({ "on": self.handle, "method": "getFlow", "args": [which] });
        self.driver.ask("call", request).await
    }
}

/// A `Worker` that runs steps.
pub(crate) struct NodeWorker {
    pub(crate) driver: Arc<Driver>,
    pub(crate) handle: String,
}

impl NodeWorker {
    pub(crate) async fn start(driver: Arc<Driver>, prefix: &str, queue: &str, opts: Value) -> Self {
        let handle = handle("worker");
        let mut opts = opts;
        opts["prefix"] = json!(prefix);
        let request = json!({ "as": handle, "name": queue, "opts": opts, "who": "node" });
        driver.ask("worker", request).await;
        Self { driver, handle }
    }

    /// Waits for running jobs, then closes.
    pub(crate) async fn close(self) {
        let request = json!({ "on": self.handle, "args": [] });
        self.driver.ask("close", request).await;
    }

    /// Leaves running jobs as a crash does.
    pub(crate) async fn abandon(self) {
        let request = json!({ "on": self.handle, "args": [true] });
        self.driver.ask("close", request).await;
    }
}

/// The receiving end of a forwarding worker: rebuilds the job with the package and runs its steps.
pub(crate) struct Receiver {
    driver: Arc<Driver>,
    handle: String,
    pub(crate) url: String,
}

impl Receiver {
    pub(crate) async fn start(version: u8) -> Self {
        let (driver, handle) = (node(version).await, handle("receiver"));
        let request = json!({ "as": handle, "who": "receiver" });
        let url = driver.ask("receiver", request).await;
        Self {
            driver,
            handle,
            url: url.as_str().unwrap().to_owned(),
        }
    }

    pub(crate) async fn close(self) {
        let request = json!({ "on": self.handle, "args": [] });
        self.driver.ask("close", request).await;
    }

    /// What it was sent so far.
    pub(crate) async fn deliveries(&self) -> Vec<Value> {
        let deliveries = self
            .driver
            .ask("deliveries", json!({ "on": self.handle }))
            .await;
        serde_json::from_value(deliveries).unwrap()
    }
}

/// A `QueueEvents`, from the first entry of the stream on.
pub(crate) struct NodeEvents {
    pub(crate) driver: Arc<Driver>,
    pub(crate) handle: String,
}

impl NodeEvents {
    pub(crate) async fn open(stage: &Stage, version: u8, queue: &str) -> Self {
        let (driver, handle) = (node(version).await, handle("events"));
        let opts = json!({ "prefix": stage.prefix });
        let request = json!({ "as": handle, "name": queue, "opts": opts });
        driver.ask("events", request).await;
        Self { driver, handle }
    }

    /// Waits for an event of a job, and returns its arguments.
    pub(crate) async fn until(&self, event: &str, id: &str) -> Value {
        let find = |heard: &[Heard]| {
            let mut found = heard.iter();
            let found = found.find(|heard| heard.event == event && heard.job_id() == Some(id));
            found.map(|heard| heard.args[0].clone())
        };
        let what = format!("{event} of {id}");
        self.driver.until_heard(&self.handle, &what, find).await
    }

    /// Waits for an event that is about no job.
    pub(crate) async fn until_named(&self, event: &str) {
        let find = |heard: &[Heard]| heard.iter().find(|heard| heard.event == event).map(|_| ());
        self.driver.until_heard(&self.handle, event, find).await;
    }

    /// The arguments of all events of this name so far.
    pub(crate) fn named(&self, event: &str) -> Vec<Value> {
        let heard = self.driver.heard(&self.handle);
        let named = heard.into_iter().filter(|heard| heard.event == event);
        named.map(|heard| heard.args[0].clone()).collect()
    }

    /// The names of all events so far.
    pub(crate) fn names(&self) -> Vec<String> {
        let heard = self.driver.heard(&self.handle);
        heard.into_iter().map(|heard| heard.event).collect()
    }

    /// The names of the events of a job so far.
    pub(crate) fn of(&self, id: &str) -> Vec<String> {
        let heard = self.driver.heard(&self.handle);
        let of_job = heard.into_iter().filter(|heard| heard.job_id() == Some(id));
        of_job.map(|heard| heard.event).collect()
    }
}
