//! Workers that are killed in the middle of reading and deleting: what the next one finds, and that
//! it does the rest and nothing twice.

use std::time::Duration;

use bullwark::handlers::simulator::hubspot::Spoiled;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::process::Child;

use super::Stage;

impl Stage {
    /// A worker process, which loses what it has a second after its death.
    fn process(&self) -> Child {
        let mut worker = self
            .rig
            .process(&["--queue", "webhooks", "--lease-ms", "1000"]);
        worker.spawn().unwrap()
    }

    /// Waits until so many calls have come to paths that end like this.
    async fn until_called(&self, path: &str, times: usize) {
        crate::stage::eventually(path, async || {
            let seen = self.hubspot.seen();
            let calls = seen.iter().filter(|seen| seen.path.ends_with(path));
            (calls.count() == times).then_some(())
        })
        .await;
    }

    /// Others bring the job to its end; what it counts.
    async fn gone_on(&self, job: &str) -> Value {
        let (rescue, working) = (self.rig.rescue(), self.rig.work());
        let done = self.rig.until(job, "completed").await;
        rescue.stop(Duration::from_secs(10)).await;
        working.hurry().await;
        done["result"]["entities"]["accounts"].clone()
    }

    async fn counts(&self, expected: Value, when: &str) {
        let sql = "SELECT jsonb_build_array((SELECT count(*) FROM accounts),
            (SELECT count(*) FROM crm_links WHERE state = 'linked'),
            (SELECT count(*) FROM crm_links WHERE state = 'leaving'))";
        assert_eq!(self.value(sql).await, expected, "{when}");
    }
}

async fn kill(mut worker: Child) {
    worker.start_kill().unwrap();
    worker.wait().await.unwrap();
}

const ONLY: [&str; 1] = ["accounts"];

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_between_two_pages_of_a_pull_has_taken_the_first_one_once() {
    let stage = Stage::new().await;
    for n in 0..450 {
        let company = json!({ "name": format!("A{n}"), "domain": format!("a{n}.com") });
        stage.hubspot.make("companies", company);
    }
    let job = stage.enqueue("pull", json!({ "entity_types": ONLY })).await;
    stage.hubspot.spoil("companies/search", 1, Spoiled::Silence);
    let worker = stage.process();
    stage.until_called("companies/search", 2).await;
    kill(worker).await;
    // Of a full page the last moment is left to the next one.
    stage.counts(json!([199, 199, 0]), "after its death").await;
    let place = "SELECT since = (SELECT max(remote_modified_at) FROM crm_links) FROM crm_cursors
        WHERE direction = 'pull'";
    assert_eq!(stage.value(place).await, true, "and it says so");
    let counts = stage.gone_on(&job).await;
    stage.counts(json!([450, 450, 0]), "in the end").await;
    assert_eq!(counts["created_here"], 450, "{counts}");
    assert_eq!(counts["read"], 450, "no page was read again: {counts}");
    let names = "SELECT count(DISTINCT name) FROM accounts";
    assert_eq!(stage.value(names).await, 450);
    stage.end().await;
}

/// 250 companies that both sides have.
async fn linked() -> Stage {
    let stage = Stage::new().await;
    stage.accounts(250).await;
    let working = stage.rig.work();
    stage.synced("push", json!({ "entity_types": ONLY })).await;
    working.hurry().await;
    stage.counts(json!([250, 250, 0]), "at first").await;
    stage
}

fn mirror() -> Value {
    json!({ "entity_types": ONLY, "deletions": "mirror", "brake_percent": 100 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_while_it_reads_deletions_has_deleted_nothing() {
    let stage = linked().await;
    for kept in stage.hubspot.records("companies") {
        stage.hubspot.archive("companies", &kept.id);
    }
    let job = stage.enqueue("bidirectional", mirror()).await;
    stage
        .hubspot
        .spoil("objects/companies", 1, Spoiled::Silence);
    let worker = stage.process();
    stage.until_called("objects/companies", 2).await;
    kill(worker).await;
    stage
        .counts(json!([250, 150, 100]), "a page is marked")
        .await;
    let counts = stage.gone_on(&job).await;
    stage.counts(json!([0, 0, 0]), "in the end").await;
    assert_eq!(counts["deleted_here"], 250, "{counts}");
    assert_eq!(counts["deleted_there"], 0, "{counts}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_while_it_deletes_here_has_deleted_whole_pages() {
    let stage = linked().await;
    for kept in stage.hubspot.records("companies") {
        stage.hubspot.archive("companies", &kept.id);
    }
    // Somebody has the last one, so that its page can not come to its end.
    let mut held = stage.rig.pool.begin().await.unwrap();
    let hold = "SELECT id FROM accounts ORDER BY id DESC LIMIT 1 FOR UPDATE";
    sqlx::query(hold).execute(&mut *held).await.unwrap();
    let job = stage.enqueue("bidirectional", mirror()).await;
    let worker = stage.process();
    crate::stage::eventually("it waits for the last one", async || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
            AND datname = current_database() AND query LIKE '%FOR UPDATE OF t%'";
        (stage.value(waits).await == 1).then_some(())
    })
    .await;
    stage.counts(json!([50, 0, 50]), "a page is gone").await;
    kill(worker).await;
    held.rollback().await.unwrap();
    stage.counts(json!([50, 0, 50]), "after its death").await;
    let counts = stage.gone_on(&job).await;
    stage.counts(json!([0, 0, 0]), "in the end").await;
    assert_eq!(counts["deleted_here"], 250, "{counts}");
    let deleted = "SELECT count(*) FROM bullwark.data_changes
        WHERE entity_type = 'accounts' AND action = 'delete'";
    assert_eq!(stage.value(deleted).await, 250, "each once");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_while_it_archives_there_leaves_links_for_the_next_one() {
    let stage = linked().await;
    let sql = "DELETE FROM accounts";
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&stage.rig.pool)
        .await
        .unwrap();
    let job = stage.enqueue("push", mirror()).await;
    stage
        .hubspot
        .spoil("companies/batch/archive", 1, Spoiled::Silence);
    let worker = stage.process();
    stage.until_called("companies/batch/archive", 2).await;
    kill(worker).await;
    stage.counts(json!([0, 250, 0]), "nothing is noted").await;
    assert_eq!(stage.hubspot.records("companies").len(), 50, "two of three");
    let counts = stage.gone_on(&job).await;
    stage.counts(json!([0, 0, 0]), "in the end").await;
    assert!(stage.hubspot.records("companies").is_empty());
    assert_eq!(counts["deleted_there"], 250, "{counts}");
    assert_eq!(counts["errors"], 0, "{counts}");
    stage.end().await;
}
