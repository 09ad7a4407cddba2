//! A quota that an admin raises while jobs wait for the moment that the old one named.

use bullwark::handlers::providers::DataSource;
use bullwark::tasks::Tasks;
use reqwest::Method;
use serde_json::json;

use super::Stage;
use crate::stage::eventually;
use crate::support::server::send;

const PATH: &str = "/api/quotas/clearbit";

impl Stage {
    /// So many calls a day from now on.
    async fn allow(&self, max: u32) {
        let window = json!({ "kind": "fixed", "max": max, "perMs": 86_400_000 });
        let limits = json!({ "windows": [window] });
        let put = self.rig.server.request(Method::PUT, PATH).json(&limits);
        assert_eq!(send(put).await.status, 200);
    }

    /// Waits until so many jobs are done, and all others are put off for hours.
    async fn until_done(&self, done: u64, of: u64) {
        let what = format!("{done} of {of} are done, and the others wait");
        eventually(&what, async || {
            let jobs = "SELECT count(*) FILTER (WHERE status = 'completed') || ' ' || count(*)
                FILTER (WHERE status = 'pending' AND scheduled_for > now() + interval '20 hours')
                FROM jobs"
                .to_owned();
            let found = self.value(jobs).await;
            (found == *format!("{done} {}", of - done)).then_some(())
        })
        .await;
        assert_eq!(self.calls(DataSource::Clearbit), done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_for_tomorrow_come_when_an_admin_raises_the_quota_and_no_more_than_fit() {
    let (stage, duties) = (Stage::new().await, Tasks::new());
    let (working, app) = (stage.rig.work(), &stage.rig.server.app);
    app.start_upkeep(&duties);
    stage.allow(2).await;
    for n in 0..6 {
        let account = stage.account(&format!("firm{n}.com")).await;
        stage.enqueue(account, json!({})).await;
    }
    stage.until_done(2, 6).await;
    stage.allow(5).await;
    stage.until_done(5, 6).await;
    // Taken away, what the service is known for holds again.
    let delete = stage.rig.server.request(Method::DELETE, PATH);
    assert_eq!(send(delete).await.status, 200);
    stage.until_done(6, 6).await;
    duties.stop(std::time::Duration::from_secs(10)).await;
    working.hurry().await;
    stage.end().await;
}
