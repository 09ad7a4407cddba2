//! Conflicts, decided by a person through the API.

use reqwest::Method;
use serde_json::{Value, json};

use super::Stage;
use crate::support::server::{OTHER_KEY, send};

const WISH: &str = "manual_review";

/// A company that both sides have given another name and city; the path of its conflict, its id.
async fn disputed(stage: &Stage) -> (String, String) {
    let acme = json!({ "name": "Acme", "domain": "acme.com", "city": "Bonn" });
    let id = stage.hubspot.make("companies", acme);
    let wish = json!({ "strategy": WISH });
    stage.synced("bidirectional", wish.clone()).await;
    let theirs = json!({ "name": "Theirs", "city": "Köln" });
    stage.hubspot.change("companies", &id, theirs);
    stage
        .rig
        .sql("UPDATE accounts SET name = 'Ours', city = 'Berlin'".into())
        .await;
    let told = stage.synced("bidirectional", wish).await;
    assert!(told["conflicts"].as_u64() >= Some(1), "{told}");
    let open = stage
        .rig
        .server
        .get("/api/crm/conflicts?state=open")
        .await
        .body;
    let open = open["conflicts"].as_array().unwrap();
    assert_eq!(open.len(), 1, "{open:?}");
    let conflict = open[0]["id"].as_str().unwrap();
    (format!("/api/crm/conflicts/{conflict}/resolve"), id)
}

async fn decided(decision: Value, expected: [&str; 2]) {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let (path, id) = disputed(&stage).await;
    let done = stage.rig.server.post(&path, decision.clone()).await;
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!(done.body["conflict"]["state"], "resolved");
    let row = stage
        .value("SELECT jsonb_build_array(name, city) FROM accounts")
        .await;
    assert_eq!(row, json!(expected), "at once: {decision}");
    stage
        .synced("bidirectional", json!({ "strategy": WISH }))
        .await;
    let there = [
        stage.there("companies", &id, "name"),
        stage.there("companies", &id, "city"),
    ];
    assert_eq!(
        json!(there),
        json!(expected),
        "with the next run: {decision}"
    );
    let audited = "SELECT count(*) FROM bullwark.audit_log WHERE action = 'crm_conflict.resolve'";
    assert_eq!(stage.value(audited).await, 1);
    // The lineage knows the person, who is neither a job nor a user of the database.
    let told = "SELECT count(*) FROM bullwark.data_changes
        WHERE source = 'api' AND actor LIKE 'api_key:%' AND job_id IS NULL";
    let is_changed = expected[0] != "Ours";
    assert_eq!(stage.value(told).await, i64::from(is_changed));
    let synced = "SELECT count(*) FROM bullwark.data_changes
        WHERE job_id IS NOT NULL AND source IS DISTINCT FROM 'sync_crm'";
    assert_eq!(stage.value(synced).await, 0);
    let again = stage.rig.server.post(&path, decision).await;
    again.problem(409, "crm_conflict_over");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_keeps_ours_or_theirs_or_says_a_third_thing() {
    Box::pin(decided(json!({ "keep": "ours" }), ["Ours", "Berlin"])).await;
    Box::pin(decided(json!({ "keep": "theirs" }), ["Theirs", "Köln"])).await;
    let third = json!({ "values": { "name": "Third", "city": "Ulm" } });
    Box::pin(decided(third, ["Third", "Ulm"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_is_none_is_refused_and_another_workspace_sees_no_conflict() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let (path, _) = disputed(&stage).await;
    for wrong in [
        json!({}),
        json!({ "keep": "ours", "values": {} }),
        json!({ "values": { "name": "Only one" } }),
        json!({ "values": { "name": ["A"], "city": "B" } }),
    ] {
        let refused = stage.rig.server.post(&path, wrong).await;
        assert_eq!(refused.status, 422, "{refused:?}");
    }
    let theirs = |method: Method, path: &str| {
        stage
            .rig
            .server
            .anonymous(method, path)
            .bearer_auth(OTHER_KEY)
    };
    let request = theirs(Method::POST, &path).json(&json!({ "keep": "ours" }));
    send(request).await.problem(404, "crm_conflict_not_found");
    for (path, name) in [
        ("/api/crm/conflicts", "conflicts"),
        ("/api/crm/links", "links"),
        ("/api/crm/states", "states"),
        ("/api/crm/errors", "errors"),
    ] {
        let seen = send(theirs(Method::GET, path)).await;
        assert_eq!(seen.body[name], json!([]), "{path}");
    }
    let links = stage.rig.server.get("/api/crm/links").await.body;
    assert_eq!(links["links"].as_array().unwrap().len(), 1, "{links}");
    let unreadable = stage.rig.server.get("/api/crm/links?remote_id=a%00");
    unreadable.await.problem(400, "invalid_parameter");
    assert_eq!(stage.value("SELECT name FROM accounts").await, "Ours");
    working.hurry().await;
    stage.end().await;
}

/// A run holds the record, then looks at its conflict. Somebody who decides meanwhile waits for the
/// record first: neither waits for the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_waits_for_a_run_that_has_the_record_and_not_the_other_way_round() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let (path, _) = disputed(&stage).await;
    let mut run = stage.rig.pool.begin().await.unwrap();
    let hold = "SELECT id FROM accounts FOR UPDATE";
    sqlx::query(hold).execute(&mut *run).await.unwrap();
    let post = stage.rig.server.post(&path, json!({ "keep": "ours" }));
    let run = async {
        crate::stage::eventually("the decision waits", async || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                AND query LIKE '%FOR UPDATE OF t%'";
            (stage.value(waits).await == 1).then_some(())
        })
        .await;
        let close = "UPDATE crm_conflicts SET updated_at = now()";
        sqlx::query(close).execute(&mut *run).await.unwrap();
        run.commit().await.unwrap();
    };
    let (done, ()) = tokio::join!(post, run);
    assert_eq!(done.status, 200, "{done:?}");
    working.hurry().await;
    stage.end().await;
}
