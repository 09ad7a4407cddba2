//! How many accounts a second are enriched by a provider that has no limit.
//!
//! The provider is the simulator, in this process, over real HTTP: each account takes a look at
//! what is known, a permit, a call, and the commit of its values with their origin and lineage.
//! All jobs wait when the worker starts.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::cost::{Cost, resident_bytes};
use super::{BenchError, CpuPerJob, StorePids, round};
use crate::app::{App, worker_id};
use crate::config::Config;
use crate::enqueue::ENQUEUE_MAX;
use crate::handlers::connection::SEALED_AS;
use crate::handlers::providers::DataSource;
use crate::handlers::simulator::Simulator;
use crate::job::connection::Provider;
use crate::job::quota::QuotaKey;
use crate::job::{JobRequest, Status};
use crate::reconcile;
use crate::record::access::By;
use crate::record::accounts::{self, AccountRow};
use crate::record::connections::{self, NewConnection, Sealed};
use crate::record::merge::IfTaken;
use crate::record::workspaces::DEFAULT_WORKSPACE;
use crate::record::{quotas, server};
use crate::sealed::Place;
use crate::secret::Secret;
use crate::tasks::Tasks;
use crate::worker::{Handlers, WorkerOptions};

const SOURCE: DataSource = DataSource::Clearbit;
/// Accounts of one statement.
const ACCOUNTS: usize = 1000;
/// Between two looks at how many are done.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct EnrichReport {
    pub accounts: usize,
    /// Jobs at a time.
    pub slots: usize,
    pub seconds: f64,
    pub enrichments_per_second: f64,
    /// The simulated provider is in this process, too.
    pub cpu_us_per_enrichment: CpuPerJob,
    pub rss_bytes: u64,
    /// Each account was asked for once and paid for once, and both stores agree.
    pub exactly_once: bool,
}

/// Enriches so many new accounts.
pub async fn run_enrich(
    config: Config,
    handlers: Handlers,
    (total, slots): (usize, usize),
    limit: Duration,
    pids: StorePids,
) -> Result<EnrichReport, BenchError> {
    let app = App::connect(config, handlers).await?;
    let (tasks, stop) = (Tasks::new(), CancellationToken::new());
    let provider = Simulator::start(([127, 0, 0, 1], 0).into(), &tasks).await?;
    provider.limit(SOURCE, usize::MAX, Duration::from_secs(1));
    connect(&app, &provider).await?;
    let ids = accounts(&app, total).await?;
    for page in ids.chunks(ENQUEUE_MAX) {
        let wish = |id: &Uuid| JobRequest {
            workspace_id: Some(DEFAULT_WORKSPACE),
            ..JobRequest::new(
                "enrich_account",
                json!({ "account_id": id, "provider": SOURCE }),
            )
        };
        for enqueued in app
            .enqueue
            .enqueue_many(page.iter().map(wish).collect())
            .await?
        {
            enqueued?;
        }
    }
    app.start_upkeep_without_rescue(&tasks);
    let options = WorkerOptions {
        slots,
        ..WorkerOptions::new(worker_id())
    };
    let (worker, stopping) = (app.clone(), stop.clone());
    let (began, before) = (Instant::now(), Cost::now(pids));
    tasks.spawn("worker", async move {
        let hurry = CancellationToken::new();
        if let Err(error) = worker.work(options, stopping, hurry).await {
            tracing::error!(%error, "worker ended");
        }
    });
    loop {
        let counts = server::count_by_status(&app.record).await?;
        let count = |status: Status| {
            let found = counts.iter().find(|(name, _)| name == status.as_str());
            found.map_or(0, |(_, count)| *count as usize)
        };
        let (done, dead) = (count(Status::Completed), count(Status::DeadLetter));
        if done == total {
            break;
        }
        if dead > 0 || began.elapsed() > limit {
            return Err(BenchError::Late {
                done,
                jobs: total,
                limit,
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let (seconds, cost) = (
        began.elapsed().as_secs_f64(),
        Cost::now(pids).since(&before),
    );
    let agree = reconcile::verify(&app.record, &app.broker).await?.agree;
    let exactly_once = agree
        && provider.seen().len() == total
        && provider.spent(SOURCE) == total as u64
        && server::completed_twice_started(&app.record).await? == 0;
    stop.cancel();
    tasks.stop(STOP_LIMIT).await;
    app.close().await;
    let us = |seconds: f64| round(seconds * 1e6 / total as f64, 1);
    Ok(EnrichReport {
        accounts: total,
        slots,
        seconds: round(seconds, 2),
        enrichments_per_second: round(total as f64 / seconds, 0),
        cpu_us_per_enrichment: CpuPerJob {
            bullwark: us(cost.bullwark),
            redis: us(cost.redis),
            postgres: us(cost.postgres),
        },
        rss_bytes: resident_bytes(),
        exactly_once,
    })
}

/// A connection to the provider, and no limit of ours.
async fn connect(app: &App, provider: &Simulator) -> Result<(), BenchError> {
    let id = Uuid::now_v7();
    let place = Place {
        kind: SEALED_AS,
        workspace_id: DEFAULT_WORKSPACE,
        id,
    };
    let secret = Secret(json!({ "api_key": "simulated" }).to_string());
    let sealed = app.config.sealer().seal(&place, &secret);
    let new = NewConnection {
        id,
        workspace_id: DEFAULT_WORKSPACE,
        provider: Provider::Clearbit,
        name: "bench".to_owned(),
        base_url: Some(provider.url()),
        settings: json!({}),
        credentials: Sealed {
            names: vec!["api_key".to_owned()],
            text: sealed.map_err(|error| BenchError::Server(error.to_string()))?,
        },
        created_by: None,
    };
    connections::create(&app.record, &new, &By::OPERATOR).await?;
    let key = QuotaKey::new(SOURCE.as_str(), DEFAULT_WORKSPACE);
    let key = key.map_err(|error| BenchError::Server(error.to_string()))?;
    let (key, none) = (key.to_string(), json!({ "windows": [], "learns": false }));
    let about = (DEFAULT_WORKSPACE, key.as_str());
    let shortest = (1, Duration::from_secs(1));
    quotas::set_limits(&app.record, about, Some(&none), shortest, &By::OPERATOR).await?;
    Ok(())
}

async fn accounts(app: &App, total: usize) -> Result<Vec<Uuid>, BenchError> {
    let rows: Vec<(Uuid, AccountRow)> = (0..total)
        .map(|n| {
            let row = AccountRow {
                name: format!("Company {n}"),
                domain: Some(format!("company{n}.com")),
                ..AccountRow::default()
            };
            (Uuid::now_v7(), row)
        })
        .collect();
    for page in rows.chunks(ACCOUNTS) {
        let page: Vec<(Uuid, &AccountRow)> = page.iter().map(|(id, row)| (*id, row)).collect();
        let mut tx = app.record.begin().await?;
        let source = ("bench", IfTaken::Refuse);
        accounts::insert_many(&mut tx, Some(DEFAULT_WORKSPACE), source, &page).await?;
        tx.commit().await?;
    }
    Ok(rows.into_iter().map(|(id, _)| id).collect())
}
