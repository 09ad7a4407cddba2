//! Two chunks at a time: what the second one may do before the first is committed, and what is left
//! of it when that comes to nothing.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bullwark::handlers::import_csv::{CHUNK_ROWS, Summary};
use bullwark::job::JobError;
use bullwark::worker::Handler;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::{World, parse};

const CHUNK: usize = CHUNK_ROWS;

/// Accounts, each with a domain of its own.
fn file(rows: usize) -> String {
    let mut text = String::from("name,domain,city\n");
    for n in 0..rows {
        writeln!(text, "Company {n},company-{n}.com,City {n}").unwrap();
    }
    text
}

/// An import whose first chunk waits for `other`, and whose second one is written.
struct Held {
    world: World,
    job: Uuid,
    running: JoinHandle<Result<Summary, JobError>>,
    other: PgConnection,
    url: String,
}

impl Held {
    async fn new(rows: usize) -> Self {
        let world = World::new().await;
        let url = world.upload(file(rows)).await;
        let options = world.pool.connect_options();
        let mut other = PgConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql("BEGIN; INSERT INTO accounts (name, domain) VALUES ('x', 'company-10.com')")
            .execute(&mut other)
            .await
            .unwrap();
        let job = world.job(None).await;
        let (context, handler) = (world.context(job, 1).await, world.handler());
        let payload = payload(&url);
        let running = tokio::spawn(async move { handler.run(context, payload).await });
        let held = Self {
            world,
            job,
            running,
            other,
            url,
        };
        // The first waits for a lock, the second one, besides `other`, for its turn.
        held.until(1, "wait_event_type = 'Lock'").await;
        held.until(2, "state = 'idle in transaction'").await;
        held
    }

    /// Waits until so many sessions of this database are in this state.
    async fn until(&self, sessions: i64, state: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let count = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND {state}"
        );
        loop {
            let count = sqlx::query_scalar(AssertSqlSafe(count.clone()));
            let found: i64 = count.fetch_one(&self.world.pool).await.unwrap();
            if found == sessions {
                return;
            }
            assert!(Instant::now() < deadline, "never: {sessions} with {state}");
            tokio::task::yield_now().await;
        }
    }

    async fn say(&mut self, statement: &'static str) {
        sqlx::raw_sql(statement)
            .execute(&mut self.other)
            .await
            .unwrap();
    }

    async fn accounts(&self) -> i64 {
        self.world.one("SELECT count(*) FROM accounts").await
    }
}

fn payload(url: &str) -> bullwark::handlers::import_csv::ImportCsv {
    parse(json!({"file_url": url, "entity_type": "accounts"}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_chunk_is_written_before_the_one_before_it_is_committed() {
    let mut held = Held::new(3 * CHUNK).await;
    assert_eq!(held.accounts().await, 0, "and nobody sees anything of it");
    held.say("ROLLBACK").await;
    let summary = held.running.await.unwrap().unwrap();
    assert_eq!((summary.inserted, summary.failed), (3 * CHUNK as i64, 0));
    let world = held.world;
    let unowned = "SELECT count(*) FROM bullwark.data_changes WHERE job_id IS NULL";
    assert_eq!(
        world.one::<i64>(unowned).await,
        0,
        "the lineage has the job"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_is_ahead_makes_way_for_whom_the_one_before_it_waits_for() {
    let mut held = Held::new(2 * CHUNK).await;
    // Waits for the second chunk, which waits for the first, which waits for this.
    let into_second = "INSERT INTO accounts (name, domain) VALUES ('y', 'company-1500.com')";
    held.say(into_second).await;
    held.say("COMMIT").await;
    let summary = held.running.await.unwrap().unwrap();
    let known = summary.by_code["DUPLICATE_EXISTING"];
    assert_eq!((summary.inserted, known), (2 * CHUNK as i64 - 2, 2));
    let world = held.world;
    assert_eq!(
        world.one::<i64>("SELECT count(*) FROM accounts").await,
        2 * CHUNK as i64
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_chunk_that_is_ahead_of_one_that_died() {
    let mut held = Held::new(2 * CHUNK).await;
    held.running.abort();
    assert!((&mut held.running).await.unwrap_err().is_cancelled());
    held.say("ROLLBACK").await;
    // Both transactions end; none of them by a commit.
    held.until(0, "xact_start IS NOT NULL AND pid <> pg_backend_pid()")
        .await;
    assert_eq!(held.accounts().await, 0);
    let world = held.world;
    let context = world.context(held.job, 2).await;
    let summary = world.handler().run(context, payload(&held.url)).await;
    assert_eq!(summary.unwrap().inserted, 2 * CHUNK as i64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_is_ahead_of_a_cancel_is_not_committed() {
    let mut held = Held::new(2 * CHUNK).await;
    let (pool, job) = (held.world.pool.clone(), held.job);
    // Comes behind the first chunk, which holds the job, and before the second one.
    let cancel = tokio::spawn(async move {
        sqlx::query("UPDATE jobs SET status = 'cancelled' WHERE id = $1")
            .bind(job)
            .execute(&pool)
            .await
            .unwrap();
    });
    held.until(2, "wait_event_type = 'Lock'").await;
    held.say("ROLLBACK").await;
    cancel.await.unwrap();
    let ended = (&mut held.running).await.unwrap();
    assert_eq!(ended, Err(JobError::LeaseLost));
    assert_eq!(held.accounts().await, CHUNK as i64, "the first is in");
    let noted = "SELECT processed FROM imports";
    assert_eq!(held.world.one::<i64>(noted).await, CHUNK as i64);
}

/// What one chunk says of a record the next one reads, whatever both of them know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_two_chunks_take_effect_in_the_order_of_the_file() {
    let world = World::new().await;
    // Known by its id and by its domain; rows of two chunks mean it, by one of them each.
    let known = "external_id,name,domain\n1,Known,known.com\n";
    world.accounts(known, json!({})).await;
    let mut text = String::from("external_id,name,domain,city,country\n");
    for n in 0..4 * CHUNK {
        match n {
            500 => writeln!(text, "1,Known,,First,").unwrap(),
            1500 => writeln!(text, ",Known,known.com,Second,France").unwrap(),
            2500 => writeln!(text, "1,Known,,Third,").unwrap(),
            // The same new record by different keys.
            700 => writeln!(text, "new,New,new.com,First,").unwrap(),
            1700 => writeln!(text, ",New,new.com,Second,").unwrap(),
            // One that has its name alone, behind one of that name.
            800 => writeln!(text, ",Named,named.com,First,").unwrap(),
            1800 => writeln!(text, ",NAMED,,Second,").unwrap(),
            _ => writeln!(text, ",Company {n},company-{n}.com,City {n},").unwrap(),
        }
    }
    let options = json!({"update_existing": true});
    let summary = world.accounts(&text, options).await;
    assert_eq!(summary.failed, 0);
    let told = "SELECT concat_ws(' ', name, city, country) FROM accounts
                WHERE name ~* '^(known|new|named)$' ORDER BY 1";
    let told = world.texts(told).await;
    assert_eq!(told, ["Known Second FR", "NAMED Second", "New Second"]);
    assert_eq!(
        world.one::<i64>("SELECT count(*) FROM accounts").await,
        4 * CHUNK as i64 - 7 + 3
    );
}
