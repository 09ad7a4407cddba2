//! `enrich_contact`: who is looked up by what, what is written, and whom nobody asks about.

use std::time::Duration;

use bullwark::handlers::providers::DataSource;
use bullwark::handlers::simulator::Turn;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{OTHER, Stage};
use crate::stage::eventually;

fn job(contact: Uuid, more: Value) -> Value {
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
    async fn contact(&self, workspace: Uuid, columns: &Value) -> Uuid {
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

    async fn contact_row(&self, contact: Uuid) -> Value {
        let sql = format!("SELECT to_jsonb(c) FROM contacts c WHERE id = '{contact}'");
        self.value(sql).await
    }

    async fn filled(&self, contact: Uuid, more: Value) -> Value {
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

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_about_a_person_means_what_it_means_about_a_company() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    for (nth, (turn, status, words)) in [
        (Turn::Status(500), "failed", "answered 500"),
        (Turn::Nonsense, "failed", "not documented to answer"),
        (Turn::CutOff, "failed", "not documented to answer"),
        (Turn::Status(422), "dead_letter", "answered 422"),
    ]
    .into_iter()
    .enumerate()
    {
        for source in [DataSource::Apollo, DataSource::Clearbit] {
            stage.simulator.script(source, [turn.clone()]);
            let provider = source.as_str();
            let who = json!({ "email": format!("person{nth}.{provider}@acme.com") });
            let contact = stage.contact(DEFAULT_WORKSPACE, &who).await;
            let wish = json!({ "provider": provider });
            let id = stage.rig.enqueue(job(contact, wish.clone())).await;
            let ended = stage.rig.until(&id, status).await;
            let why = ended["error_message"].as_str().unwrap();
            assert!(
                why.contains(words) && !why.contains("hush"),
                "{turn:?}: {why}"
            );
            let result = stage.filled(contact, wish).await;
            assert_eq!(result["matched"], true, "{turn:?}: {result}");
        }
    }
    let nobody = stage
        .contact(
            DEFAULT_WORKSPACE,
            &json!({ "email": "unknown.one@acme.com" }),
        )
        .await;
    for provider in ["clearbit", "zoominfo", "apollo"] {
        for _ in 0..2 {
            let result = stage.filled(nobody, json!({ "provider": provider })).await;
            assert_eq!(result["matched"], false, "{provider}: {result}");
        }
        let asked = format!(
            "SELECT count(*) FROM bullwark.enrichment_lookups
             WHERE kind = 'person' AND provider = '{provider}' AND answer IS NULL"
        );
        assert_eq!(stage.value(asked).await, 1);
    }
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_is_being_looked_for_makes_the_job_wait() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage
        .simulator
        .script(DataSource::Clearbit, [Turn::StillLooking]);
    let contact = stage
        .contact(DEFAULT_WORKSPACE, &json!({ "email": "ann.lee@acme.com" }))
        .await;
    let id = stage
        .rig
        .enqueue(job(contact, json!({ "provider": "clearbit" })))
        .await;
    eventually("the job waits", async || {
        let job = stage.rig.until(&id, "pending").await;
        job["scheduled_for"].is_string().then_some(())
    })
    .await;
    let due = "UPDATE bullwark.enrichment_lookups SET busy_until = now()";
    stage.rig.sql(due.to_owned()).await;
    let promote = format!("/api/jobs/{id}/promote");
    stage.rig.server.post(&promote, Value::Null).await;
    let done = stage.rig.until(&id, "completed").await;
    assert_eq!(done["attempts"], 0, "{done}");
    assert_eq!(stage.simulator.seen().len(), 2);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_early_is_renewed_for_people_and_companies() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let account = stage.account("first.com").await;
    stage
        .enriched(account, json!({ "provider": "zoominfo" }))
        .await;
    stage.simulator.end_tokens();
    let contact = stage
        .contact(DEFAULT_WORKSPACE, &json!({ "email": "ann.lee@acme.com" }))
        .await;
    let id = stage
        .rig
        .enqueue(job(contact, json!({ "provider": "zoominfo" })))
        .await;
    let done = stage.rig.until(&id, "completed").await;
    assert_eq!(done["attempts"], 0, "{done}");
    assert_eq!(stage.simulator.log_ins(), 2, "both kinds share one token");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_behind_the_answer_buys_no_second_person() {
    let stage = Stage::new().await;
    let contact = stage
        .contact(DEFAULT_WORKSPACE, &json!({ "email": "ann.lee@acme.com" }))
        .await;
    let mut wish = job(contact, json!({}));
    wish["queue"] = json!("webhooks");
    let id = stage.rig.enqueue(wish).await;
    stage
        .rig
        .work_until_it_dies("before_transaction_commit:abort")
        .await;
    assert_eq!(stage.asked(DataSource::Apollo).len(), 1);
    let row = stage.contact_row(contact).await;
    assert!(row["title"].is_null(), "nothing of it was committed: {row}");
    let (rescue, working) = (stage.rig.rescue(), stage.rig.work());
    stage.rig.until(&id, "completed").await;
    let row = stage.contact_row(contact).await;
    assert_eq!(row["title"], "Head of Engineering");
    assert_eq!(stage.simulator.spent(DataSource::Apollo), 1);
    let count =
        |table: &str| format!("SELECT count(*) FROM {table} WHERE contact_id = '{contact}'");
    assert_eq!(
        stage.value(count("contact_versions")).await,
        2,
        "written once"
    );
    assert_eq!(stage.value(count("contact_activities")).await, 1);
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_people_of_two_workspaces_share_neither_answers_nor_credits() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let who = json!({ "email": "ann.lee@acme.com" });
    let mine = stage.contact(DEFAULT_WORKSPACE, &who).await;
    let theirs = stage.contact(OTHER, &who).await;
    let untouched = stage.contact_row(theirs).await;
    stage.filled(mine, json!({ "provider": "clearbit" })).await;
    assert_eq!(stage.contact_row(theirs).await, untouched);
    let job = job(theirs, json!({ "provider": "clearbit" }));
    let id = stage.send_elsewhere(job).await;
    eventually("the job of the other workspace is completed", async || {
        let status = format!("SELECT status FROM jobs WHERE id = '{id}'");
        (stage.value(status).await == "completed").then_some(())
    })
    .await;
    assert!(stage.contact_row(theirs).await["title"].is_string());
    assert_eq!(stage.simulator.spent(DataSource::Clearbit), 2, "each pays");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_that_can_not_be_looked_up_is_a_dead_letter_that_says_why() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let nameless = stage
        .contact(DEFAULT_WORKSPACE, &json!({ "external_id": "9" }))
        .await;
    let theirs = stage
        .contact(OTHER, &json!({ "email": "ann.lee@acme.com" }))
        .await;
    for (contact, words) in [(nameless, "can not be looked up"), (theirs, "no contact")] {
        let id = stage.rig.enqueue(job(contact, json!({}))).await;
        let dead = stage.rig.until(&id, "dead_letter").await;
        let why = dead["error_message"].as_str().unwrap();
        assert!(why.contains(words), "{why}");
    }
    assert!(stage.simulator.seen().is_empty());
    working.hurry().await;
    stage.end().await;
}
