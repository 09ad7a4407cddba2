//! Addresses of people whom an enrichment knows are verified afterwards, by a job that is committed
//! with it.

use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::tasks::Tasks;
use serde_json::{Value, json};
use uuid::Uuid;

use super::dns::{Dns, Zone};
use crate::enrich::{OTHER, Stage};
use crate::stage::eventually;
use crate::webhooks::rig::Rig;

const JOBS: &str =
    "SELECT coalesce(jsonb_agg(payload -> 'contact_ids' ORDER BY created_at, id), '[]')
     FROM jobs WHERE job_type = 'verify_email'";

struct Verifying {
    stage: Stage,
    dns: Dns,
    tasks: Tasks,
}

impl Verifying {
    async fn new() -> Self {
        let tasks = Tasks::new();
        let dns = Dns::start(&tasks).await;
        for domain in ["example.com", "initech.com"] {
            dns.knows(domain, Zone::Mail("mail.example.com."));
        }
        dns.knows("mail.example.com", Zone::Address);
        let server = dns.addr.to_string();
        let settings = [
            ("BULLWARK_ALLOW_PRIVATE_ADDRESSES", "1"),
            ("BULLWARK_DNS_SERVERS", server.as_str()),
        ];
        let stage = Stage::on(Rig::with(&settings).await).await;
        Self { stage, dns, tasks }
    }

    async fn person(&self, page: &str) -> Uuid {
        let columns = json!({ "linkedin_url": format!("https://www.linkedin.com/in/{page}") });
        self.stage.contact(DEFAULT_WORKSPACE, &columns).await
    }

    async fn enriched(&self, contact: Uuid, more: &Value) -> Value {
        let mut payload = json!({ "contact_id": contact, "provider": "apollo" });
        for (name, value) in more.as_object().unwrap() {
            payload[name] = value.clone();
        }
        let job = json!({ "jobType": "enrich_contact", "payload": payload });
        let id = self.stage.rig.enqueue(job).await;
        self.stage.rig.until(&id, "completed").await["result"].clone()
    }

    /// Whom each job verifies.
    async fn jobs(&self) -> Value {
        self.stage.value(JOBS.to_owned()).await
    }

    async fn until_verified(&self, contact: Uuid) -> Value {
        eventually("the address is verified", async || {
            self.stage.rig.tell().await;
            let row = self.stage.contact_row(contact).await;
            row["email_checked_at"].is_string().then_some(row)
        })
        .await
    }

    async fn end(self) {
        self.tasks.stop(std::time::Duration::from_secs(10)).await;
        self.stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_an_enrichment_found_is_verified() {
    let verifying = Verifying::new().await;
    let working = verifying.stage.rig.work();
    let bob = verifying.person("bob-ray").await;
    let dry = verifying.enriched(bob, &json!({ "dry_run": true })).await;
    assert_eq!(dry["verification"], Value::Null, "{dry}");
    let off = verifying.person("cid-fox").await;
    let unwanted = json!({ "verify_email": false });
    verifying.enriched(off, &unwanted).await;
    assert_eq!(verifying.jobs().await, json!([]), "nobody wanted it");

    let result = verifying.enriched(bob, &json!({})).await;
    assert_eq!(result["fields"]["email"]["fate"], "written", "{result}");
    let row = verifying.until_verified(bob).await;
    assert_eq!(
        (&row["email"], &row["email_status"]),
        (&json!("bob.ray@example.com"), &json!("valid"))
    );
    assert!(result["verification"].is_string(), "{result}");
    // One that was verified is not verified by each enrichment again.
    let again = verifying.enriched(bob, &json!({ "overwrite": true })).await;
    assert_eq!(again["verification"], Value::Null, "{again}");
    assert_eq!(verifying.jobs().await, json!([[bob]]));
    let other = format!("SELECT count(*) FROM jobs WHERE workspace_id = '{OTHER}'");
    assert_eq!(verifying.stage.value(other).await, 0);
    working.hurry().await;
    Box::pin(verifying.end()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_behind_an_enrichment_leaves_one_verification() {
    let verifying = Verifying::new().await;
    let bob = verifying.person("bob-ray").await;
    let payload = json!({ "contact_id": bob, "provider": "apollo" });
    let job = json!({ "jobType": "enrich_contact", "payload": payload });
    let rig = &verifying.stage.rig;
    let id = rig.enqueue(job).await;
    for fault in ["before_transaction_commit:abort", "after_handler:abort"] {
        rig.work_on_until_it_dies("default", fault).await;
        if rig.server.get(&format!("/api/jobs/{id}")).await.body["job"]["status"] != "completed" {
            assert_eq!(verifying.jobs().await, json!([]), "{fault}: all or nothing");
            rig.rescue().stop(std::time::Duration::from_secs(10)).await;
        }
    }
    let (rescue, working) = (rig.rescue(), rig.work());
    rig.until(&id, "completed").await;
    verifying.until_verified(bob).await;
    assert_eq!(verifying.jobs().await, json!([[bob]]));
    rescue.stop(std::time::Duration::from_secs(10)).await;
    working.hurry().await;
    Box::pin(verifying.end()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrichment_of_many_has_one_verification_for_each_page() {
    let verifying = Verifying::new().await;
    let working = verifying.stage.rig.work();
    let mut known = vec![
        verifying.person("bob-ray").await,
        verifying.person("cid-fox").await,
    ];
    known.sort_unstable();
    let unknown = json!({ "email": "unknown.one@initech.com" });
    verifying.stage.contact(DEFAULT_WORKSPACE, &unknown).await;
    let theirs = json!({ "email": "ann@initech.com" });
    let theirs = verifying.stage.contact(OTHER, &theirs).await;
    let how = json!({ "provider": "apollo" });
    let wish = |entity: &str, how: Value| json!({ "entity_type": entity, "how": how });
    let id = verifying.stage.begin(wish("contacts", how.clone())).await;
    let sums = verifying.stage.sums(&id).await;
    assert_eq!(
        (&sums["enriched"], &sums["no_match"]),
        (&json!(2), &json!(1)),
        "{sums}"
    );
    for contact in &known {
        let row = verifying.until_verified(*contact).await;
        assert_eq!(row["email_status"], "valid", "{row}");
    }
    assert_eq!(verifying.jobs().await, json!([known]));
    let row = verifying.stage.contact_row(theirs).await;
    assert_eq!(
        row["email_checked_at"],
        Value::Null,
        "it is another workspace's"
    );
    let mut wrong = how;
    wrong["verify_email"] = json!(true);
    let refused = wish("accounts", wrong);
    let refused = verifying
        .stage
        .rig
        .server
        .post("/api/enrichments", refused)
        .await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(
        refused.body.to_string().contains("/how/verify_email"),
        "{refused:?}"
    );
    assert!(verifying.dns.asked("example.com") > 0);
    working.hurry().await;
    Box::pin(verifying.end()).await;
}
