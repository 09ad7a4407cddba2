//! Records of a page that have to wait: the others go on.

use bullwark::handlers::providers::DataSource;
use bullwark::handlers::simulator::Turn;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};

use super::Stage;
use super::many::{domains, wish};
use crate::stage::eventually;

impl Stage {
    /// The only page of an enrichment, once it waits in this status.
    async fn waiting(&self, status: &str) -> Value {
        let page = "SELECT id FROM jobs WHERE job_type = 'enrich_page'".to_owned();
        let page = self.value(page).await.as_str().unwrap().to_owned();
        let path = format!("/api/jobs/{page}");
        eventually("the page waits", async || {
            let job = self.rig.server.get(&path).await.body["job"].clone();
            let is_put_off = match status {
                "pending" => job["scheduled_for"].is_string(),
                _ => true,
            };
            (job["status"] == status && is_put_off).then_some(job)
        })
        .await
    }

    async fn promote(&self, page: &Value) {
        let path = format!("/api/jobs/{}/promote", page["id"].as_str().unwrap());
        let promoted = self.rig.server.post(&path, Value::Null).await;
        assert_eq!(promoted.status, 200, "{promoted:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_being_looked_for_keeps_no_other_of_its_page_waiting() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.accounts(DEFAULT_WORKSPACE, &domains("firm", 6)).await;
    let turns = [Turn::Fine, Turn::StillLooking, Turn::Status(500)];
    stage.simulator.script(DataSource::Clearbit, turns);
    let how = json!({ "provider": "clearbit" });
    let id = stage.begin(wish(json!({ "how": how }))).await;
    let page = stage.waiting("pending").await;
    assert_eq!(page["attempts"], 0, "to wait is no failure: {page}");
    let due: chrono::DateTime<chrono::Utc> =
        page["scheduled_for"].as_str().unwrap().parse().unwrap();
    let left = (due - bullwark::clock::now()).num_seconds();
    assert!((100..=125).contains(&left), "{left}: the longest wait");
    let sums = stage.shown(&id).await["summary"].clone();
    assert_eq!(
        (&sums["enriched"], &sums["not_done"]),
        (&json!(4), &json!(2)),
        "{sums}"
    );
    let over = "UPDATE bullwark.enrichment_lookups SET busy_until = now() WHERE call_id IS NULL";
    stage.rig.sql(over.to_owned()).await;
    stage.promote(&page).await;
    let sums = stage.sums(&id).await;
    let counted = (&sums["enriched"], &sums["not_done"], &sums["credits"]);
    assert_eq!(counted, (&json!(6), &json!(0), &json!(6)), "{sums}");
    assert_eq!(stage.calls(DataSource::Clearbit), 8);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_about_several_that_fails_stops_neither_the_others_nor_is_it_asked_ten_times() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage
        .accounts(DEFAULT_WORKSPACE, &domains("firm", 25))
        .await;
    stage
        .simulator
        .script(DataSource::Apollo, [Turn::Fine, Turn::Status(500)]);
    let id = stage.begin(wish(json!({}))).await;
    let page = stage.waiting("failed").await;
    assert_eq!(page["attempts"], 1, "{page}");
    let sums = stage.shown(&id).await["summary"].clone();
    assert_eq!(
        (&sums["enriched"], &sums["not_done"]),
        (&json!(15), &json!(10)),
        "{sums}"
    );
    assert_eq!(stage.calls(DataSource::Apollo), 3);
    stage.promote(&page).await;
    let sums = stage.sums(&id).await;
    let counted = (&sums["enriched"], &sums["not_done"], &sums["credits"]);
    assert_eq!(counted, (&json!(25), &json!(0), &json!(25)), "{sums}");
    assert_eq!(stage.calls(DataSource::Apollo), 4);
    working.hurry().await;
    stage.end().await;
}
