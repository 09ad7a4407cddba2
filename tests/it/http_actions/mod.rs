//! What people do to all jobs that match a filter: each job once, whoever dies, and no other job.

mod ends;
mod promote;
mod refused;
mod runs;
mod undo;

use bullwark::broker::BrokerState;
use bullwark::job::{Change, QueueName};
use bullwark::reconcile;
use bullwark::record::access::{Actor, By};
use bullwark::record::actions::{self, Created, NewAction};
use bullwark::record::control::CONTROL_MAX;
use bullwark::record::filter::JobFilter;
use bullwark::record::settle::settle_many;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::stage::{discarded, eventually, settled};
use crate::support::server::{Answer, Server};

pub(super) const PATH: &str = "/api/jobs/actions";

pub(super) async fn start(server: &Server, body: Value) -> Answer {
    server.post(PATH, body).await
}

/// What became of an action that was accepted.
pub(super) async fn done(server: &Server, body: Value) -> Value {
    let answer = start(server, body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let action = &answer.body["action"];
    let path = format!("{PATH}/{}", action["id"].as_str().unwrap());
    assert_eq!(answer.header("location"), path);
    ended(server, action).await
}

pub(super) async fn ended(server: &Server, action: &Value) -> Value {
    let path = format!("{PATH}/{}", action["id"].as_str().unwrap());
    eventually("the end of an action", async || {
        let action = server.get(&path).await.body["action"].clone();
        (action["state"] != "running").then_some(action)
    })
    .await
}

/// Its numbers: matched, done, skipped, failed.
pub(super) fn counts(action: &Value) -> [i64; 4] {
    ["matched", "done", "skipped", "failed"].map(|name| action[name].as_i64().unwrap())
}

/// So many jobs of these fields, oldest first.
pub(super) async fn jobs(server: &Server, count: usize, fields: Value) -> Vec<Uuid> {
    let mut job = json!({"jobType": "noop"});
    for (name, value) in fields.as_object().unwrap() {
        job[name] = value.clone();
    }
    let answer = server
        .post("/api/jobs/bulk", json!({"jobs": vec![job; count]}))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let ids = answer.body["results"].as_array().unwrap().iter();
    ids.map(|result| result["id"].as_str().unwrap().parse().unwrap())
        .collect()
}

pub(super) async fn die(server: &Server, ids: &[Uuid]) {
    for ids in ids.chunks(CONTROL_MAX) {
        let ends: Vec<_> = ids
            .iter()
            .map(|id| settled(*id, 1, "w", discarded("no such account")))
            .collect();
        let accepted = settle_many(&server.app.record, &ends).await.unwrap();
        assert_eq!(accepted.len(), ids.len());
    }
}

/// Status and error of each job.
pub(super) async fn statuses(pool: &PgPool, ids: &[Uuid]) -> Vec<String> {
    sqlx::query_scalar("SELECT status FROM jobs WHERE id = ANY($1) ORDER BY id")
        .bind(ids)
        .fetch_all(pool)
        .await
        .unwrap()
}

pub(super) async fn all_are(pool: &PgPool, ids: &[Uuid], status: &str) {
    let statuses = statuses(pool, ids).await;
    assert_eq!(statuses.len(), ids.len());
    assert!(statuses.iter().all(|other| other == status), "{statuses:?}");
}

pub(super) async fn count(pool: &PgPool, what: &'static str) -> i64 {
    sqlx::query_scalar(what).fetch_one(pool).await.unwrap()
}

pub(super) async fn states(server: &Server, ids: &[Uuid]) -> Vec<Option<BrokerState>> {
    let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    let broker = &server.app.broker;
    broker.states(&QueueName::default(), &ids).await.unwrap()
}

/// Until Redis was told of everything.
pub(super) async fn told(server: &Server, pool: &PgPool) {
    eventually("an empty outbox", async || {
        let relayed = reconcile::relay_outbox(&server.app.record, &server.app.broker).await;
        relayed.unwrap();
        let left = count(pool, "SELECT count(*) FROM bullwark.outbox").await;
        (left == 0).then_some(())
    })
    .await;
}

pub(super) const BY: By<'static> = By {
    actor: Actor::Service,
    workspace_id: Some(DEFAULT_WORKSPACE),
    request_id: None,
};

/// An action that is written down and that nobody has begun yet.
pub(super) async fn written_down(server: &Server, change: Change, filter: &JobFilter) -> Uuid {
    let new = NewAction {
        workspace_id: DEFAULT_WORKSPACE,
        change,
        filter,
        reason: "a test",
        limit: None,
        expected: None,
        key: None,
    };
    match actions::create(&server.app.record, &new, &BY)
        .await
        .unwrap()
    {
        Created::New(row) => row.id,
        other => panic!("{other:?}"),
    }
}
