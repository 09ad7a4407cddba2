//! A storage that is away, refuses the key, or has no such bucket.

use serde_json::{Value, json};

use super::s3::{BUCKET, S3, SECRET};
use super::{rig, with};
use crate::stage::eventually;
use crate::webhooks::rig::Rig;

/// What `/readyz` says of it, once it was looked at.
async fn ready(rig: &Rig, status: &str) -> Value {
    eventually("the storage was looked at", async || {
        let ready = rig.server.get("/readyz").await;
        assert_eq!(ready.status, 200, "jobs are accepted all the same");
        let storage = ready.body["stores"]["object_storage"].clone();
        (storage["status"] == status).then_some(ready.body)
    })
    .await
}

/// The words of an export that can not be kept.
async fn refusal(rig: &Rig) -> String {
    rig.account("Acme").await;
    let working = rig.work();
    let id = rig.export().await;
    let job = rig.until(&id, "failed").await;
    working.hurry().await;
    job.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_well_is_told_as_well() {
    let s3 = S3::start().await;
    let rig = rig(&s3).await;
    assert_eq!(ready(&rig, "ok").await["status"], "ok");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_told_clearly_and_the_export_waits() {
    let s3 = S3::start().await;
    let rig = with(&s3, &format!("s3://{BUCKET}"), "another secret").await;
    let told = ready(&rig, "denied").await;
    assert_eq!(told["status"], "degraded");
    assert!(told.to_string().contains("refuses access"), "{told}");
    let words = refusal(&rig).await;
    assert!(words.contains("SignatureDoesNotMatch"), "{words}");
    assert!(words.contains("BULLWARK_STORAGE_SECRET"), "{words}");
    assert!(!words.contains("another secret") && !words.contains(SECRET));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_told_clearly_and_made_good_later() {
    let s3 = S3::start().await;
    s3.bucket().is_gone = true;
    let rig = rig(&s3).await;
    assert_eq!(ready(&rig, "no_bucket").await["status"], "degraded");
    let words = refusal(&rig).await;
    assert!(words.contains("has no bucket `files`"), "{words}");
    assert!(words.contains("BULLWARK_STORAGE_URL"), "{words}");

    // The same export, once there is one.
    s3.bucket().is_gone = false;
    let jobs = rig.server.get("/api/jobs").await;
    let id = jobs.body["jobs"][0]["id"].as_str().unwrap().to_owned();
    let working = rig.work();
    rig.server
        .post(&format!("/api/jobs/{id}/promote"), Value::Null)
        .await;
    rig.until(&id, "completed").await;
    assert_eq!(rig.exported_file(&id, &[]).await.status, 200);

    // It goes away with the file.
    s3.bucket().is_gone = true;
    rig.exported_file(&id, &[])
        .await
        .problem(503, "storage_unavailable");
    s3.bucket().is_gone = false;
    s3.bucket().objects.clear();
    rig.exported_file(&id, &[])
        .await
        .problem(404, "file_not_found");
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_storage_is_no_part_of_the_answer() {
    let rig = Rig::guarded().await;
    let ready = rig.server.get("/readyz").await;
    assert_eq!(ready.body["status"], json!("ok"));
    assert!(ready.body["stores"].get("object_storage").is_none());
    rig.end().await;
}
