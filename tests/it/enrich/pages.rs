//! Enrichments of many that are interrupted, by a worker that dies or by a person.

use std::time::Duration;

use bullwark::handlers::providers::DataSource;
use bullwark::handlers::simulator::Turn;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::json;

use super::Stage;
use super::many::{domains, wish};
use crate::stage::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_among_the_records_does_none_of_them_twice() {
    let stage = Stage::new().await;
    stage
        .accounts(DEFAULT_WORKSPACE, &domains("firm", 30))
        .await;
    let id = stage.begin(wish(json!({}))).await;
    // The second question takes long: the worker dies with ten records done, and ten under way.
    let slow = Turn::Slow(Duration::from_secs(60));
    stage
        .simulator
        .script(DataSource::Apollo, [Turn::Fine, slow]);
    let mut worker = stage
        .rig
        .process(&["--queue", "default", "--lease-ms", "1000"]);
    let mut worker = worker.spawn().unwrap();
    eventually("it asks for the second time", async || {
        (stage.asked(DataSource::Apollo).len() == 20).then_some(())
    })
    .await;
    worker.kill().await.unwrap();
    let done = "SELECT count(*) FROM bullwark.enrichment_items".to_owned();
    assert_eq!(stage.value(done).await, 10);
    // Its claim of the questions would run out by itself.
    let over = "UPDATE bullwark.enrichment_lookups SET busy_until = now() WHERE fetched_at IS NULL";
    stage.rig.sql(over.to_owned()).await;
    let (rescue, working) = (stage.rig.rescue(), stage.rig.work());
    let sums = stage.sums(&id).await;
    assert_eq!(sums["enriched"], 30, "{sums}");
    let asked = stage.asked(DataSource::Apollo);
    let times = |domain: &String| asked.iter().filter(|one| *one == domain).count();
    let all: Vec<usize> = domains("firm", 30).iter().map(times).collect();
    let once = all.iter().filter(|times| **times == 1).count();
    assert_eq!(once, 20, "what was answered was asked once: {all:?}");
    assert_eq!(stage.calls(DataSource::Apollo), 4);
    let twice = "SELECT count(*) FROM account_versions WHERE number > 2".to_owned();
    assert_eq!(stage.value(twice).await, 0, "nothing was written twice");
    let lines = "SELECT count(*) FROM account_activities".to_owned();
    assert_eq!(stage.value(lines).await, 30);
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_end_nobody_heard_of_is_not_done_again() {
    let stage = Stage::new().await;
    stage
        .accounts(DEFAULT_WORKSPACE, &domains("firm", 20))
        .await;
    let id = stage.begin(wish(json!({}))).await;
    let mut worker = stage
        .rig
        .process(&["--queue", "default", "--lease-ms", "1000"]);
    worker.env("BULLWARK_FAULT", "after_handler:abort");
    let ended = tokio::time::timeout(crate::stage::PATIENCE, worker.status()).await;
    assert!(!ended.unwrap().unwrap().success(), "it died there");
    let (rescue, working) = (stage.rig.rescue(), stage.rig.work());
    let sums = stage.sums(&id).await;
    let sums = (&sums["enriched"], &sums["credits"], &sums["from_cache"]);
    assert_eq!(sums, (&json!(20), &json!(20), &json!(0)));
    assert_eq!(
        stage.simulator.spent(DataSource::Apollo),
        20,
        "nothing was paid twice"
    );
    assert_eq!(stage.calls(DataSource::Apollo), 2);
    let lines = "SELECT count(*) FROM account_activities".to_owned();
    assert_eq!(stage.value(lines).await, 20, "nothing was done twice");
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrichment_that_is_cancelled_stops_and_keeps_what_is_done() {
    let stage = Stage::new().await;
    stage
        .accounts(DEFAULT_WORKSPACE, &domains("firm", 100))
        .await;
    let slow = vec![Turn::Slow(Duration::from_secs(1)); 10];
    stage.simulator.script(DataSource::Apollo, slow);
    let id = stage.begin(wish(json!({}))).await;
    let working = stage.rig.work();
    let some = eventually("some are done", async || {
        let shown = stage.shown(&id).await;
        let done = shown["summary"]["enriched"].as_u64().unwrap();
        (done > 0).then_some(done)
    })
    .await;
    assert!(some < 100, "{some}: its sums can be read while it runs");
    let path = format!("/api/jobs/{id}");
    let cancelled = stage
        .rig
        .patch(&path, json!({ "status": "cancelled" }))
        .await;
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    let page = "SELECT id FROM jobs WHERE job_type = 'enrich_page'".to_owned();
    let page = stage.value(page).await.as_str().unwrap().to_owned();
    let ended = eventually("the page is over", async || {
        let path = format!("/api/jobs/{page}");
        let job = stage.rig.server.get(&path).await.body["job"].clone();
        let is_over = ["completed", "cancelled"].contains(&job["status"].as_str()?);
        is_over.then_some(job)
    })
    .await;
    let shown = stage.shown(&id).await;
    assert_eq!(shown["status"], "cancelled", "{shown}");
    let done = shown["summary"]["enriched"].as_u64().unwrap();
    assert!((some..100).contains(&done), "{shown} {ended}");
    let calls = stage.calls(DataSource::Apollo);
    assert!(calls < 10, "{calls} calls: nothing is asked for any more");
    working.hurry().await;
    stage.end().await;
}
