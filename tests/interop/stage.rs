//! The servers that all tests of this process share, and what one test has of its own: a database,
//! a key prefix, and Bullwark on both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bullwark::app::App;
use bullwark::broker::Broker;
use bullwark::config::{Config, Given};
use bullwark::control;
use bullwark::handlers::import_csv::SourceOptions;
use bullwark::handlers::{self, BuiltinOptions};
use bullwark::job::QueueChange;
use bullwark::record::access::By;
use bullwark::record::{Record, RecordOptions};
use bullwark::stores::{Stores, StoresOptions};
use bullwark::tasks::Tasks;
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Transaction};
use tokio::sync::OnceCell;

use crate::steps::Act;
use crate::wait::eventually;

const TEMPLATE: &str = "interop_template";
/// Many tests, each with its own pools.
const CONNECTIONS_MAX: u32 = 400;

async fn stores() -> &'static Stores {
    static STORES: OnceCell<Stores> = OnceCell::const_new();
    STORES
        .get_or_init(|| async {
            let options = StoresOptions {
                max_connections: CONNECTIONS_MAX,
                ..StoresOptions::throwaway()
            };
            let stores = Stores::start(options).await.unwrap();
            create_database(&stores, TEMPLATE, "").await;
            let url = database_url(&stores, TEMPLATE);
            let record = Record::connect(&RecordOptions::new(&url)).unwrap();
            record.migrate().await.unwrap();
            record.close().await;
            stores
        })
        .await
}

/// The port of the shared Redis.
pub(crate) async fn redis_port() -> u16 {
    stores().await.redis_port()
}

pub(crate) async fn redis_url() -> String {
    stores().await.redis_url.clone()
}

pub(crate) async fn redis_connection() -> MultiplexedConnection {
    let client = redis::Client::open(redis_url().await).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn create_database(stores: &Stores, name: &str, template: &str) {
    let mut connection = PgConnection::connect(&stores.database_url).await.unwrap();
    let sql = format!("CREATE DATABASE {name} {template}");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

fn database_url(stores: &Stores, database: &str) -> String {
    let (start, _) = stores.database_url.rsplit_once('/').unwrap();
    format!("{start}/{database}")
}

pub(crate) struct Stage {
    pub(crate) app: App,
    pub(crate) pool: PgPool,
    pub(crate) prefix: String,
    pub(crate) redis_url: String,
    pub(crate) redis_port: u16,
    pub(crate) database_url: String,
    pub(crate) tasks: Tasks,
}

impl Stage {
    pub(crate) async fn new() -> Arc<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let stores = stores().await;
        let database = format!("interop_{number}");
        create_database(stores, &database, &format!("TEMPLATE {TEMPLATE}")).await;
        Self::of(
            stores,
            database_url(stores, &database),
            format!("i{number}"),
        )
        .await
    }

    /// On servers of its own, which a test may stop.
    pub(crate) async fn on(stores: &Stores) -> Arc<Self> {
        let record = Record::connect(&RecordOptions::new(&stores.database_url)).unwrap();
        record.migrate().await.unwrap();
        record.close().await;
        Self::of(stores, stores.database_url.clone(), "own".to_owned()).await
    }

    async fn of(stores: &Stores, database_url: String, prefix: String) -> Arc<Self> {
        let given = Given {
            database_url: Some(database_url.clone()),
            redis_url: Some(stores.redis_url.clone()),
            prefix: Some(prefix.clone()),
            ..Given::default()
        };
        let config = Config::settle(given, |_| None, |_| None).unwrap();
        let mut handlers = handlers::builtin(&BuiltinOptions {
            has_diagnostics: true,
            ..BuiltinOptions::new(SourceOptions::new(&config.data_dir))
        });
        handlers.add(Act);
        Arc::new(Self {
            app: App::connect(config, handlers).await.unwrap(),
            pool: PgPoolOptions::new()
                .max_connections(3)
                .connect_lazy(&database_url)
                .unwrap(),
            prefix,
            redis_url: stores.redis_url.clone(),
            redis_port: stores.redis_port(),
            database_url,
            tasks: Tasks::new(),
        })
    }

    pub(crate) fn broker(&self) -> &Broker {
        &self.app.broker
    }

    /// Changes settings of a queue through the door that people use.
    pub(crate) async fn change_queue(&self, queue: &str, change: &QueueChange) {
        let (record, queue) = (&self.app.record, queue.parse().unwrap());
        let changed =
            control::change_queue(record, self.broker(), &queue, change, (&By::OPERATOR, None))
                .await;
        changed.unwrap();
    }

    /// Waits until the record says this of a job.
    pub(crate) async fn until_recorded(&self, queue: &str, id: &str, status: &str) {
        let what = format!("the record to say {status} of {queue}/{id}");
        eventually(&what, async || {
            (self.status(queue, id).await.as_deref() == Some(status)).then_some(())
        })
        .await;
    }

    /// One expression of a job's row, as JSON.
    pub(crate) async fn row(&self, queue: &str, id: &str, what: &'static str) -> Value {
        let sql = format!(
            "SELECT {what} FROM jobs WHERE job_queue = $1 AND coalesce(redis_id, id::text) = $2"
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(queue)
            .bind(id)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// The log of a job as the record has it.
    pub(crate) async fn logged(&self, queue: &str, id: &str) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT l.message FROM job_logs l JOIN jobs j ON j.id = l.job_id
             WHERE j.job_queue = $1 AND coalesce(j.redis_id, j.id::text) = $2
             ORDER BY l.created_at, l.id",
        )
        .bind(queue)
        .bind(id)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    /// What the record says of a job, by its id on the wire; none if it does not know it.
    pub(crate) async fn status(&self, queue: &str, id: &str) -> Option<String> {
        sqlx::query_scalar(
            "SELECT status::text FROM jobs
             WHERE job_queue = $1 AND coalesce(redis_id, id::text) = $2",
        )
        .bind(queue)
        .bind(id)
        .fetch_optional(&self.pool)
        .await
        .unwrap()
    }

    /// Holds the row of a job until the transaction ends.
    pub(crate) async fn lock_row(&self, queue: &str, id: &str) -> Transaction<'static, Postgres> {
        let mut tx = self.pool.begin().await.unwrap();
        sqlx::query(
            "SELECT FROM jobs WHERE job_queue = $1 AND coalesce(redis_id, id::text) = $2
             FOR UPDATE",
        )
        .bind(queue)
        .bind(id)
        .execute(&mut *tx)
        .await
        .unwrap();
        tx
    }

    pub(crate) async fn until_somebody_waits_for_a_lock(&self) {
        eventually("somebody to wait for the row", async || {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_one(&self.pool)
            .await
            .unwrap();
            (waiting > 0).then_some(())
        })
        .await;
    }
}
