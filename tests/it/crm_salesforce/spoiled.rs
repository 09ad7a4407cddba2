//! Answers of Salesforce that are none: a page of a proxy, or nothing at all.

use bullwark::handlers::crm::client::{Crm, Entity};
use bullwark::handlers::simulator::SalesforceTurn;
use serde_json::{Value, json};

use super::bulk::{all_but_one, many};
use super::{ORG, Stage, push, told};

const FINE: SalesforceTurn = SalesforceTurn::Fine;
const PAGE: SalesforceTurn = SalesforceTurn::Nonsense;

impl Stage {
    /// The job fails for now, and the next attempt brings it to its end.
    async fn ends_later(&self, job: &str, what: &str) -> Value {
        let waiting = self.rig.let_go_on(job).await;
        if waiting["status"] == "failed" {
            let why = waiting["error_message"].to_string();
            assert!(why.to_lowercase().contains("salesforce"), "{what}: {why}");
        }
        self.rig.until(job, "completed").await["result"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_proxy_in_place_of_any_answer_of_a_sync_is_asked_for_again() {
    // Describe, changes, deletions, a search for the address, the write.
    for calls in 0..5 {
        let stage = Stage::new().await;
        let working = stage.rig.work();
        stage.contacts(2).await;
        let there = json!({ "LastName": "There", "Email": "there@x.example" });
        stage.there().make(ORG, "Contact", there);
        let turns = std::iter::repeat_n(FINE, calls).chain([PAGE]);
        stage.there().script(turns);
        let job = stage.begin("bidirectional", &["contacts"]).await;
        let what = format!("after {calls} calls");
        let done = stage.ends_later(&job, &what).await;
        assert_eq!(done["errors"], 0, "{what}: {done}");
        assert_eq!(stage.there().records(ORG, "Contact").len(), 3, "{what}");
        for sql in [
            "SELECT count(*) FROM contacts",
            "SELECT count(*) FROM crm_links",
        ] {
            assert_eq!(stage.value(sql).await, 3, "{what}: {sql}");
        }
        working.hurry().await;
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_proxy_in_place_of_the_answer_to_a_write_is_repaired_by_writing_again() {
    let stage = Stage::new().await;
    stage.there().script([PAGE]);
    let job = stage.start(|crm| async move {
        let written = crm
            .upsert(Entity::Contacts, &[push(1, "Lee"), push(2, "Ray")])
            .await?;
        Ok(told(&written))
    });
    let done = stage.ends_later(&job.await, "a write").await;
    assert_eq!(done, json!({ "changed": 2 }), "it was done all the same");
    assert_eq!(stage.there().records(ORG, "Contact").len(), 2);
    stage.end().await;

    let stage = Stage::new().await;
    let lee = json!({ "LastName": "Lee" });
    stage.there().make(ORG, "Contact", lee);
    stage.there().script([FINE, PAGE]);
    let job = stage.start(|crm| async move {
        let names = ["Lee".to_owned()];
        let found = crm.find(Entity::Contacts, "LastName", &names, &[]).await?;
        let ids = found.into_iter().map(|found| found.id);
        // In the next attempt it is not there any more.
        let ids: Vec<String> = match ids.collect::<Vec<_>>() {
            ids if ids.is_empty() => vec!["003000000000001AAA".to_owned()],
            ids => ids,
        };
        Ok(told(&crm.archive(Entity::Contacts, &ids).await?))
    });
    let done = stage.ends_later(&job.await, "an end").await;
    assert_eq!(done, json!({ "changed": 1 }));
    assert!(stage.there().records(ORG, "Contact").is_empty());
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_proxy_in_the_middle_of_a_bulk_job_writes_nobody_twice() {
    for (calls, what, expected) in [
        (0, "made", vec![("Open", 0), ("JobComplete", 1)]),
        // Nobody knows whether the table is there.
        (1, "uploaded", vec![("Aborted", 1), ("JobComplete", 1)]),
        (2, "closed", vec![("JobComplete", 1)]),
        (3, "looked at", vec![("JobComplete", 1)]),
        (4, "good results", vec![("JobComplete", 1)]),
        (5, "bad results", vec![("JobComplete", 1)]),
    ] {
        let stage = Stage::new().await;
        let turns = std::iter::repeat_n(FINE, calls).chain([PAGE]);
        stage.there().script(turns);
        let job = stage.start(many).await;
        let done = stage.ends_later(&job, what).await;
        assert_eq!(done, all_but_one(), "{what}");
        let jobs = stage.there().bulk_jobs(ORG);
        let jobs: Vec<_> = jobs.iter().map(|(state, n)| (state.as_str(), *n)).collect();
        assert_eq!(jobs, expected, "{what}");
        assert_eq!(stage.there().records(ORG, "Contact").len(), 2499, "{what}");
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_in_time_is_asked_for_again_whether_it_was_done_or_not() {
    let stage = Stage::new().await;
    let all = stage.rig.server.get("/api/connections").await.body;
    let path = format!(
        "/api/connections/{}",
        all["connections"][0]["id"].as_str().unwrap()
    );
    let settings = json!({ "settings": { "call_timeout_seconds": 1 } });
    let changed = stage.rig.patch(&path, settings).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let working = stage.rig.work();
    stage.contacts(2).await;
    for (calls, entities) in [(0, "contacts"), (2, "contacts")] {
        let silence = SalesforceTurn::Silence;
        stage
            .there()
            .script(std::iter::repeat_n(FINE, calls).chain([silence]));
        let job = stage.begin("push", &[entities]).await;
        let done = stage.ends_later(&job, "nothing came").await;
        assert_eq!(done["errors"], 0, "{done}");
        assert_eq!(stage.there().records(ORG, "Contact").len(), 2, "{done}");
        assert_eq!(stage.value("SELECT count(*) FROM crm_links").await, 2);
        // So that there is something to write again.
        let change = "UPDATE contacts SET title = 'CEO'";
        stage.rig.sql(change.to_owned()).await;
    }
    let people = stage.there().records(ORG, "Contact");
    assert!(
        people.values().all(|kept| kept["Title"] == "CEO"),
        "{people:?}"
    );
    working.hurry().await;
    stage.end().await;
}
