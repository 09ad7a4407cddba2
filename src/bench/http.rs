//! How much of the library's rate `POST /api/jobs` keeps.
//!
//! The same jobs go in both ways, in turn, in one run: by calls of the library, and by requests
//! over connections of real TCP that are kept alive. Client, server, library and both stores share
//! the machine. Each call and each request is one job, answered after its commit. No worker runs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::http_client::Connection;
use super::load::{LONGEST_US, percentiles};
use super::{BenchError, CpuPerJob, Percentiles, StorePids, cost, round};
use crate::app::App;
use crate::config::Config;
use crate::http::{Exposition, HttpOptions, serve};
use crate::job::{JobRequest, QueueName};
use crate::reconcile::ReconcileError;
use crate::record::workspaces::DEFAULT_WORKSPACE;
use crate::record::{api_keys, server};
use crate::tasks::Tasks;
use crate::worker::Handlers;

/// Jobs of each way before the measurement.
const WARM_UP_JOBS: usize = 2000;
/// Between two looks at whether Redis has got what was accepted.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long is looked at most.
const LOOKS_MAX: usize = 100;
const KEY: &str = "bench-of-the-http-interface";

/// What to measure.
#[derive(Debug, Clone)]
pub struct HttpBenchOptions {
    /// Of each way, over all rounds.
    pub jobs: usize,
    /// Connections, and callers of the library.
    pub connections: usize,
    /// In each, both ways are measured.
    pub rounds: usize,
}

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct HttpReport {
    pub jobs: usize,
    pub connections: usize,
    /// Medians of the rounds.
    pub requests_per_second: f64,
    pub calls_per_second: f64,
    /// Median of each round's own ratio.
    pub ratio: f64,
    /// From before a request is sent until its answer is read.
    pub request_ms: Percentiles,
    pub call_ms: Percentiles,
    /// Client, server and library are one process.
    pub cpu_us_per_request: CpuPerJob,
    pub cpu_us_per_call: CpuPerJob,
    pub rounds: Vec<Round>,
    /// The record has as many jobs as were answered.
    pub accepted_exactly: bool,
}

/// Jobs per second of both ways, one right after the other.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Round {
    pub requests_per_second: f64,
    pub calls_per_second: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Call,
    Request,
}

/// What is known of one way.
struct Side {
    way: Way,
    rates: Vec<f64>,
    times: Histogram<u64>,
    cost: cost::Cost,
}

impl Side {
    fn new(way: Way) -> Self {
        Self {
            way,
            rates: Vec::new(),
            times: histogram(),
            cost: cost::Cost::default(),
        }
    }

    fn cpu(&self, jobs: usize) -> CpuPerJob {
        let us_per_job = |seconds: f64| round(seconds * 1e6 / jobs as f64, 2);
        CpuPerJob {
            bullwark: us_per_job(self.cost.bullwark),
            redis: us_per_job(self.cost.redis),
            postgres: us_per_job(self.cost.postgres),
        }
    }
}

/// Measures both ways in turn.
pub async fn run_http(
    config: Config,
    options: &HttpBenchOptions,
    pids: StorePids,
) -> Result<HttpReport, BenchError> {
    // As in a real server, whose figures cost something, too.
    let metrics = Exposition::install().map_err(|error| BenchError::Server(error.to_string()))?;
    let mut handlers = Handlers::default();
    crate::handlers::diagnostics::add(&mut handlers);
    let app = App::connect(config, handlers).await?;
    api_keys::ensure(&app.record, KEY, DEFAULT_WORKSPACE, "bench").await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (tasks, stop) = (Tasks::new(), CancellationToken::new());
    let served = HttpOptions {
        metrics: Some(metrics),
        requests_per_caller: options.connections,
        ..app.http_options()
    };
    let serving = serve(app.services(), served, listener, stop.clone());
    tasks.spawn("http server", async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "server ended");
        }
    });

    let bench = Bench {
        app: app.clone(),
        address,
        connections: options.connections,
    };
    let measured = bench.measure(options, pids).await;
    stop.cancel();
    tasks.drained().await;
    let report = measured?;
    app.close().await;
    Ok(report)
}

#[derive(Clone)]
struct Bench {
    app: App,
    address: SocketAddr,
    connections: usize,
}

impl Bench {
    async fn measure(
        &self,
        options: &HttpBenchOptions,
        pids: StorePids,
    ) -> Result<HttpReport, BenchError> {
        let mut sides = [Side::new(Way::Call), Side::new(Way::Request)];
        for side in &sides {
            self.load(side.way, WARM_UP_JOBS).await?;
        }
        let each = options.jobs.div_ceil(options.rounds);
        for _ in 0..options.rounds {
            for side in &mut sides {
                self.wait_for_redis().await?;
                let before = cost::Cost::now(pids);
                let (seconds, times) = self.load(side.way, each).await?;
                side.cost.add(cost::Cost::now(pids).since(&before));
                side.rates.push(each as f64 / seconds);
                // The same bounds everywhere: it can not fail.
                side.times.add(times).ok();
            }
            // Whoever comes second finds the stores as the first has left them: in turn.
            sides.reverse();
        }
        if sides[0].way != Way::Call {
            sides.reverse();
        }
        let [calls, requests] = &sides;
        let jobs = each * options.rounds;
        let found: i64 = server::count_by_status(&self.app.record)
            .await?
            .into_iter()
            .map(|(_, count)| count)
            .sum();
        let rounds: Vec<Round> = requests
            .rates
            .iter()
            .zip(&calls.rates)
            .map(|(requests, calls)| Round {
                requests_per_second: round(*requests, 0),
                calls_per_second: round(*calls, 0),
            })
            .collect();
        let pairs = requests.rates.iter().zip(&calls.rates);
        let ratios = pairs.map(|(requests, calls)| requests / calls).collect();
        Ok(HttpReport {
            jobs,
            connections: self.connections,
            requests_per_second: round(median(requests.rates.clone()), 0),
            calls_per_second: round(median(calls.rates.clone()), 0),
            ratio: round(median(ratios), 3),
            request_ms: percentiles(&requests.times),
            call_ms: percentiles(&calls.times),
            cpu_us_per_request: requests.cpu(jobs),
            cpu_us_per_call: calls.cpu(jobs),
            rounds,
            accepted_exactly: found as usize == 2 * (jobs + WARM_UP_JOBS),
        })
    }

    /// Sends so many jobs one way; the seconds until the last answer, and the time of each.
    async fn load(&self, way: Way, jobs: usize) -> Result<(f64, Histogram<u64>), BenchError> {
        let next = Arc::new(AtomicUsize::new(0));
        let outcome = Arc::new(Mutex::new((histogram(), None)));
        let mut connections = Vec::new();
        if way == Way::Request {
            for _ in 0..self.connections {
                connections.push(Connection::open(self.address, "/api/jobs", KEY).await?);
            }
        }
        let callers = Tasks::new();
        let began = Instant::now();
        for _ in 0..self.connections {
            let (bench, next, outcome) = (self.clone(), next.clone(), outcome.clone());
            let connection = connections.pop();
            callers.spawn("caller", async move {
                let done = match connection {
                    Some(connection) => request(connection, &next, jobs).await,
                    None => bench.call(&next, jobs).await,
                };
                let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                match done {
                    Ok(times) => drop(outcome.0.add(times)),
                    Err(error) => outcome.1 = Some(error),
                }
            });
        }
        callers.drained().await;
        let seconds = began.elapsed().as_secs_f64();
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome.1.take() {
            Some(error) => Err(error),
            None => Ok((seconds, std::mem::replace(&mut outcome.0, histogram()))),
        }
    }

    async fn call(&self, next: &AtomicUsize, jobs: usize) -> Result<Histogram<u64>, BenchError> {
        let mut times = histogram();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= jobs {
                return Ok(times);
            }
            let began = Instant::now();
            let mut request = JobRequest::new("noop", serde_json::json!({ "n": number }));
            request.workspace_id = Some(DEFAULT_WORKSPACE);
            self.app.enqueue.enqueue(request).await?;
            times.saturating_record(began.elapsed().as_micros() as u64);
        }
    }

    /// Until Redis gets no more: a backlog of one way would slow down the other.
    async fn wait_for_redis(&self) -> Result<(), BenchError> {
        let queue = QueueName::default();
        let mut before = None;
        for _ in 0..LOOKS_MAX {
            let counts = self.app.broker.counts(&queue).await;
            let counts = Some(counts.map_err(ReconcileError::from)?);
            if counts == before {
                break;
            }
            before = counts;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

async fn request(
    mut connection: Connection,
    next: &AtomicUsize,
    jobs: usize,
) -> Result<Histogram<u64>, BenchError> {
    let mut times = histogram();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= jobs {
            return Ok(times);
        }
        let began = Instant::now();
        let body = format!(r#"{{"jobType":"noop","payload":{{"n":{number}}}}}"#);
        // 202 is no error, but would mean that Redis is in trouble: that is not what is measured.
        if connection.post(&body).await? != 201 {
            return Err(BenchError::Server(connection.answer()));
        }
        times.saturating_record(began.elapsed().as_micros() as u64);
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LONGEST_US, 3)
        .unwrap_or_else(|_| unreachable!("the bounds are constants"))
}

/// Of an even number, the upper one of the two in the middle.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}
