//! Exports that end in the middle, and the attempts after them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bullwark::handlers::export::{ExportData, Summary, sweep};
use bullwark::job::JobError;
use bullwark::record::access::By;
use bullwark::record::control::retry_many;
use bullwark::storage::{Round, Storage};
use bullwark::worker::Handler;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::exports::csv_rows;
use crate::support::World;

const ROWS: usize = 300;

async fn world() -> World {
    let world = World::new().await;
    sqlx::query(
        "INSERT INTO accounts (name, domain, custom)
         SELECT 'Company ' || n, 'company-' || n || '.com', jsonb_build_object('n', n)
         FROM generate_series(1, $1) n",
    )
    .bind(ROWS as i32)
    .execute(&world.pool)
    .await
    .unwrap();
    world
}

/// With a checkpoint behind every twenty rows.
fn payload(format: &str) -> ExportData {
    let payload = json!({"entity_type": "accounts", "format": format,
        "options": {"page_size": 2}});
    serde_json::from_value(payload).unwrap()
}

/// Runs an attempt to its end.
async fn run(world: &World, job: Uuid, attempt: i32, format: &str) -> Summary {
    let context = world.context(job, attempt).await;
    let run = world.exporter().run(context, payload(format)).await;
    run.unwrap()
}

async fn rows(world: &World, job: Uuid) -> i64 {
    sqlx::query_scalar("SELECT rows FROM exports WHERE id = $1")
        .bind(job)
        .fetch_optional(&world.pool)
        .await
        .unwrap()
        .unwrap_or_default()
}

async fn status(world: &World) -> String {
    world.one("SELECT status FROM exports").await
}

fn path(world: &World, job: Uuid, ending: &str) -> PathBuf {
    world
        .dir
        .path()
        .join("exports")
        .join(format!("{job}.{ending}"))
}

/// Lets an attempt die, at an arbitrary place, when it has got further than so many rows.
async fn die_behind(world: &World, job: Uuid, attempt: i32, format: &str, before: i64) {
    let (context, handler) = (world.context(job, attempt).await, world.exporter());
    let payload = payload(format);
    let running = tokio::spawn(async move { handler.run(context, payload).await });
    let deadline = Instant::now() + Duration::from_secs(60);
    while rows(world, job).await <= before {
        assert!(Instant::now() < deadline, "no progress behind {before}");
        tokio::task::yield_now().await;
    }
    running.abort();
    let _ = running.await;
}

/// Each row of the record stands in the file once.
fn assert_whole(content: &[u8], format: &str) {
    let mut numbers: Vec<usize> = match format {
        "csv" => {
            let rows = csv_rows(content);
            rows.iter()
                .map(|row| row["custom.n"].parse().unwrap())
                .collect()
        }
        _ => {
            let rows: Vec<Value> = serde_json::from_slice(content).unwrap();
            let number = |row: &Value| row["custom"]["n"].as_u64().unwrap() as usize;
            rows.iter().map(number).collect()
        }
    };
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=ROWS).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_dies_again_and_again_has_each_row_once() {
    let world = world().await;
    for format in ["csv", "json"] {
        let job = world.job(None).await;
        let (mut attempt, mut before) = (1, 0);
        while before < ROWS as i64 - 120 {
            die_behind(&world, job, attempt, format, before).await;
            before = rows(&world, job).await;
            attempt += 1;
        }
        assert!(attempt > 1, "none died");
        assert!(!path(&world, job, format).exists());
        let summary = run(&world, job, attempt, format).await;
        let parts = std::fs::read_dir(world.dir.path().join("exports")).unwrap();
        let parts = parts.filter(|part| {
            let name = part.as_ref().unwrap().file_name().into_string().unwrap();
            name.starts_with(&job.to_string()) && name.ends_with(".part")
        });
        assert_eq!(
            parts.count(),
            0,
            "each attempt took the place of the one before"
        );
        assert_eq!(summary.rows, ROWS as u64);
        assert_whole(&world.exported(&summary), format);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_file_that_is_not_the_one_of_the_checkpoint_is_begun_anew() {
    let world = world().await;
    for spoil in ["gone", "longer", "other", "short"] {
        let job = world.job(None).await;
        die_behind(&world, job, 1, "csv", 100).await;
        let part = path(&world, job, "1.part");
        let mut content = std::fs::read(&part).unwrap();
        match spoil {
            "gone" => std::fs::remove_file(&part).unwrap(),
            "longer" => content.extend_from_slice(b"half a row"),
            "other" => content[10] ^= 1,
            _ => content.truncate(50),
        }
        if spoil != "gone" {
            std::fs::write(&part, content).unwrap();
        }
        // Rows that came later are not part of it, and columns stay what they were.
        sqlx::query("INSERT INTO accounts (name, custom) VALUES ($1, '{\"late\": 1}')")
            .bind(spoil)
            .execute(&world.pool)
            .await
            .unwrap();
        let summary = run(&world, job, 2, "csv").await;
        assert!(!summary.columns.contains(&"custom.late".to_owned()));
        assert_whole(&world.exported(&summary), "csv");
        sqlx::query("DELETE FROM accounts WHERE custom ? 'late'")
            .execute(&world.pool)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_was_replaced_does_no_harm() {
    let world = world().await;
    let job = world.job(None).await;
    let (context, handler) = (world.context(job, 1).await, world.exporter());
    let late = tokio::spawn(async move { handler.run(context, payload("csv")).await });
    while rows(&world, job).await == 0 {
        tokio::task::yield_now().await;
    }
    let summary = run(&world, job, 2, "csv").await;
    assert_eq!(late.await.unwrap(), Err(JobError::LeaseLost));
    assert_whole(&world.exported(&summary), "csv");
    assert_eq!(status(&world).await, "completed");
}

#[tokio::test]
async fn an_attempt_behind_the_last_row_only_ends_it() {
    let world = world().await;
    for format in ["csv", "xlsx"] {
        let job = world.job(None).await;
        let first = run(&world, job, 1, format).await;
        let content = world.exported(&first);
        // The worker died before the outcome was settled, or before the file had its name.
        for (attempt, is_named) in [(2, true), (3, false)] {
            if !is_named {
                let (whole, part) = (path(&world, job, format), path(&world, job, "1.part"));
                std::fs::rename(whole, part).unwrap();
            }
            let again = run(&world, job, attempt, format).await;
            assert_eq!((again.rows, &again.sha256), (first.rows, &first.sha256));
            assert_eq!(world.exported(&again), content);
        }
        // The file is not here: another machine had it.
        std::fs::remove_file(path(&world, job, format)).unwrap();
        let again = run(&world, job, 4, format).await;
        assert_eq!(again.rows, first.rows);
        assert!(path(&world, job, format).exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_interrupts_between_pages_and_a_cancel_ends_it() {
    let world = world().await;
    let job = world.job(None).await;
    for (attempt, is_cancel) in [(1, false), (2, true)] {
        let before = rows(&world, job).await;
        let context = world.context(job, attempt).await;
        let (token, handler) = (context.cancelled().clone(), world.exporter());
        let running = tokio::spawn(async move { handler.run(context, payload("csv")).await });
        while rows(&world, job).await <= before {
            tokio::task::yield_now().await;
        }
        if is_cancel {
            let cancel = "UPDATE jobs SET status = 'cancelled' WHERE id = $1";
            let cancel = sqlx::query(cancel).bind(job).execute(&world.pool);
            cancel.await.unwrap();
        }
        token.cancel();
        match running.await.unwrap() {
            Err(JobError::Snooze(..)) if !is_cancel => {}
            Err(JobError::LeaseLost) if is_cancel => {}
            other => panic!("{other:?}"),
        }
        assert!(rows(&world, job).await < ROWS as i64);
    }
    assert_eq!(status(&world).await, "cancelled");
    let context = world.context(job, 1).await;
    let late = world.exporter().run(context, payload("csv")).await;
    assert_eq!(late, Err(JobError::LeaseLost));
    assert!(!path(&world, job, "csv").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_gets_nowhere_forgives_no_vanished_worker() {
    let world = world().await;
    let losses = "SELECT lease_losses FROM jobs ORDER BY id DESC LIMIT 1";
    let job = world.job(None).await;
    die_behind(&world, job, 1, "csv", 100).await;
    assert_eq!(world.one::<i32>(losses).await, 0);
    sqlx::query("UPDATE jobs SET lease_losses = 3")
        .execute(&world.pool)
        .await
        .unwrap();
    let before = rows(&world, job).await;
    // It says that it begins, takes over the part file, and ends there.
    let context = world.context(job, 2).await;
    context.cancelled().cancel();
    match world.exporter().run(context, payload("csv")).await {
        Err(JobError::Retry(message)) => assert!(message.contains("interrupted"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!(path(&world, job, "2.part").exists());
    assert_eq!(rows(&world, job).await, before);
    assert_eq!(world.one::<i32>(losses).await, 3);
    run(&world, job, 3, "csv").await;
    assert_eq!(world.one::<i32>(losses).await, 0, "it got on");
}

#[tokio::test]
async fn an_export_that_is_run_again_by_hand_has_what_is_there_then() {
    let world = world().await;
    for state in ["completed", "expired"] {
        let job = world.job(None).await;
        let first = run(&world, job, 1, "csv").await;
        let end = "UPDATE jobs SET status = 'completed', completed_at = now()";
        sqlx::query(end).execute(&world.pool).await.unwrap();
        sqlx::query("INSERT INTO accounts (name, custom) VALUES ('later ' || $1, '{\"late\": 1}')")
            .bind(state)
            .execute(&world.pool)
            .await
            .unwrap();
        sqlx::query("UPDATE exports SET status = $1 WHERE id = $2")
            .bind(state)
            .bind(job)
            .execute(&world.pool)
            .await
            .unwrap();
        let retried = retry_many(&world.record, &[job], &By::OPERATOR).await;
        assert_eq!(retried.unwrap(), [job]);
        let again = run(&world, job, 2, "csv").await;
        assert_eq!(again.rows, first.rows + 1, "{state}");
        assert!(again.columns.contains(&"custom.late".to_owned()));
        let content = String::from_utf8(world.exported(&again)).unwrap();
        assert!(content.contains(&format!("later {state}")));
    }
}

#[tokio::test]
async fn a_sweep_takes_what_nobody_wants_and_nothing_else() {
    let world = world().await;
    let old = std::time::SystemTime::now() - Duration::from_secs(4000);
    let mut jobs = Vec::new();
    for _ in 0..4 {
        let job = world.job(None).await;
        run(&world, job, 1, "csv").await;
        jobs.push(job);
    }
    let [kept, expired, deleted, young] = jobs[..] else {
        unreachable!()
    };
    let unknown = Uuid::now_v7();
    for name in [
        format!("{unknown}.1.part"),
        format!("{kept}.1.part"),
        "readme.txt".to_owned(),
    ] {
        std::fs::write(world.dir.path().join("exports").join(name), "x").unwrap();
    }
    let age = |path: PathBuf| {
        let file = std::fs::File::options().append(true).open(path).unwrap();
        file.set_modified(old).unwrap();
    };
    for job in [kept, expired, deleted] {
        age(path(&world, job, "csv"));
    }
    age(path(&world, unknown, "1.part"));
    age(path(&world, kept, "1.part"));
    age(world.dir.path().join("exports").join("readme.txt"));
    for (sql, job) in [
        (
            "UPDATE exports SET expires_at = now() WHERE id = $1",
            expired,
        ),
        ("UPDATE exports SET expires_at = now() WHERE id = $1", young),
        (
            "UPDATE jobs SET deleted_at = now(), status = 'completed' WHERE id = $1",
            deleted,
        ),
    ] {
        sqlx::query(sql)
            .bind(job)
            .execute(&world.pool)
            .await
            .unwrap();
    }
    let workspace = world.workspace("of links").await;
    sqlx::query(
        "INSERT INTO bullwark.download_links (token_hash, workspace_id, job_id, kind,
           created_by_kind, expires_at)
         SELECT sha256(n::text::bytea), $1, $2, 'export', 'service',
           now() + n * interval '1 hour'
         FROM generate_series(-1, 1) n",
    )
    .bind(workspace)
    .bind(kept)
    .execute(&world.pool)
    .await
    .unwrap();
    let storage = Storage::local(world.dir.path());
    let mut round = Round::default();
    let swept = sweep(&world.record, &storage, &mut round).await.unwrap();
    assert_eq!((swept.removed, swept.is_more), (4, false));
    let again = sweep(&world.record, &storage, &mut round).await.unwrap();
    assert_eq!(again.removed, 0);
    for (job, is_there) in [
        (kept, true),
        (expired, false),
        (deleted, false),
        (young, true),
    ] {
        assert_eq!(path(&world, job, "csv").exists(), is_there);
    }
    assert!(world.dir.path().join("exports/readme.txt").exists());
    let links = "SELECT count(*) FROM bullwark.download_links";
    assert_eq!(world.one::<i64>(links).await, 1, "the one that still works");
    let states = world.texts("SELECT status FROM exports").await;
    assert_eq!(states, ["completed", "completed", "expired", "expired"]);
}
