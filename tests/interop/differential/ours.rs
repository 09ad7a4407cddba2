//! A history as Bullwark's broker lives it, with the decisions that its worker makes.

use std::collections::HashMap;
use std::time::Duration;

use bullwark::broker::{
    Broker, BrokerError, BrokerOptions, ClaimOptions, Confirm, Fail, Finish, FlowNode, Keep,
    LinkedJob, NewJob, RESCUE_MAX, RateLimit, Release, Retry, Settled,
};
use bullwark::job::bullmq_options::JobsOptions;
use bullwark::job::{Backoff, ForeignOptions, KeepFinished, QueueName, append_stack_trace};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use super::history::{NOW_MS, Step, TOKEN};
use crate::steps::ACT;

/// As long as the npm worker's lock.
const LEASE: Duration = Duration::from_secs(30);
/// As the npm worker's `stalledInterval` and `maxStalledCount`.
const STALLED_INTERVAL: Duration = Duration::from_secs(30);
const STALLED_MAX: u32 = 1;

/// A step that was not even tried.
pub(crate) const NO_SUCH_STEP: &str = "no such step";

/// Why a step was refused.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String);

impl From<BrokerError> for Refused {
    fn from(error: BrokerError) -> Self {
        Self(error.to_string())
    }
}

pub(crate) struct Ours {
    url: String,
    pub(super) prefix: String,
    redis: MultiplexedConnection,
    pub(super) broker: Broker,
    pub(super) queue: QueueName,
    has_v5_peers: bool,
    worker: Value,
    now_ms: i64,
}

impl Ours {
    /// With peers of version 5, where the other side is one.
    pub(crate) async fn new(
        url: &str,
        redis: MultiplexedConnection,
        prefix: &str,
        has_v5_peers: bool,
    ) -> Self {
        let mut ours = Self {
            url: url.to_owned(),
            prefix: prefix.to_owned(),
            redis,
            broker: Broker::lazy(BrokerOptions::default()).unwrap(),
            queue: "q".parse().unwrap(),
            has_v5_peers,
            worker: json!({}),
            now_ms: NOW_MS,
        };
        ours.connect().await;
        ours
    }

    /// A broker with the worker's settings at the history's time.
    async fn connect(&mut self) {
        let points = self.worker["metrics"]["maxDataPoints"].as_u64();
        let options = BrokerOptions {
            url: self.url.clone(),
            prefix: self.prefix.clone(),
            bullmq_v5_peers: self.has_v5_peers,
            metrics_points_max: points.map(|points| points as u32),
            ..BrokerOptions::default()
        };
        let broker = Broker::connect(options).await.unwrap();
        self.broker = broker.with_test_clock(self.now_ms);
    }

    pub(crate) async fn run(&mut self, step: &Step) -> Result<(), Refused> {
        let queue = self.queue.clone();
        match step.op.as_str() {
            "at" => {
                self.now_ms = NOW_MS + step.number(0);
                self.broker = self.broker.with_test_clock(self.now_ms);
            }
            "queue" => self.queue = step.text(0).parse().unwrap(),
            "worker" => {
                self.worker = step.json(0);
                self.connect().await;
            }
            "add" => self.add(step.text(0), step.json(1)).await?,
            "bulk" => {
                let ids = step.text(0).split(',');
                let jobs = ids.map(|id| linked(id, step.json(1)));
                self.add_linked(jobs.collect()).await?;
            }
            "child" => {
                let mut opts = step.json(2);
                let (parent_queue, parent) = step.text(1).split_once('/').unwrap();
                let parent_queue = format!("{}:{parent_queue}", self.prefix);
                opts["parent"] = json!({ "id": parent, "queue": parent_queue });
                self.add_linked(vec![linked(step.text(0), opts)]).await?;
            }
            "flow" => {
                let added = self.broker.add_flow(&node(&step.json(0))).await?;
                added
                    .added
                    .id()
                    .ok_or_else(|| Refused(format!("{added:?}")))?;
            }
            "take" => {
                let max = if step.has(0) { step.number(0) } else { 1 };
                self.take(max as usize).await?;
            }
            "finish-next" => {
                self.finish(step).await?;
                self.take(1).await?;
            }
            "fail-next" => {
                self.fail(step, false).await?;
                self.take(1).await?;
            }
            "finish" => self.finish(step).await?,
            "fail" => self.fail(step, false).await?,
            "fatal" => self.fail(step, true).await?,
            // A worker of Bullwark commits the outcome first, so it needs no lock.
            "put-off" => {
                let retry = Retry {
                    delay_ms: step.number(1),
                    ..self.retry(step.text(0))
                };
                done(&self.broker.retry(&queue, &[retry]).await?)?;
            }
            "give-back" => {
                let release = Release {
                    id: step.text(0).to_owned(),
                    token: TOKEN.to_owned(),
                };
                done(&self.broker.release(&queue, &[release]).await?)?;
            }
            "extend" => {
                let job = (step.text(0).to_owned(), TOKEN.to_owned());
                let lease = Duration::from_millis(step.number(1) as u64);
                self.broker.extend(&queue, &[job], lease).await?;
            }
            "progress" => {
                let progress = step.json(1).to_string();
                let job = (step.text(0).to_owned(), TOKEN.to_owned(), progress);
                done(&self.broker.update_progress(&queue, &[job]).await?)?;
            }
            "stalled" => {
                self.ensure_queue().await;
                self.broker
                    .rescue(&queue, STALLED_INTERVAL, STALLED_MAX, RESCUE_MAX)
                    .await?;
            }
            _ => self.operate(step).await?,
        }
        Ok(())
    }

    /// What opening a `Queue` does.
    pub(super) async fn ensure_queue(&self) {
        self.broker.ensure_queue(&self.queue).await.unwrap();
    }

    /// Plain jobs as Bullwark's own go in, the others with what ties them to others.
    async fn add(&self, id: &str, opts: Value) -> Result<(), Refused> {
        if id == "-" || opts.get("deduplication").is_some() {
            return self.add_linked(vec![linked(id, opts)]).await;
        }
        self.ensure_queue().await;
        let options = options(id, opts);
        let delay_ms = options.delay_ms.filter(|delay| *delay > 0);
        let job = NewJob {
            id: id.to_owned(),
            name: ACT.to_owned(),
            data: json!({ "n": id }).to_string(),
            opts: options.write(),
            timestamp_ms: self.now_ms,
            due_ms: delay_ms.map(|delay| self.now_ms + delay),
            priority: options.priority.unwrap_or(0),
            lifo: options.lifo,
            attempts_started: None,
            attempts_made: 0,
            owner: None,
        };
        self.broker.add(&self.queue, &[job]).await?;
        Ok(())
    }

    async fn add_linked(&self, jobs: Vec<LinkedJob>) -> Result<(), Refused> {
        self.ensure_queue().await;
        let added = self.broker.add_linked(&self.queue, &jobs).await?;
        match added.iter().all(|added| added.id().is_some()) {
            true => Ok(()),
            false => Err(Refused(format!("{added:?}"))),
        }
    }

    async fn take(&self, max: usize) -> Result<(), Refused> {
        let options = ClaimOptions {
            token: TOKEN.to_owned(),
            max,
            lease: LEASE,
            worker_name: self.worker["name"].as_str().map(str::to_owned),
            limit: self.limit(),
            whole: false,
            heeds_limiter: false,
        };
        self.ensure_queue().await;
        let claimed = self.broker.claim(&self.queue, &options).await?;
        self.go_on(&claimed.jobs).await
    }

    /// The worker's own rate limit.
    fn limit(&self) -> Option<RateLimit> {
        let limiter = &self.worker["limiter"];
        Some(RateLimit {
            max: limiter["max"].as_u64()? as u32,
            window: Duration::from_millis(limiter["duration"].as_u64()?),
        })
    }

    /// A forwarding worker asks before it commits an outcome.
    async fn confirm(&self, id: &str, completes: bool) -> Result<(), Refused> {
        let confirm = Confirm {
            id: id.to_owned(),
            token: TOKEN.to_owned(),
            completes,
        };
        let confirmed = self.broker.confirm(&self.queue, &[confirm]).await?;
        let settled: Vec<_> = confirmed
            .iter()
            .map(|confirmed| confirmed.settled)
            .collect();
        done(&settled)
    }

    async fn finish(&self, step: &Step) -> Result<(), Refused> {
        self.confirm(step.text(0), true).await?;
        let job = self.job(step.text(0)).await;
        let finish = Finish {
            id: step.text(0).to_owned(),
            token: TOKEN.to_owned(),
            returnvalue: step.value(1).to_string(),
            keep: self.keep(job.options.remove_on_complete, "removeOnComplete"),
        };
        done(&self.broker.finish(&self.queue, &[finish]).await?)
    }

    /// As a worker does it: again, later, or for good.
    async fn fail(&self, step: &Step, is_fatal: bool) -> Result<(), Refused> {
        let (id, reason) = (step.text(0), step.text(1).to_owned());
        self.confirm(id, false).await?;
        let job = self.job(id).await;
        let stack = format!("Error: {reason}");
        let traces = job.fields.get("stacktrace").map(String::as_str);
        let stacktrace = append_stack_trace(traces, &stack, job.options.stack_traces_max);
        let attempts_made: u32 = job.fields.get("atm").map_or(0, |atm| atm.parse().unwrap());
        if !is_fatal && attempts_made + 1 < job.options.attempts {
            let backoff = job.options.backoff.as_ref();
            let retry = Retry {
                delay_ms: backoff.map_or(0, |backoff| delay_ms(backoff, attempts_made)),
                reason,
                stacktrace,
                count_attempt: true,
                lifo: job.options.lifo,
                ..self.retry(id)
            };
            return done(&self.broker.retry(&self.queue, &[retry]).await?);
        }
        let fail = Fail {
            id: id.to_owned(),
            token: TOKEN.to_owned(),
            reason,
            stacktrace,
            attempts: job.options.attempts,
            keep: self.keep(job.options.remove_on_fail, "removeOnFail"),
        };
        done(&self.broker.fail(&self.queue, &[fail]).await?)
    }

    /// Back to waiting without an error, and without spending an attempt.
    fn retry(&self, id: &str) -> Retry {
        Retry {
            id: id.to_owned(),
            token: TOKEN.to_owned(),
            delay_ms: 0,
            reason: String::new(),
            stacktrace: String::new(),
            count_attempt: false,
            lifo: false,
        }
    }

    /// The job's own rule, else the worker's.
    fn keep(&self, of_job: Option<KeepFinished>, option: &str) -> Keep {
        let of_worker = || KeepFinished::from_json(&self.worker.get(option)?.to_string());
        match of_job.or_else(of_worker) {
            None | Some(KeepFinished::ALL) => Keep::All,
            Some(keep) => Keep::Some {
                count: keep.count,
                age_seconds: keep.age_seconds,
                limit: keep.limit,
            },
        }
    }

    pub(super) async fn job(&self, id: &str) -> Job {
        let key = format!("{}:{}:{id}", self.prefix, self.queue);
        let fields: HashMap<String, String> = redis::cmd("HGETALL")
            .arg(key)
            .query_async(&mut self.redis.clone())
            .await
            .unwrap();
        let opts = fields.get("opts").map_or("{}", String::as_str);
        Job {
            options: ForeignOptions::read(opts),
            fields,
        }
    }
}

pub(super) struct Job {
    pub(super) options: ForeignOptions,
    pub(super) fields: HashMap<String, String>,
}

fn delay_ms(backoff: &Backoff, attempts_made: u32) -> i64 {
    backoff.delay(attempts_made, 0.0).as_millis() as i64
}

pub(super) fn done(settled: &[Settled]) -> Result<(), Refused> {
    match settled {
        [Settled::Done] => Ok(()),
        _ => Err(Refused(format!("{settled:?}"))),
    }
}

/// The options that a producer gives; `-` lets the queue count.
fn options(id: &str, mut opts: Value) -> JobsOptions {
    if id != "-" {
        opts["jobId"] = json!(id);
    }
    JobsOptions::read(&opts.to_string())
}

fn linked(id: &str, opts: Value) -> LinkedJob {
    let data = json!({ "n": id }).to_string();
    LinkedJob::new(ACT, &data, &options(id, opts)).unwrap()
}

/// A tree as `FlowProducer.add` takes it.
fn node(tree: &Value) -> FlowNode {
    let children = tree["children"].as_array();
    FlowNode {
        queue: tree["queueName"].as_str().unwrap().parse().unwrap(),
        prefix: None,
        name: tree["name"].as_str().unwrap().to_owned(),
        data: tree["data"].to_string(),
        options: JobsOptions::read(&tree["opts"].to_string()),
        children: children.map_or_else(Vec::new, |children| children.iter().map(node).collect()),
    }
}
