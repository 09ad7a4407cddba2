//! Many records at once: one bulk job, whatever happens to the attempt that made it.

use std::sync::Arc;

use bullwark::handlers::crm::client::{Crm, CrmError, Entity, Outcome, Push};
use bullwark::handlers::crm::salesforce::Salesforce;
use bullwark::handlers::simulator::SalesforceTurn;
use serde_json::{Value, json};

use super::{ORG, Stage, push, told};

/// 2,500 new records, which is above what goes by collections.
async fn many(crm: Arc<Salesforce>) -> Result<Value, CrmError> {
    let name = |n: u128| {
        if n == 9 {
            "x".repeat(81)
        } else {
            format!("Na\"me,\n{n}")
        }
    };
    let pushes: Vec<Push> = (0..2500).map(|n| push(n, &name(n))).collect();
    let outcomes = crm.upsert(Entity::Contacts, &pushes).await?;
    assert!(
        matches!(&outcomes[9], Outcome::Permanent(_)),
        "joined by our id"
    );
    Ok(told(&outcomes))
}

fn all_but_one() -> Value {
    json!({ "new": 2499, "never STRING_TOO_LONG": 1 })
}

#[tokio::test(flavor = "multi_thread")]
async fn many_records_go_by_one_bulk_job_that_a_later_attempt_waits_for() {
    let stage = Stage::new().await;
    stage.there().hold_bulk(true);
    // The sixth call is the look at the job: it fails, and the attempt with it.
    let fine = SalesforceTurn::Fine;
    let fails = SalesforceTurn::Refused(503, "SERVER_UNAVAILABLE");
    stage.there().script([fine, fine, fine, fails]);
    let job = stage.start(many).await;
    stage.rig.until(&job, "failed").await;
    assert_eq!(
        stage.there().bulk_jobs(ORG),
        [("UploadComplete".to_owned(), 1)]
    );
    stage.there().hold_bulk(false);
    stage.again(&job).await;
    assert_eq!(
        stage.rig.until(&job, "completed").await["result"],
        all_but_one()
    );
    assert_eq!(
        stage.there().bulk_jobs(ORG),
        [("JobComplete".to_owned(), 1)]
    );
    let records = stage.there().records(ORG, "Contact");
    assert_eq!(records.len(), 2499);
    assert!(
        records
            .values()
            .any(|record| record["LastName"] == "Na\"me,\n2499")
    );
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_nobody_knows_of_is_aborted_and_made_again() {
    let stage = Stage::new().await;
    let (fine, lost) = (SalesforceTurn::Fine, SalesforceTurn::LostAnswer);
    stage.there().script([fine, lost]);
    let job = stage.start(many).await;
    stage.again(&job).await;
    assert_eq!(
        stage.rig.until(&job, "completed").await["result"],
        all_but_one()
    );
    let expected = [("Aborted".to_owned(), 1), ("JobComplete".to_owned(), 1)];
    assert_eq!(stage.there().bulk_jobs(ORG), expected);
    assert_eq!(stage.there().records(ORG, "Contact").len(), 2499);
    stage.end().await;
}
