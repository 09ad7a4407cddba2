//! Contacts: what each answer means, who pays, and what a crash leaves.

use std::time::Duration;

use bullwark::handlers::providers::DataSource;
use bullwark::handlers::simulator::Turn;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};

use super::contacts::job;
use super::{OTHER, Stage};
use crate::stage::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_about_a_person_means_what_it_means_about_a_company() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    for (nth, (turn, status, words)) in [
        (Turn::Status(500), "failed", "answered 500"),
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
    stage.simulator.script(DataSource::Apollo, [Turn::Nonsense]);
    let who = json!({ "email": "garbled.one@acme.com" });
    let garbled = stage.contact(DEFAULT_WORKSPACE, &who).await;
    for _ in 0..2 {
        let wish = json!({ "provider": "apollo" });
        let result = stage.filled(garbled, wish).await;
        assert_eq!(result["providers"][0]["said"], "unreadable", "{result}");
    }
    let asked = stage.asked(DataSource::Apollo);
    let asked = asked.iter().filter(|one| one.contains("garbled"));
    assert_eq!(asked.count(), 1, "nobody pays again");
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
             WHERE kind = 'person' AND provider = '{provider}' AND answer IS NULL
               AND unreadable_at IS NULL"
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
