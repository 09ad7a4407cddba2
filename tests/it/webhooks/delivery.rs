//! What a receiver gets: signed, told once, and known again when it comes twice.

use serde_json::{Value, json};

use super::receiver::Receiver;
use super::rig::Rig;
use crate::stage::{PATIENCE, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_is_told_of_each_end_once_and_can_check_who_says_so() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let events = ["job.completed", "job.dead_letter", "job.cancelled"];
    let (webhook, secret) = rig.webhook(&receiver.url("/hooks?key=hush"), &events).await;
    let working = rig.work();
    let done = rig.noop().await;
    let payload = json!({ "permanent": true, "message": "no such account" });
    let dead = rig
        .enqueue(json!({ "jobType": "fail", "payload": payload }))
        .await;
    let later = json!({ "jobType": "noop", "delayMs": 3_600_000 });
    let cancelled = rig.enqueue(later).await;
    let change = json!({ "status": "cancelled", "reason": "not needed" });
    rig.patch(&format!("/api/jobs/{cancelled}"), change).await;
    rig.until(&done, "completed").await;
    rig.until(&dead, "dead_letter").await;
    rig.tell().await;

    let got = receiver.until(3).await;
    let mut told: Vec<(String, String)> = Vec::new();
    for one in &got {
        assert_eq!(one.path, "/hooks?key=hush");
        assert_eq!(one.header("content-type"), "application/json");
        let agent = concat!("Bullwark/", env!("CARGO_PKG_VERSION"));
        assert_eq!(one.header("user-agent"), agent);
        assert_eq!(one.signed_by(&secret), 1, "{one:?}");
        let sent_s: i64 = one.header("webhook-timestamp").parse().unwrap();
        assert!((bullwark::clock::now_ms() / 1000 - sent_s).abs() < 60);
        let body = one.body();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        told.push((text(&body["type"]), text(&body["data"]["job"]["id"])));
    }
    told.sort();
    let expected = [
        ("job.cancelled".to_owned(), cancelled),
        ("job.completed".to_owned(), done.clone()),
        ("job.dead_letter".to_owned(), dead),
    ];
    assert_eq!(told, expected);
    let of_dead = got
        .iter()
        .find(|one| one.body()["type"] == "job.dead_letter");
    let job = &of_dead.unwrap().body()["data"]["job"];
    assert_eq!(job["error_message"], "no such account");
    assert!(job.get("payload").is_none() && job.get("result").is_none());

    // What became of it, and nothing more: deliveries are no events.
    for delivery in rig.deliveries(&webhook).await {
        rig.until(delivery["id"].as_str().unwrap(), "completed")
            .await;
    }
    rig.tell().await;
    let deliveries = rig.deliveries(&webhook).await;
    assert_eq!((deliveries.len(), receiver.got().len()), (3, 3));
    for delivery in &deliveries {
        assert_eq!(delivery["last_status"], 200, "{delivery}");
        let id = delivery["message_id"].as_str().unwrap();
        assert_eq!(
            got.iter()
                .filter(|one| one.header("webhook-id") == id)
                .count(),
            1
        );
    }
    let job = rig
        .until(deliveries[0]["id"].as_str().unwrap(), "completed")
        .await;
    assert_eq!(job["result"]["answer"], "thanks");
    assert!(!job.to_string().contains("hush"), "{job}");
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_both_secrets_sign_until_the_old_one_is_over() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let (webhook, old) = rig.webhook(&receiver.url("/"), &["job.completed"]).await;
    let rotated = rig
        .server
        .post(&format!("{webhook}/rotate"), Value::Null)
        .await;
    assert_eq!(rotated.status, 200, "{rotated:?}");
    let new = rotated.body["secret"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    assert!(rotated.body["webhook"]["previous_secret_until"].is_string());
    let working = rig.work();
    let test = format!("{webhook}/test");
    let sent = rig.server.post(&test, Value::Null).await;
    assert_eq!(sent.status, 202, "{sent:?}");
    let got = receiver.until(1).await;
    assert_eq!((got[0].signed_by(&new), got[0].signed_by(&old)), (1, 1));
    assert_eq!(got[0].body()["type"], "webhook.test");

    rig.sql("UPDATE webhooks SET previous_secret_until = now()".into())
        .await;
    rig.server.post(&test, Value::Null).await;
    let got = receiver.until(2).await;
    assert_eq!((got[1].signed_by(&new), got[1].signed_by(&old)), (1, 0));
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_between_sending_and_settling_sends_again_under_the_same_id() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let (webhook, secret) = rig.webhook(&receiver.url("/"), &["job.completed"]).await;
    let sent = rig
        .server
        .post(&format!("{webhook}/test"), Value::Null)
        .await;
    let delivery = sent.body["delivery"]["id"].as_str().unwrap().to_owned();
    // The receiver has it, and has said so; nobody has written that down.
    rig.work_until_it_dies("after_handler:abort").await;
    assert_eq!(receiver.got().len(), 1);
    let job = rig.server.get(&format!("/api/jobs/{delivery}")).await;
    assert_ne!(job.body["job"]["status"], "completed");

    let (working, rescuing) = (rig.work(), rig.rescue());
    rig.until(&delivery, "completed").await;
    let got = receiver.got();
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"));
    assert_eq!(got[0].body(), got[1].body());
    assert_eq!(got[1].signed_by(&secret), 1);
    rescuing.stop(PATIENCE).await;
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_another_delivery_of_the_same_message() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let (webhook, _) = rig.webhook(&receiver.url("/"), &["job.completed"]).await;
    let waits = rig
        .server
        .post(&format!("{webhook}/test"), Value::Null)
        .await;
    let first = waits.body["delivery"].clone();
    let first_id = first["id"].as_str().unwrap();
    let replay = format!("{webhook}/deliveries/{first_id}/replay");
    let early = rig.server.post(&replay, Value::Null).await;
    early.problem(409, "delivery_state");
    assert_eq!(early.body["job_status"], "pending");

    let working = rig.work();
    rig.until(first_id, "completed").await;
    let again = rig.server.post(&replay, Value::Null).await;
    assert_eq!(again.status, 202, "{again:?}");
    let second = &again.body["delivery"];
    assert_eq!(second["replay_of"], first["id"]);
    assert_eq!(second["message_id"], first["message_id"]);
    assert_ne!(second["id"], first["id"]);
    let got = receiver.until(2).await;
    assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"));
    assert_eq!(got[0].body(), got[1].body());

    // Page by page, newest first.
    let page = format!("{webhook}/deliveries?limit=1");
    let newest = rig.server.get(&page).await.body;
    assert_eq!(newest["deliveries"][0]["id"], second["id"]);
    let before = newest["next_before"].as_str().unwrap();
    let oldest = rig
        .server
        .get(&format!("{page}&before={before}"))
        .await
        .body;
    assert_eq!(oldest["deliveries"][0]["id"], first["id"]);
    assert_eq!(oldest["next_before"], Value::Null);
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_nobody_to_go_to_ends_without_being_sent_and_what_is_forged_dies() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let url = receiver.url("/");
    let (gone, _) = rig.webhook(&url, &["job.completed"]).await;
    let (asleep, _) = rig.webhook(&url, &["job.completed"]).await;
    let id = asleep.rsplit('/').next().unwrap().to_owned();
    let mut ends = Vec::new();
    for webhook in [&gone, &asleep] {
        let sent = rig
            .server
            .post(&format!("{webhook}/test"), Value::Null)
            .await;
        ends.push(sent.body["delivery"]["id"].as_str().unwrap().to_owned());
    }
    let deleted = rig.server.request(reqwest::Method::DELETE, &gone);
    assert_eq!(deleted.send().await.unwrap().status(), 200);
    rig.patch(&asleep, json!({ "isActive": false })).await;
    rig.sql("UPDATE jobs SET created_at = now() - interval '28 hours'".into())
        .await;
    let message = json!({ "type": "job.completed", "data": {} });
    let payload = json!({ "webhook_id": id, "message": message });
    let forged = rig
        .enqueue(json!({ "jobType": "deliver_webhook", "payload": payload }))
        .await;
    let working = rig.work();
    for (delivery, why) in ends.iter().zip(["deleted", "out of service"]) {
        let job = rig.until(delivery, "completed").await;
        assert_eq!(job["result"]["sent"], false);
        let reason = job["result"]["reason"].as_str().unwrap();
        assert!(reason.contains(why), "{reason}");
    }
    let told = rig.deliveries(&asleep).await.remove(0);
    assert_eq!(told["sent"], false);
    assert_eq!(told["not_sent_reason"], "the webhook is out of service");
    let job = rig.until(&forged, "dead_letter").await;
    let error = job["error_message"].as_str().unwrap();
    assert!(error.starts_with("nobody vouches for this"), "{error}");
    assert_eq!(receiver.got().len(), 0);
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_webhook_that_is_put_back_is_sent() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let (webhook, _) = rig.webhook(&receiver.url("/"), &["job.completed"]).await;
    rig.server
        .post(&format!("{webhook}/test"), Value::Null)
        .await;
    rig.patch(&webhook, json!({ "isActive": false })).await;
    let working = rig.work();
    let waits = eventually("it waits", async || {
        let newest = rig.deliveries(&webhook).await.remove(0);
        let error = newest["error_message"].as_str().unwrap_or_default();
        error.contains("out of service").then_some(newest.clone())
    })
    .await;
    assert_eq!(
        (&waits["status"], &waits["attempts"], &waits["sent"]),
        (&json!("pending"), &json!(0), &Value::Null)
    );
    rig.patch(&webhook, json!({ "isActive": true })).await;
    let promote = format!("/api/jobs/{}/promote", waits["id"].as_str().unwrap());
    rig.server.post(&promote, Value::Null).await;
    let told = rig.delivery_until(&webhook, "completed").await;
    assert_eq!((&told["sent"], receiver.got().len()), (&json!(true), 1));
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_is_what_the_record_has() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let (webhook, secret) = rig.webhook(&receiver.url("/"), &["job.completed"]).await;
    let test = format!("{webhook}/test");
    rig.server.post(&test, Value::Null).await;
    // From here on Redis has another text.
    rig.sql("UPDATE jobs SET payload = jsonb_set(payload, '{message,type}', '\"kept\"')".into())
        .await;
    // The key that sealed the secret before the rotation is gone: that holds up nothing.
    rig.sql(
        "UPDATE webhooks SET previous_secret = 'v1.00000000.AAAA',
           previous_secret_until = now() + interval '1 day'"
            .into(),
    )
    .await;
    let working = rig.work();
    rig.delivery_until(&webhook, "completed").await;
    let got = receiver.got();
    assert_eq!(got[0].body()["type"], "kept");
    assert_eq!(got[0].signed_by(&secret), 1);
    assert_eq!(got[0].header("webhook-signature").split(' ').count(), 1);
    working.hurry().await;
    rig.end().await;
}
