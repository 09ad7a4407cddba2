//! Records there that can not be seen, or not be read: neither counts as deleted, or as missing.

use bullwark::handlers::simulator::hubspot::Instead;
use serde_json::json;

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
