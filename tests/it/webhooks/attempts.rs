//! What attempts make of a webhook: which failures count, and whose word is too late.

use std::time::Duration;

use bullwark::record::webhook_attempts::{Attempt, Went, note};
use bullwark::record::webhook_events::make_deliveries;
use uuid::Uuid;

use super::events::{ALL, jobs_of, webhook};
use crate::stage::{Stage, completed, eventually, settled, spawn};

const URL: &str = "https://example.com/";

/// A webhook and a delivery of it.
async fn delivery(stage: &Stage) -> (Uuid, Uuid) {
    let workspace = crate::record_enqueue::workspace(stage).await;
    let webhook = webhook(stage, workspace, &ALL, None).await;
    let all = jobs_of(stage, workspace, 1).await;
    let done = [settled(all[0], 1, "a", completed())];
    bullwark::record::settle::settle_many(&stage.record, &done)
        .await
        .unwrap();
    assert_eq!(make_deliveries(&stage.record).await.unwrap(), 1);
    let made = "SELECT job_id FROM bullwark.webhook_deliveries".to_owned();
    (webhook, stage.scalar(made).await)
}

fn attempt((webhook_id, job_id): (Uuid, Uuid), went: Went) -> Attempt<'static> {
    Attempt {
        job_id,
        webhook_id,
        number: 1,
        url: URL,
        went,
        answer: Some((500, Duration::from_millis(3))),
    }
}

/// Whether it is in service, the failures that counted, and why it is not.
async fn state(stage: &Stage) -> (bool, i32, Option<String>) {
    let sql = "SELECT is_active, failures, disabled_reason FROM webhooks";
    sqlx::query_as(sql).fetch_one(&stage.pool).await.unwrap()
}

async fn age(stage: &Stage, failing: &str, counted: &str) {
    stage
        .execute(format!(
            "UPDATE webhooks SET failing_since = now() - interval '{failing}',
               failure_counted_at = now() - interval '{counted}'"
        ))
        .await;
}

#[tokio::test]
async fn a_webhook_that_goes_on_failing_for_five_days_is_taken_out_of_service() {
    let stage = Stage::new().await;
    let about = delivery(&stage).await;
    let fail = async || note(&stage.record, &attempt(about, Went::Failed)).await;
    for _ in 0..3 {
        assert!(!fail().await.unwrap());
        assert_eq!(state(&stage).await, (true, 1, None), "one after another");
    }
    // The next one came days later: that there was none between says nothing.
    age(&stage, "6 days", "5 days").await;
    for failures in 1..=4 {
        assert!(!fail().await.unwrap());
        assert_eq!(state(&stage).await, (true, failures, None));
        age(&stage, "6 days", "2 hours").await;
    }
    assert!(fail().await.unwrap());
    let (is_active, _, reason) = state(&stage).await;
    assert!(!is_active && reason.unwrap().starts_with("every delivery since "));
    assert!(!fail().await.unwrap(), "it is out of service already");
}

#[tokio::test]
async fn a_webhook_that_works_once_has_not_failed_and_a_young_one_is_given_time() {
    let stage = Stage::new().await;
    let about = delivery(&stage).await;
    let note = async |went| note(&stage.record, &attempt(about, went)).await.unwrap();
    for _ in 0..6 {
        note(Went::Failed).await;
        age(&stage, "4 days", "2 hours").await;
    }
    assert_eq!(state(&stage).await, (true, 6, None));
    note(Went::Delivered).await;
    assert_eq!(state(&stage).await, (true, 0, None));
    let since = "SELECT failing_since IS NULL FROM webhooks".to_owned();
    assert!(stage.scalar::<bool>(since.clone()).await);
    // A test says nothing of the webhook when it fails.
    stage
        .execute("UPDATE bullwark.webhook_deliveries SET event = 'webhook.test'".into())
        .await;
    note(Went::Failed).await;
    assert!(stage.scalar::<bool>(since).await);
    assert!(note(Went::Gone).await, "that is said in so many words");
}

#[tokio::test]
async fn who_is_too_late_or_was_elsewhere_changes_nothing() {
    let stage = Stage::new().await;
    let about = delivery(&stage).await;
    let newer = Attempt {
        number: 2,
        answer: Some((200, Duration::from_millis(5))),
        ..attempt(about, Went::Delivered)
    };
    note(&stage.record, &newer).await.unwrap();
    let gone = attempt(about, Went::Gone);
    assert!(!note(&stage.record, &gone).await.unwrap());
    let elsewhere = Attempt {
        number: 2,
        url: "https://example.com/before",
        ..gone
    };
    assert!(!note(&stage.record, &elsewhere).await.unwrap());
    assert_eq!(state(&stage).await, (true, 0, None));
    let attempts = "SELECT last_attempt FROM bullwark.webhook_deliveries".to_owned();
    assert_eq!(stage.scalar::<i32>(attempts).await, 2);
    assert!(
        note(&stage.record, &Attempt { number: 2, ..gone })
            .await
            .unwrap()
    );
    let (is_active, _, reason) = state(&stage).await;
    assert_eq!(reason.as_deref(), Some("the receiver answered 410 Gone"));
    assert!(!is_active);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_that_meets_a_success_sees_it() {
    let stage = Stage::new().await;
    let about = delivery(&stage).await;
    note(&stage.record, &attempt(about, Went::Failed))
        .await
        .unwrap();
    age(&stage, "6 days", "2 hours").await;
    stage
        .execute("UPDATE webhooks SET failures = 9".into())
        .await;
    let mut succeeds = stage.pool.begin().await.unwrap();
    sqlx::query(
        "UPDATE webhooks SET failing_since = NULL, failures = 0, failure_counted_at = NULL",
    )
    .execute(&mut *succeeds)
    .await
    .unwrap();
    let record = stage.record.clone();
    let failing = spawn(async move { note(&record, &attempt(about, Went::Failed)).await });
    eventually("it waits for the row", async || {
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity
          WHERE datname = current_database() AND wait_event_type = 'Lock')"
            .to_owned();
        stage.scalar::<bool>(waits).await.then_some(())
    })
    .await;
    succeeds.commit().await.unwrap();
    assert!(!failing.await.unwrap().unwrap());
    assert_eq!(state(&stage).await, (true, 1, None));
}
