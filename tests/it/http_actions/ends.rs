//! How actions end: stopped, carried out by others after a crash, beside each other.

use std::time::Duration;

use bullwark::broker::BrokerState;
use bullwark::control::actions::carry_out;
use bullwark::job::Change;
use bullwark::record::actions::{self, Step, TRIES_MAX, Undo};
use bullwark::record::control::CONTROL_MAX;
use bullwark::record::filter::JobFilter;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::tasks::Tasks;
use bullwark::upkeep;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{BY, PATH, all_are, count, counts, die, done, ended, jobs, states, written_down};
use crate::http::server;
use crate::stage::{eventually, spawn};
use crate::support::server::send;

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_action_leaves_the_rest_alone_and_new_jobs_are_never_touched() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let ids = jobs(&server, CONTROL_MAX + 100, json!({})).await;
    let id = written_down(&server, Change::Cancel, &JobFilter::default()).await;
    let new = jobs(&server, 3, json!({})).await;
    let step = actions::step(&server.app.record, id).await.unwrap();
    let Step::Went { changed, is_over } = step else {
        panic!("{step:?}")
    };
    assert_eq!((changed.len(), is_over), (CONTROL_MAX, false));
    let stopped = send(server.request(Method::POST, &format!("{PATH}/{id}/stop"))).await;
    assert_eq!(
        counts(&stopped.body["action"]),
        [CONTROL_MAX as i64, CONTROL_MAX as i64, 0, 0]
    );
    assert_ne!(stopped.body["action"]["undoable_until"], Value::Null);
    let stop = CancellationToken::new();
    carry_out(&server.app.record, &server.app.broker, id, &stop)
        .await
        .unwrap();
    all_are(&pool, &ids[..100], "pending").await;
    all_are(&pool, &ids[100..], "cancelled").await;

    let id = written_down(&server, Change::Cancel, &JobFilter::default()).await;
    let newer = jobs(&server, 3, json!({})).await;
    carry_out(&server.app.record, &server.app.broker, id, &stop)
        .await
        .unwrap();
    all_are(&pool, &new, "cancelled").await;
    all_are(&pool, &newer, "pending").await;
    server.end().await;
}

/// Between a batch and Redis, and within a batch; then others go on.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_carries_it_out_may_die_anywhere_and_each_job_is_changed_once() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let ids = jobs(&server, 4 * CONTROL_MAX + 7, json!({})).await;
    die(&server, &ids).await;
    let (record, broker) = (server.app.record.clone(), server.app.broker.clone());
    let id = written_down(&server, Change::Retry, &JobFilter::default()).await;
    // It dies after its commit, and Redis hears nothing from it.
    let step = actions::step(&record, id).await.unwrap();
    assert!(matches!(step, Step::Went { is_over: false, .. }));
    // Others die wherever they are after a while.
    for ms in [1, 3, 7, 15, 20, 25] {
        let (record, broker) = (record.clone(), broker.clone());
        let stop = CancellationToken::new();
        let doomed = spawn(async move { carry_out(&record, &broker, id, &stop).await });
        tokio::time::sleep(Duration::from_millis(ms)).await;
        doomed.abort();
        doomed.await.ok();
    }
    // Two processes go on.
    let upkeep = Tasks::new();
    upkeep::start(&record, &broker, &upkeep);
    upkeep::start(&record, &broker, &upkeep);
    let action = ended(&server, &json!({ "id": id })).await;
    let all = ids.len() as i64;
    assert_eq!(counts(&action), [all, all, 0, 0]);
    all_are(&pool, &ids, "pending").await;
    let audited = "SELECT count(*) FROM bullwark.audit_log WHERE action = 'job.retry'";
    assert_eq!(count(&pool, audited).await, all);
    let of_each = "SELECT count(DISTINCT target_id) FROM bullwark.audit_log
      WHERE action = 'job.retry'";
    assert_eq!(count(&pool, of_each).await, all);
    eventually("all jobs in Redis", async || {
        let states = states(&server, &ids).await;
        let there = states
            .iter()
            .all(|state| *state == Some(BrokerState::Prioritized));
        there.then_some(())
    })
    .await;
    assert!(upkeep.stop(Duration::from_secs(30)).await);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_actions_on_the_same_jobs_change_each_job_once() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let ids = jobs(&server, 2 * CONTROL_MAX, json!({})).await;
    let all = json!({"action": "cancel", "filter": {"status": "pending"}});
    let (a, b) = tokio::join!(done(&server, all.clone()), done(&server, all));
    let [a, b] = [a, b].map(|action| counts(&action));
    assert_eq!(a[1] + b[1], ids.len() as i64, "{a:?} {b:?}");
    assert_eq!(
        (a[2] + b[2], a[3] + b[3]),
        (0, 0),
        "those that do not match are not counted"
    );
    all_are(&pool, &ids, "cancelled").await;
    server.end().await;
}

/// A job whose row somebody holds for ever, for an action and for its undo.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_held_for_long_is_passed_over_after_some_tries() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let record = &server.app.record;
    let ids = jobs(&server, 3, json!({})).await;
    let hold = async || {
        let mut holder = pool.begin().await.unwrap();
        sqlx::query("SELECT FROM jobs WHERE id = $1 FOR UPDATE")
            .bind(ids[1])
            .execute(&mut *holder)
            .await
            .unwrap();
        holder
    };
    let tried = async |tries: i32| {
        sqlx::query("UPDATE bullwark.actions SET tries = $1 WHERE state = 'running'")
            .bind(tries)
            .execute(&pool)
            .await
            .unwrap();
    };
    let cancel = written_down(&server, Change::Cancel, &JobFilter::default()).await;
    let holder = hold().await;
    assert!(
        actions::step(record, cancel).await.is_err(),
        "it may be free soon"
    );
    assert_eq!(
        count(&pool, "SELECT tries::bigint FROM bullwark.actions").await,
        1
    );
    all_are(&pool, &ids, "pending").await;
    tried(TRIES_MAX - 1).await;
    let step = actions::step(record, cancel).await.unwrap();
    assert!(matches!(step, Step::Went { is_over: true, .. }), "{step:?}");
    holder.rollback().await.unwrap();
    let cancelled = ended(&server, &json!({ "id": cancel })).await;
    let reason = "something else held the job for too long";
    let failures = json!([{ "job_id": ids[1], "reason": reason }]);
    assert_eq!(counts(&cancelled), [3, 2, 0, 1]);
    assert_eq!(cancelled["failures"], failures);
    all_are(&pool, &[ids[0], ids[2]], "cancelled").await;
    all_are(&pool, &ids[1..2], "pending").await;

    let by_hand = server.request(Method::PATCH, &format!("/api/jobs/{}", ids[1]));
    let by_hand = send(by_hand.json(&json!({"status": "cancelled"}))).await;
    assert_eq!(by_hand.status, 200, "{by_hand:?}");
    let all = JobFilter::default();
    let retry = written_down(&server, Change::Retry, &all).await;
    let holder = hold().await;
    tried(TRIES_MAX - 1).await;
    actions::step(record, retry).await.unwrap();
    holder.rollback().await.unwrap();
    let retried = ended(&server, &json!({ "id": retry })).await;
    assert_eq!(counts(&retried), [3, 2, 0, 1]);

    // The undo of a cancel comes upon one as well.
    let cancel = done(
        &server,
        json!({"action": "cancel", "filter": {"status": "pending"}}),
    )
    .await;
    assert_eq!(counts(&cancel), [2, 2, 0, 0]);
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM jobs WHERE id = $1 FOR UPDATE")
        .bind(ids[2])
        .execute(&mut *holder)
        .await
        .unwrap();
    let cancelled = cancel["id"].as_str().unwrap().parse().unwrap();
    let undo = actions::undo(record, DEFAULT_WORKSPACE, cancelled, &BY, "x")
        .await
        .unwrap();
    let Undo::Made(undo) = undo else {
        panic!("{undo:?}")
    };
    tried(TRIES_MAX - 1).await;
    actions::step(record, undo.id).await.unwrap();
    holder.rollback().await.unwrap();
    let undone = ended(&server, &json!({ "id": undo.id })).await;
    assert_eq!(counts(&undone), [2, 1, 0, 1]);
    assert_eq!(undone["failures"][0]["job_id"], json!(ids[2]));
    server.end().await;
}

/// A row that the record refuses to change.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_can_not_be_changed_is_passed_over() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let ids = jobs(&server, 40, json!({})).await;
    // No `jsonb` can hold that, and deleting makes it one.
    let spoil = r#"UPDATE jobs SET wire = '{"data": "\u0000"}' WHERE id = ANY($1)"#;
    let spoilt = [ids[3], ids[20]];
    sqlx::query(spoil)
        .bind(&spoilt[..])
        .execute(&pool)
        .await
        .unwrap();
    let action = done(&server, json!({"action": "delete", "all": true})).await;
    assert_eq!(
        (&action["state"], counts(&action)),
        (&json!("done"), [40, 38, 0, 2])
    );
    let reason = "the record refused the change";
    let failures = [ids[20], ids[3]].map(|id| json!({ "job_id": id, "reason": reason }));
    assert_eq!(action["failures"], json!(failures));
    all_are(&pool, &spoilt, "pending").await;
    server.end().await;
}
