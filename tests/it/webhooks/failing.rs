//! Receivers that fail, want no more, or are where nothing may be called.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::receiver::Receiver;
use super::rig::Rig;
use crate::stage::eventually;

/// How long until the next try, in seconds.
async fn wait_s(rig: &Rig, delivery: &str) -> f64 {
    sqlx::query_scalar(
        "SELECT extract(epoch FROM next_retry_at - failed_at)::float8 FROM jobs
         WHERE id = $1::uuid",
    )
    .bind(delivery)
    .fetch_one(&rig.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_is_asked_again_as_it_wishes_under_the_same_id() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let (webhook, secret) = rig
        .webhook(&receiver.url("/?key=hush"), &["job.completed"])
        .await;
    receiver.answer_with(&[
        ("503 Service Unavailable", "retry-after: 77\r\n"),
        ("500 Internal Server Error", "retry-after: 9999\r\n"),
        ("302 Found", "location: http://127.0.0.1:1/\r\n"),
    ]);
    let working = rig.work();
    let job = rig.noop().await;
    rig.until(&job, "completed").await;
    rig.tell().await;
    let delivery = rig.deliveries(&webhook).await.remove(0);
    let delivery = delivery["id"].as_str().unwrap().to_owned();
    for (attempt, waits, error) in [
        (1, 77.0..77.1, "answered 503: words"),
        (2, 269.0..331.0, "answered 500"),
        (3, 1619.0..1981.0, "redirects are not followed"),
    ] {
        let what = format!("attempt {attempt} has failed");
        let told = eventually(&what, async || {
            let newest = rig.deliveries(&webhook).await.remove(0);
            let is_over = newest["status"] == "failed" && newest["attempts"] == attempt;
            is_over.then_some(newest)
        })
        .await;
        let message = told["error_message"].as_str().unwrap();
        assert!(message.contains(error), "{message}");
        assert!(!message.contains("hush"), "{message}");
        assert!(told["next_retry_at"].is_string());
        let wait = wait_s(&rig, &delivery).await;
        assert!(waits.contains(&wait), "{attempt}: {wait}");
        let shown = rig.server.get(&webhook).await.body;
        assert!(shown["webhook"]["failing_since"].is_string());
        let promote = format!("/api/jobs/{delivery}/promote");
        assert_eq!(rig.server.post(&promote, Value::Null).await.status, 200);
    }
    let told = rig.delivery_until(&webhook, "completed").await;
    assert_eq!(
        (&told["last_status"], &told["attempts"]),
        (&json!(200), &json!(3))
    );
    let shown = rig.server.get(&webhook).await.body;
    assert_eq!(shown["webhook"]["failing_since"], Value::Null);
    let got = receiver.got();
    assert_eq!(got.len(), 4, "nothing follows a redirect");
    for one in &got {
        assert_eq!(one.header("webhook-id"), got[0].header("webhook-id"));
        assert_eq!(one.signed_by(&secret), 1);
    }
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_gone_takes_its_webhook_out_of_service() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let (webhook, _) = rig.webhook(&receiver.url("/"), &["job.completed"]).await;
    receiver.answer_with(&[("410 Gone", "")]);
    let working = rig.work();
    let job = rig.noop().await;
    rig.until(&job, "completed").await;
    rig.tell().await;
    let told = rig.delivery_until(&webhook, "dead_letter").await;
    assert_eq!(told["last_status"], 410, "{told}");
    let shown = rig.server.get(&webhook).await.body["webhook"].clone();
    assert_eq!(shown["is_active"], false);
    let reason = shown["disabled_reason"].as_str().unwrap();
    assert!(reason.contains("410"), "{reason}");
    let test = format!("{webhook}/test");
    let refused = rig.server.post(&test, Value::Null).await;
    refused.problem(409, "webhook_inactive");
    let replay = format!(
        "{webhook}/deliveries/{}/replay",
        told["id"].as_str().unwrap()
    );
    let refused = rig.server.post(&replay, Value::Null).await;
    refused.problem(409, "webhook_inactive");
    // Nothing more is noted for it.
    let job = rig.noop().await;
    rig.until(&job, "completed").await;
    rig.tell().await;
    assert_eq!(rig.deliveries(&webhook).await.len(), 1);

    let back = rig.patch(&webhook, json!({ "isActive": true })).await.body["webhook"].clone();
    assert_eq!(
        (
            &back["is_active"],
            &back["disabled_reason"],
            &back["failing_since"]
        ),
        (&json!(true), &Value::Null, &Value::Null)
    );
    assert_eq!(rig.server.post(&replay, Value::Null).await.status, 202);
    rig.delivery_until(&webhook, "completed").await;
    assert_eq!(receiver.got().len(), 2);
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_keeps_few_slots_and_costs_nobody_a_try() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let (webhook, _) = rig.webhook(&receiver.url("/"), &["job.completed"]).await;
    receiver.close_gate();
    let test = format!("{webhook}/test");
    for _ in 0..8 {
        rig.server.post(&test, Value::Null).await;
    }
    let working = rig.work();
    let put_off = eventually("two are put off", async || {
        let deliveries = rig.deliveries(&webhook).await;
        let is_put_off =
            |one: &&Value| one["status"] == "pending" && !one["error_message"].is_null();
        let put_off: Vec<_> = deliveries.iter().filter(is_put_off).cloned().collect();
        (put_off.len() == 2).then_some(put_off)
    })
    .await;
    assert_eq!(receiver.until(6).await.len(), 6);
    receiver.open_gate();
    for one in &put_off {
        assert_eq!(one["attempts"], 0);
        let promote = format!("/api/jobs/{}/promote", one["id"].as_str().unwrap());
        rig.server.post(&promote, Value::Null).await;
    }
    for delivery in rig.deliveries(&webhook).await {
        rig.until(delivery["id"].as_str().unwrap(), "completed")
            .await;
    }
    // On a slow machine a call may have ended at its limit, and come again.
    let got = receiver.got();
    let messages: HashSet<_> = got.iter().map(|one| one.header("webhook-id")).collect();
    assert_eq!(messages.len(), 8);
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_that_hang_keep_no_other_job_waiting() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    receiver.close_gate();
    let mut deliveries = Vec::new();
    for _ in 0..3 {
        let (webhook, _) = rig.webhook(&receiver.url("/"), &["job.failed"]).await;
        let test = format!("{webhook}/test");
        for _ in 0..2 {
            let sent = rig.server.post(&test, Value::Null).await;
            deliveries.push(sent.body["delivery"]["id"].as_str().unwrap().to_owned());
        }
    }
    // Theirs comes first, and is longer than all slots.
    let working = rig.work_with(4);
    receiver.until(1).await;
    for _ in 0..3 {
        let job = rig.noop().await;
        rig.until(&job, "completed").await;
    }
    assert_eq!(receiver.got().len(), 1, "a quarter of the slots");
    receiver.open_gate();
    for delivery in &deliveries {
        rig.until(delivery, "completed").await;
    }
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_inside_is_refused_when_it_is_resolved() {
    let (rig, receiver) = (Rig::guarded().await, Receiver::start().await);
    let (webhook, _) = rig
        .webhook("https://example.com/?key=hush", &["job.failed"])
        .await;
    let working = rig.work();
    // As a name that was public when it was given: the own machine's by name, by number, in clear.
    for (url, why) in [
        ("https://localhost:PORT/?key=hush", "inside of this network"),
        ("https://127.0.0.1:PORT/?key=hush", "inside of this network"),
        ("http://localhost:PORT/?key=hush", "must begin with https"),
    ] {
        let url = url.replace("PORT", &receiver.port.to_string());
        rig.sql(format!("UPDATE webhooks SET url = '{url}'")).await;
        rig.server
            .post(&format!("{webhook}/test"), Value::Null)
            .await;
        let told = rig.delivery_until(&webhook, "failed").await;
        let error = told["error_message"].as_str().unwrap();
        assert!(error.contains(why), "{error}");
        assert!(!error.contains("hush"), "{error}");
        assert_eq!(told["last_status"], Value::Null);
    }
    assert_eq!(receiver.got().len(), 0);
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_another_key_says_which_setting_is_missing() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let (webhook, _) = rig.webhook(&receiver.url("/"), &["job.failed"]).await;
    // Before it was read: the handlers of this process open secrets by themselves.
    let key = rig.server.data_dir.path().join("encryption.key");
    std::fs::write(key, "ab".repeat(32)).unwrap();
    let working = rig.work();
    rig.server
        .post(&format!("{webhook}/test"), Value::Null)
        .await;
    let told = rig.delivery_until(&webhook, "failed").await;
    let error = told["error_message"].as_str().unwrap();
    assert!(error.contains("BULLWARK_ENCRYPTION_KEY"), "{error}");
    assert_eq!(receiver.got().len(), 0);
    let shown = rig.server.get(&webhook).await.body;
    assert_eq!(
        shown["webhook"]["failing_since"],
        Value::Null,
        "not the receiver's fault"
    );
    working.hurry().await;
    rig.end().await;
}
