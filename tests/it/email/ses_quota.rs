//! The quota of Amazon SES: it is asked for, holds, and it is noticed that there is more again.

use serde_json::{Value, json};

use super::post::{Post, connect, step};
use crate::stage::eventually;
use crate::webhooks::receiver::Receiver;

/// What `GetAccount` says.
fn account(receiver: &Receiver, sent: u32) {
    let quota = json!({ "Max24HourSend": 200.0, "MaxSendRate": 14.0, "SentLast24Hours": sent });
    let body = json!({ "SendingEnabled": true, "SendQuota": quota });
    receiver.answer_body("200 OK", &body.to_string());
}

/// Waits until it is put off for minutes.
async fn put_off(post: &Post, job: &str) -> Value {
    let path = format!("/api/jobs/{job}");
    eventually("the job waits for minutes", async || {
        let job = post.rig.server.get(&path).await.body["job"].clone();
        let due = job["scheduled_for"].as_str()?;
        let due: chrono::DateTime<chrono::Utc> = due.parse().unwrap();
        let left = due - bullwark::clock::now();
        let waits = job["status"] == "pending" && left.num_minutes() > 2;
        assert!(left.num_minutes() <= 10, "it is asked again soon: {job}");
        waits.then_some(job)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mail_goes_above_what_ses_has_left_and_those_that_wait_go_when_there_is_more() {
    let (post, receiver) = (Post::new().await, Receiver::start().await);
    let ids = post.contacts(3).await;
    let wish = json!({
        "provider": "ses", "name": "ses", "baseUrl": receiver.url(""),
        "settings": { "region": "eu-central-1" },
        "credentials": { "access_key_id": "AKIDEXAMPLE", "secret_access_key": "hush" },
    });
    let connection = connect(&post.rig, wish).await;
    let step = step(&post.rig, &post.sequence, &connection, "Hi").await;
    let payload = json!({
        "sequence_id": post.sequence, "sequence_step_id": step, "contact_ids": ids,
    });
    let paths = || -> Vec<String> { receiver.got().into_iter().map(|got| got.path).collect() };
    let (asked, mail) = ("/v2/email/account", "/v2/email/outbound-emails");
    account(&receiver, 199);
    let working = post.rig.work();
    let wish = json!({ "jobType": "send_email_batch", "payload": payload });
    let job = post.rig.enqueue(wish).await;
    let waiting = put_off(&post, &job).await;
    assert_eq!(waiting["attempts"], 0, "{waiting}");
    assert_eq!(paths(), [asked, mail], "one of three");

    // Nothing became free: it is asked, and no mail goes.
    account(&receiver, 200);
    post.promote(&job).await;
    receiver.until(3).await;
    put_off(&post, &job).await;
    assert_eq!(paths(), [asked, mail, asked]);

    account(&receiver, 150);
    post.promote(&job).await;
    assert_eq!(post.summary(&job).await["sent"], 3);
    assert_eq!(paths(), [asked, mail, asked, asked, mail, mail]);
    working.hurry().await;
    post.rig.end().await;
}
