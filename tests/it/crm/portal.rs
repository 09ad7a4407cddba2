//! A connection that leads to another portal than it did: its links are not of that one.

use bullwark::handlers::simulator::hubspot::Instead;
use serde_json::{Value, json};

use super::Stage;

/// The next attempt finds another portal behind the connection.
fn elsewhere(stage: &Stage, after: usize) {
    stage.hubspot.instead(Instead {
        path: "/account-info/",
        after,
        status: 200,
        body: json!({ "portalId": 7 }),
        headers: vec![],
        is_done: false,
    });
}

fn is_told(dead: &Value) {
    let told = dead["error_message"].to_string();
    for part in ["62515", "leads to 7 now", "another connection"] {
        assert!(told.contains(part), "{part}: {dead}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_another_portal_is_refused_before_it_touches_anything() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.account("Acme", "acme.com").await;
    stage.synced("push", json!({})).await;
    let known = "SELECT jsonb_agg(DISTINCT org_id) FROM crm_cursors WHERE direction = 'push'";
    assert_eq!(stage.value(known).await, json!(["62515"]));
    stage
        .rig
        .sql("UPDATE accounts SET city = 'Bonn'".into())
        .await;
    let before = stage.hubspot.seen().len();
    // Another kind of record, and another way: the connection is the same.
    for (direction, entities) in [
        ("push", json!(["accounts"])),
        ("push", json!(["opportunities"])),
        ("pull", json!(["contacts"])),
    ] {
        elsewhere(&stage, 0);
        let wish = json!({ "entity_types": entities });
        let job = stage.enqueue(direction, wish).await;
        is_told(&stage.rig.until(&job, "dead_letter").await);
    }
    let seen = stage.hubspot.seen().split_off(before);
    let objects = seen.iter().filter(|seen| seen.path.contains("/objects/"));
    assert_eq!(objects.count(), 0, "{seen:?}");
    let linked = "SELECT count(*) FROM crm_links WHERE state = 'linked'";
    assert_eq!(stage.value(linked).await, 1);

    // With the credentials of before it goes on.
    let done = stage.synced("push", json!({})).await;
    assert_eq!(done["entities"]["accounts"]["updated_there"], 1, "{done}");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_paused_does_not_go_on_with_another_portal() {
    let stage = Stage::new().await;
    let acme = json!({ "name": "Acme", "domain": "acme.com" });
    stage.hubspot.make("companies", acme);
    // Its first page has to wait, and meanwhile the credentials are replaced.
    stage.hubspot.instead(Instead {
        path: "companies/search",
        after: 0,
        status: 429,
        body: json!({ "category": "RATE_LIMITS", "policyName": "SECONDLY" }),
        headers: vec![],
        is_done: false,
    });
    elsewhere(&stage, 1);
    let working = stage.rig.work();
    let wish = json!({ "entity_types": ["accounts"] });
    let job = stage.enqueue("bidirectional", wish).await;
    is_told(&stage.rig.until(&job, "dead_letter").await);
    for table in ["accounts", "crm_links", "crm_cursors"] {
        let count = stage.value(format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(count, 0, "{table}");
    }
    working.hurry().await;
    stage.end().await;
}
