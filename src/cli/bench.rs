//! `bullwark bench`

use std::time::Duration;

use clap::Args;

use super::connect::builtin;
use super::{Done, Failure, Global, output, whole};
use crate::bench::{self, BenchOptions, HttpBenchOptions, Load, Percentiles, StorePids};
use crate::config::Config;
use crate::record::{Record, RecordOptions};
use crate::stores::{Stores, StoresOptions};

/// Example: bullwark bench --jobs 200000 --producers 200
#[derive(Debug, Args)]
#[command(
    after_help = "Runs on private stores in a temporary directory, with commits that reach \
    the disk and an append-only file in Redis. Exit code 0 only if every job completed \
    exactly once."
)]
pub(crate) struct Bench {
    /// Jobs to enqueue and run
    #[arg(long, default_value_t = 200_000, value_parser = whole(1..=20_000_000))]
    jobs: u32,
    /// Callers that enqueue at the same time
    #[arg(long, default_value_t = 200, value_parser = whole(1..=10_000))]
    producers: u32,
    /// Jobs per call
    #[arg(long, default_value_t = 1, value_parser = whole(1..=10_000))]
    batch: u32,
    /// Slots of the worker
    #[arg(long, default_value_t = 100, value_parser = whole(1..=10_000))]
    slots: u32,
    /// Jobs per second to send; 0: as fast as answers come
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Longest time in seconds
    #[arg(long, default_value_t = 600)]
    limit: u64,
    /// Measure instead how long an emptied Redis takes to hold all of these jobs again
    #[arg(long, conflicts_with_all = ["producers", "batch", "slots", "rate", "limit"])]
    rebuild: bool,
    /// Measure instead how much of the library's rate `POST /api/jobs` keeps
    #[arg(long, conflicts_with_all = ["producers", "batch", "slots", "rate", "limit", "rebuild"])]
    http: bool,
    /// Measure instead how many accounts a second are enriched by a provider without a limit
    #[arg(long, conflicts_with_all = ["producers", "batch", "rate", "rebuild", "http"])]
    enrich: bool,
    /// Connections that are kept alive, and callers of the library beside them
    #[arg(long, default_value_t = 64, value_parser = whole(1..=1000), requires = "http")]
    connections: u32,
    /// How often both are measured in turn
    #[arg(long, default_value_t = 5, value_parser = whole(1..=100), requires = "http")]
    rounds: u32,
}

pub(crate) async fn run(global: &Global, bench: Bench) -> Done {
    let stores = Stores::start(StoresOptions::temporary()).await?;
    let done = measure(global, &bench, &stores).await;
    stores.stop().await?;
    done
}

async fn measure(global: &Global, bench: &Bench, stores: &Stores) -> Done {
    let database_url = stores
        .database_socket_url
        .clone()
        .unwrap_or_else(|| stores.database_url.clone());
    let mut given = global.given();
    given.database_url = Some(database_url.clone());
    given.redis_url = Some(stores.redis_url.clone());
    given.data_dir = Some(stores.dir().to_owned());
    let config: Config = global.config_with(given)?;
    let record = Record::connect(&RecordOptions::new(&database_url))?;
    record.migrate().await?;
    record.close().await;

    let pids = StorePids {
        redis: stores.redis_pid(),
        postgres: stores.postgres_pid(),
    };
    if bench.rebuild {
        return measure_rebuild(global, config, bench.jobs as usize, pids).await;
    }
    if bench.http {
        let options = HttpBenchOptions {
            jobs: bench.jobs as usize,
            connections: bench.connections as usize,
            rounds: bench.rounds as usize,
        };
        return measure_http(global, config, &options, pids).await;
    }
    if bench.enrich {
        let sizes = (bench.jobs as usize, bench.slots as usize);
        let limit = Duration::from_secs(bench.limit);
        return measure_enrich(global, config, sizes, limit, pids).await;
    }
    let options = BenchOptions {
        jobs: bench.jobs as usize,
        producers: bench.producers as usize,
        batch: bench.batch as usize,
        slots: bench.slots as usize,
        rate: bench.rate,
        limit: Duration::from_secs(bench.limit),
    };
    let load = Load::start(config, options.slots).await?;
    let report = bench::run(load, &options, pids).await?;
    if global.json {
        output::json(&report);
    } else {
        let cpu = &report.cpu_us_per_job;
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        output::table(
            &["measured", "value"],
            vec![
                row("jobs", report.jobs.to_string()),
                row(
                    "jobs/s, enqueue to done",
                    report.jobs_per_second.to_string(),
                ),
                row(
                    "jobs/s, enqueue alone",
                    report.enqueued_per_second.to_string(),
                ),
                row("sent to start", ms(&report.start_ms)),
                row("sent to durably done", ms(&report.done_ms)),
                row("WAL bytes per job", report.wal_bytes_per_job.to_string()),
                row("commits per job", report.commits_per_job.to_string()),
                row("CPU per job", us(cpu)),
                row(
                    "memory",
                    format!("{} MiB", report.rss_bytes / (1024 * 1024)),
                ),
                row("exactly once", report.exactly_once.to_string()),
            ],
        );
    }
    match report.exactly_once {
        true => Ok(()),
        false => Err(Failure::Failed(anyhow::anyhow!(
            "not every job completed exactly once"
        ))),
    }
}

async fn measure_rebuild(global: &Global, config: Config, jobs: usize, pids: StorePids) -> Done {
    let report = bench::run_rebuild(config, jobs, pids).await?;
    if global.json {
        output::json(&report);
    } else {
        let cpu = &report.cpu_seconds;
        let seconds: Vec<String> = report.seconds.iter().map(f64::to_string).collect();
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        output::table(
            &["measured", "value"],
            vec![
                row("jobs that wait", report.jobs.to_string()),
                row("delayed", report.delayed.to_string()),
                row("running", report.running.to_string()),
                row("flows of four jobs", report.flows.to_string()),
                row("schedules", report.schedules.to_string()),
                row("seconds of each rebuild", seconds.join(" · ")),
                row(
                    "CPU per rebuild",
                    format!(
                        "{:.2} s Bullwark · {:.2} s Redis · {:.2} s PostgreSQL",
                        cpu.bullwark, cpu.redis, cpu.postgres
                    ),
                ),
                row("both stores agree", report.agree.to_string()),
                row("everything as before", report.as_before.to_string()),
            ],
        );
    }
    match report.agree && report.as_before {
        true => Ok(()),
        false => Err(Failure::Failed(anyhow::anyhow!(
            "Redis did not get every job back"
        ))),
    }
}

fn ms(p: &Percentiles) -> String {
    let (p50, p95, p99, max) = (p.p50, p.p95, p.p99, p.max);
    format!("p50 {p50} · p95 {p95} · p99 {p99} · max {max} ms")
}

fn us(cpu: &bench::CpuPerJob) -> String {
    format!(
        "{} µs Bullwark · {} µs Redis · {} µs PostgreSQL",
        cpu.bullwark, cpu.redis, cpu.postgres
    )
}

async fn measure_enrich(
    global: &Global,
    mut config: Config,
    sizes: (usize, usize),
    limit: Duration,
    pids: StorePids,
) -> Done {
    // The provider is a simulator on this machine.
    config.allows_private_addresses = true;
    let handlers = builtin(&config)?;
    let report = bench::run_enrich(config, handlers, sizes, limit, pids).await?;
    if global.json {
        output::json(&report);
    } else {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let rate = report.enrichments_per_second.to_string();
        let memory = format!("{} MiB", report.rss_bytes / (1024 * 1024));
        output::table(
            &["measured", "value"],
            vec![
                row("accounts", report.accounts.to_string()),
                row("enrichments/s", rate),
                row("CPU per enrichment", us(&report.cpu_us_per_enrichment)),
                row("memory", memory),
                row("exactly once", report.exactly_once.to_string()),
            ],
        );
    }
    match report.exactly_once {
        true => Ok(()),
        false => Err(Failure::Failed(anyhow::anyhow!(
            "an account was asked for twice, or the stores differ"
        ))),
    }
}

async fn measure_http(
    global: &Global,
    config: Config,
    options: &HttpBenchOptions,
    pids: StorePids,
) -> Done {
    let report = bench::run_http(config, options, pids).await?;
    if global.json {
        output::json(&report);
    } else {
        let rates: Vec<String> = report
            .rounds
            .iter()
            .map(|round| {
                format!(
                    "{} of {}",
                    round.requests_per_second, round.calls_per_second
                )
            })
            .collect();
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        output::table(
            &["measured", "value"],
            vec![
                row("jobs of each way", report.jobs.to_string()),
                row(
                    "connections, and callers of the library",
                    report.connections.to_string(),
                ),
                row("requests/s", report.requests_per_second.to_string()),
                row("calls/s", report.calls_per_second.to_string()),
                row(
                    "requests of calls",
                    format!("{:.1} %", report.ratio * 100.0),
                ),
                row("a request takes", ms(&report.request_ms)),
                row("a call takes", ms(&report.call_ms)),
                row("CPU per request", us(&report.cpu_us_per_request)),
                row("CPU per call", us(&report.cpu_us_per_call)),
                row("requests/s of calls/s, each round", rates.join(" · ")),
                row(
                    "the record has them all",
                    report.accepted_exactly.to_string(),
                ),
            ],
        );
    }
    match report.accepted_exactly {
        true => Ok(()),
        false => Err(Failure::Failed(anyhow::anyhow!(
            "the record has more or fewer jobs than were answered"
        ))),
    }
}
