//! Errors of the CRM in a long run: they spend an attempt only if it got nowhere.

use bullwark::handlers::simulator::hubspot::Instead;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};

use super::{Stage, job};

/// A job that may not fail once, of three pages.
async fn three_pages(stage: &Stage) -> Value {
    stage
        .rig
        .sql(format!(
            "INSERT INTO accounts (workspace_id, name)
             SELECT '{DEFAULT_WORKSPACE}', 'A' || n FROM generate_series(1, 600) n"
        ))
        .await;
    let mut wish = job("push", json!({ "entity_types": ["accounts"] }));
    wish["maxAttempts"] = json!(0);
    wish
}

/// A page has two batches.
fn stumble(stage: &Stage, after: usize, status: u16) {
    stage.hubspot.instead(Instead {
        path: "companies/batch/upsert",
        after,
        status,
        body: json!({}),
        headers: vec![("retry-after", "1".to_owned())],
        is_done: false,
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_behind_a_page_that_is_done_spends_no_attempt() {
    let stage = Stage::new().await;
    let wish = three_pages(&stage).await;
    stumble(&stage, 2, 502);
    stumble(&stage, 2, 503);
    let id = stage.rig.enqueue(wish).await;
    let working = stage.rig.work();
    let done = stage.rig.until(&id, "completed").await;
    assert_eq!(done["attempts"], 0, "{done}");
    let counts = &done["result"]["entities"]["accounts"];
    assert_eq!(counts["created_there"], 600, "{done}");
    assert_eq!(counts["errors"], 0, "{done}");
    assert_eq!(stage.hubspot.records("companies").len(), 600);
    let seen = stage.hubspot.seen();
    let refused = seen.iter().filter(|seen| seen.status >= 500).count();
    assert_eq!(refused, 2, "both happened");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_gets_nowhere_comes_to_its_end() {
    let stage = Stage::new().await;
    let wish = three_pages(&stage).await;
    stumble(&stage, 2, 502);
    stumble(&stage, 0, 503);
    let id = stage.rig.enqueue(wish).await;
    let working = stage.rig.work();
    let dead = stage.rig.until(&id, "dead_letter").await;
    assert!(dead["error_message"].to_string().contains("503"), "{dead}");
    assert_eq!(stage.hubspot.records("companies").len(), 200, "one page");
    let holds = "SELECT count(*) FROM bullwark.crm_runs";
    assert_eq!(stage.value(holds).await, 0, "given back");
    working.hurry().await;
    stage.end().await;
}
