//! What people write in the CRM, and a synchronization brings, stays as what they write here.

use bullwark::handlers::providers::DataSource;
use bullwark::handlers::simulator::hubspot::{HubspotSimulator, TOKEN};
use serde_json::{Value, json};

use super::Stage;

impl Stage {
    async fn hubspot(&self) -> HubspotSimulator {
        let hubspot = HubspotSimulator::start("127.0.0.1:0".parse().unwrap(), &self.tasks);
        let hubspot = hubspot.await.unwrap();
        let wish = json!({
            "provider": "hubspot", "name": "hubspot", "baseUrl": hubspot.url(),
            "credentials": { "access_token": TOKEN },
        });
        let made = self.rig.server.post("/api/connections", wish).await;
        assert_eq!(made.status, 201, "{made:?}");
        hubspot
    }

    /// Both ways, to its end.
    async fn synced(&self) {
        let payload = json!({
            "crm_provider": "hubspot", "sync_direction": "bidirectional",
            "entity_types": ["contacts", "accounts"],
        });
        let job = json!({ "jobType": "sync_crm", "payload": payload });
        let job = self.rig.enqueue(job).await;
        self.rig.until(&job, "completed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_wrote_or_emptied_in_the_crm_stays_unless_it_is_to_be_overwritten() {
    let stage = Stage::new().await;
    let hubspot = stage.hubspot().await;
    let working = stage.rig.work();
    let acme = stage.account("acme.com").await;
    let never = stage.account("never.com").await;
    let fields = || json!(["city", "country", "description"]);
    let wish = || json!({ "provider": "apollo", "enrich_fields": fields() });
    stage.enriched(acme, wish()).await;
    stage.synced().await;
    let there = |domain: &str| {
        let all = hubspot.records("companies").into_iter();
        let mut found = all.filter(|kept| kept.properties["domain"] == domain);
        found.next().unwrap()
    };
    let company = there("acme.com");
    assert_eq!(company.properties["city"], "San Francisco", "it came there");
    // Somebody empties one field there, and writes another.
    let change = json!({ "city": "", "country": "Portugal" });
    hubspot.change("companies", &company.id, change);
    stage.synced().await;
    let row = stage.row(acme).await;
    assert!(row["city"].is_null(), "it came here: {row}");
    let asked = stage.asked(DataSource::Apollo);

    let result = stage.enriched(acme, wish()).await;
    assert_eq!(result["kept"], json!(["city", "country"]), "{result}");
    let after = stage.row(acme).await;
    assert_eq!(
        (&after["city"], &after["country"]),
        (&Value::Null, &row["country"])
    );
    assert_eq!(stage.asked(DataSource::Apollo), asked, "nobody pays for it");
    stage.synced().await;
    let city = there("acme.com").properties.get("city").cloned();
    let city = city.unwrap_or_default();
    assert!(city.is_null() || city == "", "nor does it go back: {city}");

    // What nobody ever wrote is filled, in the same workspace.
    let result = stage.enriched(never, wish()).await;
    assert_eq!(result["fields"]["city"]["fate"], "written", "{result}");
    // A new answer, and the wish to have it all the same.
    let older =
        "UPDATE bullwark.enrichment_lookups SET fetched_at = fetched_at - interval '3 days'";
    stage.rig.sql(older.to_owned()).await;
    let mut all_the_same = wish();
    all_the_same["overwrite"] = json!(true);
    all_the_same["max_age_days"] = json!(1);
    let result = stage.enriched(acme, all_the_same).await;
    assert_eq!(result["fields"]["city"]["fate"], "written", "{result}");
    assert_eq!(result["fields"]["country"]["fate"], "written", "{result}");
    assert_eq!(stage.row(acme).await["city"], "San Francisco");
    working.hurry().await;
    stage.end().await;
}
