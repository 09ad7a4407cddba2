//! The steps of the specification: fetched, asked, read, written, with a version and a line about
//! it; and what is never overwritten.

use bullwark::handlers::providers::DataSource;
use serde_json::json;

use super::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_filled_and_tells_where_each_value_comes_from() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let account = stage.account("acme.com").await;
    let wish = json!({ "enrich_fields": ["employee_count", "revenue", "technologies"] });
    let job = stage.enqueue(account, wish).await;
    let result = stage.rig.until(&job, "completed").await["result"].clone();

    let row = stage.row(account).await;
    assert_eq!(row["technologies"], json!(["google_apps", "nginx"]));
    assert!(row["employee_count"].as_i64().unwrap() >= 20, "{row}");
    assert!(row["enriched_at"].is_string());
    assert!(row["industry"].is_null(), "was not wished for: {row}");
    assert_eq!(result["matched"], true);
    assert_eq!(result["unknown"], json!(["revenue"]), "clearbit knows none");
    assert_eq!(result["fields"]["employee_count"]["fate"], "written");
    assert_eq!(result["fields"]["employee_count"]["source"], "clearbit");

    let sources = format!(
        "SELECT jsonb_agg(jsonb_build_array(s.field, s.source, s.value = to_jsonb(a) -> s.field,
           s.confidence > 0.9, s.job_id = '{job}') ORDER BY s.field)
         FROM account_sources s JOIN accounts a ON a.id = account_id WHERE a.id = '{account}'"
    );
    let expected = json!([
        ["employee_count", "clearbit", true, true, true],
        ["technologies", "clearbit", true, true, true],
    ]);
    assert_eq!(stage.value(sources).await, expected);
    let versions = format!(
        "SELECT jsonb_agg(jsonb_build_array(number, snapshot ->> 'technologies' IS NOT NULL,
           changed, job_id) ORDER BY number) FROM account_versions WHERE account_id = '{account}'"
    );
    let expected = json!([
        [1, false, [], null],
        [2, true, ["employee_count", "technologies"], job],
    ]);
    assert_eq!(stage.value(versions).await, expected);
    let activity = format!(
        "SELECT jsonb_agg(jsonb_build_array(kind, job_id, details -> 'written'))
         FROM account_activities WHERE account_id = '{account}'"
    );
    let expected = json!([["enriched", job, ["employee_count", "technologies"]]]);
    assert_eq!(stage.value(activity).await, expected);
    let lineage = format!(
        "SELECT jsonb_agg(jsonb_build_array(action, source))
         FROM bullwark.data_changes WHERE job_id = '{job}'"
    );
    let expected = json!([["update", "enrich_account:clearbit"]]);
    assert_eq!(stage.value(lineage).await, expected);
    let told = stage.rig.server.get(&format!("/api/jobs/{job}")).await.body;
    assert!(!told.to_string().contains("hush"), "{told}");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_wrote_or_emptied_stays_and_nobody_is_asked_for_it() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let account = stage.account("acme.com").await;
    let wish = json!({ "enrich_fields": ["employee_count", "industry"] });
    stage.enriched(account, wish).await;
    // No job of ours: a person, with an application or SQL.
    let edit =
        format!("UPDATE accounts SET employee_count = 7, industry = NULL WHERE id = '{account}'");
    stage.rig.sql(edit).await;
    let wish = json!({
        "enrich_fields": ["employee_count", "industry"], "overwrite": true, "provider": "apollo",
    });
    let result = stage.enriched(account, wish).await;
    assert_eq!(result["kept"], json!(["employee_count", "industry"]));
    assert!(
        stage.asked(DataSource::Apollo).is_empty(),
        "nothing to pay for"
    );
    let wish = json!({ "enrich_fields": ["employee_count", "city"], "provider": "apollo" });
    stage.enriched(account, wish).await;
    let row = stage.row(account).await;
    assert_eq!(row["employee_count"], 7, "{row}");
    assert_eq!(
        (&row["industry"], &row["city"]),
        (&json!(null), &json!("San Francisco"))
    );
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_import_wrote_is_replaced_only_if_that_is_wished_for() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let account = stage.account("acme.com").await;
    let import = format!("UPDATE accounts SET city = 'Bonn' WHERE id = '{account}'");
    stage.by_job(import).await;
    let wish = |overwrite: bool| json!({ "enrich_fields": ["city"], "overwrite": overwrite });
    let result = stage.enriched(account, wish(false)).await;
    assert_eq!(result["kept"], json!(["city"]));
    assert_eq!(stage.row(account).await["city"], "Bonn");
    let result = stage.enriched(account, wish(true)).await;
    assert_eq!(result["fields"]["city"]["fate"], "written");
    assert_eq!(stage.row(account).await["city"], "San Francisco");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_provider_is_asked_for_what_is_missing_and_for_nothing_else() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let account = stage.account("acme.com").await;
    let several = ["clearbit", "zoominfo", "apollo"];
    let wish = json!({ "enrich_fields": ["employee_count", "revenue"], "providers": several });
    let result = stage.enriched(account, wish).await;
    let sources = |field: &str| result["fields"][field]["source"].clone();
    assert_eq!(sources("employee_count"), "clearbit");
    assert_eq!(sources("revenue"), json!(null), "it is named by its column");
    assert_eq!(sources("annual_revenue"), "zoominfo");
    assert_eq!(
        stage.row(account).await["annual_revenue"],
        1_000_000,
        "were thousands"
    );
    assert!(
        stage.asked(DataSource::Apollo).is_empty(),
        "nothing was missing"
    );
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_calls_nobody_and_writes_nothing() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let account = stage.account("acme.com").await;
    let before = stage.row(account).await;
    let wish = json!({ "providers": ["clearbit", "apollo"], "dry_run": true });
    let result = stage.enriched(account, wish.clone()).await;
    let said = |result: &serde_json::Value| result["providers"].to_string();
    assert_eq!(said(&result).matches("not_asked").count(), 2, "{result}");
    assert!(stage.simulator.seen().is_empty());
    let other = stage.account("other.com").await;
    stage.enriched(other, json!({})).await;
    // The answer is about another company: it changes nothing for this one.
    assert_eq!(stage.enriched(account, wish).await, result);
    assert_eq!(stage.row(account).await, before);
    let rows = format!("SELECT count(*) FROM account_activities WHERE account_id = '{account}'");
    assert_eq!(stage.value(rows).await, 0);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_looked_up_is_a_dead_letter_that_says_why() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let account = stage.account("acme.com").await;
    let nameless = stage.account("gone.com").await;
    let clear = format!("UPDATE accounts SET domain = NULL WHERE id = '{nameless}'");
    stage.rig.sql(clear).await;
    let theirs = stage.account_in(super::OTHER, "theirs.com").await;
    for (account, more, words) in [
        (nameless, json!({}), "neither a domain nor a website"),
        (theirs, json!({}), "no account"),
        (account, json!({ "provider": null }), "names no provider"),
        (
            account,
            json!({ "provider": "clearbit", "providers": ["apollo"] }),
            "give one of them",
        ),
    ] {
        let job = stage.enqueue(account, more).await;
        let dead = stage.rig.until(&job, "dead_letter").await;
        let why = dead["error_message"].as_str().unwrap();
        assert!(why.contains(words), "{why}");
    }
    assert!(stage.simulator.seen().is_empty());
    working.hurry().await;
    stage.end().await;
}
