//! A history as the npm package lives it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::history::{NOW_MS, Step, TOKEN};
use crate::driver::{Driver, Thrown};
use crate::node::{NodeQueue, handle};
use crate::steps::ACT;

/// The objects that an application would hold, for one prefix.
pub(crate) struct Npm {
    driver: Arc<Driver>,
    prefix: String,
    queue: String,
    worker: Value,
    queues: HashMap<String, NodeQueue>,
    hands: HashMap<String, String>,
    flows: Option<String>,
    now_ms: i64,
}

impl Npm {
    pub(crate) async fn new(driver: Arc<Driver>, prefix: &str) -> Self {
        let npm = Self {
            driver,
            prefix: prefix.to_owned(),
            queue: "q".to_owned(),
            worker: json!({}),
            queues: HashMap::new(),
            hands: HashMap::new(),
            flows: None,
            now_ms: NOW_MS,
        };
        npm.driver.ask("clock", json!({ "ms": NOW_MS })).await;
        npm
    }

    pub(crate) async fn run(&mut self, step: &Step) -> Result<(), Thrown> {
        match step.op.as_str() {
            "at" => {
                self.now_ms = NOW_MS + step.number(0);
                self.driver.ask("clock", json!({ "ms": self.now_ms })).await;
            }
            "queue" => self.queue = step.text(0).to_owned(),
            "worker" => self.worker = step.json(0),
            "add" => self.add(step.text(0), step.json(1)).await?,
            "bulk" => {
                let jobs = step.text(0).split(',').map(|id| {
                    let opts = with_id(step.json(1), id);
                    json!({ "name": ACT, "data": { "n": id }, "opts": opts })
                });
                let jobs: Vec<Value> = jobs.collect();
                self.call("addBulk", json!([jobs])).await?;
            }
            "child" => {
                let mut opts = step.json(2);
                let (queue, id) = step.text(1).split_once('/').unwrap();
                let queue = format!("{}:{queue}", self.prefix);
                opts["parent"] = json!({ "id": id, "queue": queue });
                self.add(step.text(0), opts).await?;
            }
            "flow" => self.flow(step.json(0)).await?,
            "take" => {
                let count = if step.has(0) { step.number(0) } else { 1 };
                let on = self.hand().await;
                for _ in 0..count {
                    let request = json!({ "on": on, "token": TOKEN });
                    self.driver.try_ask("take", request).await?;
                }
            }
            // A worker of the package takes its next job in the same step.
            "finish" | "finish-next" => {
                let args = json!([step.value(1), TOKEN, step.op == "finish-next"]);
                self.held(step, "moveToCompleted", args).await?;
            }
            "fail" | "fail-next" => {
                let error = json!({ "$error": step.text(1) });
                let args = json!([error, TOKEN, step.op == "fail-next"]);
                self.held(step, "moveToFailed", args).await?;
            }
            "fatal" => {
                let error = json!({ "$error": step.text(1), "name": "UnrecoverableError" });
                self.held(step, "moveToFailed", json!([error, TOKEN, false]))
                    .await?;
            }
            "snooze" | "put-off" => {
                let until = self.now_ms + step.number(1);
                self.held(step, "moveToDelayed", json!([until, TOKEN]))
                    .await?;
            }
            "back" | "give-back" => self.held(step, "moveToWait", json!([TOKEN])).await?,
            "wait-children" => {
                self.held(step, "moveToWaitingChildren", json!([TOKEN, {}]))
                    .await?;
            }
            "extend" => {
                self.held(step, "extendLock", json!([TOKEN, step.number(1)]))
                    .await?;
            }
            "progress" => {
                self.held(step, "updateProgress", json!([step.json(1)]))
                    .await?
            }
            "data" => self.job(step, "updateData", json!([step.json(1)])).await?,
            "log" => self.job(step, "log", json!([step.text(1)])).await?,
            "stalled" => {
                let on = self.hand().await;
                let request = json!({ "on": on, "method": "moveStalledJobsToWait", "args": [] });
                self.driver.try_ask("call", request).await?;
            }
            "promote" => self.job(step, "promote", json!([])).await?,
            "remove" => self.job(step, "remove", json!([])).await?,
            "change-delay" => {
                self.job(step, "changeDelay", json!([step.number(1)]))
                    .await?
            }
            "change-priority" => {
                self.job(step, "changePriority", json!([step.json(1)]))
                    .await?;
            }
            "retry" => {
                let args = json!([step.text(1), step.json(2)]);
                self.job(step, "retry", args).await?;
            }
            "retry-all" => self.call("retryJobs", json!([step.json(0)])).await?,
            "promote-all" => self.call("promoteJobs", json!([])).await?,
            "pause" | "resume" => self.call(&step.op, json!([])).await?,
            "drain" => self.call("drain", json!([step.has(0)])).await?,
            "clean" => {
                let args = json!([step.number(1), step.number(2), step.text(0)]);
                self.call("clean", args).await?;
            }
            "obliterate" => self.call("obliterate", json!([step.json(0)])).await?,
            "concurrency" => {
                self.call("setGlobalConcurrency", json!([step.number(0)]))
                    .await?
            }
            "rate" => {
                let args = json!([step.number(0), step.number(1)]);
                self.call("setGlobalRateLimit", args).await?;
            }
            "limit" => self.call("rateLimit", json!([step.number(0)])).await?,
            "unlimit" => self.call("removeRateLimitKey", json!([])).await?,
            "free" => {
                self.call("removeDeduplicationKey", json!([step.text(0)]))
                    .await?
            }
            "schedule" => {
                let args = json!([step.text(0), step.json(1), step.json(2)]);
                self.call("upsertJobScheduler", args).await?;
            }
            "unschedule" => {
                self.call("removeJobScheduler", json!([step.text(0)]))
                    .await?;
            }
            "detach" => self.job(step, "removeChildDependency", json!([])).await?,
            "drop-children" => {
                self.job(step, "removeUnprocessedChildren", json!([]))
                    .await?
            }
            other => panic!("no such step: {other}"),
        }
        Ok(())
    }

    async fn add(&mut self, id: &str, opts: Value) -> Result<(), Thrown> {
        let args = json!([ACT, { "n": id }, with_id(opts, id)]);
        self.call("add", args).await
    }

    async fn flow(&mut self, tree: Value) -> Result<(), Thrown> {
        if self.flows.is_none() {
            let as_ = handle("flows");
            let opts = json!({ "prefix": self.prefix });
            let request = json!({ "as": as_, "opts": opts });
            self.driver.ask("flows", request).await;
            self.flows = Some(as_);
        }
        let request = json!({ "on": self.flows, "method": "add", "args": [tree] });
        self.driver.try_ask("call", request).await?;
        Ok(())
    }

    async fn queue(&mut self) -> NodeQueue {
        if !self.queues.contains_key(&self.queue) {
            let opened = NodeQueue::on(self.driver.clone(), &self.prefix, &self.queue).await;
            self.queues.insert(self.queue.clone(), opened);
        }
        self.queues[&self.queue].clone()
    }

    async fn call(&mut self, method: &str, args: Value) -> Result<(), Thrown> {
        let queue = self.queue().await;
        let request = json!({ "on": queue.handle, "method": method, "args": args });
        self.driver.try_ask("call", request).await?;
        Ok(())
    }

    /// A method of a job as the queue finds it.
    async fn job(&mut self, step: &Step, method: &str, args: Value) -> Result<(), Thrown> {
        let queue = self.queue().await;
        queue.try_job(step.text(0), method, args).await?;
        Ok(())
    }

    /// A method of a job as its worker holds it.
    async fn held(&mut self, step: &Step, method: &str, args: Value) -> Result<(), Thrown> {
        let on = self.hand().await;
        let id = step.text(0);
        let request = json!({ "on": on, "jobId": id, "method": method, "args": args });
        self.driver.try_ask("job", request).await?;
        Ok(())
    }

    /// The worker that moves when it is told to.
    async fn hand(&mut self) -> String {
        // A queue that nobody opened has no settings; an application always opens it.
        self.queue().await;
        if let Some(hand) = self.hands.get(&self.queue) {
            return hand.clone();
        }
        let hand = handle("hand");
        let mut opts = self.worker.clone();
        opts["prefix"] = json!(self.prefix);
        let request = json!({ "as": hand, "name": self.queue, "opts": opts });
        self.driver.ask("hand", request).await;
        self.hands.insert(self.queue.clone(), hand.clone());
        hand
    }

    pub(crate) async fn close(self) {
        let queues = self.queues.values().map(|queue| queue.handle.clone());
        let all = queues.chain(self.hands.values().cloned()).chain(self.flows);
        for thing in all {
            let request = json!({ "on": thing, "args": [] });
            self.driver.ask("close", request).await;
        }
    }
}

/// `-` lets the queue count.
fn with_id(mut opts: Value, id: &str) -> Value {
    if id != "-" {
        opts["jobId"] = json!(id);
    }
    opts
}
