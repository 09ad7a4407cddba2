//! From events to jobs: each becomes one, whoever dies when and however many are at it.

use std::collections::HashSet;

use bullwark::record::settle::settle_many;
use bullwark::record::webhook_events::{make_deliveries, make_deliveries_up_to};
use bullwark::record::webhook_upkeep::{close_ended, prune};
use serde_json::Value;
use uuid::Uuid;

use super::events::{ALL, jobs_of, webhook};
use crate::stage::{Stage, completed, failed, settled};

/// The messages of all deliveries, oldest first.
async fn messages(stage: &Stage) -> Vec<Value> {
    sqlx::query_scalar(
        "SELECT j.payload -> 'message' FROM bullwark.webhook_deliveries d
         JOIN jobs j ON j.id = d.job_id JOIN bullwark.outbox o ON o.job_id = j.id ORDER BY o.seq",
    )
    .fetch_all(&stage.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_process_that_dies_between_event_and_job_leaves_the_event() {
    let stage = Stage::new().await;
    let workspace = crate::record_enqueue::workspace(&stage).await;
    webhook(&stage, workspace, &ALL, None).await;
    let all = jobs_of(&stage, workspace, 2).await;
    let done = all.iter().map(|id| settled(*id, 1, "a", completed()));
    let done: Vec<_> = done.collect();
    settle_many(&stage.record, &done).await.unwrap();
    // Everything is written but the last statement: as if the process ended before its commit.
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'gone'; END $$;
      CREATE TRIGGER refuse BEFORE DELETE ON bullwark.webhook_events
        FOR EACH ROW EXECUTE FUNCTION refuse()";
    stage.execute(refuse.to_owned()).await;
    make_deliveries(&stage.record).await.unwrap_err();
    assert_eq!(stage.count("bullwark.webhook_events").await, 1);
    assert_eq!(stage.count("bullwark.webhook_deliveries").await, 0);
    assert_eq!(stage.count("jobs").await, 2);
    assert_eq!(stage.count("bullwark.outbox").await, 0);
    let allow = "DROP TRIGGER refuse ON bullwark.webhook_events";
    stage.execute(allow.to_owned()).await;
    assert_eq!(make_deliveries(&stage.record).await.unwrap(), 2);
    assert_eq!(make_deliveries(&stage.record).await.unwrap(), 0);
    assert_eq!(messages(&stage).await.len(), 2);

    // A record that was restored in between has the event once more: its job is there already.
    let repeat = format!(
        "INSERT INTO bullwark.webhook_events (id, webhook_id, event, at, job_ids, starts, failures)
         OVERRIDING SYSTEM VALUE
         SELECT 1000000, webhook_id, 'job.completed', 'epoch', '{{{}}}', '{{1}}', '{{0}}'
         FROM bullwark.webhook_deliveries LIMIT 1",
        all[0]
    );
    for _ in 0..2 {
        stage.execute(repeat.clone()).await;
        assert_eq!(make_deliveries(&stage.record).await.unwrap(), 1);
    }
    assert_eq!(messages(&stage).await.len(), 3);
}

#[tokio::test]
async fn a_message_tells_of_that_attempt_whatever_came_after_it() {
    let stage = Stage::new().await;
    let workspace = crate::record_enqueue::workspace(&stage).await;
    webhook(&stage, workspace, &ALL, None).await;
    let all = jobs_of(&stage, workspace, 1).await;
    for outcome in [
        settled(all[0], 1, "a", failed("the first")),
        settled(all[0], 2, "a", failed("the second")),
        settled(all[0], 3, "a", completed()),
    ] {
        settle_many(&stage.record, &[outcome]).await.unwrap();
    }
    make_deliveries(&stage.record).await.unwrap();
    let told: Vec<_> = messages(&stage)
        .await
        .into_iter()
        .map(|message| {
            let job = &message["data"]["job"];
            assert_eq!(job["id"], all[0].to_string());
            assert!(job["started_at"].is_string() && job["ended_at"].is_string());
            assert_eq!(job.as_object().unwrap().len(), 9, "thin: {job}");
            (
                message["type"].clone(),
                job["status"].clone(),
                job["error_message"].clone(),
            )
        })
        .collect();
    let expected = [
        ("job.failed", "failed", Value::from("the first")),
        ("job.failed", "failed", Value::from("the second")),
        ("job.completed", "completed", Value::Null),
    ]
    .map(|(event, status, error)| (Value::from(event), Value::from(status), error));
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_at_it_together_make_one_job_of_each_also_of_large_rows() {
    let stage = Stage::new().await;
    let workspace = crate::record_enqueue::workspace(&stage).await;
    let id = webhook(&stage, workspace, &ALL, None).await;
    let all = jobs_of(&stage, workspace, 40).await;
    // More jobs in one row than one batch takes.
    stage
        .execute(format!(
            "WITH made AS (
               INSERT INTO jobs (workspace_id, job_type, payload, status)
               SELECT '{workspace}', 'noop', '{{}}', 'completed' FROM generate_series(1, 700)
               RETURNING id)
             INSERT INTO bullwark.webhook_events (webhook_id, event, job_ids, starts, failures)
             SELECT '{id}', 'job.completed', array_agg(id), array_agg(1), array_agg(0) FROM made"
        ))
        .await;
    for id in &all {
        let done = [settled(*id, 1, "a", completed())];
        settle_many(&stage.record, &done).await.unwrap();
    }
    let at_it = async || while make_deliveries(&stage.record).await.unwrap() > 0 {};
    tokio::join!(at_it(), at_it(), at_it());
    at_it().await;
    assert_eq!(stage.count("bullwark.webhook_events").await, 0);
    let told: Vec<Uuid> =
        sqlx::query_scalar("SELECT about_job_id FROM bullwark.webhook_deliveries")
            .fetch_all(&stage.pool)
            .await
            .unwrap();
    assert_eq!(told.len(), 740);
    assert_eq!(told.iter().collect::<HashSet<_>>().len(), 740);
    assert_eq!(messages(&stage).await.len(), 740);
}

/// Rows of this webhook, of one job each.
async fn ends(stage: &Stage, jobs: &[Uuid]) {
    for id in jobs {
        let done = [settled(*id, 1, "a", completed())];
        settle_many(&stage.record, &done).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_too_much_for_a_webhook_is_counted_and_dropped_and_others_are_told() {
    let stage = Stage::new().await;
    let workspace = crate::record_enqueue::workspace(&stage).await;
    let full = webhook(&stage, workspace, &ALL, None).await;
    let all = jobs_of(&stage, workspace, 6).await;
    ends(&stage, &all[..3]).await;
    assert_eq!(make_deliveries_up_to(&stage.record, 4).await.unwrap(), 3);
    let other = webhook(&stage, workspace, &ALL, None).await;
    ends(&stage, &all[3..]).await;
    assert_eq!(make_deliveries_up_to(&stage.record, 4).await.unwrap(), 6);
    let counts = async |webhook: Uuid| {
        let sql = format!(
            "SELECT (SELECT count(*) FROM bullwark.webhook_deliveries d WHERE d.webhook_id = w.id),
               w.dropped, w.dropped_since IS NOT NULL
             FROM webhooks w WHERE w.id = '{webhook}'"
        );
        let counts: (i64, i64, bool) = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .fetch_one(&stage.pool)
            .await
            .unwrap();
        counts
    };
    assert_eq!(counts(full).await, (4, 2, true));
    assert_eq!(counts(other).await, (3, 0, false));

    // Those that have ended make room, and are forgotten when they are old.
    let cancelled = "UPDATE jobs SET status = 'cancelled', completed_at = now()
       WHERE job_type = 'deliver_webhook'";
    stage.execute(cancelled.into()).await;
    assert_eq!(
        close_ended(&stage.record, Default::default())
            .await
            .unwrap(),
        None
    );
    let open = "SELECT count(*) FROM bullwark.webhook_deliveries WHERE is_open".to_owned();
    assert_eq!(stage.scalar::<i64>(open).await, 0);
    let more = jobs_of(&stage, workspace, 1).await;
    ends(&stage, &more).await;
    assert_eq!(make_deliveries_up_to(&stage.record, 4).await.unwrap(), 2);
    assert_eq!(counts(full).await, (5, 2, true));
    assert!(!prune(&stage.record).await.unwrap());
    assert_eq!(stage.count("bullwark.webhook_deliveries").await, 9);
}

#[tokio::test]
async fn a_long_backlog_of_one_webhook_does_not_keep_another_waiting() {
    let stage = Stage::new().await;
    let workspace = crate::record_enqueue::workspace(&stage).await;
    let id = webhook(&stage, workspace, &ALL, Some("mail")).await;
    let all = jobs_of(&stage, workspace, 1).await;
    stage
        .execute(format!(
            "INSERT INTO bullwark.webhook_events (webhook_id, event, job_ids, starts, failures)
             SELECT '{id}', 'job.completed', ARRAY['{}'::uuid], '{{1}}', '{{0}}'
             FROM generate_series(1, 300)",
            all[0]
        ))
        .await;
    let other = webhook(&stage, workspace, &ALL, None).await;
    ends(&stage, &all).await;
    make_deliveries(&stage.record).await.unwrap();
    let told =
        format!("SELECT count(*) FROM bullwark.webhook_deliveries WHERE webhook_id = '{other}'");
    assert_eq!(stage.scalar::<i64>(told).await, 1);
    assert!(stage.count("bullwark.webhook_events").await > 200);
}

#[tokio::test]
async fn old_deliveries_and_secrets_that_sign_no_more_are_forgotten() {
    let stage = Stage::new().await;
    let workspace = crate::record_enqueue::workspace(&stage).await;
    let id = webhook(&stage, workspace, &ALL, None).await;
    let rows = format!(
        "UPDATE webhooks SET previous_secret = 'x', previous_secret_until = now() - interval '1 s';
         WITH made AS (
           INSERT INTO jobs (id, workspace_id, job_type, payload, status)
           SELECT id::uuid, '{workspace}', 'deliver_webhook', '{{}}', 'completed'
           FROM (VALUES ('01800000-0000-7000-8000-000000000001'),
             ('01800000-0000-7000-8000-000000000002')) AS v (id)
           RETURNING id)
         INSERT INTO bullwark.webhook_deliveries (job_id, webhook_id, workspace_id, message_id,
           event, is_open)
         SELECT id, '{id}', '{workspace}', '', 'job.completed', id::text LIKE '%2' FROM made"
    );
    stage.execute(rows).await;
    assert!(!prune(&stage.record).await.unwrap());
    let left = "SELECT job_id::text FROM bullwark.webhook_deliveries".to_owned();
    assert!(
        stage.scalar::<String>(left).await.ends_with('2'),
        "it is open"
    );
    assert_eq!(stage.count("bullwark.webhook_deliveries").await, 1);
    let kept = "SELECT previous_secret IS NULL FROM webhooks".to_owned();
    assert!(stage.scalar::<bool>(kept).await);
}

/// The record lost the commit that made a delivery, and Redis has the job still.
#[tokio::test]
async fn a_delivery_that_came_back_alone_is_vouched_for_and_no_other_job_is() {
    let stage = Stage::new().await;
    let workspace = crate::record_enqueue::workspace(&stage).await;
    webhook(&stage, workspace, &ALL, None).await;
    let all = jobs_of(&stage, workspace, 1).await;
    ends(&stage, &all).await;
    let keep = "CREATE TABLE kept AS SELECT * FROM bullwark.webhook_events";
    stage.execute(keep.into()).await;
    make_deliveries(&stage.record).await.unwrap();
    let again = "DELETE FROM bullwark.webhook_deliveries;
      INSERT INTO bullwark.webhook_events OVERRIDING SYSTEM VALUE SELECT * FROM kept";
    stage.execute(again.into()).await;
    assert_eq!(make_deliveries(&stage.record).await.unwrap(), 1);
    assert_eq!(stage.count("bullwark.webhook_deliveries").await, 1);
    assert_eq!(stage.count("jobs").await, 2);
    let forge = "UPDATE jobs SET payload = payload || '{\"message\": {}}'
      WHERE job_type = 'deliver_webhook'";
    stage.execute(forge.into()).await;
    stage.execute(again.into()).await;
    assert_eq!(make_deliveries(&stage.record).await.unwrap(), 1);
    assert_eq!(stage.count("bullwark.webhook_deliveries").await, 0);
}
