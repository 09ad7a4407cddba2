//! PostgreSQL cuts connections, or has none left.

use std::time::{Duration, Instant};

use bullwark::stores::StoresOptions;
use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::load::Load;
use super::site::Site;
use crate::support::{connect, execute};

/// Ends every connection but the own one.
const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";

/// Whoever can not be told whether a job is accepted is told to ask again. Everything that was
/// accepted is done, and whatever was under way is found out by reading.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_ended_again_and_again_lose_nothing() {
    let site = Site::new().await;
    let running = site.running(4, "go").await;
    let mut killer = connect(&site.stores, "bullwark").await;
    let load = Load::start(&site.caller);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        execute(&mut killer, TERMINATE).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    load.more(50).await;
    site.rig.probe.open("go");
    let mut ids = load.end().await;
    ids.extend(running);
    site.until_done(&ids).await;
    assert_eq!(site.repeated(), [""; 0]);
    site.until_well().await;
    site.end().await;
}

/// Somebody holds all connections that there are. Nothing is accepted that has no row, what runs is
/// held when it ends, and all follows when there are connections again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_without_free_connections_takes_nothing_and_gets_everything_later() {
    let site = Site::on(StoresOptions {
        max_connections: 40,
        ..StoresOptions::throwaway()
    })
    .await;
    let mut ids = site.running(4, "go").await;
    let mut own = connect(&site.stores, "bullwark").await;
    let url = site.stores.database_url.as_str();
    let mut idle: Vec<PgConnection> = Vec::new();
    let mut ours: i64 = 1;
    while ours > 0 {
        // Whatever becomes free is taken at once.
        let taken = join_all((0..10).map(|_| PgConnection::connect(url))).await;
        let taken_before = idle.len();
        idle.extend(taken.into_iter().flatten());
        if idle.len() == taken_before {
            let end = format!("{TERMINATE} AND application_name = 'bullwark'");
            execute(&mut own, &end).await;
        }
        ours = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bullwark'",
        )
        .fetch_one(&mut own)
        .await
        .unwrap();
    }
    let away = site.until_state("postgres", "away").await;
    assert_eq!(
        (away.status, &away.body["status"]),
        (503, &json!("unavailable"))
    );
    site.rig.probe.open("go");
    let refused = join_all([
        site.caller.post("one", &[]),
        site.caller.post("another", &[]),
    ])
    .await;
    for answer in &refused {
        answer.problem(503, "record_unavailable");
        assert_eq!(answer.header("retry-after"), "2");
    }
    let held = site.ready().await.body["held_outcomes"].as_u64().unwrap();
    assert!(held >= 4, "{held}");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs")
        .fetch_one(&mut own)
        .await
        .unwrap();
    assert_eq!(rows, 4, "no row without an answer, no answer without a row");
    let processing: i64 =
        sqlx::query_scalar("SELECT count(*) FROM jobs WHERE status = 'processing'")
            .fetch_one(&mut own)
            .await
            .unwrap();
    assert_eq!(processing, 4);

    for connection in idle {
        connection.close().await.unwrap();
    }
    site.until_well().await;
    for name in ["one", "another"] {
        let answer = site.caller.post(name, &[]).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        ids.push(super::site::id_of(&answer.body));
    }
    site.until_done(&ids).await;
    assert_eq!(site.repeated(), [""; 0]);
    assert_eq!(site.rig.probe.started().len(), 6);
    site.end().await;
}
