//! Attempts that end in the middle, and the attempts after them.

use std::fmt::Write as _;
use std::time::Duration;

use bullwark::job::JobError;
use bullwark::worker::Handler;
use serde_json::json;
use uuid::Uuid;

use crate::support::{World, parse};

pub(crate) const ROWS: usize = 12_000;

/// Accounts with line breaks inside of values, one bad row in a hundred and one duplicate.
pub(crate) fn file() -> String {
    let mut text = String::from("name,domain,description\r\n");
    for n in 0..ROWS {
        let domain = match n % 100 {
            40 => "nonsense".to_owned(),
            60 => format!("company-{}.com", n - 33),
            _ => format!("company-{n}.com"),
        };
        write!(text, "\"Company\n{n}\",{domain},\"é, {n}\"\r\n").unwrap();
    }
    text
}

pub(crate) async fn counts(world: &World, job: Uuid) -> (i64, i64, i64, i64) {
    sqlx::query_as("SELECT processed, inserted, skipped, failed FROM imports WHERE id = $1")
        .bind(job)
        .fetch_optional(&world.pool)
        .await
        .unwrap()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_dies_again_and_again_ends_with_exact_counts() {
    dies_again_and_again(file()).await;
}

/// Whatever the rows of [`file`] are packed into.
pub(crate) async fn dies_again_and_again(bytes: impl AsRef<[u8]>) {
    let world = World::new().await;
    let url = world.upload(bytes).await;
    let job = world.job(None).await;
    let payload = || parse(json!({"file_url": url, "entity_type": "accounts"}));
    let mut attempt = 1;
    let mut deaths = 0;
    let mut before = 0;
    // Each attempt is dropped when the record shows that it got a little further, at an arbitrary
    // place of its next chunk.
    while before < ROWS as i64 - 2_000 {
        let (context, handler) = (world.context(job, attempt).await, world.handler());
        let payload = payload();
        let running = tokio::spawn(async move { handler.run(context, payload).await });
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while counts(&world, job).await.0 <= before {
            assert!(
                std::time::Instant::now() < deadline,
                "no progress behind {before}"
            );
            tokio::task::yield_now().await;
        }
        running.abort();
        let _ = running.await;
        deaths += 1;
        attempt += 1;
        before = counts(&world, job).await.0;
        // What is committed is consistent at every moment.
        let rows: i64 = world.one("SELECT count(*) FROM import_rows").await;
        let accounts: i64 = world.one("SELECT count(*) FROM accounts").await;
        let (processed, inserted, ..) = counts(&world, job).await;
        assert!(rows >= processed && accounts >= inserted);
    }
    assert!(deaths >= 5, "{deaths}");
    let context = world.context(job, attempt).await;
    let summary = world.handler().run(context, payload()).await.unwrap();
    let bad = ROWS as i64 / 100;
    assert_eq!(summary.total, ROWS as i64);
    assert_eq!(
        (summary.inserted, summary.skipped, summary.failed),
        (ROWS as i64 - 2 * bad, bad, bad)
    );
    assert_eq!(
        counts(&world, job).await,
        (ROWS as i64, ROWS as i64 - 2 * bad, bad, bad)
    );
    assert_eq!(
        world.one::<i64>("SELECT count(*) FROM accounts").await,
        ROWS as i64 - 2 * bad
    );
    assert_eq!(
        world
            .one::<i64>("SELECT count(DISTINCT domain) FROM accounts")
            .await,
        ROWS as i64 - 2 * bad
    );
    assert_eq!(
        world
            .one::<i64>(
                "SELECT count(*) FROM bullwark.data_changes
                 WHERE job_id = (SELECT id FROM imports) AND action = 'insert'"
            )
            .await,
        ROWS as i64 - 2 * bad,
        "the lineage has what is there, and nothing of what was rolled back"
    );
    let report = world.report(&summary);
    assert_eq!(report.matches("DOMAIN_INVALID").count() as i64, bad);
    assert_eq!(report.matches("DUPLICATE_IN_FILE").count() as i64, bad);
}

#[tokio::test]
async fn an_attempt_behind_the_last_chunk_only_writes_the_summary() {
    let world = World::new().await;
    let url = world.upload(file()).await;
    let payload = || parse(json!({"file_url": url, "entity_type": "accounts"}));
    let job = world.job(None).await;
    let first = world
        .handler()
        .run(world.context(job, 1).await, payload())
        .await
        .unwrap();
    let report = world.report(&first);
    // As if the worker had died before the outcome was settled.
    let second = world
        .handler()
        .run(world.context(job, 2).await, payload())
        .await
        .unwrap();
    assert_eq!(world.report(&second), report);
    assert_eq!(
        (second.inserted, &second.by_code),
        (first.inserted, &first.by_code)
    );
    assert_eq!(world.one::<i64>("SELECT count(*) FROM imports").await, 1);
}

#[tokio::test]
async fn an_attempt_that_was_replaced_writes_nothing() {
    let world = World::new().await;
    let url = world.upload("name\nAcme\n").await;
    let payload = || parse(json!({"file_url": url, "entity_type": "accounts"}));
    let job = world.job(None).await;
    let late = world.context(job, 1).await;
    let fresh = world.context(job, 2).await;
    world.handler().run(fresh, payload()).await.unwrap();
    let imports = world.texts("SELECT imports::text FROM imports").await;
    assert_eq!(
        world.handler().run(late, payload()).await,
        Err(JobError::LeaseLost)
    );
    assert_eq!(
        world.texts("SELECT imports::text FROM imports").await,
        imports
    );
    assert_eq!(world.one::<i64>("SELECT count(*) FROM accounts").await, 1);
}

#[tokio::test]
async fn a_shutdown_interrupts_between_chunks_and_spends_no_retry() {
    let world = World::new().await;
    let url = world.upload(file()).await;
    let payload = || parse(json!({"file_url": url, "entity_type": "accounts"}));
    let job = world.job(None).await;
    let context = world.context(job, 1).await;
    let token = context.cancelled().clone();
    let handler = world.handler();
    let running = tokio::spawn({
        let payload = payload();
        async move { handler.run(context, payload).await }
    });
    while counts(&world, job).await.0 == 0 {
        tokio::task::yield_now().await;
    }
    token.cancel();
    let ended = running.await.unwrap();
    assert!(matches!(ended, Err(JobError::Snooze(..))), "{ended:?}");
    let (processed, ..) = counts(&world, job).await;
    assert!(
        processed < ROWS as i64 && processed % 1000 == 0,
        "{processed}"
    );
    let summary = world
        .handler()
        .run(world.context(job, 2).await, payload())
        .await
        .unwrap();
    assert_eq!(summary.total, ROWS as i64);
    assert!(summary.rows_per_second > 0.0);
}

#[tokio::test]
async fn a_cancelled_import_keeps_what_is_committed_and_says_so() {
    let world = World::new().await;
    let url = world.upload(file()).await;
    let job = world.job(None).await;
    let context = world.context(job, 1).await;
    let token = context.cancelled().clone();
    let handler = world.handler();
    let payload = parse(json!({"file_url": url, "entity_type": "accounts"}));
    let running = tokio::spawn(async move { handler.run(context, payload).await });
    while counts(&world, job).await.0 == 0 {
        tokio::task::yield_now().await;
    }
    sqlx::query("UPDATE jobs SET status = 'cancelled' WHERE id = $1")
        .bind(job)
        .execute(&world.pool)
        .await
        .unwrap();
    token.cancel();
    assert_eq!(running.await.unwrap(), Err(JobError::LeaseLost));
    assert_eq!(
        world.one::<String>("SELECT status FROM imports").await,
        "cancelled"
    );
    let (processed, inserted, ..) = counts(&world, job).await;
    assert!(processed > 0 && processed < ROWS as i64);
    assert_eq!(
        world.one::<i64>("SELECT count(*) FROM accounts").await,
        inserted
    );
}

#[tokio::test]
async fn another_file_under_the_same_address_is_refused() {
    let world = World::new().await;
    let url = world.upload(file()).await;
    let payload = || parse(json!({"file_url": url, "entity_type": "accounts"}));
    let job = world.job(None).await;
    world
        .handler()
        .run(world.context(job, 1).await, payload())
        .await
        .unwrap();
    let path = world
        .dir
        .path()
        .join("uploads")
        .join(url.trim_start_matches("upload://"));
    std::fs::write(path, "name\nAnother\n").unwrap();
    let ended = world
        .handler()
        .run(world.context(job, 2).await, payload())
        .await;
    match ended {
        Err(JobError::Permanent(message)) => assert!(message.contains("12000"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        world.one::<String>("SELECT status FROM imports").await,
        "failed"
    );
}

#[tokio::test]
async fn an_import_that_gets_nowhere_forgives_no_vanished_worker() {
    let world = World::new().await;
    let url = world.upload("name,domain\nOne,one.com\n").await;
    let payload = || parse(json!({"file_url": url, "entity_type": "accounts"}));
    let job = world.job(None).await;
    sqlx::query("UPDATE jobs SET lease_losses = 3")
        .execute(&world.pool)
        .await
        .unwrap();
    let losses = "SELECT lease_losses FROM jobs";
    for (attempt, left) in [(1, 3), (2, 0)] {
        let context = world.context(job, attempt).await;
        if attempt == 1 {
            // It says that it begins, and ends before its first chunk.
            context.cancelled().cancel();
        }
        let ended = world.handler().run(context, payload()).await;
        assert_eq!(ended.is_ok(), attempt == 2, "{ended:?}");
        assert_eq!(world.one::<i32>(losses).await, left);
    }
    assert_eq!(
        world.one::<String>("SELECT status FROM imports").await,
        "completed"
    );
}
