//! Many records at once: one bulk job, whatever happens to the attempt that made it.

use std::sync::Arc;

use bullwark::handlers::crm::client::{Crm, CrmError, Entity, Outcome, Push};
use bullwark::handlers::crm::salesforce::Salesforce;
use bullwark::handlers::simulator::SalesforceTurn;
use serde_json::{Value, json};

use super::{ORG, Stage, push, told};

/// 2,500 new records, which is above what goes by collections.
pub(super) async fn many(crm: Arc<Salesforce>) -> Result<Value, CrmError> {
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

pub(super) fn all_but_one() -> Value {
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
async fn known_records_are_updated_in_bulk_by_their_ids_and_those_that_are_gone_are_told() {
    let stage = Stage::new().await;
    let result = stage.result(|crm| async move {
        let mut pushes: Vec<Push> = (0..2100).map(|n| push(n, "Lee")).collect();
        let made = crm.upsert(Entity::Contacts, &pushes).await?;
        let ids: Vec<String> = made.iter().filter_map(id).collect();
        assert_eq!(ids.len(), 2100);
        for (push, id) in pushes.iter_mut().zip(&ids) {
            push.id = Some(id.clone());
            push.fields.insert("Title".to_owned(), json!("CEO"));
        }
        // Emptied, and in another order than theirs.
        pushes[7].fields.insert("Title".to_owned(), Value::Null);
        pushes.reverse();
        let gone = [ids[3].clone(), ids[2099].clone()];
        let archived = crm.archive(Entity::Contacts, &gone).await?;
        let again = crm.archive(Entity::Contacts, &gone).await?;
        let changed = crm.upsert(Entity::Contacts, &pushes).await?;
        for (push, outcome) in pushes.iter().zip(&changed) {
            match outcome {
                Outcome::Done { id, .. } => assert_eq!(Some(id), push.id.as_ref()),
                Outcome::Gone(_) => assert!(gone.contains(push.id.as_ref().unwrap())),
                other => panic!("{other:?}"),
            }
        }
        Ok(json!([told(&archived), told(&again), told(&changed)]))
    });
    let expected = json!([{ "changed": 2 }, { "changed": 2 }, { "changed": 2098, "gone": 2 }]);
    assert_eq!(result.await, expected);
    let records = stage.there().records(ORG, "Contact");
    assert_eq!(records.len(), 2098, "nobody is made anew");
    let titles = records.values().filter(|record| record["Title"] == "CEO");
    assert_eq!(titles.count(), 2097);
    let jobs = stage.there().bulk_jobs(ORG);
    assert_eq!(jobs, vec![("JobComplete".to_owned(), 1); 2]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_id_there_deletes_nothing_and_one_that_never_was_is_gone() {
    let stage = Stage::new().await;
    let kept = stage
        .there()
        .make(ORG, "Contact", json!({ "LastName": "Lee" }));
    let result = stage.result(|crm| async move {
        let never = ["003999999999999AAA".to_owned()];
        let archived = crm.archive(Entity::Contacts, &never).await?;
        let odd = ["003999999999999AAA&allOrNone=true".to_owned()];
        let refused = crm.archive(Entity::Contacts, &odd).await;
        assert!(
            matches!(refused, Err(CrmError::PermanentRun(_))),
            "{refused:?}"
        );
        Ok(told(&archived))
    });
    assert_eq!(result.await, json!({ "changed": 1 }));
    let records = stage.there().records(ORG, "Contact");
    assert!(records.contains_key(&kept) && records.len() == 1);
    stage.end().await;
}

fn id(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Done { id, .. } => Some(id.clone()),
        _ => None,
    }
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
