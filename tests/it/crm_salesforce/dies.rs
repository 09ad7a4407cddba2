//! A worker that dies between collections: what is there, what is noted, and that the next one
//! makes nobody twice.

use std::time::Duration;

use serde_json::json;

use super::{ORG, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_after_its_second_collection_leaves_each_record_there_once() {
    let stage = Stage::new().await;
    stage.contacts(500).await;
    let job = stage.begin("push", &["contacts"]).await;
    stage
        .rig
        .work_until_it_dies("after_crm_sent:abort:nth=2")
        .await;
    assert_eq!(
        stage.there().records(ORG, "Contact").len(),
        400,
        "two of three"
    );
    let links = "SELECT count(*) FROM crm_links";
    assert_eq!(stage.value(links).await, 200, "the second is not noted");
    let (rescue, working) = (stage.rig.rescue(), stage.rig.work());
    let done = stage.rig.until(&job, "completed").await;
    let counts = &done["result"]["entities"]["contacts"];
    assert_eq!(counts["created_there"], 500, "each once: {done}");
    assert_eq!(counts["matched"], 0, "the second is ours: {done}");
    assert_eq!(counts["errors"], 0, "{done}");
    let people = stage.there().records(ORG, "Contact");
    let ids: std::collections::BTreeSet<String> = people
        .values()
        .map(|kept| kept["Bullwark_Id__c"].to_string())
        .collect();
    assert_eq!((people.len(), ids.len()), (500, 500));
    assert_eq!(stage.value(links).await, 500);
    let right = "SELECT count(*) FROM crm_links l JOIN contacts c ON c.id = l.local_id
        WHERE l.agreed ->> 'email' = c.email AND l.agreed ->> 'last_name' = c.last_name";
    assert_eq!(stage.value(right).await, 500);
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_after_changing_records_there_changes_them_to_the_same_again() {
    let stage = Stage::new().await;
    stage.contacts(250).await;
    let working = stage.rig.work();
    stage.synced("push", &["contacts"]).await;
    working.hurry().await;
    let changed = "UPDATE contacts SET title = 'CEO'";
    stage.rig.sql(changed.to_owned()).await;
    let job = stage.begin("push", &["contacts"]).await;
    stage
        .rig
        .work_until_it_dies("after_crm_sent:abort:nth=1")
        .await;
    let titled = || {
        let people = stage.there().records(ORG, "Contact");
        people
            .values()
            .filter(|kept| kept.get("Title") == Some(&json!("CEO")))
            .count()
    };
    assert_eq!(titled(), 200);
    let agreed = "SELECT count(*) FROM crm_links WHERE agreed ->> 'title' = 'CEO'";
    assert_eq!(stage.value(agreed).await, 0, "nothing is noted");
    let (rescue, working) = (stage.rig.rescue(), stage.rig.work());
    let done = stage.rig.until(&job, "completed").await;
    let counts = &done["result"]["entities"]["contacts"];
    assert_eq!(counts["updated_there"], 250, "{done}");
    assert_eq!(counts["errors"], 0, "{done}");
    assert_eq!(titled(), 250);
    assert_eq!(stage.value(agreed).await, 250);
    assert_eq!(stage.there().records(ORG, "Contact").len(), 250);
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    stage.end().await;
}
