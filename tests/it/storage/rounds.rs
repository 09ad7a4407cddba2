//! Sweeps of a bucket with more than one pass looks at, or with what nobody may remove.

use bullwark::storage::Round;
use bullwark::uploads::Uploads;
use uuid::Uuid;

use super::s3::S3;
use super::{PREFIX, rig};
use crate::stage::eventually;
use crate::webhooks::rig::Rig;

/// A server that has swept its empty bucket, and does not again for minutes.
async fn rested(s3: &S3) -> Rig {
    let rig = rig(s3).await;
    // With this each of its two passes ends.
    eventually("the server has swept", async || {
        (s3.count("max-uploads=") == 2).then_some(())
    })
    .await;
    rig
}

/// Exports that nobody knows, in the order of their keys.
fn strangers(s3: &S3, count: usize) -> Vec<String> {
    let keys = (0..count).map(|_| format!("{PREFIX}/exports/{}.1.csv", Uuid::now_v7()));
    let keys: Vec<String> = keys.collect();
    keys.iter().for_each(|key| s3.put(key, b"x"));
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_goes_on_where_the_last_one_ended_and_begins_again_at_the_end() {
    let s3 = S3::start().await;
    let rig = rested(&s3).await;
    rig.account("Acme").await;
    let working = rig.work();
    // Older than all others, and theirs is the whole look of a pass.
    for _ in 0..3 {
        let id = rig.export().await;
        rig.until(&id, "completed").await;
    }
    let kept = s3.keys();
    let strange = strangers(&s3, 3);
    s3.age();
    let mut round = Round::looking_at(3);
    assert_eq!(rig.pass(&mut round).await, (0, 0), "these are wanted");
    assert_eq!(rig.pass(&mut round).await, (3, 0), "and these are not");
    assert_eq!(s3.keys(), kept, "{strange:?}");
    // One that comes before where it is now, after an end without anything.
    let late = format!("{PREFIX}/exports/{}.1.csv", Uuid::nil());
    s3.put(&late, b"x");
    s3.age();
    let mut removed = 0;
    for _ in 0..3 {
        removed += rig.pass(&mut round).await.0;
    }
    assert_eq!((removed, s3.keys()), (1, kept));
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_removed_keeps_nothing_else_from_it() {
    let s3 = S3::start().await;
    let rig = rested(&s3).await;
    let strange = strangers(&s3, 3);
    let begin = |key: String| drop(s3.bucket().begin(&key));
    for _ in 0..3 {
        begin(format!("{PREFIX}/exports/{}.1.csv", Uuid::now_v7()));
    }
    s3.age();
    let locked = [strange[0].clone(), "upload-1".to_owned()];
    s3.bucket().locked.extend(locked);
    let mut round = Round::default();
    assert_eq!(rig.pass(&mut round).await, (4, 2));
    assert_eq!(s3.keys(), &strange[..1]);
    assert_eq!(s3.bucket().uploads.len(), 1);
    assert_eq!(rig.pass(&mut round).await, (0, 2), "it is tried again");
    s3.bucket().locked.clear();
    assert_eq!(rig.pass(&mut round).await, (2, 0));
    assert_eq!(s3.keys(), [""; 0]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_refusals_end_a_pass_and_the_next_goes_on_behind_them() {
    let s3 = S3::start().await;
    let rig = rested(&s3).await;
    let strange = strangers(&s3, 130);
    s3.age();
    s3.bucket().locked.extend(strange[..120].iter().cloned());
    let mut round = Round::default();
    assert_eq!(rig.pass(&mut round).await, (0, 100));
    assert_eq!(s3.count("DELETE"), 100);
    assert_eq!(rig.pass(&mut round).await, (10, 20));
    assert_eq!(s3.keys(), &strange[..120]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_swept_in_rounds_too() {
    let s3 = S3::start().await;
    let rig = rested(&s3).await;
    let uploads = Uploads::new(&rig.server.app.services().storage);
    let keys: Vec<String> = (0..5)
        .map(|_| format!("{PREFIX}/uploads/{}", Uuid::now_v7()))
        .collect();
    for key in &keys {
        s3.put(key, b"x");
        drop(s3.bucket().begin(key));
    }
    // Two of them are complete.
    for key in &keys[..2] {
        s3.put(&format!("{key}.json"), b"{}");
    }
    s3.age();
    s3.bucket()
        .locked
        .extend([keys[2].clone(), "upload-1".to_owned()]);
    let mut round = Round::looking_at(2);
    let mut swept = Vec::new();
    for _ in 0..4 {
        let pass = uploads.sweep(&mut round).await.unwrap();
        swept.push((pass.removed, pass.refused));
    }
    // Four keys of the complete ones; then three, one of which is locked; of sendings, two a pass.
    assert_eq!(swept, [(1, 1), (2, 0), (2, 1), (1, 1)]);
    let mut left = vec![keys[2].clone()];
    for key in &keys[..2] {
        left.extend([key.clone(), format!("{key}.json")]);
    }
    left.sort();
    assert_eq!(s3.keys(), left);
    rig.end().await;
}
