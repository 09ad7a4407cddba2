//! What `HubSpot` documents and a simple server would not mind: primary companies, the length of a
//! question, log-ins that end, an account that is being moved.

use bullwark::handlers::simulator::hubspot::Instead;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};

use super::Stage;
use super::trouble::is_waited_for;

#[tokio::test(flavor = "multi_thread")]
async fn the_account_of_a_contact_is_its_primary_company_there_also_when_it_changes_or_goes() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let acme = stage.account("Acme", "acme.com").await;
    let beta = stage.account("Beta", "beta.com").await;
    stage.contact("ann@acme.com", Some(acme)).await;
    stage.contact("bob@acme.com", Some(acme)).await;
    stage.synced("push", json!({})).await;
    let company = |domain: &str| {
        let all = stage.hubspot.records("companies");
        let found = all
            .into_iter()
            .find(|kept| kept.properties["domain"] == domain);
        found.unwrap().id
    };
    let (acme_there, beta_there) = (company("acme.com"), company("beta.com"));
    let primary = |email: &str| {
        let all = stage.hubspot.records("contacts");
        let found = all
            .into_iter()
            .find(|kept| kept.properties["email"] == email);
        found.unwrap().company
    };
    assert_eq!(primary("ann@acme.com"), Some(acme_there.clone()));

    let ann = "WHERE email = 'ann@acme.com'";
    let moved = format!("UPDATE contacts SET account_id = '{beta}' {ann}");
    stage.rig.sql(moved).await;
    stage.synced("bidirectional", json!({})).await;
    assert_eq!(primary("ann@acme.com"), Some(beta_there.clone()));
    // And it stays so on both sides.
    stage.synced("bidirectional", json!({})).await;
    assert_eq!(primary("ann@acme.com"), Some(beta_there));
    let here = format!("SELECT coalesce(account_id::text, 'none') FROM contacts {ann}");
    assert_eq!(stage.value(here.as_str()).await, json!(beta));

    let left = format!("UPDATE contacts SET account_id = NULL {ann}");
    stage.rig.sql(left).await;
    let done = stage.synced("bidirectional", json!({})).await;
    assert_eq!(done["entities"]["contacts"]["updated_there"], 1, "{done}");
    assert_eq!(primary("ann@acme.com"), None);
    assert_eq!(primary("bob@acme.com"), Some(acme_there), "of nobody else");
    let last = stage.synced("bidirectional", json!({})).await;
    assert_eq!(stage.value(here).await, "none", "{last}");
    assert_eq!(last["entities"]["contacts"]["updated_there"], 0, "{last}");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_question_is_longer_than_hubspot_takes() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let domain = |n: usize| format!("{n:03}-{}.com", "long".repeat(12));
    for n in [0, 99, 100, 199] {
        let company = json!({ "name": "There", "domain": domain(n) });
        stage.hubspot.make("companies", company);
    }
    let rows: Vec<String> = (0..200)
        .map(|n| format!("('{DEFAULT_WORKSPACE}', 'Here', '{}')", domain(n)))
        .collect();
    let insert = "INSERT INTO accounts (workspace_id, name, domain) VALUES";
    stage.rig.sql(format!("{insert} {}", rows.join(", "))).await;
    let done = stage.synced("push", json!({})).await;
    let counts = &done["entities"]["accounts"];
    assert_eq!(counts["matched"], 4, "{done}");
    assert_eq!(counts["created_there"], 196, "{done}");

    // Names of properties that are longer than a question by themselves.
    let name = |n: usize| format!("{}_{n}", "property".repeat(11));
    let mapping: serde_json::Map<String, Value> = (0..90)
        .map(|n| (format!("custom.f{n}"), json!(name(n))))
        .collect();
    (0..90).for_each(|n| stage.hubspot.describe_also(&name(n)));
    let wide = json!({ "name": "Wide", "domain": "wide.com", name(0): "a", name(89): "z" });
    stage.hubspot.make("companies", wide.clone());
    let both = json!({ "name": "Wide", "domain": "both.com", name(89): "y" });
    stage.hubspot.make("companies", both);
    stage.account("Both", "both.com").await;
    let more = json!({ "mapping": { "accounts": mapping }, "entity_types": ["accounts"] });
    let pushed = stage.synced("push", more.clone()).await;
    assert_eq!(pushed["entities"]["accounts"]["matched"], 1, "{pushed}");
    let pulled = stage.synced("pull", more).await;
    assert_eq!(
        pulled["entities"]["accounts"]["created_here"], 1,
        "{pulled}"
    );
    let custom = "SELECT jsonb_build_array(custom -> 'f0', custom -> 'f89') FROM accounts
        WHERE domain = 'wide.com'";
    assert_eq!(stage.value(custom).await, json!(["a", "z"]));
    let seen = stage.hubspot.seen().into_iter();
    let mut searches = seen.filter(|seen| seen.path.ends_with("/search"));
    assert!(searches.all(|seen| seen.status == 200));
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_with_more_calls_than_a_window_has_comes_to_its_end() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    // Each record spoils its batch, and halves of halves are more calls than ten seconds have.
    stage
        .rig
        .sql(format!(
            "INSERT INTO accounts (workspace_id, name, city)
             SELECT '{DEFAULT_WORKSPACE}', 'A' || n, 'Nowhere' FROM generate_series(1, 60) n"
        ))
        .await;
    stage.hubspot.refuse_value("Nowhere", true);
    let id = stage
        .enqueue("push", json!({ "entity_types": ["accounts"] }))
        .await;
    let done = stage.rig.until(&id, "completed").await;
    assert_eq!(done["result"]["errors"], 60, "{done}");
    let seen = stage.hubspot.seen();
    let calls = seen.iter().filter(|seen| seen.path.ends_with("/upsert"));
    assert_eq!(calls.count(), 119, "each half once");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_that_ends_in_the_middle_is_renewed_and_the_run_goes_on() {
    let stage = Stage::with(json!({
        "client_id": "app", "client_secret": "app hush+&", "refresh_token": "refresh/hush=",
    }))
    .await;
    stage.hubspot.grant("app", "app hush+&", "refresh/hush=");
    let working = stage.rig.work();
    stage
        .rig
        .sql(format!(
            "INSERT INTO accounts (workspace_id, name)
             SELECT '{DEFAULT_WORKSPACE}', 'A' || n FROM generate_series(1, 250) n"
        ))
        .await;
    stage.hubspot.instead(Instead {
        path: "companies/batch/upsert",
        after: 1,
        status: 401,
        body: json!({ "category": "EXPIRED_AUTHENTICATION" }),
        headers: vec![],
        is_done: false,
    });
    let id = stage.enqueue("push", json!({})).await;
    let done = stage.rig.until(&id, "completed").await;
    let counts = &done["result"]["entities"]["accounts"];
    assert_eq!(counts["created_there"], 250, "{done}");
    assert_eq!(done["attempts"], 0, "{done}");
    assert_eq!(stage.hubspot.records("companies").len(), 250);
    assert_eq!(stage.hubspot.log_ins(), 2, "the first, and one more");
    let active = "SELECT count(*) FROM connections WHERE is_active";
    assert_eq!(stage.value(active).await, 1);
    let logs = "SELECT coalesce(jsonb_agg(to_jsonb(l)), '[]') FROM job_logs l";
    let logs = stage.value(logs).await.to_string();
    assert!(
        !logs.contains("hush") && !logs.contains("token-1"),
        "{logs}"
    );
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_being_moved_is_waited_for() {
    let told = json!({ "status": "error", "message": "migration in progress" });
    let soon = vec![("retry-after", "1".to_owned())];
    Box::pin(is_waited_for(477, told, soon)).await;
}
