//! An application with workers in this process.
//!
//! What handlers do is noted in a [`Probe`]; tests wait for notes, and open gates that handlers
//! wait at. Nothing here sleeps for luck: every wait ends with the event, or fails.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bullwark::app::{App, worker_id};
use bullwark::config::{Config, Given};
use bullwark::job::{JobRequest, JobType};
use bullwark::reconcile::{self, Verdict};
use bullwark::record::jobs::{self, FailureRow, JobRow};
use bullwark::record::logs::{self, LogRow};
use bullwark::record::{Record, RecordOptions};
use bullwark::stores::Stores;
use bullwark::tasks::Tasks;
use bullwark::worker::{Handlers, WorkerOptions};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::coded::{Coded, Codes};
use super::probe::Probe;
use super::script::Scripted;
use crate::support::answers::Answers;
use crate::support::proxy::Proxy;
use crate::support::{Sandbox, shared_stores};

/// After so long a wait has failed. Far longer than anything here takes on an idle machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A second type with the same code, which no worker of a [`Rig`] has.
pub(crate) const UNSERVED: &str = "unserved";

/// An application on stores of its own or on its part of the shared ones.
pub(crate) struct Rig {
    pub(crate) app: App,
    pub(crate) probe: Arc<Probe>,
    pub(crate) codes: Arc<Codes>,
    upkeep: Tasks,
    working: Tasks,
    sandbox: Option<Sandbox>,
}

impl Rig {
    /// On the shared stores.
    pub(crate) async fn new() -> Self {
        let sandbox = Sandbox::new().await;
        let (database, redis) = (sandbox.database_url.clone(), sandbox.redis_url.clone());
        let prefix = sandbox.prefix.clone();
        Self::on(database, redis, prefix, Some(sandbox)).await
    }

    /// On the shared stores, with a proxy before the record.
    pub(crate) async fn behind_proxy() -> (Self, Arc<Proxy>) {
        let sandbox = Sandbox::new().await;
        let (redis, prefix) = (sandbox.redis_url.clone(), sandbox.prefix.clone());
        let (start, place) = shared_stores().await.database_url.split_once('@').unwrap();
        let (upstream, _) = place.split_once('/').unwrap();
        let proxy = Arc::new(Proxy::before(upstream).await);
        let database = format!("{start}@{}/{}", proxy.address, sandbox.database());
        (
            Self::on(database, redis, prefix, Some(sandbox)).await,
            proxy,
        )
    }

    /// On the shared stores, with a proxy before the record that loses answers.
    pub(crate) async fn with_lost_answers() -> (Self, Arc<Answers>) {
        let sandbox = Sandbox::new().await;
        let (redis, prefix) = (sandbox.redis_url.clone(), sandbox.prefix.clone());
        let (start, place) = shared_stores().await.database_url.split_once('@').unwrap();
        let (upstream, _) = place.split_once('/').unwrap();
        let proxying = Tasks::new();
        let (answers, address) = Answers::before(upstream, &proxying).await;
        let database = format!("{start}@{address}/{}", sandbox.database());
        (
            Self::on(database, redis, prefix, Some(sandbox)).await,
            answers,
        )
    }

    /// On stores that the test may kill.
    pub(crate) async fn on_stores(stores: &Stores) -> Self {
        Self::on_record(stores, stores.database_url.clone()).await
    }

    /// The same, with a proxy before the record.
    pub(crate) async fn on_stores_behind(stores: &Stores, proxy: &Proxy) -> Self {
        let place = format!("127.0.0.1:{}", stores.postgres_port());
        Self::on_record(stores, stores.database_url.replace(&place, &proxy.address)).await
    }

    async fn on_record(stores: &Stores, database: String) -> Self {
        let record = Record::connect(&RecordOptions::new(&database)).unwrap();
        record.migrate().await.unwrap();
        Self::on(database, stores.redis_url.clone(), "bull".to_owned(), None).await
    }

    async fn on(
        database_url: String,
        redis_url: String,
        prefix: String,
        sandbox: Option<Sandbox>,
    ) -> Self {
        let given = Given {
            database_url: Some(database_url),
            redis_url: Some(redis_url),
            prefix: Some(prefix),
            ..Given::default()
        };
        let config = Config::settle(given, |_| None, |_| None).unwrap();
        let probe = Arc::new(Probe::default());
        let mut handlers = Handlers::default();
        handlers.add(Scripted(probe.clone()));
        let codes = Arc::new(Codes::default());
        handlers.add(Coded(codes.clone()));
        let app = App::connect(config, handlers).await.unwrap();
        let rig = Self {
            app,
            probe,
            codes,
            upkeep: Tasks::new(),
            working: Tasks::new(),
            sandbox,
        };
        rig.sql("CREATE TABLE IF NOT EXISTS effects (name text)")
            .await;
        let mut types = rig.app.enqueue.types();
        types.add(JobType::new(UNSERVED, json!(true)).unwrap());
        rig.app.enqueue.set_types(types);
        rig
    }

    /// Starts the duties of upkeep, as every process that stays does.
    pub(crate) fn with_upkeep(self) -> Self {
        let stalls_max = self.app.config.max_stalled_count;
        let upkeep = self.upkeep.with_failing(&self.app.services().failing);
        bullwark::upkeep::start_rescue(&self.app.broker, stalls_max, &upkeep);
        bullwark::upkeep::start(&self.app.record, &self.app.broker, &upkeep);
        self
    }

    pub(crate) async fn enqueue(&self, request: JobRequest) -> Uuid {
        self.app.enqueue.enqueue(request).await.unwrap().id
    }

    /// Starts a worker.
    pub(crate) fn work(&self, change: impl FnOnce(&mut WorkerOptions)) -> Working {
        let mut options = WorkerOptions::new(worker_id());
        change(&mut options);
        let working = Working {
            worker_id: options.worker_id.clone(),
            stop: CancellationToken::new(),
            hurry: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let (app, stop, hurry) = (
            self.app.clone(),
            working.stop.clone(),
            working.hurry.clone(),
        );
        let ended = working.ended.clone();
        self.working.spawn("worker", async move {
            app.work(options, stop, hurry).await.unwrap();
            ended.cancel();
        });
        working
    }

    pub(crate) async fn job(&self, id: Uuid) -> JobRow {
        jobs::get(&mut self.app.record.view().await.unwrap(), id, None)
            .await
            .unwrap()
            .unwrap()
    }

    /// Waits until the job has this status.
    pub(crate) async fn until(&self, id: Uuid, status: &str) -> JobRow {
        let find = async || {
            // A record that is away just now is no reason to give up.
            let mut view = self.app.record.view().await.ok()?;
            let job = jobs::get(&mut view, id, None).await.ok().flatten()?;
            (job.status == status).then_some(job)
        };
        eventually(&format!("job {id} to be {status}"), find).await
    }

    pub(crate) async fn failures(&self, id: Uuid) -> Vec<FailureRow> {
        jobs::failures(&mut self.app.record.view().await.unwrap(), id)
            .await
            .unwrap()
    }

    pub(crate) async fn logs(&self, id: Uuid) -> Vec<LogRow> {
        logs::of_job(
            &mut self.app.record.view().await.unwrap(),
            id,
            logs::LOG_PAGE_MAX,
        )
        .await
        .unwrap()
    }

    pub(crate) async fn verify(&self) -> Verdict {
        reconcile::verify(&self.app.record, &self.app.broker)
            .await
            .unwrap()
    }

    /// Waits until both stores agree; Redis is told a little after the record.
    pub(crate) async fn agree(&self) {
        let verdict = self.verify().await;
        assert!(verdict.agree, "{verdict:#?}");
    }

    /// The name of the state of a job in Redis, as `Debug` shows it; `None` when it is not there.
    pub(crate) async fn redis_state(&self, id: Uuid) -> Option<String> {
        let queue = self.job(id).await.job_queue.parse().unwrap();
        let states = self
            .app
            .broker
            .states(&queue, &[id.to_string()])
            .await
            .unwrap();
        states[0].map(|state| format!("{state:?}"))
    }

    /// Waits until Redis has the job in this state.
    pub(crate) async fn until_redis(&self, id: Uuid, state: &str) {
        let find = async || (self.redis_state(id).await? == state).then_some(());
        eventually(&format!("job {id} to be {state} in Redis"), find).await;
    }

    /// A pool on the record of this test, past any proxy.
    pub(crate) async fn pool(&self) -> sqlx::PgPool {
        self.sandbox.as_ref().unwrap().pool().await
    }

    pub(crate) async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.app.config.redis_url.as_str()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    pub(crate) async fn hash(
        &self,
        queue: &str,
        id: impl std::fmt::Display,
        field: &str,
    ) -> Option<String> {
        let key = format!("{}:{queue}:{id}", self.app.config.prefix);
        let mut redis = self.redis().await;
        redis::cmd("HGET")
            .arg(key)
            .arg(field)
            .query_async(&mut redis)
            .await
            .unwrap()
    }

    pub(crate) async fn sql(&self, statement: &'static str) {
        let mut tx = self.app.record.begin().await.unwrap();
        sqlx::raw_sql(statement)
            .execute(tx.connection())
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    /// How often a job of this name took effect.
    /// One number, by a statement of the test's own; none: the record is away.
    pub(crate) async fn number(&self, statement: &'static str) -> Option<i64> {
        let mut tx = self.app.record.begin().await.ok()?;
        let found = sqlx::query_scalar(statement).fetch_one(tx.connection());
        found.await.ok()
    }

    pub(crate) async fn effects(&self, name: &str) -> i64 {
        let mut tx = self.app.record.begin().await.unwrap();
        sqlx::query_scalar("SELECT count(*) FROM effects WHERE name = $1")
            .bind(name)
            .fetch_one(tx.connection())
            .await
            .unwrap()
    }

    /// A number, by a statement that takes the job's id.
    pub(crate) async fn count(&self, statement: &'static str, id: Uuid) -> i64 {
        let mut tx = self.app.record.begin().await.unwrap();
        sqlx::query_scalar(statement)
            .bind(id)
            .fetch_one(tx.connection())
            .await
            .unwrap()
    }

    /// Ends upkeep; workers are ended by the tests.
    pub(crate) async fn close(self) {
        within("the workers", self.working.drained()).await;
        assert!(self.upkeep.stop(LIMIT).await);
        self.app.close().await;
    }
}

/// A running worker.
pub(crate) struct Working {
    pub(crate) worker_id: String,
    pub(crate) stop: CancellationToken,
    pub(crate) hurry: CancellationToken,
    pub(crate) ended: CancellationToken,
}

impl Working {
    /// Tells the worker to stop and waits for its end.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        within("the end of the worker", self.ended.cancelled()).await;
    }
}

/// Waits for something that comes by itself.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Looks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}
