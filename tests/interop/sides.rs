//! Who adds jobs and who runs them: every client that shares a queue with Bullwark, and Bullwark.
//!
//! A scenario is written once and runs in every pairing that has Bullwark on one side; two pairings
//! without it show that the scenario is what the stock clients do among themselves.

use std::sync::Arc;
use std::time::Duration;

use bullmq::worker::CancellationToken as BullmqToken;
use bullmq::{Error as BullmqError, Job as BullmqJob};
use bullwark::app::worker_id;
use bullwark::broker::{AddedLinked, LinkedJob};
use bullwark::job::bullmq_options::JobsOptions;
use bullwark::job::{Backoff, JobRequest, QueueName};
use bullwark::worker::{ServedQueue, WorkerOptions};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::task::{JoinHandle, LocalSet};
use tokio_util::sync::CancellationToken;

use crate::driver::Driver;
use crate::forwarder::Forwarder;
use crate::node::{NodeQueue, NodeWorker, Receiver, handle, node};
use crate::stage::{Stage, redis_port};
use crate::steps::ACT;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Node5,
    Node6,
    Python,
    /// The crate `bullmq-official`.
    Rust,
    /// The library of this crate: its `Enqueue`, its `Worker`.
    Bullwark,
    /// The library of this crate at BullMQ's level, with all options of its producers; only adds.
    Linked,
    /// `bullwark worker --forward` and a receiver in Node; only works.
    Forward,
}

/// Who adds, who works.
pub(crate) type Pair = (Client, Client);

/// Every pairing with Bullwark, and two of the stock clients among themselves.
pub(crate) fn pairs() -> Vec<Pair> {
    use Client::{Bullwark, Forward, Node5, Node6, Python, Rust};
    let foreign = [Node5, Node6, Python, Rust];
    let mut pairs = vec![(Node5, Node5), (Node6, Node6)];
    pairs.extend([(Bullwark, Bullwark), (Bullwark, Forward)]);
    pairs.extend(foreign.map(|client| (client, Bullwark)));
    pairs.extend(foreign.map(|client| (client, Forward)));
    pairs.extend(foreign.map(|client| (Bullwark, client)));
    pairs
}

/// Runs a scenario in all these pairings at once, each on a queue of its own.
pub(crate) async fn in_pairs<F: Future<Output = ()> + 'static>(
    pairs: Vec<Pair>,
    scenario: impl Fn(Arc<Stage>, Pair, String) -> F,
) {
    let stage = Stage::new().await;
    let local = LocalSet::new();
    let mut running = Vec::new();
    for pair in pairs {
        let name = format!("{:?}_to_{:?}", pair.0, pair.1).to_lowercase();
        let scenario = scenario(stage.clone(), pair, name.clone());
        running.push((name, local.spawn_local(scenario)));
    }
    let failed = local.run_until(async {
        let mut failed = Vec::new();
        for (name, scenario) in running {
            if scenario.await.is_err() {
                failed.push(name);
            }
        }
        failed
    });
    let failed = failed.await;
    assert!(failed.is_empty(), "failed, see above: {failed:?}");
}

async fn python() -> Arc<Driver> {
    static PYTHON: OnceCell<Arc<Driver>> = OnceCell::const_new();
    let start = || async { Driver::python(redis_port().await) };
    PYTHON.get_or_init(start).await.clone()
}

/// Somebody who adds jobs to a queue.
pub(crate) enum Producer {
    Node(NodeQueue),
    Python(Arc<Driver>, String),
    Rust(Box<bullmq::Queue>),
    Bullwark(Arc<Stage>, QueueName),
    Linked(Arc<Stage>, QueueName),
}

impl Producer {
    pub(crate) async fn open(stage: &Arc<Stage>, client: Client, queue: &str) -> Self {
        match client {
            Client::Node5 => Self::Node(NodeQueue::open(stage, 5, queue).await),
            Client::Node6 => Self::Node(NodeQueue::open(stage, 6, queue).await),
            Client::Python => {
                let (driver, handle) = (python().await, handle("queue"));
                let opts = json!({ "prefix": stage.prefix });
                let request = json!({ "as": handle, "name": queue, "opts": opts });
                driver.ask("queue", request).await;
                Self::Python(driver, handle)
            }
            Client::Rust => {
                let options = bullmq::QueueOptions::new()
                    .connection(rust_connection(stage))
                    .prefix(&stage.prefix);
                let queue = bullmq::Queue::with_options(queue, options).await.unwrap();
                Self::Rust(Box::new(queue))
            }
            Client::Bullwark => Self::Bullwark(stage.clone(), queue.parse().unwrap()),
            Client::Linked => Self::Linked(stage.clone(), queue.parse().unwrap()),
            Client::Forward => panic!("it only works"),
        }
    }

    /// Adds a job with `BullMQ`'s options, as far as this client knows them.
    pub(crate) async fn add(&self, data: Value, opts: Value) -> String {
        match self {
            Self::Node(queue) => queue.add(data, opts).await,
            Self::Python(driver, on) => {
                let request = json!({ "on": on, "name": ACT, "data": data, "opts": opts });
                driver
                    .ask("add", request)
                    .await
                    .as_str()
                    .unwrap()
                    .to_owned()
            }
            Self::Rust(queue) => {
                let options = serde_json::from_value(opts).unwrap();
                let job = queue.add(ACT, data).options(options).await.unwrap();
                job.id().to_owned()
            }
            Self::Bullwark(stage, queue) => {
                let request = request(queue, data, &opts);
                let enqueued = stage.app.enqueue.enqueue(request).await.unwrap();
                enqueued.id.to_string()
            }
            Self::Linked(stage, queue) => add_linked(stage, queue, &data, &opts).await,
        }
    }

    /// Adds jobs in one call.
    pub(crate) async fn add_bulk(&self, datas: Vec<Value>) -> Vec<String> {
        let entries = || {
            let entry = |data: &Value| json!({ "name": ACT, "data": data, "opts": {} });
            datas.iter().map(entry).collect::<Vec<_>>()
        };
        match self {
            Self::Node(queue) => queue.add_bulk(entries()).await,
            Self::Python(driver, on) => {
                let request = json!({ "on": on, "jobs": entries() });
                let ids = driver.ask("addBulk", request).await;
                serde_json::from_value(ids).unwrap()
            }
            Self::Rust(queue) => {
                let jobs = datas.iter().map(|data| bullmq::BulkJob::new(ACT, data));
                let jobs = queue.add_bulk(jobs.collect()).await.unwrap();
                jobs.iter().map(|job| job.id().to_owned()).collect()
            }
            Self::Linked(stage, queue) => {
                let mut ids = Vec::new();
                for data in &datas {
                    ids.push(add_linked(stage, queue, data, &json!({})).await);
                }
                ids
            }
            Self::Bullwark(stage, queue) => {
                let requests = datas
                    .into_iter()
                    .map(|data| request(queue, data, &json!({})));
                let answers = stage.app.enqueue.enqueue_many(requests.collect()).await;
                let answers = answers.unwrap().into_iter();
                answers
                    .map(|answer| answer.unwrap().id.to_string())
                    .collect()
            }
        }
    }
}

/// The request that says what these options of `BullMQ` say.
fn request(queue: &QueueName, data: Value, opts: &Value) -> JobRequest {
    let backoff = &opts["backoff"];
    let delay_ms = backoff["delay"].as_u64().unwrap_or_default();
    JobRequest {
        queue: Some(queue.to_string()),
        delay_ms: opts["delay"].as_u64(),
        // The record counts retries upwards from urgent 10; on the wire 1 is the most urgent.
        priority: opts["priority"].as_i64().map(|wire| 11 - wire),
        max_attempts: Some(opts["attempts"].as_u64().map_or(0, |n| n as u32 - 1)),
        backoff: match backoff["type"].as_str() {
            Some("exponential") => Some(Backoff::Exponential {
                delay_ms,
                max_ms: None,
                jitter: 0.0,
            }),
            Some("fixed") => Some(Backoff::Fixed {
                delay_ms,
                jitter: 0.0,
            }),
            _ => Some(Backoff::None),
        },
        ..JobRequest::new(ACT, data)
    }
}

fn rust_connection(stage: &Stage) -> bullmq::options::RedisConnectionOptions {
    bullmq::options::RedisConnectionOptions::new().url(&stage.redis_url)
}

/// The id of the job, or of the one that stands for it.
async fn add_linked(stage: &Stage, queue: &QueueName, data: &Value, opts: &Value) -> String {
    let options = JobsOptions::read(&opts.to_string());
    let job = LinkedJob::new(ACT, &data.to_string(), &options).unwrap();
    let added = stage.broker().add_linked(queue, &[job]).await.unwrap();
    match added.into_iter().next().unwrap() {
        AddedLinked::Created { id } | AddedLinked::Deduplicated { survivor: id } => id,
        other => panic!("{other:?}"),
    }
}

/// Somebody who runs the jobs of a queue.
pub(crate) enum Running {
    Node(NodeWorker),
    Python(Arc<Driver>, String),
    Rust(Box<bullmq::Worker>),
    Bullwark(CancellationToken, JoinHandle<()>),
    Forward(Box<Forwarder>, Receiver),
}

impl Running {
    /// Starts a worker with so many slots.
    pub(crate) async fn start(
        stage: &Arc<Stage>,
        client: Client,
        queue: &str,
        slots: usize,
    ) -> Self {
        let opts = json!({ "concurrency": slots, "drainDelay": 1 });
        match client {
            Client::Node5 => {
                Self::Node(NodeWorker::start(node(5).await, &stage.prefix, queue, opts).await)
            }
            Client::Node6 => {
                Self::Node(NodeWorker::start(node(6).await, &stage.prefix, queue, opts).await)
            }
            Client::Python => {
                let (driver, handle) = (python().await, handle("worker"));
                let opts = json!({ "prefix": stage.prefix, "concurrency": slots });
                let request = json!({ "as": handle, "name": queue, "opts": opts, "who": "python" });
                driver.ask("worker", request).await;
                Self::Python(driver, handle)
            }
            Client::Rust => {
                let options = bullmq::WorkerOptions::new()
                    .connection(rust_connection(stage))
                    .prefix(&stage.prefix)
                    .concurrency(slots)
                    .drain_delay(Duration::from_secs(1));
                let worker = bullmq::Worker::with_options(queue, run_official, options);
                Self::Rust(Box::new(worker.await.unwrap()))
            }
            Client::Linked => panic!("it only adds"),
            Client::Bullwark => Self::library(stage, queue, slots, |_| {}),
            Client::Forward => {
                let receiver = Receiver::start(6).await;
                let slots = slots.to_string();
                let arguments = ["--concurrency", &slots, "--drain-delay", "1"];
                let forwarder = Forwarder::start(stage, queue, &receiver.url, &arguments);
                Self::Forward(Box::new(forwarder.await), receiver)
            }
        }
    }

    /// Bullwark's own worker, with other settings.
    pub(crate) fn library(
        stage: &Arc<Stage>,
        queue: &str,
        slots: usize,
        change: impl FnOnce(&mut WorkerOptions),
    ) -> Self {
        let mut options = WorkerOptions::new(worker_id());
        options.queues = vec![ServedQueue {
            name: queue.parse().unwrap(),
            weight: None,
        }];
        options.slots = slots;
        change(&mut options);
        let (stop, stage) = (CancellationToken::new(), stage.clone());
        let stopping = stop.clone();
        let running = tokio::spawn(async move {
            let hurry = CancellationToken::new();
            stage.app.work(options, stopping, hurry).await.unwrap();
        });
        Self::Bullwark(stop, running)
    }

    /// Waits for running jobs, then ends.
    pub(crate) async fn stop(self) {
        match self {
            Self::Node(worker) => worker.close().await,
            Self::Python(driver, on) => {
                let request = json!({ "on": on, "force": false });
                driver.ask("close", request).await;
            }
            Self::Rust(worker) => worker.close(10_000).await.unwrap(),
            Self::Bullwark(stop, running) => {
                stop.cancel();
                running.await.unwrap();
            }
            Self::Forward(forwarder, receiver) => {
                forwarder.stop().await;
                receiver.close().await;
            }
        }
    }
}

/// The Rust port runs the steps that it has calls for; `steps.mjs` lists all.
async fn run_official(mut job: BullmqJob, _: BullmqToken) -> Result<Value, BullmqError> {
    let start = i64::from(job.attempts_started());
    let mut result = json!({ "by": "rust", "attempt": job.attempts_made() + 1 });
    let steps = job.data()["steps"].as_array().cloned().unwrap_or_default();
    for step in steps {
        let Some((name, value)) = step.as_object().and_then(|fields| fields.iter().next()) else {
            continue;
        };
        let text = || value.as_str().unwrap_or_default().to_owned();
        match name.as_str() {
            "progress" => {
                let progress = bullmq::JobProgress::Object(value.clone());
                job.update_progress(progress).await?;
            }
            "log" => {
                job.log(&text()).await?;
            }
            "sleep" => {
                let ms = value.as_u64().unwrap_or_default();
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            "fail" if start <= step["times"].as_i64().unwrap_or(i64::MAX) => {
                return Err(BullmqError::ProcessingError(text()));
            }
            "fail" => {}
            "fatal" => return Err(BullmqError::Unrecoverable(text())),
            "return" => result = value.clone(),
            other => return Err(BullmqError::Unrecoverable(format!("unknown step {other}"))),
        }
    }
    Ok(result)
}
