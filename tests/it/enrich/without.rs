//! Several providers, one of which can not be asked or fails: what the others know is not lost.

use bullwark::handlers::providers::DataSource;
use bullwark::handlers::simulator::Turn;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Stage;
use crate::stage::eventually;
use crate::support::server::send;

/// Clearbit knows the first of them, the others both.
fn several() -> Value {
    json!({
        "enrich_fields": ["employee_count", "revenue"],
        "providers": ["clearbit", "zoominfo", "apollo"],
    })
}

impl Stage {
    async fn connection_to(&self, provider: &str) -> String {
        let all = self.rig.server.get("/api/connections").await.body;
        let all = all["connections"].as_array().unwrap();
        let one = all.iter().find(|one| one["provider"] == provider).unwrap();
        format!("/api/connections/{}", one["id"].as_str().unwrap())
    }

    /// What Clearbit has sold is written, and Apollo was asked for the rest.
    async fn is_enriched_without_zoominfo(&self, account: Uuid, result: &Value) {
        assert_eq!(
            result["fields"]["employee_count"]["source"], "clearbit",
            "{result}"
        );
        assert!(self.row(account).await["employee_count"].is_number());
        let said: Vec<&str> = result["providers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["said"].as_str().unwrap())
            .collect();
        assert_eq!(said[..2], ["known", "failed"], "{result}");
        assert_eq!(said.len(), 3, "the next one is asked: {result}");
        assert!(result["providers"][1]["why"].is_string(), "{result}");
        let rest = &result["fields"]["annual_revenue"]["source"];
        assert_eq!(rest, "apollo", "{result}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_keeps_nobody_from_what_the_others_know() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage
        .simulator
        .script(DataSource::Zoominfo, [Turn::Status(422)]);
    let account = stage.account("acme.com").await;
    let result = stage.enriched(account, several()).await;
    stage.is_enriched_without_zoominfo(account, &result).await;
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_not_connected_or_out_of_service_is_done_without() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let path = stage.connection_to("zoominfo").await;
    let paused = stage.rig.patch(&path, json!({ "isActive": false })).await;
    assert_eq!(paused.status, 200, "{paused:?}");
    let account = stage.account("paused.com").await;
    let result = stage.enriched(account, several()).await;
    stage.is_enriched_without_zoominfo(account, &result).await;
    let gone = send(stage.rig.server.request(Method::DELETE, &path)).await;
    assert!(gone.status < 300, "{gone:?}");
    let account = stage.account("gone.com").await;
    let result = stage.enriched(account, several()).await;
    stage.is_enriched_without_zoominfo(account, &result).await;
    // Alone, it is waited for, or the job says what is missing.
    let alone = json!({ "provider": "zoominfo" });
    let job = stage.enqueue(stage.account("alone.com").await, alone).await;
    let dead = stage.rig.until(&job, "dead_letter").await;
    let why = dead["error_message"].as_str().unwrap();
    assert!(why.contains("no connection to zoominfo"), "{why}");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_always_is_done_without_in_the_end() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage
        .simulator
        .script(DataSource::Zoominfo, vec![Turn::Status(500); 4]);
    let account = stage.account("acme.com").await;
    let job = stage.enqueue(account, several()).await;
    for failures in 1..=2 {
        eventually("it failed", async || {
            let shown = stage.rig.server.get(&format!("/api/jobs/{job}")).await;
            let shown = &shown.body["job"];
            (shown["status"] == "failed" && shown["attempts"] == failures).then_some(())
        })
        .await;
        eventually("it may be promoted", async || {
            let path = format!("/api/jobs/{job}/promote");
            let answer = stage.rig.server.post(&path, Value::Null).await;
            (answer.status == 200).then_some(())
        })
        .await;
    }
    let result = stage.rig.until(&job, "completed").await["result"].clone();
    stage.is_enriched_without_zoominfo(account, &result).await;
    assert_eq!(stage.calls(DataSource::Clearbit), 1, "paid for once");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_answers_the_job_says_what_is_wrong() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    for source in DataSource::ALL {
        stage.simulator.script(source, [Turn::Status(422)]);
    }
    let job = stage
        .enqueue(stage.account("acme.com").await, several())
        .await;
    let dead = stage.rig.until(&job, "dead_letter").await;
    let why = dead["error_message"].as_str().unwrap();
    assert!(why.contains("clearbit") && why.contains("422"), "{why}");
    working.hurry().await;
    stage.end().await;
}
