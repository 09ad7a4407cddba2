//! Where a pull goes on: behind what it has read, less the overlap; and what it was refused before.

use bullwark::handlers::simulator::hubspot::{Instead, Kept};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::Stage;

fn read(result: &Value) -> &Value {
    &result["entities"]["accounts"]["read"]
}

/// With this overlap, accounts only.
fn over(seconds: u32) -> Value {
    json!({ "overlap_seconds": seconds, "entity_types": ["accounts"] })
}

fn company(name: &str, domain: &str) -> Value {
    json!({ "name": name, "domain": domain })
}

fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The next search finds this one only: the others are not in its index yet.
fn late_but(stage: &Stage, kept: &Kept) {
    let mut properties = kept.properties.clone();
    let modified = json!(moment(kept.modified_at));
    properties.insert("hs_lastmodifieddate".to_owned(), modified.clone());
    let record = json!({ "id": kept.id, "properties": properties, "updatedAt": modified });
    stage.hubspot.instead(Instead {
        path: "companies/search",
        after: 0,
        status: 200,
        body: json!({ "total": 1, "results": [record] }),
        headers: vec![],
        is_done: false,
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_where_the_last_one_ended_and_reads_the_overlap_again() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    for n in 0..3 {
        let one = company(&format!("A{n}"), &format!("a{n}.com"));
        stage.hubspot.make("companies", one);
    }
    let first = stage.synced("pull", over(0)).await;
    assert_eq!(read(&first), 3, "{first}");
    let all = stage.hubspot.records("companies");
    let highest = all.iter().map(|kept| kept.modified_at).max().unwrap();
    let states = stage.rig.server.get("/api/crm/states").await.body;
    let state = states["states"].as_array().unwrap().iter();
    let state = state
        .filter(|state| state["direction"] == "pull")
        .collect::<Vec<_>>();
    assert_eq!(state.len(), 1, "{states}");
    let since: DateTime<Utc> = state[0]["since"].as_str().unwrap().parse().unwrap();
    assert_eq!(since, highest, "{states}");
    assert_eq!(state[0]["org_id"], "62515", "{states}");
    let ended = |value: &Value| value.as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let began = ended(&first["last_sync_at"]);
    let kept = ended(&state[0]["last_sync_at"]);
    assert!((kept - began).num_milliseconds().abs() < 1, "{states}");

    // The last moment is read again, in case another record has the same.
    let second = stage.synced("pull", over(0)).await;
    assert_eq!(read(&second), 1, "{second}");
    assert!(ended(&second["last_sync_at"]) > began, "it moves on");
    let again = stage.synced("pull", over(300)).await;
    assert_eq!(
        read(&again),
        3,
        "all of them are younger than that: {again}"
    );
    assert_eq!(again["entities"]["accounts"]["echoes"], 3, "{again}");
    assert_eq!(again["entities"]["accounts"]["updated_here"], 0, "{again}");
    let moved = "SELECT jsonb_build_array(count(*), min(last_sync_at) > $$";
    let moved = format!(
        "{moved}{}$$) FROM crm_cursors WHERE direction = 'pull'",
        moment(began)
    );
    assert_eq!(stage.value(moved).await, json!([1, true]));
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_comes_late_is_found_inside_the_overlap() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.hubspot.make("companies", company("Late", "late.com"));
    stage
        .hubspot
        .make("companies", company("Early", "early.com"));
    let newest = stage.hubspot.records("companies").pop().unwrap();
    late_but(&stage, &newest);
    let first = stage.synced("pull", over(0)).await;
    assert_eq!(read(&first), 1, "{first}");
    let without = stage.synced("pull", over(0)).await;
    assert_eq!(without["entities"]["accounts"]["created_here"], 0);
    let found = stage.synced("pull", over(60)).await;
    assert_eq!(found["entities"]["accounts"]["created_here"], 1, "{found}");
    let names = "SELECT jsonb_agg(name ORDER BY name) FROM accounts";
    assert_eq!(stage.value(names).await, json!(["Early", "Late"]));
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_run_begins_where_it_is_told_and_a_full_one_there_again() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.hubspot.make("companies", company("Old", "old.com"));
    stage.hubspot.make("companies", company("New", "new.com"));
    let all = stage.hubspot.records("companies");
    let mut wish = over(0);
    wish["last_sync_at"] = json!(moment(all[1].modified_at));
    let first = stage.synced("pull", wish.clone()).await;
    assert_eq!(read(&first), 1, "{first}");
    stage
        .hubspot
        .make("companies", company("Third", "third.com"));
    let second = stage.synced("pull", wish.clone()).await;
    assert_eq!(
        read(&second),
        2,
        "it goes on where the first ended: {second}"
    );
    wish["last_sync_at"] = json!("2020-01-01T00:00:00Z");
    let third = stage.synced("pull", wish.clone()).await;
    assert_eq!(read(&third), 1, "only the first one begins there: {third}");
    wish["full"] = json!(true);
    let full = stage.synced("pull", wish).await;
    assert_eq!(read(&full), 3, "{full}");
    let names = "SELECT jsonb_agg(name ORDER BY name) FROM accounts";
    assert_eq!(stage.value(names).await, json!(["New", "Old", "Third"]));
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_not_taken_is_tried_by_each_run_until_it_is() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let mut odd = company("Odd", "odd.com");
    odd["description"] = json!("long ".repeat(6_600));
    let id = stage.hubspot.make("companies", odd);
    stage.hubspot.make("companies", company("Fine", "fine.com"));
    for times in 1..=2 {
        // Nothing changes there, and nothing is read twice: the error alone brings it back.
        let told = stage.synced("pull", over(0)).await;
        let counts = &told["entities"]["accounts"];
        assert_eq!(counts["errors"], 1, "{told}");
        assert_eq!(counts["created_here"], u64::from(times == 1), "{told}");
        let errors = stage.rig.server.get("/api/crm/errors").await.body;
        let errors = errors["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{errors:?}");
        let told = ["direction", "record_id", "code", "times"].map(|name| &errors[0][name]);
        let expected = json!(["pull", id, "invalid_value", times]);
        assert_eq!(json!(told), expected);
    }
    let mut wish = over(0);
    wish["mapping"] = json!({ "accounts": { "description": null } });
    let taken = stage.synced("pull", wish).await;
    assert_eq!(taken["entities"]["accounts"]["created_here"], 1, "{taken}");
    assert_eq!(taken["status"], "completed", "{taken}");
    assert_eq!(stage.value("SELECT count(*) FROM crm_errors").await, 0);
    assert_eq!(stage.value("SELECT count(*) FROM accounts").await, 2);
    working.hurry().await;
    stage.end().await;
}
