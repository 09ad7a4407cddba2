//! The hot path, step by step and end to end, on private stores whose commits reach the disk.
//!
//! `cargo bench` takes about two minutes. Each number is the time of the whole step named, with its
//! throughput in jobs per second. `bullwark bench` measures the same under a real load, with
//! latencies and the cost in processor time; these are for comparing one change with the next.

#![expect(
    clippy::unwrap_used,
    reason = "a measurement stops at the first surprise"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bullwark::app::worker_id;
use bullwark::broker::{Broker, BrokerOptions, ClaimOptions, Claimed, Finish, Keep};
use bullwark::enqueue::{Enqueue, entry};
use bullwark::job::{
    Due, Ending, JobError, JobRequest, JobType, JobTypes, NewJob, Priority, QueueName, RetryRule,
};
use bullwark::record::enqueue::insert_many;
use bullwark::record::{Record, RecordOptions};
use bullwark::settle::{Ended, Settle, Verdict};
use bullwark::stores::{Stores, StoresOptions};
use bullwark::tasks::Tasks;
use bullwark::worker::{Handler, Handlers, JobContext, Worker, WorkerOptions};
use criterion::{Criterion, Throughput};
use futures_util::future::join_all;
use sqlx::Connection as _;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const CALLERS: usize = 100;
const CLAIM: usize = 100;
const BATCH: usize = 500;
const END_TO_END: usize = 2000;

struct Bench {
    stores: Stores,
    record: Record,
    broker: Broker,
    broker_options: BrokerOptions,
}

impl Bench {
    async fn start() -> Self {
        let stores = Stores::start(StoresOptions::temporary()).await.unwrap();
        let url = stores
            .database_socket_url
            .as_ref()
            .unwrap_or(&stores.database_url);
        let record = Record::connect(&RecordOptions::new(url)).unwrap();
        record.migrate().await.unwrap();
        let broker_options = BrokerOptions {
            url: stores.redis_url.clone(),
            ..BrokerOptions::default()
        };
        Self {
            broker: Broker::connect(broker_options.clone()).await.unwrap(),
            stores,
            record,
            broker_options,
        }
    }

    fn enqueue(&self, tasks: &Tasks) -> Enqueue {
        let mut types = JobTypes::default();
        types.add(JobType::new("noop", serde_json::json!(true)).unwrap());
        Enqueue::start(self.record.clone(), self.broker.clone(), types, tasks)
    }

    /// Jobs in both stores, in a queue of their own.
    async fn fill(&self, queue: &QueueName, count: usize) {
        let jobs: Vec<NewJob> = (0..count).map(|_| job(queue)).collect();
        let entries: Vec<_> = jobs
            .iter()
            .map(|job| entry(job, bullwark::clock::now_ms(), None, 0, 0))
            .collect();
        for jobs in jobs.chunks(BATCH) {
            insert_many(&self.record, jobs).await.unwrap();
        }
        self.broker.add(queue, &entries).await.unwrap();
    }

    async fn claim(&self, queue: &QueueName, max: usize) -> Claimed {
        let options = ClaimOptions {
            token: "bench".to_owned(),
            max,
            lease: Duration::from_secs(60),
            worker_name: None,
            ..Default::default()
        };
        self.broker.claim(queue, &options).await.unwrap()
    }
}

fn job(queue: &QueueName) -> NewJob {
    NewJob {
        id: Uuid::now_v7(),
        workspace_id: None,
        job_type: "noop".into(),
        queue: queue.clone(),
        payload: "{}".into(),
        priority: Priority::default(),
        due: Due::Now,
        max_attempts: 5,
        retry_delay_seconds: 60,
        backoff: None,
        timeout_seconds: None,
        idempotency_key: None,
        created_by: None,
    }
}

fn request(queue: &str) -> JobRequest {
    JobRequest {
        queue: Some(queue.to_owned()),
        ..JobRequest::new("noop", serde_json::json!({}))
    }
}

/// Single calls of many callers at once, and calls with a batch each.
fn enqueue(criterion: &mut Criterion, runtime: &Runtime, bench: &Bench) {
    let tasks = Tasks::new();
    let _guard = runtime.enter();
    let enqueue = bench.enqueue(&tasks);
    let mut group = criterion.benchmark_group("enqueue");
    group.throughput(Throughput::Elements(CALLERS as u64));
    group.bench_function("one, 100 callers", |bencher| {
        bencher.to_async(runtime).iter(|| async {
            let calls = (0..CALLERS).map(|_| enqueue.enqueue(request("one")));
            join_all(calls)
                .await
                .into_iter()
                .for_each(|answer| assert!(answer.is_ok()));
        });
    });
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("many, 500 in one call", |bencher| {
        bencher.to_async(runtime).iter(|| async {
            let answers = enqueue
                .enqueue_many(vec![request("many"); BATCH])
                .await
                .unwrap();
            answers
                .into_iter()
                .for_each(|answer| assert!(answer.is_ok()));
        });
    });
    group.finish();
    drop(enqueue);
    assert!(runtime.block_on(tasks.stop(Duration::from_secs(60))));
}

fn claim(criterion: &mut Criterion, runtime: &Runtime, bench: &Bench) {
    let queue: QueueName = "claim".parse().unwrap();
    let mut group = criterion.benchmark_group("claim");
    group.throughput(Throughput::Elements(CLAIM as u64));
    group.bench_function("100 jobs", |bencher| {
        bencher.to_async(runtime).iter_custom(|rounds| {
            let queue = &queue;
            async move {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    bench.fill(queue, CLAIM).await;
                    let begin = Instant::now();
                    let claimed = bench.claim(queue, CLAIM).await.jobs;
                    spent += begin.elapsed();
                    assert_eq!(claimed.len(), CLAIM);
                    let finish = claimed.into_iter().map(|job| Finish {
                        id: job.id,
                        token: "bench".into(),
                        returnvalue: "null".into(),
                        keep: Keep::Remove,
                    });
                    let finish: Vec<Finish> = finish.collect();
                    bench.broker.finish(queue, &finish).await.unwrap();
                }
                spent
            }
        });
    });
    group.finish();
}

/// From the hand-over of outcomes until both stores know them.
fn settle(criterion: &mut Criterion, runtime: &Runtime, bench: &Bench) {
    let queue: QueueName = "settle".parse().unwrap();
    let left = Arc::new(AtomicUsize::new(0));
    let all_done = Arc::new(tokio::sync::Notify::new());
    let (counting, notifying) = (left.clone(), all_done.clone());
    let done = move |_: &Ended, _: Verdict| {
        if counting.fetch_sub(1, Ordering::AcqRel) == 1 {
            notifying.notify_one();
        }
    };
    let tasks = Tasks::new();
    let _guard = runtime.enter();
    let (record, broker) = (bench.record.clone(), bench.broker.clone());
    let settle = Settle::start(record, broker, &worker_id(), Arc::new(done), &tasks);
    let mut group = criterion.benchmark_group("settle");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("500 completed jobs", |bencher| {
        bencher.to_async(runtime).iter_custom(|rounds| {
            let (queue, settle, left, all_done) = (&queue, &settle, &left, &all_done);
            async move {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    bench.fill(queue, BATCH).await;
                    let claimed = bench.claim(queue, BATCH).await;
                    let ended: Vec<Ended> =
                        claimed.jobs.iter().map(|j| ended(queue, &j.id)).collect();
                    left.store(ended.len(), Ordering::Release);
                    let begin = Instant::now();
                    for ended in ended {
                        settle.hand_over(ended).await.ok();
                    }
                    all_done.notified().await;
                    spent += begin.elapsed();
                }
                spent
            }
        });
    });
    group.finish();
    drop(settle);
    runtime.block_on(tasks.drained());
}

fn ended(queue: &QueueName, id: &str) -> Ended {
    let rule = RetryRule {
        attempts: 0,
        max_attempts: 5,
        retry_delay_seconds: 60,
        backoff: None,
    };
    Ended {
        id: id.parse().unwrap(),
        wire_id: id.to_owned(),
        queue: queue.clone(),
        token: "bench".into(),
        attempt: 1,
        max_attempts: 5,
        started_at: bullwark::clock::now(),
        outcome: Ending::Value("null".into()).settle(&rule, 0.0).unwrap(),
        manner: None,
        kept_result: None,
    }
}

struct Noop;

impl Handler for Noop {
    const TYPE: &'static str = "noop";
    type Payload = serde_json::Value;
    type Output = ();

    async fn run(&self, _: JobContext, _: serde_json::Value) -> Result<(), JobError> {
        Ok(())
    }
}

/// From the first call of an enqueuer until the last outcome is in both stores.
fn end_to_end(criterion: &mut Criterion, runtime: &Runtime, bench: &Bench) {
    let left = Arc::new(AtomicUsize::new(0));
    let all_done = Arc::new(tokio::sync::Notify::new());
    let (counting, notifying) = (left.clone(), all_done.clone());
    let mut options = WorkerOptions::new(worker_id());
    options.slots = CLAIM;
    options.queues = vec!["end-to-end".parse().unwrap()];
    options.observer = Some(Arc::new(move |_: &Ended| {
        if counting.fetch_sub(1, Ordering::AcqRel) == 1 {
            notifying.notify_one();
        }
    }));
    let mut handlers = Handlers::default();
    handlers.add(Noop);
    let (tasks, working, stop) = (Tasks::new(), Tasks::new(), CancellationToken::new());
    let _guard = runtime.enter();
    let enqueue = bench.enqueue(&tasks);
    let worker = Worker {
        record: bench.record.clone(),
        broker: bench.broker.clone(),
        broker_options: bench.broker_options.clone(),
        handlers,
        enqueue: enqueue.clone(),
        options,
    };
    let stopping = stop.clone();
    working.spawn("worker", async move {
        worker
            .run(stopping, CancellationToken::new())
            .await
            .unwrap();
    });
    let mut group = criterion.benchmark_group("end to end");
    group.throughput(Throughput::Elements(END_TO_END as u64));
    group.bench_function("2000 no-op jobs, 100 callers, 100 slots", |bencher| {
        bencher.to_async(runtime).iter(|| {
            left.store(END_TO_END, Ordering::Release);
            let (enqueue, all_done) = (&enqueue, &all_done);
            async move {
                let caller = async || {
                    for _ in 0..END_TO_END / CALLERS {
                        enqueue.enqueue(request("end-to-end")).await.unwrap();
                    }
                };
                join_all((0..CALLERS).map(|_| caller())).await;
                all_done.notified().await;
            }
        });
    });
    group.finish();
    stop.cancel();
    drop(enqueue);
    runtime.block_on(async {
        working.drained().await;
        assert!(tasks.stop(Duration::from_secs(60)).await);
    });
}

/// How many updates of `jobs` wrote no index: nearly all, or something is wrong with its indexes.
async fn print_heap_only_updates(stores: &Stores) {
    let mut connection = sqlx::PgConnection::connect(&stores.database_url)
        .await
        .unwrap();
    let (updates, heap_only): (i64, i64) = sqlx::query_as(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'jobs'",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    eprintln!("updates of jobs: {updates}, heap-only: {heap_only}");
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let bench = runtime.block_on(Bench::start());
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(2))
        .measurement_time(Duration::from_secs(10))
        .configure_from_args();
    enqueue(&mut criterion, &runtime, &bench);
    claim(&mut criterion, &runtime, &bench);
    settle(&mut criterion, &runtime, &bench);
    end_to_end(&mut criterion, &runtime, &bench);
    criterion.final_summary();
    runtime.block_on(async {
        bench.record.close().await;
        print_heap_only_updates(&bench.stores).await;
        bench.stores.stop().await.unwrap();
    });
}
