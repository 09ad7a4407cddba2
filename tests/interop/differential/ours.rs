//! A history as Bullwark's broker lives it, with the decisions that its worker makes.

use std::collections::HashMap;
use std::time::Duration;

use bullwark::broker::{
    Broker, BrokerError, BrokerOptions, Cancelled, ClaimOptions, Fail, Finish, Keep, NewJob,
    RESCUE_MAX, Release, Retry, Settled,
};
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
    prefix: String,
    redis: MultiplexedConnection,
    broker: Broker,
    queue: QueueName,
    worker: Value,
    now_ms: i64,
}

impl Ours {
    pub(crate) async fn new(url: &str, redis: MultiplexedConnection, prefix: &str) -> Self {
        let mut ours = Self {
            url: url.to_owned(),
            prefix: prefix.to_owned(),
            redis,
            broker: Broker::lazy(BrokerOptions::default()).unwrap(),
            queue: "q".parse().unwrap(),
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
            "add" => self.add(&[step.text(0)], step.json(1)).await?,
            "bulk" => {
                let ids: Vec<&str> = step.text(0).split(',').collect();
                self.add(&ids, step.json(1)).await?;
            }
            "take" => {
                let options = ClaimOptions {
                    token: TOKEN.to_owned(),
                    max: if step.has(0) {
                        step.number(0) as usize
                    } else {
                        1
                    },
                    lease: LEASE,
                    worker_name: self.worker["name"].as_str().map(str::to_owned),
                };
                self.ensure_queue().await;
                self.broker.claim(&queue, &options).await?;
            }
            "finish" => self.finish(step).await?,
            "fail" => self.fail(step, false).await?,
            "fatal" => self.fail(step, true).await?,
            "snooze" => {
                let retry = Retry {
                    delay_ms: step.number(1),
                    ..self.retry(step.text(0))
                };
                done(self.broker.retry(&queue, &[retry]).await?)?;
            }
            "back" => {
                let release = Release {
                    id: step.text(0).to_owned(),
                    token: TOKEN.to_owned(),
                };
                done(self.broker.release(&queue, &[release]).await?)?;
            }
            "extend" => {
                let job = (step.text(0).to_owned(), TOKEN.to_owned());
                let lease = Duration::from_millis(step.number(1) as u64);
                self.broker.extend(&queue, &[job], lease).await?;
            }
            "progress" => {
                let progress = step.json(1).to_string();
                let job = (step.text(0).to_owned(), TOKEN.to_owned(), progress);
                done(self.broker.update_progress(&queue, &[job]).await?)?;
            }
            "stalled" => {
                self.ensure_queue().await;
                self.broker
                    .rescue(&queue, STALLED_INTERVAL, STALLED_MAX, RESCUE_MAX)
                    .await?;
            }
            "promote" => {
                let ids = [step.text(0).to_owned()];
                match self.broker.promote(&queue, &ids).await?[..] {
                    [true] => {}
                    _ => return Err(Refused("not delayed".to_owned())),
                }
            }
            "remove" => {
                let ids = [step.text(0).to_owned()];
                match self.broker.cancel(&queue, &ids).await?[0] {
                    Cancelled::Removed(_) | Cancelled::Absent => {}
                    Cancelled::Scheduled => return Err(Refused("scheduled".to_owned())),
                }
            }
            "pause" => {
                self.ensure_queue().await;
                self.broker.pause(&queue).await?;
            }
            "resume" => {
                self.ensure_queue().await;
                self.broker.resume(&queue).await?;
            }
            other => panic!("no such step: {other}"),
        }
        Ok(())
    }

    /// What opening a `Queue` does.
    async fn ensure_queue(&self) {
        self.broker.ensure_queue(&self.queue).await.unwrap();
    }

    async fn add(&self, ids: &[&str], opts: Value) -> Result<(), Refused> {
        self.ensure_queue().await;
        let jobs = ids.iter().map(|id| {
            let delay_ms = opts["delay"].as_i64().filter(|delay| *delay > 0);
            NewJob {
                id: (*id).to_owned(),
                name: ACT.to_owned(),
                data: json!({ "n": id }).to_string(),
                opts: wire_opts(&opts, id),
                timestamp_ms: self.now_ms,
                due_ms: delay_ms.map(|delay| self.now_ms + delay),
                priority: opts["priority"].as_u64().unwrap_or(0) as u32,
                lifo: opts["lifo"].as_bool().unwrap_or(false),
                attempts_started: 0,
                attempts_made: 0,
            }
        });
        let jobs: Vec<NewJob> = jobs.collect();
        self.broker.add(&self.queue, &jobs).await?;
        Ok(())
    }

    async fn finish(&self, step: &Step) -> Result<(), Refused> {
        let value = if step.has(1) {
            step.json(1)
        } else {
            json!("done")
        };
        let job = self.job(step.text(0)).await;
        let finish = Finish {
            id: step.text(0).to_owned(),
            token: TOKEN.to_owned(),
            returnvalue: value.to_string(),
            keep: self.keep(job.options.remove_on_complete, "removeOnComplete"),
        };
        done(self.broker.finish(&self.queue, &[finish]).await?)
    }

    /// As a worker does it: again, later, or for good.
    async fn fail(&self, step: &Step, is_fatal: bool) -> Result<(), Refused> {
        let (id, reason) = (step.text(0), step.text(1).to_owned());
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
            return done(self.broker.retry(&self.queue, &[retry]).await?);
        }
        let fail = Fail {
            id: id.to_owned(),
            token: TOKEN.to_owned(),
            reason,
            stacktrace,
            attempts: job.options.attempts,
            keep: self.keep(job.options.remove_on_fail, "removeOnFail"),
        };
        done(self.broker.fail(&self.queue, &[fail]).await?)
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

    async fn job(&self, id: &str) -> Job {
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

struct Job {
    options: ForeignOptions,
    fields: HashMap<String, String>,
}

fn delay_ms(backoff: &Backoff, attempts_made: u32) -> i64 {
    backoff.delay(attempts_made, 0.0).as_millis() as i64
}

fn done(settled: Vec<Settled>) -> Result<(), Refused> {
    match settled[..] {
        [Settled::Done] => Ok(()),
        _ => Err(Refused(format!("{settled:?}"))),
    }
}

/// The options as `BullMQ` stores them.
fn wire_opts(opts: &Value, id: &str) -> String {
    let mut opts = opts.clone();
    opts["jobId"] = json!(id);
    if opts.get("attempts").is_none() {
        opts["attempts"] = json!(0);
    }
    if let Some(delay) = opts["backoff"].as_i64() {
        opts["backoff"] = json!({ "type": "fixed", "delay": delay });
    }
    opts.to_string()
}
