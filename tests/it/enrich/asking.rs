//! Who is asked how often: answers are kept, equal questions are asked once, and
//! workspaces share nothing.

use std::time::Duration;

use bullwark::handlers::providers::DataSource;
use bullwark::handlers::simulator::Turn;
use serde_json::json;

use super::{OTHER, Stage, job};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_jobs_with_the_same_question_are_one_call() {
    let stage = Stage::new().await;
    let slow = Turn::Slow(Duration::from_millis(500));
    stage.simulator.script(DataSource::Clearbit, [slow]);
    let account = stage.account("acme.com").await;
    let mut jobs = Vec::new();
    for _ in 0..50 {
        jobs.push(stage.enqueue(account, json!({})).await);
    }
    let working = stage.rig.work();
    for job in &jobs {
        let done = stage.rig.until(job, "completed").await;
        assert_eq!(done["attempts"], 0, "to wait is no failure: {done}");
    }
    assert_eq!(stage.asked(DataSource::Clearbit), ["acme.com"]);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_company_is_remembered_and_changes_nothing() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    for provider in ["clearbit", "zoominfo", "apollo"] {
        let account = stage.account(&format!("unknown-{provider}.com")).await;
        let before = stage.row(account).await;
        for _ in 0..2 {
            let result = stage
                .enriched(account, json!({ "provider": provider }))
                .await;
            assert_eq!(result["matched"], false, "{provider}: {result}");
        }
        assert_eq!(stage.row(account).await, before);
        let rows = format!(
            "SELECT count(*) FROM account_activities WHERE account_id = '{account}'
               AND details ->> 'matched' = 'false'"
        );
        assert_eq!(stage.value(rows).await, 2, "that nothing was found is told");
    }
    assert_eq!(stage.simulator.seen().len(), 3, "each was asked once");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_ran_out_is_asked_for_again() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let account = stage.account("acme.com").await;
    stage.enriched(account, json!({})).await;
    stage.enriched(account, json!({ "max_age_days": 3 })).await;
    assert_eq!(stage.asked(DataSource::Clearbit).len(), 1);
    let older = "UPDATE bullwark.enrichment_lookups SET fetched_at = now() - interval '4 days'";
    stage.rig.sql(older.to_owned()).await;
    stage.enriched(account, json!({ "max_age_days": 5 })).await;
    assert_eq!(stage.asked(DataSource::Clearbit).len(), 1);
    stage.enriched(account, json!({ "max_age_days": 3 })).await;
    assert_eq!(stage.asked(DataSource::Clearbit).len(), 2);
    let over = "UPDATE bullwark.enrichment_lookups SET expires_at = now()";
    stage.rig.sql(over.to_owned()).await;
    stage.enriched(account, json!({})).await;
    assert_eq!(stage.asked(DataSource::Clearbit).len(), 3);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workspaces_with_equal_data_share_neither_answers_nor_credits() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let mine = stage.account("acme.com").await;
    let theirs = stage.account_in(OTHER, "acme.com").await;
    let untouched = stage.row(theirs).await;
    stage.enriched(mine, json!({})).await;
    assert_eq!(stage.row(theirs).await, untouched);
    let job = stage.enqueue_elsewhere(theirs).await;
    let what = "the job of the other workspace is completed";
    crate::stage::eventually(what, async || {
        let status = format!("SELECT status FROM jobs WHERE id = '{job}'");
        (stage.value(status).await == "completed").then_some(())
    })
    .await;
    assert!(stage.row(theirs).await["industry"].is_string());
    assert_eq!(
        stage.asked(DataSource::Clearbit),
        ["acme.com"; 2],
        "each pays"
    );
    let rows = "SELECT count(DISTINCT workspace_id) FROM bullwark.enrichment_lookups".to_owned();
    assert_eq!(stage.value(rows).await, 2);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_behind_the_answer_buys_no_second_one() {
    let stage = Stage::new().await;
    let account = stage.account("acme.com").await;
    let mut wish = job(account, json!({ "enrich_fields": ["city"] }));
    wish["queue"] = json!("webhooks");
    let id = stage.rig.enqueue(wish).await;
    stage
        .rig
        .work_until_it_dies("before_transaction_commit:abort")
        .await;
    assert_eq!(stage.asked(DataSource::Clearbit).len(), 1);
    assert!(
        stage.row(account).await["city"].is_null(),
        "nothing of it was committed"
    );
    let (rescue, working) = (stage.rig.rescue(), stage.rig.work());
    stage.rig.until(&id, "completed").await;
    assert_eq!(stage.row(account).await["city"], "San Francisco");
    assert_eq!(stage.asked(DataSource::Clearbit).len(), 1);
    let versions = format!("SELECT count(*) FROM account_versions WHERE account_id = '{account}'");
    assert_eq!(stage.value(versions).await, 2, "written once");
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    stage.end().await;
}
