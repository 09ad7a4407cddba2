//! `cleanup_data`: what goes, what stays, who allows it, and what is left when it is interrupted.

use bullwark::broker::BrokerState;
use bullwark::job::QueueName;
use bullwark::job::webhook;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::stage::eventually;
use crate::support::server::{Answer, OTHER_KEY, OTHER_WORKSPACE, send};
use crate::webhooks::rig::Rig;

/// An id as a job has that was made so many days ago.
fn old_id(days: u64) -> Uuid {
    let made_ms = bullwark::clock::now_ms() as u64 - days * 24 * 3600 * 1000;
    let random: [u8; 10] = Uuid::new_v4().as_bytes()[..10].try_into().unwrap();
    uuid::Builder::from_unix_timestamp_millis(made_ms, &random).into_uuid()
}

impl Rig {
    async fn allow(&self, retention: Value) -> Answer {
        let request = self.server.request(Method::PUT, "/api/retention");
        send(request.json(&retention)).await
    }

    /// A job that was made and ended so many days ago, in this status.
    async fn job_of(&self, workspace: Uuid, days: u64, status: &str) -> Uuid {
        let id = old_id(days);
        let ended = match status {
            "pending" => "NULL".to_owned(),
            _ => format!("now() - interval '{days} days'"),
        };
        self.sql(format!(
            "INSERT INTO jobs (id, workspace_id, job_type, payload, status, created_at,
               completed_at)
             VALUES ('{id}', '{workspace}', 'noop', '{{}}', '{status}',
               now() - interval '{days} days', {ended});
             INSERT INTO job_logs (job_id, log_level, message, created_at)
             VALUES ('{id}', 'info', 'hello', now() - interval '{days} days')"
        ))
        .await;
        id
    }

    async fn job_ago(&self, days: u64, status: &str) -> Uuid {
        self.job_of(DEFAULT_WORKSPACE, days, status).await
    }

    /// Of these jobs, those that are there for their readers.
    async fn left(&self, ids: &[Uuid]) -> Vec<Uuid> {
        let left = "SELECT id FROM jobs WHERE id = ANY($1) AND deleted_at IS NULL ORDER BY id";
        let left = sqlx::query_scalar(left).bind(ids);
        left.fetch_all(&self.pool).await.unwrap()
    }

    async fn count(&self, sql: &str) -> i64 {
        let count = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
        count.fetch_one(&self.pool).await.unwrap()
    }

    /// The result of a cleanup that completes.
    async fn cleaned(&self, payload: Value) -> Value {
        let id = self.enqueue(cleanup(payload)).await;
        self.until(&id, "completed").await["result"].clone()
    }
}

fn cleanup(payload: Value) -> Value {
    json!({ "jobType": "cleanup_data", "payload": payload })
}

const LINES: &str = "SELECT count(*) FROM job_logs WHERE message = 'hello'";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_enough_goes_and_nothing_else() {
    let rig = Rig::guarded().await;
    let working = rig.work();
    let gone = [
        rig.job_ago(40, "completed").await,
        rig.job_ago(31, "completed").await,
        rig.job_ago(12, "cancelled").await,
    ];
    // Tomorrow it is due: nobody runs it here.
    let parent = rig.job_ago(50, "completed").await;
    rig.sql(format!(
        "UPDATE jobs SET status = 'pending', completed_at = NULL,
           scheduled_for = now() + interval '1 day' WHERE id = '{parent}'"
    ))
    .await;
    let child = rig.job_ago(45, "completed").await;
    rig.sql(format!(
        "UPDATE jobs SET wire = '{{\"parentKey\": \"x:default:{parent}\",
           \"parent\": \"{{\\\"id\\\":\\\"{parent}\\\",\\\"queueKey\\\":\\\"x:default\\\"}}\"}}'
         WHERE id = '{child}'"
    ))
    .await;
    let mut stay = vec![
        parent,
        child,
        rig.job_ago(29, "completed").await,
        rig.job_ago(9, "cancelled").await,
        // Nothing says that they go.
        rig.job_ago(400, "dead_letter").await,
        rig.job_of(OTHER_WORKSPACE, 400, "completed").await,
    ];
    // It was made long ago and ended just now.
    let slow = rig.job_ago(60, "completed").await;
    rig.sql(format!(
        "UPDATE jobs SET completed_at = now() WHERE id = '{slow}'"
    ))
    .await;
    stay.push(slow);
    stay.sort();
    for (job, days) in [(gone[0], 3), (slow, 1)] {
        rig.sql(format!(
            "INSERT INTO exports (id, workspace_id, entity_type, format, file_name, status, bytes,
               sha256, finished_at, expires_at)
             VALUES ('{job}', '{DEFAULT_WORKSPACE}', 'accounts', 'csv', 'a.csv', 'completed', 5,
               '', now() - interval '{days} days', now() + interval '2 days')"
        ))
        .await;
    }
    let kept = json!({
        "completed_jobs": 30, "cancelledJobs": 10, "job_logs": 20, "exports": 2,
    });
    assert_eq!(rig.allow(kept).await.status, 200);

    let counts = json!({
        "completed_jobs": 2, "cancelled_jobs": 1, "dead_letters": 0, "job_logs": 6, "exports": 1,
        "export_bytes": 5, "webhook_deliveries": 0,
    });
    let dry = rig.cleaned(json!({ "dry_run": true })).await;
    assert_eq!((&dry["removed"], &dry["dry_run"]), (&counts, &json!(true)));
    assert_eq!(rig.left(&gone).await.len(), 3, "a dry run removes nothing");
    assert_eq!(rig.count(LINES).await, 10);
    let audit = rig.server.get("/api/audit").await.body.to_string();
    assert!(!audit.contains("retention.apply"), "{audit}");

    let id = rig.enqueue(cleanup(json!({}))).await;
    let done = rig.until(&id, "completed").await["result"].clone();
    assert_eq!(
        (&done["removed"], &done["dry_run"]),
        (&counts, &json!(false))
    );
    assert_eq!(done["kept_for_open_parents"], 1);
    assert_eq!(rig.left(&gone).await, Vec::<Uuid>::new());
    assert_eq!(rig.left(&stay).await, stay);
    assert_eq!(
        rig.count(LINES).await,
        3,
        "of an open job, a young and a foreign one"
    );
    let files = "SELECT count(*) FROM exports WHERE status = 'completed'";
    assert_eq!(rig.count(files).await, 1);

    let audit = rig.server.get("/api/audit").await.body;
    let rows = audit["audit"].as_array().unwrap();
    let by_job = rows.iter().filter(|row| row["actor_kind"] == "job");
    let mut removed = serde_json::Map::new();
    for row in by_job {
        assert_eq!(
            (&row["action"], &row["actor_id"]),
            (&json!("retention.apply"), &json!(id))
        );
        removed.extend(row["after"].as_object().unwrap().clone());
    }
    let told = json!({ "completed_jobs": 2, "cancelled_jobs": 1, "job_logs": 6, "exports": 1 });
    assert_eq!(Value::Object(removed), told);

    let again = rig.cleaned(json!({})).await;
    let nothing = again["removed"].as_object().unwrap().values();
    assert!(nothing.clone().all(|count| count == 0), "{again}");

    // One that was done looks again when it is run again by hand.
    let late = [rig.job_ago(33, "completed").await];
    let retry = rig
        .server
        .request(Method::POST, &format!("/api/jobs/{id}/retry"));
    assert_eq!(send(retry).await.status, 200);
    rig.tell().await;
    let done = rig.until(&id, "completed").await["result"].clone();
    assert_eq!(done["removed"]["completed_jobs"], 1, "{done}");
    assert_eq!(rig.left(&late).await, Vec::<Uuid>::new());
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_removes_no_more_than_admins_allow() {
    let rig = Rig::guarded().await;
    let working = rig.work();
    let old = [rig.job_ago(40, "completed").await];
    let dead = async |payload: Value, why: &str| {
        let id = rig.enqueue(cleanup(payload)).await;
        let dead = rig.until(&id, "dead_letter").await;
        let said = dead["error_message"].as_str().unwrap();
        assert!(said.contains(why), "{said}");
        assert_eq!(rig.left(&old).await, old);
    };
    dead(json!({}), "`PUT /api/retention`").await;
    dead(json!({ "retention": { "completed_jobs": 1 } }), "is kept").await;
    assert_eq!(rig.allow(json!({ "completed_jobs": 30 })).await.status, 200);
    let asked = json!({ "completed_jobs": 29, "job_logs": 90 });
    dead(
        json!({ "retention": asked }),
        "`completed_jobs` is kept for 30 days, not 29, `job_logs` is kept.",
    )
    .await;
    let dry = json!({ "retention": asked, "dry_run": true });
    assert_eq!(rig.cleaned(dry).await["removed"]["completed_jobs"], 1);
    assert_eq!(rig.left(&old).await, old);
    let less = json!({ "retention": { "completed_jobs": 41 } });
    assert_eq!(rig.cleaned(less).await["removed"]["completed_jobs"], 0);

    // Whoever writes may start a cleanup, and not say what it may do.
    let scopes = json!({ "name": "writer", "scopes": ["read", "write"] });
    let writer = rig.server.post("/api/api-keys", scopes).await.body["key"].clone();
    let ask = async |method: Method, key: &str, body: Value| {
        let request = rig.server.anonymous(method, "/api/retention");
        send(request.bearer_auth(key).json(&body)).await
    };
    let writer = writer.as_str().unwrap();
    let wish = json!({ "completed_jobs": 1 });
    let refused = ask(Method::PUT, writer, wish.clone()).await;
    refused.problem(403, "forbidden");
    let shown = ask(Method::GET, writer, Value::Null).await;
    assert_eq!(shown.body["retention"]["completed_jobs"], 30);
    assert_eq!(shown.body["retention"]["job_logs"], Value::Null);
    let theirs = ask(Method::GET, OTHER_KEY, Value::Null).await;
    assert_eq!(theirs.body["retention"]["completed_jobs"], Value::Null);
    for wrong in [json!({ "job_logs": 0 }), json!({ "job_logs": 3651 })] {
        let refused = rig.allow(wrong).await;
        assert_eq!(refused.status, 422, "{refused:?}");
        assert_eq!(refused.body["errors"][0]["pointer"], "/job_logs");
    }
    assert_eq!(rig.allow(json!({ "jobs": 1 })).await.status, 422);
    let audit = rig.server.get("/api/audit").await.body.to_string();
    assert!(audit.contains("retention.set"), "{audit}");
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_is_counted_once_when_the_worker_dies() {
    let rig = Rig::guarded().await;
    let mut old = Vec::new();
    for _ in 0..3 {
        old.push(rig.job_ago(40, "completed").await);
    }
    // More than one page.
    rig.sql(format!(
        "INSERT INTO jobs (id, workspace_id, job_type, payload, status, completed_at)
         SELECT ('{}' || to_char(n, 'FM0000'))::uuid, '{DEFAULT_WORKSPACE}', 'noop', '{{}}',
           'completed', now() - interval '40 days'
         FROM generate_series(1, 1200) n",
        &old_id(40).to_string()[..32]
    ))
    .await;
    let kept = json!({ "completed_jobs": 30, "job_logs": 30 });
    assert_eq!(rig.allow(kept).await.status, 200);
    let mut wish = cleanup(json!({}));
    wish["queue"] = json!(webhook::QUEUE);
    let id = rig.enqueue(wish).await;
    rig.work_until_it_dies("after_handler:abort:nth=1").await;
    assert_eq!(rig.left(&old).await, Vec::<Uuid>::new());
    let rescue = rig.rescue();
    let working = rig.work();
    let done = rig.until(&id, "completed").await;
    assert_eq!(done["result"]["removed"]["completed_jobs"], 1203);
    assert_eq!(done["result"]["removed"]["job_logs"], 3);
    let audited = "SELECT coalesce(sum((after ->> 'completed_jobs')::int), 0)
      FROM bullwark.audit_log WHERE action = 'retention.apply'";
    assert_eq!(rig.count(audited).await, 1203);
    drop(rescue);
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanup_that_is_cancelled_keeps_what_is_done_and_does_no_more() {
    let rig = Rig::guarded().await;
    let old = [rig.job_ago(40, "completed").await];
    let kept = json!({ "completed_jobs": 30, "job_logs": 30 });
    assert_eq!(rig.allow(kept).await.status, 200);
    // Redis is far behind: no jobs are deleted until it has caught up.
    rig.sql(format!(
        "INSERT INTO bullwark.outbox (job_id) SELECT '{}' FROM generate_series(1, 2000)",
        old[0]
    ))
    .await;
    let working = rig.work();
    let id = rig.enqueue(cleanup(json!({}))).await;
    eventually("the lines are gone", async || {
        (rig.count(LINES).await == 0).then_some(())
    })
    .await;
    let cancel = json!({ "status": "cancelled", "reason": "enough" });
    let cancelled = rig.patch(&format!("/api/jobs/{id}"), cancel).await;
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    rig.sql("DELETE FROM bullwark.outbox".to_owned()).await;
    rig.tell().await;
    working.hurry().await;
    assert_eq!(rig.left(&old).await, old);
    assert_eq!(rig.count(LINES).await, 0);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_from_redis_too() {
    let rig = Rig::guarded().await;
    let working = rig.work();
    let id = rig.job_ago(40, "pending").await;
    rig.sql(format!(
        "INSERT INTO bullwark.outbox (job_id) VALUES ('{id}')"
    ))
    .await;
    rig.tell().await;
    rig.until(&id.to_string(), "completed").await;
    let broker = &rig.server.app.broker;
    let state = async || -> Option<BrokerState> {
        let queue = QueueName::default();
        let states = broker.states(&queue, &[id.to_string()]).await;
        states.unwrap().pop().unwrap()
    };
    eventually("redis has it as completed", async || {
        (state().await == Some(BrokerState::Completed)).then_some(())
    })
    .await;
    rig.sql(format!(
        "UPDATE jobs SET completed_at = now() - interval '31 days' WHERE id = '{id}'"
    ))
    .await;
    assert_eq!(rig.allow(json!({ "completed_jobs": 30 })).await.status, 200);
    let done = rig.cleaned(json!({})).await;
    assert_eq!(done["removed"]["completed_jobs"], 1);
    rig.tell().await;
    assert_eq!(state().await, None);
    working.hurry().await;
    rig.end().await;
}
