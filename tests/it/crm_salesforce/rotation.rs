//! Refresh tokens that end with their use: whoever logs in next has the one that took its place.

use std::sync::Arc;

use bullwark::handlers::crm::client::{Crm, Entity};
use bullwark::handlers::simulator::SalesforceTurn;
use serde_json::json;
use tokio::sync::Semaphore;

use super::{ORG, Stage, push};

const FINE: SalesforceTurn = SalesforceTurn::Fine;
const ENDS: SalesforceTurn = SalesforceTurn::SessionsEnd;

async fn rotating() -> Stage {
    let stage = Stage::new().await;
    stage.there().rotate(ORG, "hush-hush");
    stage
}

impl Stage {
    async fn is_active(&self) -> bool {
        let active = "SELECT is_active FROM connections";
        self.value(active).await == true
    }

    /// A job that has logged in, and writes when it may go on.
    async fn begun(&self) -> (String, Arc<Semaphore>) {
        let [begun, go_on] = [0, 0].map(|permits| Arc::new(Semaphore::new(permits)));
        let gates = (begun.clone(), go_on.clone());
        let job = self.start(move |crm| {
            let (begun, go_on) = gates.clone();
            async move {
                crm.describe(Entity::Contacts).await?;
                begun.add_permits(1);
                go_on.acquire().await.unwrap().forget();
                let outcomes = crm.upsert(Entity::Contacts, &[push(7, "Lee")]).await?;
                Ok(super::told(&outcomes))
            }
        });
        let job = job.await;
        begun.acquire().await.unwrap().forget();
        (job, go_on)
    }

    /// Nobody is told a token.
    async fn has_told_no_token(&self) {
        let logs = "SELECT coalesce(jsonb_agg(to_jsonb(l)), '[]') FROM job_logs l";
        let logs = self.value(logs).await.to_string();
        assert!(!logs.contains("hush"), "{logs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_twice_in_a_run_is_renewed_twice_with_the_newest_token() {
    let stage = rotating().await;
    let working = stage.rig.work();
    stage.contacts(500).await;
    stage.there().script([FINE, FINE, ENDS, FINE, FINE, ENDS]);
    let done = stage.synced("push", &["contacts"]).await;
    assert_eq!(done["entities"]["contacts"]["created_there"], 500, "{done}");
    assert_eq!(done["errors"], 0, "{done}");
    assert_eq!(stage.there().log_ins(), 3);
    assert!(stage.is_active().await);
    // The session outlives its attempt.
    for _ in 0..2 {
        stage.synced("push", &["contacts"]).await;
    }
    assert_eq!(stage.there().log_ins(), 3, "nobody logged in anew");
    stage.has_told_no_token().await;
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_another_process_has_used_is_replaced_by_the_one_it_got() {
    let stage = rotating().await;
    stage.contacts(3).await;
    let (job, go_on) = stage.begun().await;
    let mut other = stage.rig.process(&["--queue", "webhooks"]).spawn().unwrap();
    stage.synced("push", &["contacts"]).await;
    other.start_kill().unwrap();
    other.wait().await.unwrap();
    assert_eq!(stage.there().log_ins(), 2, "one of each process");

    stage.there().script([ENDS]);
    go_on.add_permits(1);
    let done = stage.rig.until(&job, "completed").await;
    assert_eq!(done["result"], json!({ "new": 1 }), "{done}");
    assert_eq!(stage.there().log_ins(), 3);
    assert!(stage.is_active().await);
    stage.has_told_no_token().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_that_is_refused_after_renewals_takes_the_connection_out_of_service() {
    let stage = rotating().await;
    let (job, go_on) = stage.begun().await;
    stage.there().refuse(ORG);
    stage.there().script([ENDS]);
    go_on.add_permits(1);
    crate::stage::eventually("the connection is paused", async || {
        (!stage.is_active().await).then_some(())
    })
    .await;
    let waiting = stage.rig.until(&job, "pending").await;
    assert_eq!(waiting["attempts"], 0, "{waiting}");
    assert_eq!(
        stage.there().log_ins(),
        2,
        "it was not asked again and again"
    );
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_log_in_leads_to_another_organization_ends_before_it_writes_there() {
    let stage = rotating().await;
    let (job, go_on) = stage.begun().await;
    let all = stage.rig.server.get("/api/connections").await.body;
    let id = all["connections"][0]["id"].as_str().unwrap();
    let other = json!({ "credentials": { "client_id": "globex", "refresh_token": "hush-2" } });
    let changed = stage
        .rig
        .patch(&format!("/api/connections/{id}"), other)
        .await;
    assert_eq!(changed.status, 200, "{changed:?}");
    stage.there().script([ENDS]);
    go_on.add_permits(1);
    let dead = stage.rig.until(&job, "dead_letter").await;
    let why = dead["error_message"].as_str().unwrap();
    assert!(why.contains("it led to the organization"), "{why}");
    for org in [ORG, "globex"] {
        assert!(stage.there().records(org, "Contact").is_empty(), "{org}");
    }
    assert!(stage.is_active().await, "its credentials are good");
    stage.end().await;
}

/// The record does not take the new token for a while: who has it keeps it, and stores it later.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_that_can_not_be_stored_is_stored_by_the_next_attempt() {
    let stage = rotating().await;
    stage
        .rig
        .sql(
            "CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'away'; END $$;
             CREATE TRIGGER away BEFORE UPDATE OF credentials ON connections
               FOR EACH ROW EXECUTE FUNCTION away()"
                .to_owned(),
        )
        .await;
    let job = stage.start(|crm| async move {
        let outcomes = crm.upsert(Entity::Contacts, &[push(7, "Lee")]).await?;
        Ok(super::told(&outcomes))
    });
    let job = job.await;
    stage.rig.until(&job, "failed").await;
    stage
        .rig
        .sql("DROP TRIGGER away ON connections".to_owned())
        .await;
    stage.there().script([ENDS]);
    stage.again(&job).await;
    let done = stage.rig.until(&job, "completed").await;
    assert_eq!(done["result"], json!({ "new": 1 }), "{done}");
    assert_eq!(stage.there().log_ins(), 2, "the first, and one more");
    assert!(stage.is_active().await);
    stage.end().await;
}
