//! `enrich_contact`: who is looked up by what, what is written, and whom nobody asks about.

use bullwark::handlers::providers::DataSource;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{OTHER, Stage};

pub(super) fn job(contact: Uuid, more: Value) -> Value {
    let mut payload = json!({ "contact_id": contact, "provider": "apollo" });
    if more.get("providers").is_some() {
        payload.as_object_mut().unwrap().remove("provider");
    }
    for (name, value) in more.as_object().unwrap() {
        payload[name] = value.clone();
    }
    json!({ "jobType": "enrich_contact", "payload": payload })
}

impl Stage {
    /// A contact that a job made, with these columns.
    pub(crate) async fn contact(&self, workspace: Uuid, columns: &Value) -> Uuid {
        let id = Uuid::now_v7();
        let mut row = columns.clone();
        row["id"] = json!(id);
        row["workspace_id"] = json!(workspace);
        let names: Vec<&str> = row
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let names = names.join(", ");
        self.by_job(format!(
            "INSERT INTO contacts ({names})
             SELECT {names} FROM jsonb_populate_record(NULL::contacts, '{row}')"
        ))
        .await;
        id
    }

    pub(crate) async fn contact_row(&self, contact: Uuid) -> Value {
        let sql = format!("SELECT to_jsonb(c) FROM contacts c WHERE id = '{contact}'");
        self.value(sql).await
    }

    pub(super) async fn filled(&self, contact: Uuid, more: Value) -> Value {
        let id = self.rig.enqueue(job(contact, more)).await;
        self.rig.until(&id, "completed").await["result"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_is_filled_and_tells_where_each_value_comes_from() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let who = json!({ "email": "Ann.Lee@acme.com", "title": null });
    let contact = stage.contact(DEFAULT_WORKSPACE, &who).await;
    let id = stage.rig.enqueue(job(contact, json!({}))).await;
    let result = stage.rig.until(&id, "completed").await["result"].clone();
    assert_eq!(result["looked_up_by"], "email", "{result}");
    assert_eq!(result["matched"], true);
    assert_eq!(result["fields"]["title"]["source"], "apollo");
    assert_eq!(result["unknown"], json!(["phone"]), "{result}");

    let row = stage.contact_row(contact).await;
    let found = json!([
        row["first_name"],
        row["last_name"],
        row["title"],
        row["country"]
    ]);
    assert_eq!(
        found,
        json!(["Ann", "Lee", "Head of Engineering", "DE"]),
        "{row}"
    );
    assert_eq!(row["linkedin_url"], "https://www.linkedin.com/in/ann-lee");
    assert_eq!(row["email"], "Ann.Lee@acme.com", "the key stays");
    assert!(row["enriched_at"].is_string());
    let sources = format!(
        "SELECT jsonb_agg(s.field ORDER BY s.field) FROM contact_sources s
           JOIN contacts c ON c.id = contact_id
         WHERE s.job_id = '{id}' AND s.value = to_jsonb(c) -> s.field AND s.confidence > 0.9"
    );
    let fields = [
        "city",
        "company",
        "country",
        "first_name",
        "last_name",
        "linkedin_url",
        "title",
    ];
    assert_eq!(stage.value(sources).await, json!(fields));
    let versions = format!(
        "SELECT jsonb_agg(jsonb_build_array(number, snapshot ->> 'title', job_id)
           ORDER BY number) FROM contact_versions WHERE contact_id = '{contact}'"
    );
    let expected = json!([[1, null, null], [2, "Head of Engineering", id]]);
    assert_eq!(stage.value(versions).await, expected);
    let activities =
        format!("SELECT jsonb_agg(kind) FROM contact_activities WHERE contact_id = '{contact}'");
    assert_eq!(stage.value(activities).await, json!(["enriched"]));
    // The answer is kept.
    stage.filled(contact, json!({ "overwrite": true })).await;
    assert_eq!(stage.asked(DataSource::Apollo), ["email:ann.lee@acme.com"]);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_provider_is_asked_by_what_it_can_be_asked_by() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let all = ["clearbit", "zoominfo", "apollo"];
    let page = json!({ "linkedin_url": "https://www.linkedin.com/in/bob-ray" });
    let by_page = stage.contact(DEFAULT_WORKSPACE, &page).await;
    let named = json!({
        "external_id": "7", "first_name": "Cid", "last_name": "Fox", "company": "Initech",
    });
    let by_name = stage.contact(DEFAULT_WORKSPACE, &named).await;
    let email = json!({ "email": "dan.orr@acme.com" });
    let by_email = stage.contact(DEFAULT_WORKSPACE, &email).await;
    let wish = || json!({ "providers": all, "enrich_fields": ["email", "phone"] });

    let result = stage.filled(by_page, wish()).await;
    let said = json!([{ "provider": "clearbit", "said": "can_not_ask" },
                      { "provider": "zoominfo", "said": "known", "from_cache": false }]);
    assert_eq!(result["providers"], said, "{result}");
    assert_eq!(
        stage.contact_row(by_page).await["email"],
        "bob.ray@example.com"
    );
    let result = stage.filled(by_name, wish()).await;
    assert_eq!(result["looked_up_by"], "name", "{result}");
    assert_eq!(
        stage.contact_row(by_name).await["email"],
        "cid.fox@initech.com"
    );
    let result = stage.filled(by_email, wish()).await;
    assert_eq!(
        result["fields"]["phone"]["source"], "zoominfo",
        "clearbit knows none"
    );
    assert_eq!(result["kept"], json!(["email"]), "{result}");

    assert_eq!(
        stage.asked(DataSource::Clearbit),
        ["email:dan.orr@acme.com"]
    );
    let expected = [
        "linkedin:https://www.linkedin.com/in/bob-ray",
        "name:cid|fox|=initech",
        "email:dan.orr@acme.com",
    ];
    assert_eq!(stage.asked(DataSource::Zoominfo), expected);
    assert!(
        stage.asked(DataSource::Apollo).is_empty(),
        "nothing was missing"
    );
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_about_a_person_who_objects() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    for (nth, (target, reason)) in [
        ("no0@acme.com", "unsubscribed"),
        ("no1@acme.com", "complained"),
        ("acme2.com", "manual"),
    ]
    .into_iter()
    .enumerate()
    {
        let suppress = format!(
            "INSERT INTO email_suppressions (workspace_id, target, reason, source)
             VALUES ('{DEFAULT_WORKSPACE}', '{target}', '{reason}', 'api')"
        );
        stage.rig.sql(suppress).await;
        let host = target.rsplit('@').next().unwrap();
        let who = json!({ "email": format!("No{nth}@{host}") });
        let contact = stage.contact(DEFAULT_WORKSPACE, &who).await;
        let before = stage.contact_row(contact).await;
        let result = stage.filled(contact, json!({ "overwrite": true })).await;
        assert_eq!(result["objections"], json!([reason]), "{result}");
        assert_eq!(result["providers"], json!([]));
        assert_eq!(stage.contact_row(contact).await, before);
    }
    assert!(stage.simulator.seen().is_empty());
    // An address that does not work is a reason to ask, not to leave it.
    let bounced = format!(
        "INSERT INTO email_suppressions (workspace_id, target, reason, source)
         VALUES ('{DEFAULT_WORKSPACE}', 'yes@acme.com', 'bounced', 'smtp')"
    );
    stage.rig.sql(bounced).await;
    let contact = stage
        .contact(DEFAULT_WORKSPACE, &json!({ "email": "yes@acme.com" }))
        .await;
    assert_eq!(stage.filled(contact, json!({})).await["matched"], true);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_another_contact_has_is_not_taken_from_it() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let owner = stage
        .contact(
            DEFAULT_WORKSPACE,
            &json!({ "email": "Bob.Ray@Example.com" }),
        )
        .await;
    let elsewhere = stage
        .contact(OTHER, &json!({ "email": "eve.poe@example.com" }))
        .await;
    let page =
        |name: &str| json!({ "linkedin_url": format!("https://www.linkedin.com/in/{name}") });
    let twin = stage.contact(DEFAULT_WORKSPACE, &page("bob-ray")).await;
    let result = stage.filled(twin, json!({})).await;
    assert_eq!(result["fields"]["email"]["fate"], "taken", "{result}");
    assert_eq!(result["fields"]["title"]["fate"], "written");
    assert!(stage.contact_row(twin).await["email"].is_null());
    assert_eq!(
        stage.contact_row(owner).await["email"],
        "Bob.Ray@Example.com"
    );
    let eve = stage.contact(DEFAULT_WORKSPACE, &page("eve-poe")).await;
    let result = stage.filled(eve, json!({})).await;
    assert_eq!(result["fields"]["email"]["fate"], "written", "{result}");
    assert_eq!(stage.contact_row(elsewhere).await["title"], json!(null));
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_wrote_of_a_contact_stays() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let contact = stage
        .contact(DEFAULT_WORKSPACE, &json!({ "email": "ann.lee@acme.com" }))
        .await;
    stage
        .filled(contact, json!({ "enrich_fields": ["title"] }))
        .await;
    let edit = format!("UPDATE contacts SET title = 'Boss' WHERE id = '{contact}'");
    stage.rig.sql(edit).await;
    let wish = json!({ "overwrite": true, "providers": ["clearbit", "zoominfo"] });
    stage.filled(contact, wish).await;
    let row = stage.contact_row(contact).await;
    assert_eq!(
        (&row["title"], &row["city"]),
        (&json!("Boss"), &json!("Berlin"))
    );
    working.hurry().await;
    stage.end().await;
}
