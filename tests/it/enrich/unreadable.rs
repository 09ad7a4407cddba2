//! Answers that were paid for and can not be read: they are not bought again at once.

use bullwark::handlers::providers::DataSource;
use bullwark::handlers::simulator::Turn;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};

use super::Stage;
use super::many::{domains, wish};

/// More than an answer about one record may have.
const TOO_LARGE: usize = 600 * 1024;

impl Stage {
    /// As if so many minutes had passed since answers could not be read.
    async fn minutes_pass(&self, minutes: u32) {
        self.rig
            .sql(format!(
                "UPDATE bullwark.enrichment_lookups
                 SET unreadable_at = unreadable_at - interval '{minutes} minutes',
                   busy_until = busy_until - interval '{minutes} minutes'"
            ))
            .await;
    }
}

fn said(result: &Value) -> &Value {
    &result["providers"]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_can_not_be_read_is_not_bought_again_and_the_next_provider_is_asked() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let unreadable = json!({ "provider": "clearbit", "said": "unreadable", "from_cache": false });
    for (nth, turn) in [Turn::Nonsense, Turn::CutOff, Turn::Large(TOO_LARGE)]
        .into_iter()
        .enumerate()
    {
        stage.simulator.script(DataSource::Clearbit, [turn.clone()]);
        let account = stage.account(&format!("company{nth}.com")).await;
        let both = || json!({ "providers": ["clearbit", "apollo"], "enrich_fields": ["industry"] });
        let job = stage.enqueue(account, both()).await;
        let done = stage.rig.until(&job, "completed").await;
        assert_eq!(done["attempts"], 0, "{turn:?}: {done}");
        let apollo = json!({ "provider": "apollo", "said": "known", "from_cache": false });
        assert_eq!(said(&done["result"]), &json!([unreadable, apollo]));
        assert!(stage.row(account).await["industry"].is_string());
        // Lines of logs are written behind.
        let path = format!("/api/jobs/{job}/logs");
        crate::stage::eventually("the log tells it", async || {
            let logs = stage.rig.server.get(&path).await.body.to_string();
            logs.contains("unreadable answer of clearbit").then_some(())
        })
        .await;

        // Neither does another job buy it, for a while.
        let alone = || json!({ "enrich_fields": ["city"] });
        stage.minutes_pass(58).await;
        let result = stage.enriched(account, alone()).await;
        let kept = json!([{ "provider": "clearbit", "said": "unreadable" }]);
        assert_eq!((said(&result), &result["matched"]), (&kept, &json!(false)));
        assert_eq!(stage.asked(DataSource::Clearbit).len(), 2 * nth + 1);
        stage.minutes_pass(3).await;
        let result = stage.enriched(account, alone()).await;
        assert_eq!(result["matched"], true, "{result}");
        assert_eq!(stage.asked(DataSource::Clearbit).len(), 2 * nth + 2);
    }
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_about_several_that_can_not_be_read_is_bought_once() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.accounts(DEFAULT_WORKSPACE, &domains("firm", 4)).await;
    stage.simulator.script(DataSource::Apollo, [Turn::CutOff]);
    let id = stage.begin(wish(json!({}))).await;
    let sums = stage.sums(&id).await;
    let counted = (&sums["failed"], &sums["credits"], &sums["from_cache"]);
    assert_eq!(counted, (&json!(4), &json!(4), &json!(0)), "{sums}");
    assert_eq!(
        sums["failures"],
        json!({ "unreadable answer of apollo": 4 })
    );
    let apollo = &sums["providers"]["apollo"];
    assert_eq!(
        (&apollo["asked"], &apollo["matched"]),
        (&json!(4), &json!(0))
    );
    assert_eq!(stage.calls(DataSource::Apollo), 1, "nor record by record");

    // Another enrichment soon after asks whom it may ask.
    let how = json!({ "providers": ["apollo", "clearbit"], "enrich_fields": ["industry"] });
    let id = stage.begin(wish(json!({ "how": how }))).await;
    let sums = stage.sums(&id).await;
    let counted = (&sums["enriched"], &sums["failed"], &sums["credits"]);
    assert_eq!(counted, (&json!(4), &json!(0), &json!(4)), "{sums}");
    assert_eq!(sums["providers"]["clearbit"]["credits"], 4, "{sums}");
    assert_eq!(sums["failures"], json!({}), "{sums}");
    assert_eq!(stage.calls(DataSource::Apollo), 1);
    let lines = "SELECT count(*) FROM bullwark.enrichment_items
        WHERE message = 'unreadable answer of apollo'";
    assert_eq!(stage.value(lines.to_owned()).await, 8);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_about_ten_may_be_ten_times_as_large() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage
        .accounts(DEFAULT_WORKSPACE, &domains("firm", 10))
        .await;
    let large = Turn::Large(7 * TOO_LARGE);
    stage.simulator.script(DataSource::Apollo, [large]);
    let id = stage.begin(wish(json!({}))).await;
    let sums = stage.sums(&id).await;
    assert_eq!(
        (&sums["enriched"], &sums["failed"]),
        (&json!(10), &json!(0)),
        "{sums}"
    );
    assert_eq!(stage.calls(DataSource::Apollo), 1);
    working.hurry().await;
    stage.end().await;
}
