//! Records there that can not be seen, or not be read: neither counts as deleted, or as missing.

use bullwark::handlers::simulator::hubspot::Instead;
use serde_json::{Value, json};

use super::Stage;

/// A record that the app may not see, or that is gone: the CRM says the same of both.
fn unseen(path: &'static str) -> Instead {
    Instead {
        path,
        after: 0,
        status: 207,
        body: json!({
            "status": "COMPLETE", "results": [], "numErrors": 1,
            "errors": [{
                "status": "error", "category": "OBJECT_NOT_FOUND",
                "message": "Could not get some COMPANY objects, they may be deleted or not exist.",
            }],
        }),
        headers: vec![],
        is_done: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_hidden_from_us_is_not_taken_for_a_deleted_one() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    for n in 0..5 {
        stage.account(&format!("A{n}"), &format!("a{n}.com")).await;
    }
    let mirror = json!({ "deletions": "mirror" });
    stage.synced("bidirectional", mirror.clone()).await;
    let all = "SELECT count(*) FROM accounts";
    let linked = "SELECT count(*) FROM crm_links WHERE state = 'linked'";
    for (path, city) in [
        ("companies/batch/read", "Bonn"),
        ("companies/batch/update", "Köln"),
    ] {
        let change = format!("UPDATE accounts SET city = '{city}' WHERE name = 'A3'");
        stage.rig.sql(change).await;
        stage.hubspot.instead(unseen(path));
        let hidden = stage.synced("bidirectional", mirror.clone()).await;
        assert_eq!(hidden["entities"]["accounts"]["errors"], 1, "{hidden}");
        assert_eq!(stage.value(linked).await, 5, "{path}: still linked");
        let error = "SELECT jsonb_build_array(direction, class, code) FROM crm_errors";
        let expected = json!(["push", "retryable", "not_visible"]);
        assert_eq!(stage.value(error).await, expected, "{path}");

        // It can be seen again.
        let seen = stage.synced("bidirectional", mirror.clone()).await;
        assert_eq!(seen["entities"]["accounts"]["deleted_here"], 0, "{seen}");
        assert_eq!(seen["entities"]["accounts"]["updated_there"], 1, "{seen}");
        assert_eq!(stage.value(all).await, 5, "{path}: nothing was deleted");
        assert_eq!(stage.value("SELECT count(*) FROM crm_errors").await, 0);
        let there = stage.hubspot.records("companies");
        assert!(there.iter().any(|kept| kept.properties["name"] == "A3"
            && kept.properties.get("city") == Some(&json!(city))));
    }

    // What the CRM lists as deleted is.
    let gone = stage.hubspot.records("companies");
    stage.hubspot.archive("companies", &gone[3].id);
    let done = stage.synced("bidirectional", mirror).await;
    assert_eq!(done["entities"]["accounts"]["deleted_here"], 1, "{done}");
    assert_eq!(stage.value(all).await, 4);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_with_a_value_that_can_not_be_read_is_refused_and_no_second_one_is_made() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let acme = json!({
        "name": "Acme", "domain": "acme.com", "description": "long ".repeat(6_600),
    });
    let id = stage.hubspot.make("companies", acme);
    stage.account("Acme", "acme.com").await;
    stage.account("Beta", "beta.com").await;
    for times in 1..=2 {
        let refused = stage.synced("push", json!({})).await;
        let counts = &refused["entities"]["accounts"];
        assert_eq!(counts["errors"], 1, "{refused}");
        assert_eq!(counts["created_there"], u64::from(times == 1), "{refused}");
        assert_eq!(stage.hubspot.records("companies").len(), 2, "{refused}");
        let error = "SELECT jsonb_build_array(code, fields, times) FROM crm_errors";
        let expected = json!(["invalid_value", ["description"], times]);
        assert_eq!(stage.value(error).await, expected);
    }

    let short = json!({ "description": "short" });
    stage.hubspot.change("companies", &id, short);
    let taken = stage.synced("push", json!({})).await;
    assert_eq!(taken["entities"]["accounts"]["matched"], 1, "{taken}");
    assert_eq!(taken["entities"]["accounts"]["created_there"], 0, "{taken}");
    assert_eq!(stage.value("SELECT count(*) FROM crm_errors").await, 0);
    assert_eq!(stage.hubspot.records("companies").len(), 2);
    let link = format!("SELECT count(*) FROM crm_links WHERE remote_id = '{id}'");
    assert_eq!(stage.value(link).await, 1);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_matches_than_one_answer_has_are_all_looked_at() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    for n in 0..90 {
        let domain = format!("a{n}.com");
        stage.account(&format!("A{n}"), &domain).await;
        for copy in 0..3 {
            let company = json!({ "name": format!("A{n} {copy}"), "domain": domain });
            stage.hubspot.make("companies", company);
        }
    }
    let done: Value = stage.synced("push", json!({})).await;
    let counts = &done["entities"]["accounts"];
    assert_eq!(counts["created_there"], 0, "nothing is made anew: {done}");
    assert_eq!(counts["errors"], 90, "{done}");
    assert_eq!(stage.hubspot.records("companies").len(), 270);
    let codes = "SELECT jsonb_agg(DISTINCT code) FROM crm_errors";
    assert_eq!(stage.value(codes).await, json!(["several_there"]));
    working.hurry().await;
    stage.end().await;
}
