//! `POST /api/enrichments`: all records that match, by pages, with the questions of Apollo packed.

use bullwark::handlers::providers::DataSource;
use bullwark::handlers::simulator::Turn;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{OTHER, Stage};
use crate::stage::eventually;
use crate::support::server::{Answer, send};

pub(super) fn wish(more: Value) -> Value {
    let mut wish = json!({
        "entity_type": "accounts", "filters": { "industry": null }, "how": { "provider": "apollo" },
    });
    for (name, value) in more.as_object().unwrap() {
        wish[name] = value.clone();
    }
    wish
}

impl Stage {
    /// So many accounts of one import.
    pub(super) async fn accounts(&self, workspace: Uuid, domains: &[String]) {
        let rows = domains.iter().map(|domain| {
            let id = Uuid::now_v7();
            format!("('{id}', '{workspace}', 'Name of {domain}', '{domain}')")
        });
        let rows: Vec<String> = rows.collect();
        self.by_job(format!(
            "INSERT INTO accounts (id, workspace_id, name, domain) VALUES {}",
            rows.join(", ")
        ))
        .await;
    }

    pub(crate) async fn begin(&self, wish: Value) -> String {
        let begun = self.rig.server.post("/api/enrichments", wish).await;
        assert_eq!(begun.status, 201, "{begun:?}");
        begun.body["enrichment"]["id"].as_str().unwrap().to_owned()
    }

    pub(super) async fn shown(&self, id: &str) -> Value {
        let path = format!("/api/enrichments/{id}");
        self.rig.server.get(&path).await.body["enrichment"].clone()
    }

    /// Its sums, at the end.
    pub(crate) async fn sums(&self, id: &str) -> Value {
        self.rig.until(id, "completed").await;
        let shown = self.shown(id).await;
        assert_eq!(shown["status"], "completed");
        shown["summary"].clone()
    }

    /// Calls that were answered, whatever they were about.
    pub(super) fn calls(&self, source: DataSource) -> u64 {
        self.simulator.answers(source).values().sum()
    }
}

pub(super) fn domains(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|nth| format!("{name}{nth}.com")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_match_are_enriched_in_packed_questions_and_added_up() {
    let stage = Stage::new().await;
    let mut all = domains("firm", 210);
    all.extend(domains("unknown", 5));
    stage.accounts(DEFAULT_WORKSPACE, &all).await;
    stage.accounts(OTHER, &domains("firm", 3)).await;
    let before = stage.account("done.com").await;
    let other = format!("UPDATE accounts SET industry = 'x' WHERE id = '{before}'");
    stage.rig.sql(other).await;
    let id = stage.begin(wish(json!({}))).await;
    let shown = stage.shown(&id).await;
    assert_eq!(shown["summary"]["not_done"], 215, "{shown}");
    let working = stage.rig.work();
    let sums = stage.sums(&id).await;
    for (name, count) in [
        ("matched", 215),
        ("enriched", 210),
        ("no_match", 5),
        ("failed", 0),
        ("not_done", 0),
        ("credits", 210),
        ("from_cache", 0),
    ] {
        assert_eq!(sums[name], count, "{name}: {sums}");
    }
    assert_eq!(sums["providers"]["apollo"]["asked"], 215, "{sums}");
    assert_eq!(sums["providers"]["apollo"]["match_rate"], 0.977, "{sums}");
    assert_eq!(sums["fields"]["industry"], 210, "{sums}");
    // Pages of 100, 100 and 15 records, ten to a call.
    assert_eq!(stage.calls(DataSource::Apollo), 22);
    assert_eq!(stage.simulator.spent(DataSource::Apollo), 210);
    let theirs = format!(
        "SELECT count(*) FROM accounts WHERE industry IS NOT NULL AND workspace_id = '{OTHER}'"
    );
    assert_eq!(stage.value(theirs).await, 0, "others are left alone");
    // Run again, it adds up the same.
    let retry = format!("/api/jobs/{id}/retry");
    let retried = stage.rig.server.post(&retry, Value::Null).await;
    assert_eq!(retried.status, 200, "{retried:?}");
    assert_eq!(stage.sums(&id).await, sums);
    assert_eq!(stage.calls(DataSource::Apollo), 22);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_and_does_nothing() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage
        .accounts(DEFAULT_WORKSPACE, &domains("firm", 120))
        .await;
    let known = stage.account("known.com").await;
    stage
        .enriched(
            known,
            json!({ "provider": "apollo", "enrich_fields": ["city"] }),
        )
        .await;
    let calls = stage.calls(DataSource::Apollo);
    let how = json!({ "providers": ["apollo", "clearbit"] });
    let dry = wish(json!({ "dry_run": true, "how": how }));
    let told = stage.rig.server.post("/api/enrichments", dry).await;
    assert_eq!(told.status, 200, "{told:?}");
    let expected = json!({
        "matched": 121, "jobs": 3, "cached": { "apollo": 1, "clearbit": 0 },
        "credits_at_most": { "apollo": 120, "clearbit": 121 },
    });
    assert_eq!(told.body["estimate"], expected);
    let jobs = "SELECT count(*) FROM jobs WHERE job_type LIKE 'enrich_%'".to_owned();
    assert_eq!(stage.value(jobs).await, 1, "that of before");
    assert_eq!(stage.calls(DataSource::Apollo), calls);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_begin_says_what_is_wrong() {
    let stage = Stage::new().await;
    for (more, pointer) in [
        (json!({ "how": {} }), "/how/provider"),
        (json!({ "filters": { "nonsense": 1 } }), "/filters"),
        (
            json!({ "how": { "provider": "apollo", "enrich_fields": ["shoe_size"] } }),
            "/how/enrich_fields/0",
        ),
        (json!({ "matched": 5 }), "/matched"),
    ] {
        let refused = stage.rig.server.post("/api/enrichments", wish(more)).await;
        refused.problem(422, "invalid_request");
        let found = refused.body["errors"][0]["pointer"].as_str().unwrap();
        assert!(found.starts_with(pointer), "{refused:?}");
    }
    let drop = "DELETE FROM connections WHERE provider = 'apollo'".to_owned();
    stage.rig.sql(drop).await;
    let refused = stage
        .rig
        .server
        .post("/api/enrichments", wish(json!({})))
        .await;
    let detail = refused.problem(422, "invalid_request");
    assert!(detail.contains("no connection to apollo"), "{detail}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gives_the_same_enrichment_back() {
    let stage = Stage::new().await;
    stage.accounts(DEFAULT_WORKSPACE, &domains("firm", 3)).await;
    let post = || {
        let request = stage.rig.server.request(Method::POST, "/api/enrichments");
        request
            .header("Idempotency-Key", "once")
            .json(&wish(json!({})))
    };
    let first = send(post()).await;
    assert_eq!(first.status, 201, "{first:?}");
    let second = send(post()).await;
    assert_eq!(second.status, 200, "{second:?}");
    assert_eq!(
        first.body["enrichment"]["id"],
        second.body["enrichment"]["id"]
    );
    let pages = "SELECT count(*) FROM jobs WHERE job_type = 'enrich_page'".to_owned();
    assert_eq!(stage.value(pages).await, 1);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gives_the_same_back_whatever_matches_by_then() {
    let stage = Stage::new().await;
    stage.accounts(DEFAULT_WORKSPACE, &domains("firm", 3)).await;
    let post = |more: Value| {
        let request = stage.rig.server.request(Method::POST, "/api/enrichments");
        request.header("Idempotency-Key", "once").json(&wish(more))
    };
    let how = json!({ "provider": "apollo", "min_confidence": 0.1 });
    let same = json!({ "how": how });
    let first = send(post(same.clone())).await;
    assert_eq!(first.status, 201, "{first:?}");
    let more = domains("more", 120);
    stage.accounts(DEFAULT_WORKSPACE, &more).await;
    let drop = "DELETE FROM connections WHERE provider = 'apollo'".to_owned();
    stage.rig.sql(drop).await;
    let second = send(post(same)).await;
    assert_eq!(second.status, 200, "{second:?}");
    assert_eq!(second.body["enrichment"], first.body["enrichment"]);
    assert_eq!(second.header("location"), first.header("location"));
    // Another request is another one still.
    let other = json!({ "how": { "provider": "clearbit" } });
    send(post(other))
        .await
        .problem(409, "idempotency_key_reused");
    let jobs = "SELECT count(*) FROM jobs WHERE job_type LIKE 'enrich_%'".to_owned();
    assert_eq!(stage.value(jobs).await, 2);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_with_one_key_are_one_though_they_found_others() {
    let stage = Stage::new().await;
    stage.accounts(DEFAULT_WORKSPACE, &domains("firm", 3)).await;
    let mut holder = stage.rig.pool.begin().await.unwrap();
    let lock = "LOCK TABLE bullwark.idempotency_keys IN SHARE MODE";
    sqlx::query(lock).execute(&mut *holder).await.unwrap();
    let waiting = async |count: u64| {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted
           AND relation = 'bullwark.idempotency_keys'::regclass";
        eventually("they wait for the key", async || {
            (stage.value(waiting.to_owned()).await == count).then_some(())
        })
        .await;
    };
    let post = async || {
        let request = stage.rig.server.request(Method::POST, "/api/enrichments");
        let request = request.header("Idempotency-Key", "once");
        send(request.json(&wish(json!({})))).await
    };
    let begin_later = async || {
        waiting(1).await;
        let more = domains("more", 120);
        stage.accounts(DEFAULT_WORKSPACE, &more).await;
        post().await
    };
    let let_go = async || {
        waiting(2).await;
        holder.rollback().await.unwrap();
    };
    let (first, second, ()) = tokio::join!(post(), begin_later(), let_go());
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201], "{first:?} {second:?}");
    let id = |answer: &Answer| answer.body["enrichment"]["id"].clone();
    assert_eq!(id(&first), id(&second));
    let wholes = "SELECT count(*) FROM jobs WHERE job_type = 'enrich_records'".to_owned();
    assert_eq!(stage.value(wholes).await, 1);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_packed_too_and_each_record_has_its_own_outcome() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let mut rows = Vec::new();
    for (nth, (email, external)) in [
        (Some("ann.lee@acme.com"), "1"),
        (Some("unknown.one@acme.com"), "2"),
        (Some("no@acme.com"), "3"),
        (None, "4"),
        (Some("bob.ray@acme.com"), "5"),
    ]
    .into_iter()
    .enumerate()
    {
        let email = email.map_or("NULL".to_owned(), |email| format!("'{email}'"));
        let id = Uuid::now_v7();
        rows.push(format!(
            "('{id}', '{DEFAULT_WORKSPACE}', '{external}{nth}', {email})"
        ));
    }
    let rows = rows.join(", ");
    stage
        .by_job(format!(
            "INSERT INTO contacts (id, workspace_id, external_id, email) VALUES {rows}"
        ))
        .await;
    let suppress = format!(
        "INSERT INTO email_suppressions (workspace_id, target, reason, source)
         VALUES ('{DEFAULT_WORKSPACE}', 'no@acme.com', 'unsubscribed', 'link')"
    );
    stage.rig.sql(suppress).await;
    let all = wish(json!({ "entity_type": "contacts", "filters": [] }));
    let id = stage.begin(all).await;
    let sums = stage.sums(&id).await;
    for (name, count) in [
        ("matched", 5),
        ("enriched", 2),
        ("no_match", 1),
        ("objected", 1),
        ("failed", 1),
        ("credits", 2),
    ] {
        assert_eq!(sums[name], count, "{name}: {sums}");
    }
    let why = sums["failures"]
        .as_object()
        .unwrap()
        .keys()
        .next()
        .unwrap()
        .clone();
    assert!(why.contains("can not be looked up"), "{why}");
    assert_eq!(
        stage.calls(DataSource::Apollo),
        1,
        "one question about three"
    );
    let asked = stage.asked(DataSource::Apollo);
    assert!(
        !asked.iter().any(|key| key.contains("no@acme.com")),
        "{asked:?}"
    );
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_refused_as_a_whole_is_asked_record_by_record() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.accounts(DEFAULT_WORKSPACE, &domains("firm", 4)).await;
    // The whole, and then one of the four.
    let turns = [Turn::Status(422), Turn::Fine, Turn::Status(422)];
    stage.simulator.script(DataSource::Apollo, turns);
    let id = stage.begin(wish(json!({}))).await;
    let sums = stage.sums(&id).await;
    assert_eq!(
        (&sums["enriched"], &sums["failed"]),
        (&json!(3), &json!(1)),
        "{sums}"
    );
    assert_eq!(sums["credits"], 3, "{sums}");
    assert_eq!(stage.calls(DataSource::Apollo), 5);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_the_enrichment_of_another_workspace() {
    let stage = Stage::new().await;
    stage.accounts(DEFAULT_WORKSPACE, &domains("firm", 1)).await;
    let id = stage.begin(wish(json!({}))).await;
    let path = format!("/api/enrichments/{id}");
    let request = stage.rig.server.anonymous(Method::GET, &path);
    let request = request.bearer_auth(crate::support::server::OTHER_KEY);
    send(request).await.problem(404, "job_not_found");
    stage.end().await;
}
