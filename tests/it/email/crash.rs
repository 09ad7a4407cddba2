//! Workers that die while they send: nobody is sent a mail twice.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::post::Post;

async fn killed_at(fault: &str, expected_before: usize) {
    let post = Post::new().await;
    let ids = post.contacts(25).await;
    let mut payload = post.payload(&ids);
    payload["batch_size"] = json!(10);
    let job = json!({ "jobType": "send_email_batch", "payload": payload, "queue": "webhooks" });
    let job = post.rig.enqueue(job).await;
    post.rig.work_until_it_dies(fault).await;
    assert_eq!(post.smtp.got().len(), expected_before, "{fault}");
    let (rescue, working) = (post.rig.rescue(), post.rig.work());
    let summary = post.summary(&job).await;
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for recipient in post.smtp.recipients() {
        *times.entry(recipient).or_default() += 1;
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{fault}: {twice:?}");
    // What was under way is in doubt, and nothing else is; all others were sent.
    assert_eq!(summary["unknown"], 10, "{fault}: {summary}");
    assert_eq!(summary["sent"], 15, "{fault}: {summary}");
    assert_eq!(summary["reasons"], json!({ "interrupted": 10 }));
    let used = "SELECT used::bigint FROM email_domains";
    assert_eq!(post.value(used).await, 25, "what is in doubt counts");
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_between_handing_over_and_noting_it_sends_nothing_twice() {
    Box::pin(killed_at("after_hand_over:abort:nth=2", 20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_before_handing_over_leaves_doubt_and_no_second_mail() {
    Box::pin(killed_at("after_email_claim:abort:nth=2", 10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_that_a_cancelled_job_has_claimed_are_in_doubt_after_a_while() {
    let post = Post::new().await;
    let ids = post.contacts(1).await;
    let mut payload = post.payload(&ids);
    payload["batch_size"] = json!(10);
    let job = json!({ "jobType": "send_email_batch", "payload": payload, "queue": "webhooks" });
    let job = post.rig.enqueue(job).await;
    post.rig.work_until_it_dies("after_email_claim:abort").await;
    let record = &post.rig.server.app.record;
    let close = async || {
        bullwark::record::email_log::close_claims(record)
            .await
            .unwrap()
    };
    let age = "UPDATE email_sends SET claimed_at = now() - interval '1 hour'";
    post.rig.sql(age.to_owned()).await;
    assert_eq!(close().await, 0, "its job may still say how it went");
    let path = format!("/api/jobs/{job}");
    post.rig
        .patch(&path, json!({ "status": "cancelled" }))
        .await;
    assert_eq!(close().await, 1);
    assert_eq!(close().await, 0);
    assert_eq!(post.fates().await["c1@x.example"], "unknown interrupted");
    post.rig.end().await;
}
