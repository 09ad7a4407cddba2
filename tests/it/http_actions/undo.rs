//! Cancels that are taken back.

use bullwark::broker::BrokerState;
use bullwark::control;
use bullwark::job::Change;
use bullwark::record::actions::{self, Step};
use bullwark::record::control::CONTROL_MAX;
use bullwark::record::filter::JobFilter;
use bullwark::record::settle::settle_many;
use bullwark::record::start::mark_running;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{PATH, all_are, count, counts, done, ended, jobs, states, told, written_down};
use crate::http::server;
use crate::stage::{discarded, eventually, failed, running, settled};
use crate::support::server::{Answer, Server, send};

async fn undo(server: &Server, action: &Value) -> Answer {
    let path = format!("{PATH}/{}/undo", action["id"].as_str().unwrap());
    send(server.request(Method::POST, &path)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_makes_cancelled_jobs_what_they_were_unless_somebody_touched_them() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let record = &server.app.record;
    let waiting = jobs(&server, 2, json!({})).await;
    let delayed = jobs(&server, 1, json!({"delayMs": 3_600_000})).await;
    let between = jobs(&server, 1, json!({})).await;
    let busy = jobs(&server, 1, json!({})).await;
    let touched = jobs(&server, 3, json!({})).await;
    assert_eq!(
        settle_many(record, &[settled(between[0], 1, "w", failed("x"))])
            .await
            .unwrap()
            .len(),
        1
    );
    mark_running(record, "w", &[running(busy[0], 1)])
        .await
        .unwrap();
    let rows = async || -> Vec<Value> {
        let rows = "SELECT json_build_object('id', id, 'status', status, 'attempts', attempts,
          'due', scheduled_for, 'next', next_retry_at, 'error', error_message,
          'over', completed_at) FROM jobs ORDER BY id";
        sqlx::query_scalar(rows).fetch_all(&pool).await.unwrap()
    };
    let before = rows().await;
    let cancelled = done(&server, json!({"action": "cancel", "all": true})).await;
    assert_eq!(counts(&cancelled), [8, 8, 0, 0]);
    assert_ne!(cancelled["undoable_until"], Value::Null);
    told(&server, &pool).await;
    // One is run again, one deleted, one run again and cancelled by somebody else.
    let path = |id: Uuid| format!("/api/jobs/{id}");
    let retried = async |id: Uuid| {
        let path = format!("/api/jobs/{id}/retry");
        assert_eq!(send(server.request(Method::POST, &path)).await.status, 200);
    };
    retried(touched[0]).await;
    let deleted = send(server.request(Method::DELETE, &path(touched[1]))).await;
    assert_eq!(deleted.status, 200);
    retried(touched[2]).await;
    let again = server.request(Method::PATCH, &path(touched[2]));
    let again = send(again.json(&json!({"status": "cancelled", "reason": "mine"}))).await;
    assert_eq!(again.status, 200);
    let touched_before: Vec<Value> = rows().await.split_off(5);

    let undone = undo(&server, &cancelled).await;
    assert_eq!(
        (undone.status, &undone.body["action"]["action"]),
        (202, &json!("undo"))
    );
    assert_eq!(undone.body["action"]["undoes"], cancelled["id"]);
    let undone = ended(&server, &undone.body["action"]).await;
    // The deleted one is not remembered.
    assert_eq!(counts(&undone), [7, 5, 2, 0]);
    let mut after = rows().await;
    assert_eq!(after.split_off(5), touched_before);
    let mut expected = before[..5].to_vec();
    expected[4]["status"] = json!("pending"); // it ran, and waits for another start
    assert_eq!(after, expected);
    told(&server, &pool).await;
    let (ready, later) = (Some(BrokerState::Prioritized), Some(BrokerState::Delayed));
    let ids = [waiting[0], waiting[1], delayed[0], between[0], busy[0]];
    assert_eq!(
        states(&server, &ids).await,
        [ready, ready, later, later, ready]
    );
    // The start that ran has no say any more.
    let late = [settled(busy[0], 1, "w", discarded("too late"))];
    assert!(settle_many(record, &late).await.unwrap().is_empty());

    let again = undo(&server, &cancelled).await;
    assert_eq!(
        (again.status, &again.body["action"]["id"]),
        (200, &undone["id"])
    );
    let shown = server
        .get(&format!("{PATH}/{}", cancelled["id"].as_str().unwrap()))
        .await;
    assert_eq!(shown.body["action"]["undone_by"], undone["id"]);
    undo(&server, &undone).await.problem(409, "action_state");
    let audit = server
        .get(&format!("/api/audit?target_kind=job&target_id={}", busy[0]))
        .await;
    let newest = &audit.body["audit"][0];
    assert_eq!(
        (&newest["action"], &newest["after"]["status"]),
        (&json!("job.undo"), &json!("pending"))
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_undo_at_once_are_told_of_the_same_undo() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    jobs(&server, 1, json!({})).await;
    let cancelled = done(&server, json!({"action": "cancel", "all": true})).await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM bullwark.actions FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();
    let both = async { tokio::join!(undo(&server, &cancelled), undo(&server, &cancelled)) };
    let release = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
          WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("both wait", async || {
            (count(&pool, waiting).await == 2).then_some(())
        })
        .await;
        holder.commit().await.unwrap();
    };
    let ((one, other), ()) = tokio::join!(both, release);
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 202], "{one:?} {other:?}");
    assert_eq!(one.body["action"]["id"], other.body["action"]["id"]);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_stops_a_cancel_that_runs_and_comes_too_late_after_its_window() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let ids = jobs(&server, CONTROL_MAX + 1, json!({})).await;
    let cancel = written_down(&server, Change::Cancel, &JobFilter::default()).await;
    actions::step(&server.app.record, cancel).await.unwrap();
    let undone = undo(&server, &json!({ "id": cancel })).await;
    let undone = ended(&server, &undone.body["action"]).await;
    assert_eq!(
        counts(&undone),
        [CONTROL_MAX as i64, CONTROL_MAX as i64, 0, 0]
    );
    assert_eq!(
        actions::step(&server.app.record, cancel).await.unwrap(),
        Step::Left
    );
    all_are(&pool, &ids, "pending").await;

    let cancelled = done(&server, json!({"action": "cancel", "all": true})).await;
    let over = "UPDATE bullwark.actions SET undoable_until = now() - interval '2 minutes'
      WHERE action = 'cancel'";
    sqlx::query(over).execute(&pool).await.unwrap();
    let late = undo(&server, &cancelled).await;
    assert!(
        late.problem(409, "action_state")
            .contains("it could be undone until")
    );
    all_are(&pool, &ids, "cancelled").await;
    while control::actions::prune(&server.app.record).await.unwrap() {}
    let remembered = "SELECT count(*) FROM bullwark.cancelled_jobs";
    assert_eq!(count(&pool, remembered).await, 0);
    let old = "UPDATE bullwark.actions SET ended_at = now() - interval '31 days'";
    sqlx::query(old).execute(&pool).await.unwrap();
    while control::actions::prune(&server.app.record).await.unwrap() {}
    assert_eq!(
        count(&pool, "SELECT count(*) FROM bullwark.actions").await,
        0
    );
    server.end().await;
}
