//! Recipients that can not be told at once, and the links that were made for them.

use std::time::Duration;

use serde_json::{Value, json};

use super::{SECRET, mailed};
use crate::email::post::{Post, connect};
use crate::stage::eventually;
use crate::webhooks::receiver::Receiver;
use crate::webhooks::rig::Rig;

impl Rig {
    /// The only job that tells people, once it has failed so often.
    async fn deferred(&self, attempts: u64) -> String {
        eventually(&format!("it failed {attempts} times"), async || {
            let job = self.telling().await.into_iter().next()?;
            let is_so = job["status"] == "failed" && job["attempts"] == attempts;
            is_so.then(|| job["id"].as_str().unwrap().to_owned())
        })
        .await
    }

    async fn again(&self, job: &str) {
        let path = format!("/api/jobs/{job}/promote");
        let promoted = self.server.post(&path, Value::Null).await;
        assert_eq!(promoted.status, 200, "{promoted:?}");
    }

    /// Links that open something.
    async fn links(&self) -> i64 {
        self.counted("SELECT count(*) FROM bullwark.download_links WHERE expires_at > now()")
            .await
    }

    async fn counted(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// An export of which this receiver hears.
    async fn called(&self, receiver: &Receiver) -> String {
        let wish = json!({
            "provider": "http", "name": "receiver", "baseUrl": receiver.url("/hook"),
            "credentials": { "signing_secret": SECRET },
        });
        let connection = connect(self, wish).await;
        let wish = json!({
            "entity_type": "accounts", "fields": ["name"], "deliver_to": "webhook",
            "delivery": { "connection_id": connection },
        });
        self.asked("/api/exports", wish).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_deferred_keeps_nobody_waiting_and_is_given_up_in_the_end() {
    let post = Post::new().await;
    post.smtp.be_busy(true);
    let working = post.rig.work();
    let to = ["later@x.example", "bob@x.example"];
    let id = post.rig.asked("/api/exports", mailed(&to)).await;
    let job = post.rig.deferred(1).await;
    assert_eq!(post.smtp.recipients(), ["bob@x.example"]);
    assert_eq!(post.rig.links().await, 1, "that of whom was told");
    for attempts in 2..5 {
        post.rig.again(&job).await;
        post.rig.deferred(attempts).await;
        assert_eq!(post.rig.links().await, 1, "attempt {attempts}");
    }
    post.rig.again(&job).await;
    let told = post.rig.told(&id, "completed").await;
    let result = &told["result"];
    assert_eq!(
        (&result["sent"], &result["failed"], &result["unknown"]),
        (&json!(1), &json!(1), &json!(0))
    );
    assert_eq!(post.smtp.recipients(), ["bob@x.example"], "once");
    let why = "SELECT count(*) FROM bullwark.file_deliveries
        WHERE recipient = 'later@x.example' AND message LIKE '%put off 5 times%'";
    assert_eq!(post.rig.counted(why).await, 1);
    assert_eq!(post.rig.links().await, 1);
    let made = "SELECT count(*) FROM bullwark.audit_log WHERE action = 'download_link.create'";
    let gone = "SELECT count(*) FROM bullwark.audit_log WHERE action = 'download_link.revoke'";
    let (made, gone) = (post.rig.counted(made).await, post.rig.counted(gone).await);
    assert_eq!((made, gone), (6, 5));
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_deferred_and_then_taken_is_told_once() {
    let post = Post::new().await;
    post.smtp.be_busy(true);
    let working = post.rig.work();
    let id = post
        .rig
        .asked("/api/exports", mailed(&["later@x.example"]))
        .await;
    let job = post.rig.deferred(1).await;
    assert_eq!(post.rig.links().await, 0, "nobody has one");
    post.smtp.be_busy(false);
    post.rig.again(&job).await;
    let told = post.rig.told(&id, "completed").await;
    assert_eq!(told["result"]["sent"], 1);
    let got = post.smtp.got();
    assert_eq!((got.len(), post.rig.links().await), (1, 1));
    assert_eq!(post.rig.open(&super::link(&got[0])).await, "name\r\n");
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_called_again_has_one_link_that_works() {
    let (rig, receiver) = (Rig::mailing().await, Receiver::start().await);
    receiver.answer_with(&[("503 Busy", "")]);
    let working = rig.work();
    let id = rig.called(&receiver).await;
    let job = rig.deferred(1).await;
    assert_eq!(rig.links().await, 0);
    rig.again(&job).await;
    rig.told(&id, "completed").await;
    let got = receiver.got();
    assert_eq!((got.len(), rig.links().await), (2, 1));
    let url = got[1].body()["data"]["url"].as_str().unwrap().to_owned();
    assert_eq!(rig.open(&url).await, "name\r\n");
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_worker_died_behind_it_is_made_again_with_the_only_link() {
    let (rig, receiver) = (Rig::mailing().await, Receiver::start().await);
    let id = rig.called(&receiver).await;
    let working = rig.work();
    rig.until(&id, "completed").await;
    working.hurry().await;
    rig.tell().await;
    rig.work_on_until_it_dies("default", "after_hand_over:abort")
        .await;
    assert_eq!((receiver.got().len(), rig.links().await), (1, 1));
    let (rescue, working) = (rig.rescue(), rig.work());
    rig.told(&id, "completed").await;
    let got = receiver.got();
    assert_eq!((got.len(), rig.links().await), (2, 1));
    let url = got[1].body()["data"]["url"].as_str().unwrap().to_owned();
    assert_eq!(rig.open(&url).await, "name\r\n");
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_in_doubt_keeps_its_link() {
    let post = Post::new().await;
    let working = post.rig.work();
    let to = ["cut@x.example", "bob@x.example"];
    let id = post.rig.asked("/api/exports", mailed(&to)).await;
    let told = post.rig.told(&id, "completed").await;
    assert_eq!(told["result"]["unknown"], 1, "{told}");
    assert_eq!(post.rig.links().await, 2);
    for got in post.smtp.got() {
        assert_eq!(post.rig.open(&super::link(&got)).await, "name\r\n");
    }
    working.hurry().await;
    post.rig.end().await;
}
