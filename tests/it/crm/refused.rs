//! What `HubSpot` refuses: all of a run, some of what is to be archived, or the end of an
//! association. Nothing is lost by it, and nobody else is stopped.

use bullwark::handlers::simulator::hubspot::Instead;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};

use super::Stage;

impl Stage {
    /// Accounts `A1` and so on, which only have names.
    pub(super) async fn accounts(&self, count: usize) {
        self.rig
            .sql(format!(
                "INSERT INTO accounts (workspace_id, name)
                 SELECT '{DEFAULT_WORKSPACE}', 'A' || n FROM generate_series(1, {count}) n"
            ))
            .await;
    }

    /// A job that came to nothing, for people; why.
    async fn dead(&self, direction: &str, more: Value) -> String {
        let job = self.enqueue(direction, more).await;
        let dead = self.rig.until(&job, "dead_letter").await;
        dead["error_message"].as_str().unwrap().to_owned()
    }

    fn id_of(&self, object: &str, name: &str, value: &str) -> String {
        let all = self.hubspot.records(object);
        let found = all.into_iter().find(|kept| kept.properties[name] == value);
        found.expect(value).id
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_is_missing_ends_the_run_with_words_for_people_and_loses_nothing() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.accounts(3).await;
    stage.hubspot.instead(Instead {
        path: "companies/batch/upsert",
        after: 0,
        status: 403,
        body: json!({
            "status": "error", "category": "MISSING_SCOPES",
            "message": "It was not granted all required scopes: crm.objects.companies.write",
        }),
        headers: vec![],
        is_done: false,
    });
    let why = stage.dead("push", json!({})).await;
    assert!(
        why.contains("crm.objects.companies.write") && why.contains("needs the scope"),
        "{why}"
    );
    assert!(stage.hubspot.records("companies").is_empty());
    for table in ["crm_links", "crm_errors", "bullwark.crm_runs"] {
        let left = stage.value(format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(left, 0, "{table}");
    }
    let active = "SELECT count(*) FROM connections WHERE is_active";
    assert_eq!(stage.value(active).await, 1, "its credentials are good");
    // Somebody gives the app the scope.
    let done = stage.synced("push", json!({})).await;
    assert_eq!(done["entities"]["accounts"]["created_there"], 3, "{done}");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_property_of_our_ids_no_company_is_made_and_it_is_said_what_to_make() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.hubspot.take_property("bullwark_id");
    stage.accounts(3).await;
    let known = json!({ "name": "Beta", "domain": "beta.com" });
    let known = stage.hubspot.make("companies", known);
    let beta = stage.account("Beta", "beta.com").await;
    stage
        .rig
        .sql(format!(
            "UPDATE accounts SET city = 'Bonn' WHERE id = '{beta}'"
        ))
        .await;
    let why = stage.dead("push", json!({})).await;
    assert!(
        why.contains("`bullwark_id` with unique values") && why.contains("external_id_field"),
        "{why}"
    );
    assert_eq!(stage.hubspot.records("companies").len(), 1);
    assert_eq!(stage.there("companies", &known, "city"), Value::Null);
    assert_eq!(stage.value("SELECT count(*) FROM crm_links").await, 0);

    stage.hubspot.make_property("bullwark_id");
    let done = stage.synced("push", json!({})).await;
    assert_eq!(done["entities"]["accounts"]["created_there"], 3, "{done}");
    assert_eq!(done["entities"]["accounts"]["matched"], 1, "{done}");
    assert_eq!(stage.there("companies", &known, "city"), "Bonn");
    working.hurry().await;
    stage.end().await;
}

/// Of 120 records that were deleted here the CRM keeps two.
async fn two_of_many_are_not_archived(whole: bool) {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.accounts(120).await;
    stage.synced("push", json!({})).await;
    let mut kept = [
        stage.id_of("companies", "name", "A7"),
        stage.id_of("companies", "name", "A77"),
    ];
    kept.sort();
    kept.iter()
        .for_each(|id| stage.hubspot.hold_fast(id, whole));
    let ids = "SELECT jsonb_agg(id ORDER BY id) FROM accounts WHERE name IN ('A7', 'A77')";
    let ids = stage.value(ids).await;
    stage.rig.sql("DELETE FROM accounts".to_owned()).await;
    let mirror = json!({ "deletions": "mirror", "brake_percent": 100 });
    let done = stage.synced("push", mirror.clone()).await;
    let counts = &done["entities"]["accounts"];
    assert_eq!(counts["deleted_there"], 118, "{done}");
    assert_eq!(counts["errors"], 2, "{done}");
    assert_eq!(done["status"], "completed_with_errors", "{done}");
    let there = stage.hubspot.records("companies");
    let there: Vec<&str> = there.iter().map(|kept| kept.id.as_str()).collect();
    assert_eq!(there, kept);
    let errors = "SELECT jsonb_agg(record_id ORDER BY record_id) FROM crm_errors
        WHERE code = 'VALIDATION_ERROR'";
    assert_eq!(stage.value(errors).await, ids);
    // Their links stay, so that they are not taken for new ones.
    assert_eq!(stage.value("SELECT count(*) FROM crm_links").await, 2);

    stage.hubspot.take_all();
    let again = stage.synced("bidirectional", mirror).await;
    assert_eq!(again["entities"]["accounts"]["deleted_there"], 2, "{again}");
    assert_eq!(again["entities"]["accounts"]["created_here"], 0, "{again}");
    assert!(stage.hubspot.records("companies").is_empty());
    for table in ["crm_errors", "crm_links", "accounts"] {
        let left = stage.value(format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(left, 0, "{table}");
    }
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_not_archived_are_named_and_the_others_are_archived() {
    Box::pin(two_of_many_are_not_archived(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiving_that_is_refused_as_a_whole_is_split_until_the_bad_ones_are_found() {
    Box::pin(two_of_many_are_not_archived(true)).await;
}

/// Five contacts leave their account, and the CRM holds one of them fast.
async fn one_of_five_keeps_its_company(whole: bool) {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let acme = stage.account("Acme", "acme.com").await;
    for n in 0..5 {
        stage.contact(&format!("a{n}@acme.com"), Some(acme)).await;
    }
    stage.synced("push", json!({})).await;
    let held = stage.id_of("contacts", "email", "a3@acme.com");
    stage.hubspot.hold_fast(&held, whole);
    stage
        .rig
        .sql("UPDATE contacts SET account_id = NULL".to_owned())
        .await;
    let done = stage.synced("push", json!({})).await;
    assert_eq!(done["entities"]["contacts"]["updated_there"], 4, "{done}");
    assert_eq!(done["entities"]["contacts"]["errors"], 1, "{done}");
    let with_company = || {
        let all = stage.hubspot.records("contacts");
        let all = all.into_iter().filter(|kept| kept.company.is_some());
        all.map(|kept| kept.id).collect::<Vec<_>>()
    };
    assert_eq!(with_company(), [held.as_str()]);
    let named = "SELECT c.email FROM crm_errors e JOIN contacts c ON c.id::text = e.record_id";
    assert_eq!(stage.value(named).await, "a3@acme.com");

    stage.hubspot.take_all();
    let again = stage.synced("push", json!({})).await;
    assert_eq!(again["entities"]["contacts"]["updated_there"], 1, "{again}");
    assert_eq!(with_company(), Vec::<String>::new());
    assert_eq!(stage.value("SELECT count(*) FROM crm_errors").await, 0);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_association_that_does_not_end_is_kept_as_an_error_of_its_record() {
    Box::pin(one_of_five_keeps_its_company(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn associations_whose_end_is_refused_as_a_whole_are_split_until_the_bad_one_is_found() {
    Box::pin(one_of_five_keeps_its_company(true)).await;
}
