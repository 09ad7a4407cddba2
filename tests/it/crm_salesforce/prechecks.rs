//! What a description of the CRM already rules out is refused before anything is sent.

use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};

use super::{ORG, Stage};

impl Stage {
    /// Codes of what was not taken, with the fields there.
    async fn refused(&self) -> Value {
        let sql = "SELECT jsonb_agg(jsonb_build_array(code, fields, class) ORDER BY code)
            FROM crm_errors";
        self.value(sql).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_are_too_long_and_choices_that_are_none_are_never_sent() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage
        .rig
        .sql(format!(
            "INSERT INTO contacts (workspace_id, email, last_name) VALUES
               ('{DEFAULT_WORKSPACE}', 'a@x.example', repeat('ä', 80)),
               ('{DEFAULT_WORKSPACE}', 'b@x.example', repeat('ä', 81));
             INSERT INTO opportunities (workspace_id, name, stage, close_date) VALUES
               ('{DEFAULT_WORKSPACE}', 'Good', 'Prospecting', '2026-12-01'),
               ('{DEFAULT_WORKSPACE}', 'Bad', 'prospecting', '2026-12-01'),
               ('{DEFAULT_WORKSPACE}', 'Late', 'Prospecting', NULL)"
        ))
        .await;
    let entities = ["contacts", "opportunities"];
    let done = stage.synced("push", &entities).await;
    assert_eq!(done["status"], "completed_with_errors", "{done}");
    assert_eq!(done["entities"]["contacts"]["created_there"], 1, "{done}");
    assert_eq!(
        done["entities"]["opportunities"]["created_there"], 1,
        "{done}"
    );
    let expected = json!([
        ["no_such_choice", ["StageName"], "permanent"],
        ["required", ["CloseDate"], "permanent"],
        ["too_long", ["LastName"], "permanent"],
    ]);
    assert_eq!(stage.refused().await, expected);
    let told = "SELECT message FROM crm_errors WHERE code = 'no_such_choice'";
    let told = stage.value(told).await.to_string();
    assert!(
        told.contains("`prospecting`") && told.contains("Closed Won"),
        "{told}"
    );

    stage
        .rig
        .sql(
            "UPDATE contacts SET last_name = 'Short' WHERE email = 'b@x.example';
             UPDATE opportunities SET stage = 'Closed Won', close_date = '2026-12-02'
             WHERE name <> 'Good'"
                .to_owned(),
        )
        .await;
    let again = stage.synced("push", &entities).await;
    assert_eq!(again["status"], "completed", "{again}");
    assert_eq!(stage.value("SELECT count(*) FROM crm_errors").await, 0);
    assert_eq!(stage.there().records(ORG, "Contact").len(), 2);
    assert_eq!(stage.there().records(ORG, "Opportunity").len(), 3);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_may_not_be_written_is_named_with_what_to_change_in_the_mapping() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.contacts(2).await;
    stage
        .rig
        .sql(
            "UPDATE contacts SET custom = '{\"who\": \"me\"}' WHERE email = 'a0@x.example'"
                .to_owned(),
        )
        .await;
    let sync = async |direction: &str| {
        let mapping = json!({ "contacts": {
            "custom.who": { "field": "LastModifiedById", "direction": direction },
        } });
        let payload = json!({
            "crm_provider": "salesforce", "sync_direction": "bidirectional",
            "entity_types": ["contacts"], "mapping": mapping,
        });
        let job = json!({ "jobType": "sync_crm", "payload": payload, "queue": "webhooks" });
        let job = stage.rig.enqueue(job).await;
        stage.rig.until(&job, "completed").await["result"].clone()
    };
    let done = sync("push").await;
    assert_eq!(done["entities"]["contacts"]["created_there"], 1, "{done}");
    assert_eq!(done["errors"], 1, "{done}");
    let expected = json!([["read_only", ["LastModifiedById"], "permanent"]]);
    assert_eq!(stage.refused().await, expected);
    let told = stage
        .value("SELECT message FROM crm_errors")
        .await
        .to_string();
    assert!(told.contains("direction `pull`"), "{told}");
    assert_eq!(stage.there().records(ORG, "Contact").len(), 1);

    let done = sync("pull").await;
    assert_eq!(done["errors"], 0, "{done}");
    assert_eq!(stage.there().records(ORG, "Contact").len(), 2);
    working.hurry().await;
    stage.end().await;
}
