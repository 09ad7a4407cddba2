//! Producers and a worker in one process, with a clock on every job.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{BenchError, BenchOptions, Percentiles};
use crate::app::{App, AppError, worker_id};
use crate::config::Config;
use crate::enqueue::EnqueueError;
use crate::job::{JobError, JobRequest};
use crate::settle::Ended;
use crate::tasks::Tasks;
use crate::worker::{Handler, Handlers, JobContext, WorkerOptions};

/// Longest time the histograms tell apart, in microseconds.
pub(super) const LONGEST_US: u64 = 600_000_000;

/// What happened to each job, by its number.
struct Clock {
    origin: Instant,
    /// Microseconds since the origin; 0 means "not yet".
    sent: Vec<AtomicU32>,
    started: Vec<AtomicU32>,
    done: Vec<AtomicU32>,
    runs: Vec<AtomicU8>,
    numbers: Mutex<HashMap<Uuid, usize>>,
    left: AtomicUsize,
    all_done: Notify,
}

impl Clock {
    fn new(jobs: usize) -> Self {
        let zeros = || (0..jobs).map(|_| AtomicU32::new(0)).collect();
        Self {
            origin: Instant::now(),
            sent: zeros(),
            started: zeros(),
            done: zeros(),
            runs: (0..jobs).map(|_| AtomicU8::new(0)).collect(),
            numbers: Mutex::new(HashMap::with_capacity(jobs)),
            left: AtomicUsize::new(jobs),
            all_done: Notify::new(),
        }
    }

    fn now_us(&self) -> u32 {
        u32::try_from(self.origin.elapsed().as_micros().max(1)).unwrap_or(u32::MAX)
    }

    fn start(&self, number: usize, id: Uuid) {
        self.runs[number].fetch_add(1, Ordering::Relaxed);
        self.started[number].store(self.now_us(), Ordering::Relaxed);
        self.numbers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, number);
    }

    fn settle(&self, id: Uuid) {
        let number = self
            .numbers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .copied();
        let Some(number) = number else { return };
        let before = self.done[number].swap(self.now_us(), Ordering::Relaxed);
        if before == 0 && self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all_done.notify_one();
        }
    }

    fn percentiles(&self, ends: &[AtomicU32]) -> Percentiles {
        let mut times: Histogram<u64> = Histogram::new_with_max(LONGEST_US, 3)
            .unwrap_or_else(|_| unreachable!("the bounds are constants"));
        for (sent, end) in self.sent.iter().zip(ends) {
            let (sent, end) = (sent.load(Ordering::Relaxed), end.load(Ordering::Relaxed));
            times.saturating_record(u64::from(end.saturating_sub(sent)));
        }
        percentiles(&times)
    }
}

/// Of times in microseconds.
pub(super) fn percentiles(times: &Histogram<u64>) -> Percentiles {
    let ms = |us: u64| (us as f64 / 10.0).round() / 100.0;
    Percentiles {
        p50: ms(times.value_at_quantile(0.5)),
        p95: ms(times.value_at_quantile(0.95)),
        p99: ms(times.value_at_quantile(0.99)),
        max: ms(times.max()),
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Tick {
    /// Which job this is; absent for the warm-up.
    n: Option<usize>,
}

struct Ticks(Arc<std::sync::OnceLock<Arc<Clock>>>);

impl Handler for Ticks {
    const TYPE: &'static str = "noop";
    type Payload = Tick;
    type Output = ();

    async fn run(&self, ctx: JobContext, tick: Tick) -> Result<(), JobError> {
        if let (Some(clock), Some(number)) = (self.0.get(), tick.n) {
            clock.start(number, ctx.job_id());
        }
        Ok(())
    }
}

/// An application with a worker, ready to be measured once.
pub struct Load {
    app: App,
    clock: Arc<std::sync::OnceLock<Arc<Clock>>>,
    warm: Arc<AtomicUsize>,
    tasks: Tasks,
    stop: CancellationToken,
}

/// What was measured.
pub(super) struct Measured {
    pub(super) seconds: f64,
    pub(super) enqueue_seconds: f64,
    pub(super) start_ms: Percentiles,
    pub(super) done_ms: Percentiles,
    /// Every job was run once.
    pub(super) runs_once: bool,
}

impl Load {
    /// Jobs that are run before the measurement.
    pub const WARM_UP_JOBS: usize = 1000;

    /// Connects and starts a worker.
    pub async fn start(config: Config, slots: usize) -> Result<Self, AppError> {
        let clock: Arc<std::sync::OnceLock<Arc<Clock>>> = Arc::default();
        let warm = Arc::new(AtomicUsize::new(0));
        let mut handlers = Handlers::default();
        handlers.add(Ticks(clock.clone()));
        let app = App::connect(config, handlers).await?;

        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        app.start_upkeep(&tasks);
        let (seen, warmed) = (clock.clone(), warm.clone());
        let mut options = WorkerOptions::new(worker_id());
        options.slots = slots;
        options.observer = Some(Arc::new(move |ended: &Ended| match seen.get() {
            Some(clock) => clock.settle(ended.id),
            None => drop(warmed.fetch_add(1, Ordering::Relaxed)),
        }));
        let (worker, stopping) = (app.clone(), stop.clone());
        tasks.spawn("worker", async move {
            if let Err(error) = worker
                .work(options, stopping, CancellationToken::new())
                .await
            {
                tracing::error!(%error, "worker ended");
            }
        });
        Ok(Self {
            app,
            clock,
            warm,
            tasks,
            stop,
        })
    }

    pub(super) fn app(&self) -> &App {
        &self.app
    }

    pub(super) async fn warm_up(&self) -> Result<(), EnqueueError> {
        let request = JobRequest::new("noop", serde_json::json!({}));
        let answers = self
            .app
            .enqueue
            .enqueue_many(vec![request; Self::WARM_UP_JOBS])
            .await?;
        answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        while self.warm.load(Ordering::Relaxed) < Self::WARM_UP_JOBS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    pub(super) async fn run(&self, options: &BenchOptions) -> Result<Measured, BenchError> {
        let clock = Arc::new(Clock::new(options.jobs));
        self.clock.set(clock.clone()).ok();
        let next = Arc::new(AtomicUsize::new(0));
        let producing = Tasks::new();
        let failure = Arc::new(Mutex::new(None));
        for _ in 0..options.producers {
            let (app, clock, next) = (self.app.clone(), clock.clone(), next.clone());
            let (failure, options) = (failure.clone(), options.clone());
            producing.spawn("producer", async move {
                if let Err(error) = produce(&app, &clock, &next, &options).await {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            });
        }
        producing.drained().await;
        let enqueue_seconds = clock.origin.elapsed().as_secs_f64();
        if let Some(error) = failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            return Err(error.into());
        }
        let rest = options.limit.saturating_sub(clock.origin.elapsed());
        if tokio::time::timeout(rest, clock.all_done.notified())
            .await
            .is_err()
        {
            let done = options.jobs - clock.left.load(Ordering::Relaxed);
            return Err(BenchError::Late {
                done,
                jobs: options.jobs,
                limit: options.limit,
            });
        }
        Ok(Measured {
            seconds: clock.origin.elapsed().as_secs_f64(),
            enqueue_seconds,
            start_ms: clock.percentiles(&clock.started),
            done_ms: clock.percentiles(&clock.done),
            runs_once: clock
                .runs
                .iter()
                .all(|runs| runs.load(Ordering::Relaxed) == 1),
        })
    }

    pub(super) async fn stop(self) -> Result<(), AppError> {
        self.stop.cancel();
        self.tasks.stop(Duration::from_secs(60)).await;
        self.app.close().await;
        Ok(())
    }
}

async fn produce(
    app: &App,
    clock: &Clock,
    next: &AtomicUsize,
    options: &BenchOptions,
) -> Result<(), EnqueueError> {
    loop {
        let first = next.fetch_add(options.batch, Ordering::Relaxed);
        let last = (first + options.batch).min(options.jobs);
        if first >= last {
            return Ok(());
        }
        let intended = match options.rate {
            0 => clock.origin.elapsed(),
            rate => Duration::from_secs_f64(first as f64 / f64::from(rate)),
        };
        tokio::time::sleep_until(clock.origin + intended).await;
        let sent_us = u32::try_from(intended.as_micros().max(1)).unwrap_or(u32::MAX);
        for number in first..last {
            clock.sent[number].store(sent_us, Ordering::Relaxed);
        }
        let request = |n| JobRequest::new("noop", serde_json::json!({ "n": n }));
        if options.batch == 1 {
            app.enqueue.enqueue(request(first)).await?;
        } else {
            let answers = app
                .enqueue
                .enqueue_many((first..last).map(request).collect())
                .await?;
            answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        }
    }
}
