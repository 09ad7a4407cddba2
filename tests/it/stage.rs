//! The record and the broker of one test, with the few words that arrange and read jobs.

use std::time::Duration;

use bullwark::broker::{Broker, BrokerOptions, BrokerState, ClaimOptions, Claimed};
use bullwark::enqueue::Enqueue;
use bullwark::job::{
    Due, Ending, JobError, JobType, JobTypes, NewJob, Outcome, Priority, QueueName, RetryRule,
};
use bullwark::record::enqueue::insert_many;
use bullwark::record::jobs::{self, JobRow};
use bullwark::record::settle::SettledAttempt;
use bullwark::record::start::RunningAttempt;
use bullwark::record::{Record, RecordOptions};
use bullwark::stores::Stores;
use bullwark::tasks::Tasks;
use redis::aio::MultiplexedConnection;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgPoolOptions, Postgres};
use uuid::Uuid;

use crate::support::held::Held;
use crate::support::{Sandbox, database_url};

/// The longest that anything in another task or process may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Stage {
    pub(crate) record: Record,
    pub(crate) broker: Broker,
    pub(crate) pool: PgPool,
    pub(crate) prefix: String,
    redis_url: String,
    database_url: String,
    /// Kept until the end of the test: it owns the database.
    _sandbox: Option<Sandbox>,
}

impl Stage {
    /// On the servers that all tests share.
    pub(crate) async fn new() -> Self {
        let sandbox = Sandbox::new().await;
        let (redis_url, prefix) = (sandbox.redis_url.clone(), sandbox.prefix.clone());
        let url = sandbox.database_url.clone();
        Self::build(redis_url, prefix, &url, Some(sandbox)).await
    }

    /// On servers that the test may stop, kill and flush.
    pub(crate) async fn on(stores: &Stores) -> Self {
        let url = database_url(stores, "bullwark");
        let stage = Self::build(stores.redis_url.clone(), "own".to_owned(), &url, None).await;
        stage.record.migrate().await.unwrap();
        stage
    }

    async fn build(
        redis_url: String,
        prefix: String,
        database_url: &str,
        sandbox: Option<Sandbox>,
    ) -> Self {
        let options = BrokerOptions {
            url: redis_url.clone(),
            prefix: prefix.clone(),
            ..BrokerOptions::default()
        };
        let record = RecordOptions {
            writers: 8,
            ..RecordOptions::new(database_url)
        };
        Self {
            record: Record::connect(&record).unwrap(),
            broker: Broker::connect(options).await.unwrap(),
            pool: PgPoolOptions::new()
                .max_connections(4)
                .connect_lazy(database_url)
                .unwrap(),
            prefix,
            redis_url,
            database_url: database_url.to_owned(),
            _sandbox: sandbox,
        }
    }

    pub(crate) fn database_url(&self) -> &str {
        &self.database_url
    }

    /// As another process has one.
    pub(crate) async fn another_broker(&self) -> Broker {
        let options = BrokerOptions {
            url: self.redis_url.clone(),
            prefix: self.prefix.clone(),
            ..BrokerOptions::default()
        };
        Broker::connect(options).await.unwrap()
    }

    /// As another process has one, whose way to Redis can be held.
    pub(crate) async fn broker_that_may_be_held(&self) -> (Broker, Held) {
        let mut url: reqwest::Url = self.redis_url.parse().unwrap();
        let host = url.host_str().unwrap();
        let held = Held::before(&format!("{host}:{}", url.port().unwrap())).await;
        let (host, port) = held.address.split_once(':').unwrap();
        url.set_host(Some(host)).unwrap();
        url.set_port(Some(port.parse().unwrap())).unwrap();
        let options = BrokerOptions {
            url: url.into(),
            prefix: self.prefix.clone(),
            ..BrokerOptions::default()
        };
        (Broker::connect(options).await.unwrap(), held)
    }

    /// The way in, accepting `noop` with any payload.
    pub(crate) fn enqueue(&self, tasks: &Tasks) -> Enqueue {
        Enqueue::start(self.record.clone(), self.broker.clone(), types(), tasks)
    }

    pub(crate) async fn insert(&self, jobs: &[NewJob]) {
        insert_many(&self.record, jobs).await.unwrap();
    }

    /// As if these old jobs had been inserted when their ids were made.
    pub(crate) async fn insert_back_then(&self, jobs: &[NewJob]) {
        self.insert(jobs).await;
        self.execute("DELETE FROM bullwark.stragglers".into()).await;
    }

    pub(crate) async fn row(&self, id: Uuid) -> JobRow {
        jobs::get(&mut self.record.view().await.unwrap(), id, None)
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn status(&self, id: Uuid) -> String {
        self.row(id).await.status
    }

    /// The newest start that the record knows: the fence.
    pub(crate) async fn attempt(&self, id: Uuid) -> i32 {
        self.scalar(format!("SELECT attempt FROM jobs WHERE id = '{id}'"))
            .await
    }

    /// The retry history: number and outcome of each attempt that did not complete.
    pub(crate) async fn history(&self, id: Uuid) -> Vec<(i32, String)> {
        let failures = jobs::failures(&mut self.record.view().await.unwrap(), id)
            .await
            .unwrap();
        failures
            .into_iter()
            .map(|failure| (failure.attempt, failure.outcome))
            .collect()
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.scalar(format!("SELECT count(*) FROM {table}")).await
    }

    /// Every straggler says whose it is, and that is whose its job is; returns how many there are.
    pub(crate) async fn stragglers_of_their_owners(&self) -> i64 {
        let wrong = "bullwark.stragglers s JOIN jobs j ON j.id = s.job_id
            WHERE s.owner_id IS DISTINCT FROM coalesce(j.workspace_id, bullwark.nobody())";
        assert_eq!(self.count(wrong).await, 0);
        self.count("bullwark.stragglers").await
    }

    /// One value, by a statement that is made of the test's own words.
    pub(crate) async fn scalar<T>(&self, sql: String) -> T
    where
        T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    pub(crate) async fn execute(&self, sql: String) {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// Makes a job old in the eyes of every lag.
    pub(crate) async fn age(&self, id: Uuid, seconds: u32) {
        self.execute(format!(
            "UPDATE jobs SET created_at = created_at - interval '{seconds} seconds'
             WHERE id = '{id}'"
        ))
        .await;
    }

    pub(crate) async fn state(&self, id: Uuid) -> Option<BrokerState> {
        self.state_in(&QueueName::default(), id).await
    }

    pub(crate) async fn state_in(&self, queue: &QueueName, id: Uuid) -> Option<BrokerState> {
        let states = self.broker.states(queue, &[id.to_string()]).await;
        states.unwrap().pop().unwrap()
    }

    /// Claims everything that is due.
    pub(crate) async fn claim(&self, token: &str) -> Claimed {
        self.broker
            .claim(&QueueName::default(), &claim_options(token))
            .await
            .unwrap()
    }

    /// Redis forgets everything of this test, its own small keys included.
    pub(crate) async fn flush_prefix(&self) {
        let mut redis = self.redis().await;
        for pattern in [
            format!("{}:*", self.prefix),
            format!("bullwark:{}:*", self.prefix),
        ] {
            let keys: Vec<String> = redis::cmd("KEYS")
                .arg(pattern)
                .query_async(&mut redis)
                .await
                .unwrap();
            for key in keys {
                redis::cmd("DEL")
                    .arg(key)
                    .exec_async(&mut redis)
                    .await
                    .unwrap();
            }
        }
    }

    /// As if the process that follows the events had been gone for long.
    pub(crate) async fn forget_lease(&self) {
        let mut redis = self.redis().await;
        redis::cmd("DEL")
            .arg(format!("bullwark:{}:mirror", self.prefix))
            .exec_async(&mut redis)
            .await
            .unwrap();
    }

    pub(crate) async fn redis(&self) -> MultiplexedConnection {
        redis::Client::open(self.redis_url.as_str())
            .unwrap()
            .get_multiplexed_async_connection()
            .await
            .unwrap()
    }
}

pub(crate) fn claim_options(token: &str) -> ClaimOptions {
    ClaimOptions {
        token: token.to_owned(),
        max: 1000,
        lease: Duration::from_secs(600),
        worker_name: None,
        ..Default::default()
    }
}

pub(crate) fn types() -> JobTypes {
    let mut types = JobTypes::default();
    types.add(JobType::new("noop", serde_json::json!(true)).unwrap());
    types
}

/// A plain job with an id of now.
pub(crate) fn job() -> NewJob {
    NewJob {
        id: Uuid::now_v7(),
        workspace_id: None,
        job_type: "noop".into(),
        queue: QueueName::default(),
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

/// Plain jobs, in the order of their ids.
pub(crate) fn some_jobs(count: usize) -> Vec<NewJob> {
    std::iter::repeat_with(job).take(count).collect()
}

/// A job whose id was made so long ago: by a slow clock, or by a long transaction.
pub(crate) fn old_job(age: Duration) -> NewJob {
    let made_ms = bullwark::clock::now_ms() as u64 - age.as_millis() as u64;
    let random: [u8; 10] = Uuid::new_v4().as_bytes()[..10].try_into().unwrap();
    NewJob {
        id: uuid::Builder::from_unix_timestamp_millis(made_ms, &random).into_uuid(),
        ..job()
    }
}

pub(crate) fn ids(jobs: &[NewJob]) -> Vec<Uuid> {
    jobs.iter().map(|job| job.id).collect()
}

pub(crate) fn rule(attempts: u32, max_attempts: u32) -> RetryRule {
    RetryRule {
        attempts,
        max_attempts,
        retry_delay_seconds: 60,
        backoff: None,
    }
}

/// What the pure rule makes of an ending of a job without failures so far.
pub(crate) fn outcome(ending: Ending) -> Outcome {
    ending.settle(&rule(0, 5), 0.0).unwrap()
}

pub(crate) fn completed() -> Outcome {
    outcome(Ending::Value(r#"{"ok":true}"#.into()))
}

pub(crate) fn failed(why: &str) -> Outcome {
    outcome(Ending::Error(JobError::retry(why)))
}

pub(crate) fn discarded(why: &str) -> Outcome {
    outcome(Ending::Error(JobError::permanent(why)))
}

pub(crate) fn snoozed(delay: Duration) -> Outcome {
    outcome(Ending::Error(JobError::Snooze(delay, "later".into())))
}

pub(crate) fn settled(id: Uuid, attempt: i32, worker: &str, outcome: Outcome) -> SettledAttempt {
    SettledAttempt {
        id,
        attempt,
        worker_id: worker.into(),
        started_at: bullwark::clock::now(),
        outcome,
    }
}

pub(crate) fn running(id: Uuid, attempt: i32) -> RunningAttempt {
    RunningAttempt {
        id,
        attempt,
        started_at: bullwark::clock::now(),
    }
}

/// Repeats a look at something that happens elsewhere until it yields a value.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited too long until {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A task of a test; its end is awaited by the test.
#[expect(clippy::disallowed_methods, reason = "the test awaits the handle")]
pub(crate) fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(future)
}
