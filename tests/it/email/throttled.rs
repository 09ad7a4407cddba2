//! Providers that have no quota left, or say that they are busy.

use serde_json::json;

use super::post::Post;
use super::providers::{by, sendgrid};
use crate::webhooks::receiver::Receiver;

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_quota_spends_no_attempt_though_it_names_no_time() {
    let (post, receiver) = (Post::new().await, Receiver::start().await);
    let ids = [post.contact("ada@x.example", Some("Ada")).await];
    let ses = json!({
        "provider": "ses", "name": "ses", "baseUrl": receiver.url(""),
        "settings": { "region": "eu-central-1" },
        "credentials": { "access_key_id": "AKIDEXAMPLE", "secret_access_key": "hush" },
    });
    let working = post.rig.work();
    let throttled = "x-amzn-errortype: TooManyRequestsException\r\n";
    for (connection, answers) in [
        (sendgrid(&receiver), vec![("429 Too Many", "")]),
        // The first one is about the account.
        (
            ses.clone(),
            vec![("200 OK", ""), ("429 Too Many", throttled)],
        ),
        (ses, vec![("200 OK", ""), ("400 Bad", throttled)]),
    ] {
        let name = connection["provider"].clone();
        post.rig.sql("DELETE FROM email_sends".to_owned()).await;
        let mut connection = connection;
        connection["name"] = json!(format!("{name} {}", receiver.got().len()));
        let (_, job) = by(&post, connection, &ids).await;
        receiver.answer_with(&answers);
        let job = post.rig.enqueue(job).await;
        let waiting = post.put_off(&job).await;
        assert_eq!(waiting["attempts"], 0, "{name}: {waiting}");
        assert_eq!(post.fates().await["ada@x.example"], "planned not_available");
        // It comes back by itself, and is sent once.
        assert_eq!(post.summary(&job).await["sent"], 1, "{name}");
    }
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_answer_that_is_not_the_provider_s_own_leaves_doubt_and_no_second_mail() {
    let (post, receiver) = (Post::new().await, Receiver::start().await);
    let ids = [post.contact("ada@x.example", Some("Ada")).await];
    let (_, job) = by(&post, sendgrid(&receiver), &ids).await;
    let working = post.rig.work();
    receiver.answer_body("503 Service Unavailable", "upstream connect error");
    let doubtful = post.rig.enqueue(job.clone()).await;
    post.summary(&doubtful).await;
    assert_eq!(post.fates().await["ada@x.example"], "unknown no_answer");
    assert_eq!(receiver.got().len(), 1, "it is not sent again");

    post.rig.sql("DELETE FROM email_sends".to_owned()).await;
    receiver.answer_body("503 Busy", r#"{"errors": [{"message": "not available"}]}"#);
    let refused = post.rig.enqueue(job).await;
    post.rig.until(&refused, "failed").await;
    assert_eq!(post.fates().await["ada@x.example"], "planned not_available");
    post.promote(&refused).await;
    assert_eq!(post.summary(&refused).await["sent"], 1);
    working.hurry().await;
    post.rig.end().await;
}
