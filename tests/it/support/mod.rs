//! What every integration test stands on.
//!
//! The first test that needs servers starts one throw-away pair for the whole test process; it ends
//! with the process, however that ends, and its directory with it. Each test gets a database of its
//! own, copied from a migrated template, and a Redis prefix of its own, so that tests run side by
//! side.
//!
//! Tests that stop, kill or flush a server start a pair of their own: [`own_stores`].

pub(crate) mod answers;
pub(crate) mod held;
pub(crate) mod proxy;
pub(crate) mod server;
pub(crate) mod sse;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use bullwark::stores::{Stores, StoresOptions};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;

/// Connections of one test's pool.
const POOL_MAX: u32 = 5;

const TEMPLATE: &str = "bullwark_template";

/// Databases of tests that have ended; the next test drops them, so that they do not pile up.
static ENDED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The servers that all tests of this process share.
pub(crate) async fn shared_stores() -> &'static Stores {
    static STORES: OnceCell<Stores> = OnceCell::const_new();
    STORES
        .get_or_init(|| async {
            let stores = Stores::start(StoresOptions::throwaway()).await.unwrap();
            let mut connection = connect(&stores, "bullwark").await;
            execute(&mut connection, &format!("CREATE DATABASE {TEMPLATE}")).await;
            connection.close().await.unwrap();
            let mut template = connect(&stores, TEMPLATE).await;
            migrate(&mut template).await;
            template.close().await.unwrap();
            stores
        })
        .await
}

/// A pair of servers for one test alone, without any table. Takes a second or two: use it only to
/// stop, kill or flush a server.
pub(crate) async fn own_stores() -> Stores {
    Stores::start(StoresOptions::throwaway()).await.unwrap()
}

/// The migrations as they are on disk now, so that a new file needs no rebuild.
pub(crate) async fn migrate(connection: &mut PgConnection) {
    // As the record does: the user's own schema must not come first.
    execute(connection, "SET search_path = public").await;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    Migrator::new(directory.as_path())
        .await
        .unwrap()
        .run(connection)
        .await
        .unwrap();
}

/// One test's part of the shared servers.
pub(crate) struct Sandbox {
    /// Redis, shared: touch keys below [`Self::prefix`] and `bullwark:{prefix}:` only.
    pub(crate) redis_url: String,
    /// No other test uses it as a key prefix.
    pub(crate) prefix: String,
    /// A migrated database of this test.
    pub(crate) database_url: String,
    database: String,
}

impl Sandbox {
    pub(crate) async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let stores = shared_stores().await;
        let database = format!("test_{number}");
        let mut connection = connect(stores, "bullwark").await;
        let ended = std::mem::take(&mut *ENDED.lock().unwrap());
        for name in ended {
            execute(
                &mut connection,
                &format!("DROP DATABASE {name} WITH (FORCE)"),
            )
            .await;
        }
        let create = format!("CREATE DATABASE {database} TEMPLATE {TEMPLATE}");
        execute(&mut connection, &create).await;
        connection.close().await.unwrap();
        Self {
            redis_url: stores.redis_url.clone(),
            prefix: format!("test{number}"),
            database_url: database_url(stores, &database),
            database,
        }
    }

    /// The name of its database.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// A small pool on this test's database.
    pub(crate) async fn pool(&self) -> PgPool {
        let options: PgConnectOptions = self.database_url.parse().unwrap();
        PgPoolOptions::new()
            .max_connections(POOL_MAX)
            .connect_with(options)
            .await
            .unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Ok(mut ended) = ENDED.lock() {
            ended.push(std::mem::take(&mut self.database));
        }
    }
}

/// The address of a database of these servers, over the socket where there is one.
pub(crate) fn database_url(stores: &Stores, database: &str) -> String {
    let url = stores
        .database_socket_url
        .as_ref()
        .unwrap_or(&stores.database_url);
    let (user, place) = url.split_once('@').unwrap();
    // Once: the socket's directory comes later and may carry the same word.
    format!(
        "{user}@{}",
        place.replacen("/bullwark", &format!("/{database}"), 1)
    )
}

pub(crate) async fn connect(stores: &Stores, database: &str) -> PgConnection {
    PgConnection::connect(&database_url(stores, database))
        .await
        .unwrap()
}

/// Runs statements that are made of this module's own words.
pub(crate) async fn execute(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap();
}
