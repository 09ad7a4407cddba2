//! Imports of files that do not come, and imports whose record goes away.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bullwark::handlers::import_csv::{ImportCsvHandler, SourceOptions, Summary};
use bullwark::job::JobError;
use bullwark::worker::Handler;
use serde_json::json;
use uuid::Uuid;

use crate::resume::{ROWS, counts, file};
use crate::source::{answer, reply, serve};
use crate::support::{World, parse};

const BAD: i64 = ROWS as i64 / 100;

/// A handler that may download from this machine.
fn handler(world: &World) -> ImportCsvHandler {
    let mut source = SourceOptions::new(world.dir.path());
    source.allow_private_addresses = true;
    source.timeout = Duration::from_millis(500);
    ImportCsvHandler { source }
}

async fn attempt(world: &World, job: Uuid, attempt: i32, url: &str) -> Result<Summary, JobError> {
    let payload = parse(json!({ "file_url": url, "entity_type": "accounts" }));
    let context = world.context(job, attempt).await;
    handler(world).run(context, payload).await
}

/// What is left on the disk of imports under way.
fn work(world: &World) -> usize {
    std::fs::read_dir(world.dir.path().join("work")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_of_the_server_of_a_file_means_what_it_says_for_the_job() {
    let server = serve(answer).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}/list.csv", silent.local_addr().unwrap());
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}/list.csv", free.local_addr().unwrap());
    drop(free);
    let world = World::new().await;
    let at = |path: &str| format!("{server}{path}?token=secret");
    for (url, expected) in [
        (at("/list.csv"), "completed"),
        (at("/page"), "failed"),
        (at("/unauthorized"), "failed"),
        (at("/forbidden"), "failed"),
        (at("/gone"), "failed"),
        (at("/throttled"), "after 11s"),
        (at("/busy"), "after 7s"),
        (at("/down"), "again"),
        (at("/cut"), "again"),
        (silent, "again"),
        (nobody, "again"),
    ] {
        let job = world.job(None).await;
        let ended = attempt(&world, job, 1, &url).await;
        let found = match &ended {
            Ok(_) => "completed".to_owned(),
            Err(JobError::Permanent(_)) => "failed".to_owned(),
            Err(JobError::RetryAfter(after, _)) => format!("after {after:?}"),
            Err(JobError::Retry(_)) => "again".to_owned(),
            Err(other) => format!("{other:?}"),
        };
        assert_eq!(found, expected, "{url}: {ended:?}");
        if let Err(error) = ended {
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        // What did not come has written nothing.
        let begun: i64 = world.one("SELECT count(*) FROM imports").await;
        assert_eq!(begun, 1, "{url}: only the one that is complete has begun");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_runs_out_in_the_middle_is_not_asked_again() {
    let answers = VecDeque::from([reply("200 OK", "", &file())]);
    let answers = Arc::new(Mutex::new(answers));
    let left = answers.clone();
    let expired = reply("403 Forbidden", "", "");
    let server = serve(move |_: &str| {
        let next = left.lock().unwrap().pop_front();
        next.unwrap_or_else(|| expired.clone())
    })
    .await;
    let url = format!("{server}/list.csv?token=secret");
    let world = World::new().await;
    let job = world.job(None).await;
    let (context, handler) = (world.context(job, 1).await, handler(&world));
    let payload = parse(json!({ "file_url": url, "entity_type": "accounts" }));
    let running = tokio::spawn(async move { handler.run(context, payload).await });
    until(&world, job, 1).await;
    running.abort();
    let _ = running.await;
    assert!(counts(&world, job).await.0 < ROWS as i64, "it is cut short");
    let summary = attempt(&world, job, 2, &url).await.unwrap();
    assert_eq!(summary.total, ROWS as i64);
    assert_eq!(summary.inserted, ROWS as i64 - 2 * BAD);
    assert!(answers.lock().unwrap().is_empty());
    assert_eq!(work(&world), 0, "nothing is kept of what is over");
    // On another machine, or as another job, there is only the link.
    let other = world.job(None).await;
    let error = attempt(&world, other, 1, &url).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, JobError::Permanent(_)), "{text}");
    assert!(text.contains("403") && text.contains("expired") && !text.contains("secret"));
    assert_eq!(work(&world), 0, "nor of what has failed for good");
}

/// Waits until an import has got so far.
async fn until(world: &World, job: Uuid, processed: i64) -> i64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let now = counts(world, job).await.0;
        if now >= processed {
            return now;
        }
        assert!(Instant::now() < deadline, "no progress behind {now}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_in_the_middle_cost_no_row_and_write_none_twice() {
    let world = World::new().await;
    let url = world.upload(file()).await;
    let job = world.job(None).await;
    let (context, handler) = (world.context(job, 1).await, world.handler());
    let payload = parse(json!({ "file_url": url, "entity_type": "accounts" }));
    let running = tokio::spawn(async move { handler.run(context, payload).await });
    let mut at = 0;
    for _ in 0..3 {
        at = until(&world, job, at + 1).await;
        assert!(at < ROWS as i64, "it is still running");
        let ended: i64 = world
            .one(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'bullwark'",
            )
            .await;
        assert!(ended > 0);
    }
    let summary = running.await.unwrap().unwrap();
    let rows = ROWS as i64;
    let expected = (rows, rows - 2 * BAD, BAD, BAD);
    let sums = (summary.total, summary.inserted);
    assert_eq!(
        (sums, summary.skipped, summary.failed),
        ((expected.0, expected.1), BAD, BAD)
    );
    assert_eq!(counts(&world, job).await, expected);
    let accounts: i64 = world
        .one("SELECT count(DISTINCT domain) FROM accounts")
        .await;
    assert_eq!(accounts, rows - 2 * BAD);
    let told: i64 = world
        .one("SELECT count(*) FROM bullwark.data_changes")
        .await;
    assert_eq!(told, rows - 2 * BAD, "each row is told of once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_failed_for_good_goes_on_when_somebody_tries_it_again() {
    let world = World::new().await;
    let url = world.upload(file()).await;
    for written in [0, 3_000] {
        let job = world.job(None).await;
        // Somebody's own rule on our table, which is taken away again.
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = 'check_violation'; END $$;
             CREATE TRIGGER no BEFORE UPDATE ON imports FOR EACH ROW
               WHEN (NEW.processed > {written}) EXECUTE FUNCTION no()"
        )))
        .execute(&world.pool)
        .await
        .unwrap();
        let error = attempt(&world, job, 1, &url).await.unwrap_err();
        assert!(matches!(error, JobError::Permanent(_)), "{error:?}");
        let status = "SELECT status FROM imports ORDER BY created_at DESC LIMIT 1";
        assert_eq!(world.one::<String>(status).await, "failed");
        assert_eq!(counts(&world, job).await.0, written);
        sqlx::raw_sql("DROP FUNCTION no CASCADE")
            .execute(&world.pool)
            .await
            .unwrap();
        let summary = attempt(&world, job, 2, &url).await.unwrap();
        let (rows, taken) = (ROWS as i64, ROWS as i64 - BAD);
        assert_eq!(summary.total, rows);
        let done = counts(&world, job).await;
        assert_eq!((done.0, done.3), (rows, BAD), "{done:?}");
        assert_eq!(done.1 + done.2 + summary.updated, taken, "{done:?}");
        assert_eq!(world.one::<String>(status).await, "completed_with_errors");
        let accounts: i64 = world.one("SELECT count(*) FROM accounts").await;
        assert_eq!(accounts, rows - 2 * BAD);
    }
}
