//! Records that are there already, and are not found before they are written.

use serde_json::{Value, json};

use super::Stage;

/// Search lags behind what was written, so that a contact is made which is there: `HubSpot` says
/// which one, it is linked, and the next run merges the two.
#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_that_the_crm_names_is_linked_and_merged_by_the_next_run() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let ann = json!({ "email": "Ann@acme.com", "jobtitle": "CEO", "phone": "1" });
    let ann = stage.hubspot.make("contacts", ann);
    stage.hubspot.hide_from_search(&ann);
    let ours = stage.contact("ann@acme.com", None).await;
    stage.contact("bob@acme.com", None).await;
    stage
        .rig
        .sql("UPDATE contacts SET first_name = 'Here', phone = NULL".to_owned())
        .await;
    let only = json!({ "entity_types": ["contacts"] });
    let first = stage.synced("push", only.clone()).await;
    let counts = &first["entities"]["contacts"];
    assert_eq!(counts["created_there"], 1, "bob is not stopped: {first}");
    assert_eq!(counts["errors"], 1, "{first}");
    let link = format!("SELECT remote_id FROM crm_links WHERE local_id = '{ours}'");
    assert_eq!(stage.value(link.as_str()).await, json!(ann));
    let error = "SELECT jsonb_build_array(record_id, class, code) FROM crm_errors";
    let expected = json!([ours, "retryable", "CONFLICT"]);
    assert_eq!(stage.value(error).await, expected);
    assert_eq!(
        stage.there("contacts", &ann, "firstname"),
        Value::Null,
        "nothing was agreed on"
    );

    let second = stage.synced("bidirectional", only.clone()).await;
    assert_eq!(second["status"], "completed", "{second}");
    assert_eq!(stage.hubspot.records("contacts").len(), 2, "nobody twice");
    assert_eq!(stage.there("contacts", &ann, "firstname"), "Here");
    assert_eq!(stage.there("contacts", &ann, "bullwark_id"), json!(ours));
    let row = format!("SELECT jsonb_build_array(title, phone) FROM contacts WHERE id = '{ours}'");
    assert_eq!(stage.value(row).await, json!(["CEO", "1"]));
    assert_eq!(stage.value("SELECT count(*) FROM contacts").await, 2);
    assert_eq!(stage.value(link).await, json!(ann));
    assert_eq!(stage.value("SELECT count(*) FROM crm_errors").await, 0);
    let third = stage.synced("bidirectional", only).await;
    for count in [
        "created_here",
        "updated_here",
        "created_there",
        "updated_there",
    ] {
        assert_eq!(third["entities"]["contacts"][count], 0, "{count}: {third}");
    }
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contacts_are_written_by_their_address_where_they_have_no_property_of_our_ids() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.hubspot.take_property("bullwark_id");
    // Search does not know her yet: by her address she is the same all the same.
    let ann = json!({ "email": "Ann@acme.com", "jobtitle": "CEO" });
    let ann = stage.hubspot.make("contacts", ann);
    stage.hubspot.hide_from_search(&ann);
    stage.contact("ann@acme.com", None).await;
    stage.contact("bob@acme.com", None).await;
    stage
        .rig
        .sql(
            "UPDATE contacts SET first_name = initcap(split_part(email, '@', 1));
             INSERT INTO contacts (workspace_id, linkedin_url, first_name)
             SELECT workspace_id, 'https://linkedin.com/in/carl', 'Carl' FROM contacts LIMIT 1"
                .to_owned(),
        )
        .await;
    let only = json!({ "entity_types": ["contacts"] });
    let first = stage.synced("push", only.clone()).await;
    let counts = &first["entities"]["contacts"];
    assert_eq!(counts["created_there"], 1, "{first}");
    assert_eq!(counts["updated_there"], 1, "{first}");
    assert_eq!(counts["errors"], 1, "{first}");
    let there = stage.hubspot.records("contacts");
    assert_eq!(there.len(), 2, "{there:?}");
    assert_eq!(stage.there("contacts", &ann, "firstname"), "Ann");
    assert_eq!(stage.there("contacts", &ann, "jobtitle"), "CEO");
    assert!(
        there
            .iter()
            .all(|kept| !kept.properties.contains_key("bullwark_id")),
        "there is no such property"
    );
    // Carl has no address, and nothing else that he could be found by.
    let error = "SELECT jsonb_build_array(c.first_name, e.code, e.fields) FROM crm_errors e
        JOIN contacts c ON c.id::text = e.record_id";
    assert_eq!(
        stage.value(error).await,
        json!(["Carl", "no_key", ["email"]])
    );

    stage
        .rig
        .sql("UPDATE contacts SET title = 'Boss', email = coalesce(email, 'carl@acme.com')".into())
        .await;
    let second = stage.synced("push", only).await;
    let counts = &second["entities"]["contacts"];
    assert_eq!(counts["created_there"], 1, "Carl: {second}");
    assert_eq!(counts["errors"], 0, "{second}");
    assert_eq!(stage.hubspot.records("contacts").len(), 3);
    working.hurry().await;
    stage.end().await;
}
