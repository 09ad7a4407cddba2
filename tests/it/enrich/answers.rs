//! What each answer of a provider means for the job, and for the jobs after it.

use std::time::Duration;

use bullwark::handlers::providers::DataSource;
use bullwark::handlers::simulator::{Style, Turn};
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};

use super::{Stage, contacts};
use crate::stage::eventually;

impl Stage {
    /// Enqueues an enrichment of a new person.
    async fn person(&self, email: &str, provider: &str) -> String {
        let who = json!({ "email": email });
        let contact = self.contact(DEFAULT_WORKSPACE, &who).await;
        let wish = json!({ "provider": provider });
        self.rig.enqueue(contacts::job(contact, wish)).await
    }
}

/// Waits until a job was put off; no attempt was spent.
async fn put_off(stage: &Stage, job: &str) -> Value {
    let job = eventually("the job waits", async || {
        let job = stage.rig.until(job, "pending").await;
        job["scheduled_for"].is_string().then_some(job)
    })
    .await;
    assert_eq!(job["attempts"], 0, "{job}");
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_tried_again_and_never_taken_for_an_unknown_company() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    for (nth, (turn, status, words)) in [
        (Turn::Status(500), "failed", "answered 500"),
        (Turn::Status(408), "failed", "answered 408"),
        (Turn::Status(422), "dead_letter", "answered 422"),
        (Turn::Status(400), "dead_letter", "answered 400"),
    ]
    .into_iter()
    .enumerate()
    {
        stage.simulator.script(DataSource::Clearbit, [turn.clone()]);
        let account = stage.account(&format!("company{nth}.com")).await;
        let job = stage.enqueue(account, json!({})).await;
        let ended = stage.rig.until(&job, status).await;
        let why = ended["error_message"].as_str().unwrap();
        assert!(why.contains(words), "{turn:?}: {why}");
        assert!(!why.contains("hush"), "{why}");
        // Nothing is kept, and nobody holds the question: the next one gets the answer.
        let result = stage.enriched(account, json!({})).await;
        assert_eq!(result["matched"], true, "{turn:?}: {result}");
    }
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_closes_the_provider_for_all_jobs_whatever_way_it_says_so() {
    for style in [Style::Seconds(40), Style::Date(40), Style::Vendor(40)] {
        let stage = Stage::new().await;
        let working = stage.rig.work();
        let limited = Turn::Limited(style);
        stage.simulator.script(DataSource::Clearbit, [limited]);
        let mut waiting = Vec::new();
        for domain in ["one.com", "two.com"] {
            let account = stage.account(domain).await;
            let job = stage.enqueue(account, json!({})).await;
            let waits = put_off(&stage, &job).await;
            let until: chrono::DateTime<chrono::Utc> =
                waits["scheduled_for"].as_str().unwrap().parse().unwrap();
            let left = (until - bullwark::clock::now()).num_seconds();
            assert!((30..=45).contains(&left), "{style:?}: {left}");
            waiting.push(job);
        }
        assert_eq!(
            stage.simulator.seen().len(),
            1,
            "{style:?}: the second did not call"
        );
        // Another provider goes on.
        let account = stage.account("three.com").await;
        stage
            .enriched(account, json!({ "provider": "apollo" }))
            .await;
        // People are the same provider's.
        let one = stage.person("four.five@acme.com", "clearbit").await;
        put_off(&stage, &one).await;
        assert_eq!(stage.asked(DataSource::Clearbit).len(), 1, "{style:?}");
        working.hurry().await;
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_about_a_person_closes_the_provider_whatever_way_it_says_so() {
    for style in [Style::Seconds(40), Style::Date(40), Style::Vendor(40)] {
        let stage = Stage::new().await;
        let working = stage.rig.work();
        let limited = Turn::Limited(style);
        stage.simulator.script(DataSource::Clearbit, [limited]);
        for email in ["one.lee@acme.com", "two.lee@acme.com"] {
            let job = stage.person(email, "clearbit").await;
            let waits = put_off(&stage, &job).await;
            let until: chrono::DateTime<chrono::Utc> =
                waits["scheduled_for"].as_str().unwrap().parse().unwrap();
            let left = (until - bullwark::clock::now()).num_seconds();
            assert!((30..=45).contains(&left), "{style:?}: {left}");
        }
        assert_eq!(stage.simulator.seen().len(), 1, "{style:?}: one called");
        let other = stage.person("six.lee@acme.com", "apollo").await;
        stage.rig.until(&other, "completed").await;
        let written = "SELECT count(*) FROM contacts WHERE title IS NOT NULL";
        assert_eq!(stage.value(written.to_owned()).await, 1, "another goes on");
        working.hurry().await;
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_company_that_is_being_looked_for_makes_jobs_wait() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage
        .simulator
        .script(DataSource::Clearbit, [Turn::StillLooking]);
    let account = stage.account("acme.com").await;
    let looking = stage.enqueue(account, json!({})).await;
    put_off(&stage, &looking).await;
    let second = stage.enqueue(account, json!({})).await;
    put_off(&stage, &second).await;
    assert_eq!(
        stage.simulator.seen().len(),
        1,
        "nobody asks before it is time"
    );
    // The time has come.
    let due = "UPDATE bullwark.enrichment_lookups SET busy_until = now()";
    stage.rig.sql(due.to_owned()).await;
    for job in [&looking, &second] {
        let promote = format!("/api/jobs/{job}/promote");
        stage.rig.server.post(&promote, Value::Null).await;
        stage.rig.until(job, "completed").await;
    }
    assert_eq!(stage.simulator.seen().len(), 2);

    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn used_up_credits_are_seen_by_one_job_and_the_others_wait() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.simulator.credits(DataSource::Clearbit, 0);
    for nth in 0..3 {
        let account = stage.account(&format!("poor{nth}.com")).await;
        let job = stage.enqueue(account, json!({})).await;
        put_off(&stage, &job).await;
    }
    assert_eq!(stage.simulator.seen().len(), 1, "one has looked");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_rest_their_connection_and_are_not_told() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.simulator.refuse("hush");
    for source in DataSource::ALL {
        let provider = source.as_str();
        let account = stage.account(&format!("{provider}.com")).await;
        let job = stage
            .enqueue(account, json!({ "provider": provider }))
            .await;
        let waits = put_off(&stage, &job).await;
        assert!(!waits.to_string().contains("hush"), "{waits}");
        let paused = format!(
            "SELECT paused_reason FROM connections WHERE provider = '{provider}' AND NOT is_active"
        );
        let why = stage.value(paused).await.to_string();
        assert!(why.contains("refuses its credentials"), "{why}");
    }
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_about_a_person_that_is_not_allowed_rests_its_connection() {
    for status in [401, 403] {
        let stage = Stage::new().await;
        let working = stage.rig.work();
        for source in DataSource::ALL {
            let provider = source.as_str();
            // A token is renewed once, and refused again.
            let turns = vec![Turn::Status(status); 2];
            stage.simulator.script(source, turns);
            let job = stage
                .person(&format!("ann.{provider}@acme.com"), provider)
                .await;
            let waits = put_off(&stage, &job).await;
            assert!(!waits.to_string().contains("hush"), "{waits}");
            let paused = format!(
                "SELECT paused_reason FROM connections
                 WHERE provider = '{provider}' AND NOT is_active"
            );
            let why = stage.value(paused).await.to_string();
            assert!(why.contains("refuses its credentials"), "{status}: {why}");
            // Nobody asks with it any more.
            let calls = stage.simulator.seen().len();
            let next = stage
                .person(&format!("bob.{provider}@acme.com"), provider)
                .await;
            put_off(&stage, &next).await;
            assert_eq!(stage.simulator.seen().len(), calls, "{status} {provider}");
        }
        let written = "SELECT count(*) FROM contacts WHERE title IS NOT NULL";
        assert_eq!(stage.value(written.to_owned()).await, 0);
        working.hurry().await;
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_log_in_serves_many_calls() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    for domain in ["one.com", "two.com"] {
        let account = stage.account(domain).await;
        stage
            .enriched(account, json!({ "provider": "zoominfo" }))
            .await;
    }
    assert_eq!(stage.simulator.log_ins(), 1);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_early_is_renewed_in_the_same_attempt() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let wish = || json!({ "provider": "zoominfo" });
    let first = stage.account("first.com").await;
    stage.enriched(first, wish()).await;
    stage.simulator.end_tokens();
    let mut jobs = Vec::new();
    for nth in 0..4 {
        let account = stage.account(&format!("company{nth}.com")).await;
        jobs.push(stage.enqueue(account, wish()).await);
    }
    for job in &jobs {
        let done = stage.rig.until(job, "completed").await;
        assert_eq!(done["attempts"], 0, "{done}");
    }
    assert_eq!(stage.simulator.log_ins(), 2, "one renewed it for all");
    let active = "SELECT count(*) FROM connections WHERE is_active".to_owned();
    assert_eq!(stage.value(active).await, 3);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_kept_although_its_job_was_cancelled_meanwhile() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let slow = Turn::Slow(Duration::from_secs(2));
    stage.simulator.script(DataSource::Clearbit, [slow]);
    let account = stage.account("acme.com").await;
    let job = stage.enqueue(account, json!({})).await;
    eventually("the provider was asked", async || {
        (!stage.simulator.seen().is_empty()).then_some(())
    })
    .await;
    let (path, change) = (format!("/api/jobs/{job}"), json!({ "status": "cancelled" }));
    let cancelled = stage.rig.patch(&path, change).await;
    assert_eq!(cancelled.status, 200);
    let kept = "SELECT count(*) FROM bullwark.enrichment_lookups WHERE answer IS NOT NULL";
    eventually("what was paid for is kept", async || {
        (stage.value(kept.to_owned()).await == 1).then_some(())
    })
    .await;
    assert!(stage.row(account).await["industry"].is_null());
    stage.enriched(account, json!({})).await;
    assert_eq!(stage.simulator.seen().len(), 1, "nobody paid again");
    working.hurry().await;
    stage.end().await;
}
