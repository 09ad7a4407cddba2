//! Answers of `HubSpot` that are none: a page of a proxy, half an answer, nothing at all.

use bullwark::handlers::simulator::hubspot::Spoiled;
use serde_json::{Value, json};

use super::Stage;

impl Stage {
    /// Changes the settings of the connection.
    async fn set(&self, settings: Value) {
        let all = self.rig.server.get("/api/connections").await.body;
        let id = all["connections"][0]["id"].as_str().unwrap().to_owned();
        let path = format!("/api/connections/{id}");
        let changed = self.rig.patch(&path, json!({ "settings": settings })).await;
        assert_eq!(changed.status, 200, "{changed:?}");
    }

    /// A run of which one answer is spoiled fails for now, and its next attempt ends it.
    async fn synced_in_spite_of(
        &self,
        path: &'static str,
        spoiled: Spoiled,
        more: &Value,
    ) -> Value {
        self.hubspot.spoil(path, 0, spoiled);
        let job = self.enqueue("bidirectional", more.clone()).await;
        let waiting = self.rig.let_go_on(&job).await;
        if waiting["status"] == "failed" {
            let why = waiting["error_message"].as_str().unwrap();
            assert!(why.contains("HubSpot"), "{path} {spoiled:?}: {why}");
        }
        let done = self.rig.until(&job, "completed").await["result"].clone();
        let errors = "SELECT coalesce(jsonb_agg(to_jsonb(e)), '[]') FROM crm_errors e";
        let errors = self.value(errors).await;
        assert_eq!(errors, json!([]), "{path} {spoiled:?}: {done}");
        done
    }

    /// Both sides have the same companies, once each.
    async fn agrees_on(&self, count: usize, what: &str) {
        let there = self.hubspot.records("companies");
        assert_eq!(there.len(), count, "{what}");
        for sql in [
            "SELECT count(*) FROM accounts",
            "SELECT count(*) FROM crm_links WHERE state = 'linked'",
        ] {
            assert_eq!(self.value(sql).await, count, "{what}: {sql}");
        }
        for kept in there {
            let name = kept.properties["name"].as_str().unwrap_or_default();
            let here = format!(
                "SELECT coalesce(city, '') FROM accounts a JOIN crm_links l ON l.local_id = a.id
                 WHERE l.remote_id = '{}' AND a.name = '{name}'",
                kept.id
            );
            let city = kept.properties.get("city").and_then(Value::as_str);
            assert_eq!(self.value(here).await, city.unwrap_or_default(), "{what}");
        }
    }
}

async fn spoiled_by(spoiled: Spoiled) {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let only = json!({ "entity_types": ["accounts"] });
    let mut count = 0;
    for path in [
        "account-info/v3/details",
        "properties/companies",
        "companies/search",
        "companies/batch/upsert",
        "companies/batch/read",
        "companies/batch/update",
    ] {
        // One that is new on each side, and one that was changed here.
        let (here, there) = (format!("Here {path}"), format!("There {path}"));
        stage.hubspot.make("companies", json!({ "name": there }));
        stage
            .rig
            .sql(format!("UPDATE accounts SET city = '{path}'"))
            .await;
        stage.account(&here, &format!("acme{count}.com")).await;
        count += 2;
        stage.synced_in_spite_of(path, spoiled, &only).await;
        stage.agrees_on(count, path).await;
    }
    // What is deleted here is deleted there, once more if nobody knows whether it was.
    stage
        .rig
        .sql("DELETE FROM accounts WHERE name LIKE 'H%'".to_owned())
        .await;
    let mirror = json!({
        "entity_types": ["accounts"], "deletions": "mirror", "brake_percent": 100,
    });
    if spoiled == Spoiled::Nonsense {
        // 204 has no body that could be cut.
        let path = "companies/batch/archive";
        let done = stage.synced_in_spite_of(path, spoiled, &mirror).await;
        assert_eq!(done["entities"]["accounts"]["deleted_there"], 6, "{done}");
        stage.agrees_on(6, path).await;
    }
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_proxy_in_place_of_an_answer_is_asked_for_again() {
    Box::pin(spoiled_by(Spoiled::Nonsense)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    Box::pin(spoiled_by(Spoiled::CutOff)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_in_time_is_asked_for_again_whether_it_was_done_or_not() {
    let stage = Stage::new().await;
    stage.set(json!({ "call_timeout_seconds": 1 })).await;
    let working = stage.rig.work();
    let only = json!({ "entity_types": ["accounts"] });
    for (count, path) in [(1, "companies/search"), (2, "companies/batch/upsert")] {
        stage.account(path, &format!("acme{count}.com")).await;
        stage
            .synced_in_spite_of(path, Spoiled::Silence, &only)
            .await;
        stage.agrees_on(count, path).await;
    }
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_proxy_is_not_taken_for_an_association_that_was_made_or_ended() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let acme = stage.account("Acme", "acme.com").await;
    let ann = stage.contact("ann@acme.com", Some(acme)).await;
    let path = "associations/contacts/companies/batch/create";
    stage
        .synced_in_spite_of(path, Spoiled::Nonsense, &json!({}))
        .await;
    assert!(stage.hubspot.records("contacts")[0].company.is_some());
    stage
        .rig
        .sql(format!(
            "UPDATE contacts SET account_id = NULL WHERE id = '{ann}'"
        ))
        .await;
    let path = "associations/contacts/companies/batch/archive";
    stage
        .synced_in_spite_of(path, Spoiled::Nonsense, &json!({}))
        .await;
    assert_eq!(stage.hubspot.records("contacts")[0].company, None);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_a_call_may_take_is_a_number_of_seconds_within_bounds() {
    let stage = Stage::new().await;
    let all = stage.rig.server.get("/api/connections").await.body;
    let id = all["connections"][0]["id"].as_str().unwrap();
    let path = format!("/api/connections/{id}");
    for wrong in [json!(0), json!(301), json!(1.5), json!("5"), Value::Null] {
        let wish = json!({ "settings": { "call_timeout_seconds": wrong } });
        let refused = stage.rig.patch(&path, wish).await;
        assert_eq!(refused.status, 422, "{refused:?}");
    }
    stage.set(json!({ "call_timeout_seconds": 300 })).await;
    stage.end().await;
}
