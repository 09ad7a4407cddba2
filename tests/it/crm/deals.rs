//! Opportunities, which are deals in `HubSpot`: both ways, with their accounts, to their end.

use serde_json::json;

use super::Stage;

const ALL: [&str; 3] = ["opportunities", "contacts", "accounts"];

#[tokio::test(flavor = "multi_thread")]
async fn deals_go_both_ways_with_their_companies_their_changes_and_their_ends() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let acme = stage.account("Acme", "acme.com").await;
    stage
        .rig
        .sql(format!(
            "INSERT INTO opportunities
               (workspace_id, account_id, name, stage, amount, close_date, description)
             SELECT workspace_id, id, 'Ours', 'qualified', 1200.5, '2026-12-01', 'Text'
             FROM accounts WHERE id = '{acme}'"
        ))
        .await;
    let beta = json!({ "name": "Beta", "domain": "beta.com" });
    let beta = stage.hubspot.make("companies", beta);
    let theirs = stage.hubspot.make(
        "deals",
        json!({ "dealname": "Theirs", "dealstage": "won", "amount": "99.90",
            "closedate": "2026-11-30T22:15:00Z" }),
    );
    stage.hubspot.make("deals", json!({ "amount": "1" }));
    stage.hubspot.associate("deals", &theirs, &beta);
    let wish = json!({ "entity_types": ALL });
    let first = stage.synced("bidirectional", wish.clone()).await;
    let counts = &first["entities"]["opportunities"];
    assert_eq!(counts["created_there"], 1, "{first}");
    assert_eq!(counts["created_here"], 1, "{first}");
    assert_eq!(counts["errors"], 1, "one has no name: {first}");
    let deals = stage.hubspot.records("deals");
    let ours = deals
        .iter()
        .find(|kept| kept.properties.get("dealname") == Some(&json!("Ours")));
    let ours = ours.unwrap();
    for (name, value) in [
        ("dealstage", "qualified"),
        ("amount", "1200.5"),
        ("closedate", "2026-12-01"),
        ("description", "Text"),
    ] {
        assert_eq!(ours.properties[name], value, "{name}");
    }
    let companies = stage.hubspot.records("companies");
    let acme_there = companies
        .iter()
        .find(|kept| kept.properties["name"] == "Acme");
    assert_eq!(
        ours.company.as_deref(),
        Some(acme_there.unwrap().id.as_str())
    );
    let here = "SELECT jsonb_build_array(a.name, o.stage, o.amount, o.close_date)
        FROM opportunities o JOIN accounts a ON a.id = o.account_id WHERE o.name = 'Theirs'";
    let expected = json!(["Beta", "won", 99.9, "2026-11-30"]);
    assert_eq!(stage.value(here).await, expected);

    // Each side changes the deal of the other, and ours goes to another company.
    stage.hubspot.change(
        "deals",
        &ours.id,
        json!({ "amount": "1300", "dealstage": "" }),
    );
    stage
        .rig
        .sql(
            "UPDATE opportunities SET close_date = NULL, stage = 'lost' WHERE name = 'Theirs';
             UPDATE opportunities SET account_id = (SELECT id FROM accounts WHERE name = 'Beta')
             WHERE name = 'Ours'"
                .to_owned(),
        )
        .await;
    stage.synced("bidirectional", wish.clone()).await;
    let here = "SELECT jsonb_build_array(amount, stage) FROM opportunities WHERE name = 'Ours'";
    assert_eq!(stage.value(here).await, json!([1300.0, null]));
    let deals = stage.hubspot.records("deals");
    let deal = |id: &str| deals.iter().find(|kept| kept.id == id).unwrap();
    assert_eq!(deal(&ours.id).company.as_deref(), Some(beta.as_str()));
    assert_eq!(deal(&theirs).properties["dealstage"], "lost");
    assert!(!deal(&theirs).properties.contains_key("closedate"));
    let quiet = stage.synced("bidirectional", wish).await;
    for count in [
        "created_here",
        "updated_here",
        "created_there",
        "updated_there",
    ] {
        let counts = &quiet["entities"]["opportunities"];
        assert_eq!(counts[count], 0, "{count}: {quiet}");
    }

    // One ends on each side.
    stage.hubspot.archive("deals", &theirs);
    stage
        .rig
        .sql("DELETE FROM opportunities WHERE name = 'Ours'".to_owned())
        .await;
    let mirror = json!({ "entity_types": ALL, "deletions": "mirror" });
    let last = stage.synced("bidirectional", mirror).await;
    let counts = &last["entities"]["opportunities"];
    assert_eq!(counts["deleted_here"], 1, "{last}");
    assert_eq!(counts["deleted_there"], 1, "{last}");
    assert_eq!(stage.value("SELECT count(*) FROM opportunities").await, 0);
    assert_eq!(
        stage.hubspot.records("deals").len(),
        1,
        "the one without a name"
    );
    let links = "SELECT count(*) FROM crm_links WHERE entity_type = 'opportunities'";
    assert_eq!(stage.value(links).await, 0);
    assert_eq!(stage.value("SELECT count(*) FROM accounts").await, 2);
    assert_eq!(stage.hubspot.records("companies").len(), 2);
    working.hurry().await;
    stage.end().await;
}
