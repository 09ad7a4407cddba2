//! A large export goes to the bucket part by part, whatever happens to those who send it.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::s3::S3;
use super::{PREFIX, rig};
use crate::webhooks::rig::Rig;

/// Rows of ten kilobytes: three parts.
const ROWS: i32 = 1_900;

async fn fill(rig: &Rig) {
    let insert = format!(
        "INSERT INTO accounts (workspace_id, name, description)
         SELECT '{}', 'account ' || i, repeat(md5(i::text), 320) FROM generate_series(1, {ROWS}) i",
        bullwark::record::workspaces::DEFAULT_WORKSPACE
    );
    rig.sql(insert).await;
}

/// That the bucket has this export as the record knows it, and nothing is on its way there.
async fn is_whole(rig: &Rig, s3: &S3, id: &str) {
    rig.until(id, "completed").await;
    let export = rig.shown(id).await;
    let objects = s3.bucket().objects.clone();
    assert_eq!(objects.len(), 1, "{:?}", objects.keys());
    let (key, object) = objects.into_iter().next().unwrap();
    assert!(key.starts_with(&format!("{PREFIX}/exports/{id}.")), "{key}");
    let sum = Sha256::digest(&object.content);
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(export["sha256"], sum);
    assert_eq!(export["bytes"], object.content.len());
    let lines = object.content.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, ROWS as usize + 1);
    let whole = rig.exported_file(id, &[]).await;
    assert_eq!(whole.body.as_str().unwrap().as_bytes(), object.content);
    assert_eq!(rig.here("exports"), [""; 0]);
}

/// A worker dies there; how many parts were sent in all, and the server of the objects.
async fn dies_at(fault: &str) -> (Rig, S3, String) {
    let s3 = S3::start().await;
    let rig = rig(&s3).await;
    fill(&rig).await;
    let id = rig.export().await;
    rig.work_on_until_it_dies("default", fault).await;
    assert_eq!(rig.shown(&id).await["status"], "running");
    let (rescue, working) = (rig.rescue(), rig.work());
    is_whole(&rig, &s3, &id).await;
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    (rig, s3, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_when_nobody_knows_what_it_began_leaves_that_to_the_sweep() {
    let (rig, s3, _) = Box::pin(dies_at("after_parts_sent:abort:nth=1")).await;
    assert_eq!(s3.count("partNumber="), 3);
    assert_eq!(s3.bucket().uploads.len(), 1, "what the dead one began");
    assert_eq!(rig.sweep().await, 0, "it is young");
    s3.age();
    assert_eq!(rig.sweep().await, 1);
    assert_eq!(s3.bucket().uploads.len(), 0);
    assert_eq!(s3.keys().len(), 1, "the export stays");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_behind_parts_that_nobody_knows_sends_them_again() {
    let (rig, s3, _) = Box::pin(dies_at("after_parts_sent:abort:nth=2")).await;
    assert_eq!(s3.count("partNumber="), 6);
    assert_eq!(
        s3.count(".csv?uploads"),
        1,
        "it goes on with the same sending"
    );
    assert_eq!(s3.bucket().uploads.len(), 0);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_behind_the_object_finds_it_there() {
    let (rig, s3, id) = Box::pin(dies_at("after_file_kept:abort")).await;
    assert_eq!(s3.count("partNumber="), 3, "nothing was sent twice");
    assert_eq!(rig.shown(&id).await["status"], "completed");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_in_the_middle_of_a_part_breaks_nothing() {
    let s3 = S3::start().await;
    let rig = rig(&s3).await;
    fill(&rig).await;
    let id = rig.export().await;
    s3.hold("partNumber=2");
    let options = ["--queue", "default", "--lease-ms", "1000"];
    let mut worker = rig.process(&options).spawn().unwrap();
    s3.is_held.notified().await;
    worker.kill().await.unwrap();
    s3.release();
    assert_eq!(s3.keys(), [""; 0], "there is no half object");
    // Another machine has nothing of what the first one wrote: it begins anew.
    let exports = rig.server.data_dir.path().join("exports");
    std::fs::remove_dir_all(exports).unwrap();
    let (rescue, working) = (rig.rescue(), rig.work());
    is_whole(&rig, &s3, &id).await;
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    rig.end().await;
}
