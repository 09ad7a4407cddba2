//! An application with workers in this process, on a Redis of the test's choice.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use bullwark::app::{App, worker_id};
use bullwark::config::{Config, Given};
use bullwark::handlers::import_csv::SourceOptions;
use bullwark::handlers::{self, BuiltinOptions};
use bullwark::job::{JobRequest, QueueName};
use bullwark::reconcile::{self, Verdict};
use bullwark::record::{Record, RecordOptions};
use bullwark::stores::{Stores, StoresOptions};
use bullwark::tasks::Tasks;
use bullwark::worker::{ServedQueue, WorkerOptions};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::server::{LIMIT, eventually, within};

pub(crate) const QUEUES: [&str; 3] = ["mails", "reports", "imports"];
/// Long enough for a failover, short enough for a test that loses a worker's lease.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

pub(crate) struct Rig {
    pub(crate) app: App,
    /// Only its PostgreSQL is used.
    stores: Stores,
    upkeep: Tasks,
    working: Tasks,
    stop: CancellationToken,
}

impl Rig {
    pub(crate) async fn new(redis_url: String, prefix: &str) -> Self {
        static TLS: OnceLock<()> = OnceLock::new();
        TLS.get_or_init(|| {
            rustls::crypto::ring::default_provider()
                .install_default()
                .ok();
        });
        let stores = Stores::start(StoresOptions::throwaway()).await.unwrap();
        let record = Record::connect(&RecordOptions::new(&stores.database_url)).unwrap();
        record.migrate().await.unwrap();
        let given = Given {
            database_url: Some(stores.database_url.clone()),
            redis_url: Some(redis_url),
            prefix: Some(prefix.to_owned()),
            has_diagnostics: true,
            ..Given::default()
        };
        let config = Config::settle(given, |_| None, |_| None).unwrap();
        let handlers = handlers::builtin(&BuiltinOptions {
            has_diagnostics: true,
            ..BuiltinOptions::new(SourceOptions::new(&config.data_dir))
        });
        let app = App::connect(config, handlers).await.unwrap();
        let rig = Self {
            app,
            stores,
            upkeep: Tasks::new(),
            working: Tasks::new(),
            stop: CancellationToken::new(),
        };
        rig.app.start_upkeep(&rig.upkeep);
        rig
    }

    /// Starts a worker for all of [`QUEUES`].
    pub(crate) fn work(&self, slots: usize) {
        let mut options = WorkerOptions::new(worker_id());
        options.slots = slots;
        options.lease = LEASE;
        options.queues = QUEUES
            .iter()
            .map(|name| ServedQueue {
                name: name.parse().unwrap(),
                weight: None,
            })
            .collect();
        let (app, stop) = (self.app.clone(), self.stop.clone());
        self.working.spawn("worker", async move {
            app.work(options, stop, CancellationToken::new())
                .await
                .unwrap();
        });
    }

    /// Puts so many jobs that take a little while into each queue.
    pub(crate) async fn enqueue(&self, each: usize) -> Vec<Uuid> {
        let mut requests = Vec::new();
        for nth in 0..each * QUEUES.len() {
            let mut request = JobRequest::new("sleep", json!({ "ms": 5 + nth % 20 }));
            request.queue = Some(QUEUES[nth % QUEUES.len()].to_owned());
            requests.push(request);
        }
        let answers = self.app.enqueue.enqueue_many(requests).await.unwrap();
        answers
            .into_iter()
            .map(|answer| answer.unwrap().id)
            .collect()
    }

    async fn count(&self, condition: &'static str) -> i64 {
        let mut tx = self.app.record.begin().await.unwrap();
        sqlx::query_scalar(condition)
            .fetch_one(tx.connection())
            .await
            .unwrap()
    }

    pub(crate) async fn completed(&self) -> i64 {
        self.count("SELECT count(*) FROM jobs WHERE status = 'completed'")
            .await
    }

    /// When which job was completed, by a run that began when. (Its number grows with each start
    /// that Redis counts, also of a job that is over and not run.)
    pub(crate) async fn endings(&self) -> BTreeSet<String> {
        let mut tx = self.app.record.begin().await.unwrap();
        let endings: Vec<String> = sqlx::query_scalar(
            "SELECT concat_ws(' ', id, started_at, completed_at) FROM jobs
             WHERE status = 'completed'",
        )
        .fetch_all(tx.connection())
        .await
        .unwrap();
        endings.into_iter().collect()
    }

    /// Waits until so many jobs have ended.
    pub(crate) async fn until_completed(&self, jobs: usize) {
        eventually("the jobs end", async || {
            self.completed().await >= jobs as i64
        })
        .await;
    }

    /// Every job of the record is done, none failed or was lost, and Redis says the same.
    pub(crate) async fn all_is_well(&self, jobs: usize) {
        self.until_completed(jobs).await;
        assert_eq!(self.count("SELECT count(*) FROM jobs").await, jobs as i64);
        let mut verdict = None;
        let agree = tokio::time::timeout(LIMIT, async {
            while !matches!(&verdict, Some(Ok(Verdict { agree: true, .. }))) {
                verdict = Some(reconcile::verify(&self.app.record, &self.app.broker).await);
            }
        });
        let is_in_time = agree.await.is_ok();
        assert!(is_in_time, "the stores do not agree: {verdict:#?}");
        for queue in QUEUES {
            let queue: QueueName = queue.parse().unwrap();
            let counts = self.app.broker.counts(&queue).await.unwrap();
            let live = [
                counts.wait,
                counts.active,
                counts.delayed,
                counts.prioritized,
            ];
            assert_eq!(live, [0; 4], "{queue}: {counts:?}");
        }
    }

    pub(crate) async fn close(self) {
        self.stop.cancel();
        within("the workers end", self.working.drained()).await;
        assert!(self.upkeep.stop(LIMIT).await);
        self.app.close().await;
        self.stores.stop().await.unwrap();
    }
}
