//! `sync_crm` with Salesforce: the engine and the client together.

use std::time::Duration;

use bullwark::handlers::simulator::SalesforceTurn;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::{ORG, Stage};
use crate::support::server::{OTHER_KEY, OTHER_WORKSPACE, send};

impl Stage {
    pub(super) async fn begin(&self, direction: &str, entities: &[&str]) -> String {
        let payload = json!({
            "crm_provider": "salesforce", "sync_direction": direction, "entity_types": entities,
        });
        let job = json!({ "jobType": "sync_crm", "payload": payload, "queue": "webhooks" });
        self.rig.enqueue(job).await
    }

    pub(super) async fn synced(&self, direction: &str, entities: &[&str]) -> Value {
        let job = self.begin(direction, entities).await;
        self.rig.until(&job, "completed").await["result"].clone()
    }

    pub(super) async fn value(&self, sql: &str) -> Value {
        let sql = format!("SELECT to_jsonb(v) FROM ({sql}) AS one (v)");
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&self.rig.pool)
            .await
            .unwrap()
    }

    /// So many contacts of a workspace: `a0@x.example` and so on.
    pub(super) async fn contacts(&self, count: usize) {
        self.rig
            .sql(format!(
                "INSERT INTO contacts (workspace_id, email, last_name)
                 SELECT '{DEFAULT_WORKSPACE}', 'a' || n || '@x.example', 'Name ' || n
                 FROM generate_series(0, {count} - 1) n"
            ))
            .await;
    }
}

const ALL: [&str; 3] = ["opportunities", "contacts", "accounts"];

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_get_what_the_other_has_parents_first_and_nothing_twice() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let there = stage
        .there()
        .make(ORG, "Account", json!({ "Name": "Beta" }));
    stage
        .rig
        .sql(format!(
            "WITH a AS (INSERT INTO accounts (workspace_id, name) VALUES
                 ('{DEFAULT_WORKSPACE}', 'Acme') RETURNING id, workspace_id),
               c AS (INSERT INTO contacts (workspace_id, account_id, email, last_name)
                 SELECT workspace_id, id, 'ann@acme.example', 'Lee' FROM a)
             INSERT INTO opportunities (workspace_id, account_id, name, stage, close_date, amount)
               SELECT workspace_id, id, 'Deal', 'Prospecting', '2026-12-01', 12.5 FROM a"
        ))
        .await;
    let first = stage.synced("bidirectional", &ALL).await;
    for entity in ALL {
        assert_eq!(first["entities"][entity]["created_there"], 1, "{first}");
        assert_eq!(first["entities"][entity]["errors"], 0, "{first}");
    }
    assert_eq!(first["entities"]["accounts"]["created_here"], 1, "{first}");
    let accounts = stage.there().records(ORG, "Account");
    let acme = accounts.iter().find(|(_, kept)| kept["Name"] == "Acme");
    let acme = acme.unwrap().0;
    for child in ["Contact", "Opportunity"] {
        let children = stage.there().records(ORG, child);
        let child = children.values().next().unwrap();
        assert_eq!(child["AccountId"], json!(acme), "{child:?}");
    }

    // A change of each side, of different records; then nobody has anything to tell.
    stage
        .there()
        .change(ORG, "Account", &there, json!({ "BillingCity": "Bonn" }));
    stage
        .rig
        .sql("UPDATE opportunities SET stage = 'Closed Won'".into())
        .await;
    stage.synced("bidirectional", &ALL).await;
    let city = "SELECT city FROM accounts WHERE name = 'Beta'";
    assert_eq!(stage.value(city).await, "Bonn");
    let deals = stage.there().records(ORG, "Opportunity");
    assert_eq!(deals.values().next().unwrap()["StageName"], "Closed Won");
    let last = stage.synced("bidirectional", &ALL).await;
    for entity in ALL {
        for count in [
            "created_here",
            "updated_here",
            "created_there",
            "updated_there",
        ] {
            assert_eq!(last["entities"][entity][count], 0, "{entity}: {last}");
        }
    }
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_bad_of_200_are_kept_as_errors_and_go_with_the_next_run() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.contacts(200).await;
    let bad = "last_name = NULL";
    let three = "email IN ('a3@x.example', 'a77@x.example', 'a199@x.example')";
    stage
        .rig
        .sql(format!("UPDATE contacts SET {bad} WHERE {three}"))
        .await;
    let first = stage.synced("push", &["contacts"]).await;
    let counts = &first["entities"]["contacts"];
    assert_eq!(counts["created_there"], 197, "{first}");
    assert_eq!(counts["errors"], 3, "{first}");
    let errors = stage.rig.server.get("/api/crm/errors").await.body;
    assert_eq!(errors["errors"].as_array().unwrap().len(), 3, "{errors}");
    assert_eq!(stage.there().records(ORG, "Contact").len(), 197);

    stage
        .rig
        .sql(format!(
            "UPDATE contacts SET last_name = 'Now' WHERE {three}"
        ))
        .await;
    let second = stage.synced("push", &["contacts"]).await;
    assert_eq!(second["entities"]["contacts"]["created_there"], 3);
    assert_eq!(second["entities"]["contacts"]["updated_there"], 0);
    assert_eq!(stage.value("SELECT count(*) FROM crm_errors").await, 0);
    assert_eq!(stage.there().records(ORG, "Contact").len(), 200);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_in_the_middle_is_renewed_once_and_the_run_goes_on() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.contacts(500).await;
    // Its log-in is no call of this list: it ends at the third question.
    let fine = SalesforceTurn::Fine;
    stage
        .there()
        .script([fine, fine, SalesforceTurn::SessionsEnd]);
    let result = stage.synced("push", &["contacts"]).await;
    assert_eq!(result["entities"]["contacts"]["created_there"], 500);
    assert_eq!(stage.there().log_ins(), 2, "the first, and one more");
    assert_eq!(stage.there().records(ORG, "Contact").len(), 500);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_around_a_bulk_job_leaves_each_record_there_once() {
    for point in ["after_bulk_made", "after_bulk_data", "after_bulk_upload"] {
        let stage = Stage::new().await;
        stage.contacts(2500).await;
        let job = stage.begin("push", &["contacts"]).await;
        stage
            .rig
            .work_until_it_dies(&format!("{point}:abort"))
            .await;
        let (rescue, working) = (stage.rig.rescue(), stage.rig.work());
        let done = stage.rig.until(&job, "completed").await;
        assert_eq!(
            stage.there().records(ORG, "Contact").len(),
            2500,
            "{point}: {done}"
        );
        let links = "SELECT count(*) FROM crm_links";
        assert_eq!(stage.value(links).await, 2500, "{point}");
        let counts = &done["result"]["entities"]["contacts"];
        let counts = ["scanned", "created_there", "matched", "updated_there"]
            .map(|name| counts[name].as_u64());
        assert_eq!(counts, [2500, 2500, 0, 0].map(Some), "{point}: {done}");
        let worked_off = stage.there().bulk_jobs(ORG);
        let worked_off = worked_off
            .iter()
            .filter(|(state, _)| state == "JobComplete");
        assert_eq!(worked_off.count(), 1, "{point}: one table was worked off");
        rescue.stop(Duration::from_secs(10)).await;
        working.hurry().await;
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workspaces_with_equal_data_keep_to_their_own_organizations() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let wish = json!({
        "provider": "salesforce", "name": "crm", "baseUrl": stage.simulator.url(),
        "credentials": { "client_id": "globex", "refresh_token": "hush-other" },
    });
    let as_other = |method, path: &str, body: Value| {
        let request = stage.rig.server.anonymous(method, path);
        send(request.bearer_auth(OTHER_KEY).json(&body))
    };
    let made = as_other(Method::POST, "/api/connections", wish).await;
    assert_eq!(made.status, 201, "{made:?}");
    stage
        .rig
        .sql(format!(
            "INSERT INTO contacts (workspace_id, email, last_name, title)
             SELECT w.id, 'ann@x.example', 'Lee', w.title
             FROM (VALUES ('{DEFAULT_WORKSPACE}'::uuid, 'ours'), ('{OTHER_WORKSPACE}', 'theirs'))
               AS w (id, title)"
        ))
        .await;
    for org in [ORG, "globex"] {
        stage
            .there()
            .make(org, "Account", json!({ "Name": "Same" }));
    }
    let payload = json!({ "crm_provider": "salesforce", "sync_direction": "bidirectional",
        "entity_types": ["accounts", "contacts"] });
    let job = json!({ "jobType": "sync_crm", "payload": payload, "queue": "webhooks" });
    let theirs = as_other(Method::POST, "/api/jobs", job).await;
    assert_eq!(theirs.status, 201, "{theirs:?}");
    stage
        .synced("bidirectional", &["accounts", "contacts"])
        .await;
    let path = format!("/api/jobs/{}", theirs.body["job"]["id"].as_str().unwrap());
    crate::stage::eventually("theirs is completed", async || {
        let job = as_other(Method::GET, &path, json!({})).await;
        (job.body["job"]["status"] == "completed").then_some(())
    })
    .await;
    for (org, title) in [(ORG, "ours"), ("globex", "theirs")] {
        let people = stage.there().records(org, "Contact");
        assert_eq!(people.len(), 1, "{org}: {people:?}");
        assert_eq!(people.values().next().unwrap()["Title"], title, "{org}");
        assert_eq!(stage.there().records(org, "Account").len(), 1, "{org}");
    }
    let each = "SELECT jsonb_object_agg(workspace_id, n) FROM
        (SELECT workspace_id, count(*) n FROM accounts GROUP BY 1) AS counted";
    let expected = json!({ DEFAULT_WORKSPACE.to_string(): 1, OTHER_WORKSPACE.to_string(): 1 });
    assert_eq!(stage.value(each).await, expected);
    let links = "SELECT count(DISTINCT (workspace_id, connection_id)) FROM crm_links l
        WHERE workspace_id = (SELECT workspace_id FROM connections WHERE id = l.connection_id)";
    assert_eq!(stage.value(links).await, 2);
    working.hurry().await;
    stage.end().await;
}
