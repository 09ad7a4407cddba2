//! What is kept in reserve of a quota: for single jobs that somebody waits for.

use bullwark::handlers::providers::DataSource;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use reqwest::Method;
use serde_json::{Value, json};

use super::many::{domains, wish};
use super::{Stage, job};
use crate::stage::eventually;
use crate::support::server::send;

impl Stage {
    /// Ten calls a day, half of them in reserve.
    async fn keep_five_of_ten(&self) {
        let window = json!({ "kind": "fixed", "max": 10, "perMs": 86_400_000 });
        let limits = json!({ "windows": [window], "reservePercent": 50 });
        let path = "/api/quotas/clearbit";
        let put = self.rig.server.request(Method::PUT, path).json(&limits);
        assert_eq!(send(put).await.status, 200);
    }

    async fn enqueue_as(&self, domain: &str, priority: u8) -> String {
        let mut job = job(self.account(domain).await, json!({}));
        job["priority"] = json!(priority);
        self.rig.enqueue(job).await
    }

    async fn until_put_off(&self, job: &str) {
        let path = format!("/api/jobs/{job}");
        eventually("the job waits for quota", async || {
            let job = self.rig.server.get(&path).await.body["job"].clone();
            (job["status"] == "pending" && job["scheduled_for"].is_string()).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_the_highest_priorities_use_the_reserve_and_others_leave_it_to_them() {
    let stage = Stage::new().await;
    stage.keep_five_of_ten().await;
    let working = stage.rig.work();
    for n in 0..5 {
        let job = stage.enqueue_as(&format!("firm{n}.com"), 0).await;
        stage.rig.until(&job, "completed").await;
    }
    for priority in [0, 7] {
        let job = stage
            .enqueue_as(&format!("late{priority}.com"), priority)
            .await;
        stage.until_put_off(&job).await;
    }
    for priority in 8..=10 {
        let job = stage
            .enqueue_as(&format!("asked{priority}.com"), priority)
            .await;
        stage.rig.until(&job, "completed").await;
    }
    assert_eq!(stage.calls(DataSource::Clearbit), 8);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_an_enrichment_leaves_the_reserve_whatever_its_priority_is() {
    let stage = Stage::new().await;
    stage.keep_five_of_ten().await;
    stage.accounts(DEFAULT_WORKSPACE, &domains("firm", 7)).await;
    let how = json!({ "provider": "clearbit" });
    stage.begin(wish(json!({ "how": how }))).await;
    stage.rig.tell().await;
    let page = "SELECT id FROM jobs WHERE job_type = 'enrich_page'".to_owned();
    let page: Value = stage.value(page).await;
    let page = page.as_str().unwrap();
    let (broker, queue) = (&stage.rig.server.app.broker, "default".parse().unwrap());
    let changed = broker.change_priority(&queue, page, 1, false).await;
    assert_eq!(changed.unwrap(), bullwark::broker::Moved::Done);
    let working = stage.rig.work();
    stage.until_put_off(page).await;
    assert_eq!(stage.calls(DataSource::Clearbit), 5);
    let asked = stage.enqueue_as("asked.com", 8).await;
    stage.rig.until(&asked, "completed").await;
    working.hurry().await;
    stage.end().await;
}
