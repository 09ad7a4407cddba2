//! Records that are refused, tokens that end, limits, and workers that die in the middle.

use std::time::Duration;

use bullwark::handlers::simulator::hubspot::Instead;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};

use super::Stage;

/// 200 accounts, of which three have a value that the CRM refuses.
async fn with_three_bad(stage: &Stage) {
    let sql = format!(
        "INSERT INTO accounts (workspace_id, name, domain, city)
         SELECT '{DEFAULT_WORKSPACE}', 'A' || n, 'a' || n || '.com',
           CASE WHEN n IN (7, 77, 177) THEN 'Nowhere' ELSE 'Bonn' END
         FROM generate_series(1, 200) n"
    );
    stage.rig.sql(sql).await;
}

async fn three_of_two_hundred(whole: bool) {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    with_three_bad(&stage).await;
    stage.hubspot.refuse_value("Nowhere", whole);
    let result = stage.synced("push", json!({})).await;
    assert_eq!(result["status"], "completed_with_errors", "{result}");
    assert_eq!(
        result["entities"]["accounts"]["created_there"], 197,
        "{result}"
    );
    assert_eq!(result["errors"], 3, "{result}");
    assert_eq!(stage.hubspot.records("companies").len(), 197);
    let names = "SELECT jsonb_agg(a.name ORDER BY a.name) FROM crm_errors e
        JOIN accounts a ON a.id::text = e.record_id WHERE e.code = 'VALIDATION_ERROR'";
    assert_eq!(stage.value(names).await, json!(["A177", "A7", "A77"]));

    stage.hubspot.take_all();
    let again = stage.synced("push", json!({})).await;
    assert_eq!(again["entities"]["accounts"]["created_there"], 3, "{again}");
    assert_eq!(again["status"], "completed");
    assert_eq!(stage.value("SELECT count(*) FROM crm_errors").await, 0);
    assert_eq!(stage.hubspot.records("companies").len(), 200);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_bad_records_of_two_hundred_are_named_and_the_others_are_written() {
    Box::pin(three_of_two_hundred(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_refused_as_a_whole_is_split_until_the_bad_ones_are_found() {
    Box::pin(three_of_two_hundred(true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_after_writing_there_makes_nobody_twice() {
    let stage = Stage::new().await;
    with_three_bad(&stage).await;
    stage
        .rig
        .sql("UPDATE accounts SET domain = NULL".to_owned())
        .await;
    let job = stage.enqueue("push", json!({})).await;
    stage.rig.work_until_it_dies("after_crm_sent:abort").await;
    assert_eq!(
        stage.hubspot.records("companies").len(),
        200,
        "written, and not noted"
    );
    assert_eq!(stage.value("SELECT count(*) FROM crm_links").await, 0);
    let (rescue, working) = (stage.rig.rescue(), stage.rig.work());
    let done = stage.rig.until(&job, "completed").await;
    let counts = &done["result"]["entities"]["accounts"];
    let counts = [
        "scanned",
        "created_there",
        "matched",
        "updated_there",
        "errors",
    ]
    .map(|name| counts[name].as_u64());
    assert_eq!(counts, [200, 200, 0, 0, 0].map(Some), "{done}");
    assert_eq!(stage.hubspot.records("companies").len(), 200);
    assert_eq!(stage.value("SELECT count(*) FROM crm_links").await, 200);
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_repaired_by_writing_the_same_again() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.account("Acme", "acme.com").await;
    stage.hubspot.instead(Instead {
        path: "companies/batch/upsert",
        after: 0,
        status: 503,
        body: json!({}),
        headers: vec![],
        is_done: true,
    });
    let job = json!({ "crm_provider": "hubspot", "sync_direction": "push",
        "entity_types": ["accounts"] });
    let job = json!({ "jobType": "sync_crm", "payload": job, "queue": "webhooks" });
    let job = stage.rig.enqueue(job).await;
    let failed = stage.rig.until(&job, "failed").await;
    assert!(
        failed["error_message"].to_string().contains("503"),
        "{failed}"
    );
    assert_eq!(
        stage.hubspot.records("companies").len(),
        1,
        "it was done all the same"
    );
    let again = stage.synced("push", json!({})).await;
    assert_eq!(again["entities"]["accounts"]["errors"], 0, "{again}");
    assert_eq!(stage.hubspot.records("companies").len(), 1);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_in_the_middle_takes_the_connection_out_of_service() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.account("Acme", "acme.com").await;
    stage.hubspot.instead(Instead {
        path: "companies/batch/upsert",
        after: 0,
        status: 401,
        body: json!({ "category": "EXPIRED_AUTHENTICATION" }),
        headers: vec![],
        is_done: false,
    });
    let job = stage.enqueue("push", json!({})).await;
    let paused = "SELECT count(*) FROM connections WHERE NOT is_active";
    crate::stage::eventually("the connection is out of service", async || {
        (stage.value(paused).await == 1).then_some(())
    })
    .await;
    let waiting = stage.rig.server.get(&format!("/api/jobs/{job}")).await.body;
    assert_ne!(waiting["job"]["status"], "dead_letter", "{waiting}");
    assert!(!waiting.to_string().contains("pat-hush"), "{waiting}");
    assert!(stage.hubspot.records("companies").is_empty());
    working.hurry().await;
    stage.end().await;
}

/// The first writing is answered in this way; the job comes to its end without a spent attempt, and
/// calls no more than it has to.
pub(super) async fn is_waited_for(status: u16, body: Value, headers: Vec<(&'static str, String)>) {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.account("Acme", "acme.com").await;
    stage.hubspot.instead(Instead {
        path: "companies/batch/upsert",
        after: 0,
        status,
        body,
        headers,
        is_done: false,
    });
    let job = stage.enqueue("push", json!({})).await;
    let done = stage.rig.until(&job, "completed").await;
    assert_eq!(done["attempts"], 0, "{done}");
    assert_eq!(stage.hubspot.records("companies").len(), 1);
    let seen = stage.hubspot.seen();
    let refused = seen.iter().filter(|seen| seen.status == status).count();
    assert_eq!(refused, 1, "nobody asked again meanwhile");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_met_closes_the_bucket_and_spends_no_attempt() {
    let told = json!({ "category": "RATE_LIMITS", "policyName": "SECONDLY" });
    Box::pin(is_waited_for(429, told, vec![])).await;
}
