//! What foreign workers log is copied, each row once.

use bullwark::broker::{Broker, Keep, OWN_LOG_ROW};
use bullwark::job::QueueName;
use bullwark::reconcile;
use bullwark::record::logs;
use uuid::Uuid;

use super::{Follower, foreign};
use crate::stage::Stage;

async fn log(stage: &Stage, id: &str, rows: &[&str], keep: u32) {
    for row in rows {
        let queue = QueueName::default();
        let added = stage.broker.add_log(&queue, id, row, keep).await;
        added.unwrap().unwrap();
    }
}

async fn copied(stage: &Stage, id: Uuid) -> Vec<String> {
    let rows = logs::of_job(
        &mut stage.record.view().await.unwrap(),
        id,
        logs::LOG_PAGE_MAX,
    )
    .await;
    let rows = rows.unwrap().into_iter().map(|row| row.message);
    rows.filter(|row| !row.starts_with("reconciled:")).collect()
}

async fn copy(stage: &Stage, broker: &Broker, id: Uuid, wire_id: &str) -> u64 {
    let jobs = [(id, wire_id.to_owned())];
    let queue = QueueName::default();
    reconcile::copy_logs(&stage.record, broker, &queue, &jobs)
        .await
        .unwrap()
}

#[tokio::test]
async fn each_row_of_a_foreign_log_is_copied_once_and_in_order_over_all_attempts() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let ids = stage.add(&[foreign("a"), foreign("quiet")]).await;
    follower.until(ids[0], "pending").await;
    stage.claim_elsewhere().await;
    log(&stage, "a", &["one", "two", "two"], 0).await;
    stage.retry_elsewhere("a", "x", 0).await;
    follower.until(ids[0], "failed").await;
    assert_eq!(copied(&stage, ids[0]).await, ["one", "two", "two"]);

    stage.claim_elsewhere().await;
    log(&stage, "a", &["two", "three \0"], 0).await;
    stage.finish_elsewhere("a", "1", Keep::All).await;
    follower.until(ids[0], "completed").await;
    let all = ["one", "two", "two", "two", "three \u{fffd}"];
    assert_eq!(copied(&stage, ids[0]).await, all);
    assert_eq!(copied(&stage, ids[1]).await, [""; 0]);

    // Read again, by several at once.
    stage
        .execute("DELETE FROM bullwark.mirror_positions".into())
        .await;
    stage.forget_lease().await;
    let mut again = Follower::new(&stage);
    again.catch_up().await;
    let copies = (0..5).map(|_| copy(&stage, &stage.broker, ids[0], "a"));
    let copies: u64 = futures_util::future::join_all(copies)
        .await
        .into_iter()
        .sum();
    assert_eq!(copies, 0);
    assert_eq!(copied(&stage, ids[0]).await, all);
}

#[tokio::test]
async fn a_log_that_keeps_its_newest_rows_only_is_copied_on() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let id = stage.add(&[foreign("a")]).await[0];
    follower.until(id, "pending").await;
    log(&stage, "a", &["1", "2", "3"], 3).await;
    assert_eq!(copy(&stage, &stage.broker, id, "a").await, 3);
    log(&stage, "a", &["4", "5"], 3).await;
    assert_eq!(copy(&stage, &stage.broker, id, "a").await, 2);
    log(&stage, "a", &["6", "7", "8", "9"], 3).await;
    assert_eq!(copy(&stage, &stage.broker, id, "a").await, 3, "6 is gone");
    assert_eq!(
        copied(&stage, id).await,
        ["1", "2", "3", "4", "5", "7", "8", "9"]
    );
    stage.raw(&["DEL @a:logs"]).await;
    assert_eq!(copy(&stage, &stage.broker, id, "a").await, 0);
}

#[tokio::test]
async fn a_job_that_was_over_when_it_was_adopted_brings_its_log_along() {
    let stage = Stage::new().await;
    let id = stage.add(&[foreign("a")]).await[0];
    stage.claim_elsewhere().await;
    log(&stage, "a", &["before"], 0).await;
    stage.finish_elsewhere("a", "1", Keep::All).await;
    let mut follower = Follower::new(&stage);
    follower.until(id, "completed").await;
    assert_eq!(copied(&stage, id).await, ["before"]);
}

#[tokio::test]
async fn rows_that_came_from_the_record_do_not_come_back() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let id = stage.add(&[foreign("a")]).await[0];
    follower.until(id, "pending").await;
    let queue = QueueName::default();
    let own = ("a".to_owned(), format!("{OWN_LOG_ROW}mine"), None);
    let gone = ("gone".to_owned(), format!("{OWN_LOG_ROW}nobody's"), None);
    let rows = [own.clone(), gone, own];
    assert_eq!(stage.broker.add_logs(&queue, &rows).await.unwrap(), 2);
    log(&stage, "a", &["theirs"], 0).await;
    assert_eq!(copy(&stage, &stage.broker, id, "a").await, 1);
    assert_eq!(copied(&stage, id).await, ["theirs"]);
    assert_eq!(copy(&stage, &stage.broker, id, "a").await, 0);
    // A log in Redis is bounded: by the job's own wish, or by the caller.
    let many: Vec<_> = (0..9)
        .map(|n| ("a".to_owned(), format!("{OWN_LOG_ROW}{n}"), Some(5)))
        .collect();
    stage.broker.add_logs(&queue, &many).await.unwrap();
    let length = async |id: &str| {
        let lengths = stage.broker.log_lengths(&queue, &[id.to_owned()]).await;
        lengths.unwrap()[0]
    };
    assert_eq!((length("a").await, length("b").await), (5, 0));
    stage.raw(&["HSET @a opts {\"kl\":2}"]).await;
    stage.broker.add_logs(&queue, &many).await.unwrap();
    assert_eq!(length("a").await, 2);
}

#[tokio::test]
async fn a_log_that_can_not_be_read_keeps_neither_its_job_nor_another_from_being_recorded() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let ids = stage
        .add(&[foreign("bytes"), foreign("type"), foreign("good")])
        .await;
    follower.until(ids[2], "pending").await;
    stage.claim_elsewhere().await;
    let mut redis = stage.redis().await;
    let key = |id: &str| format!("{}:default:{id}:logs", stage.prefix);
    let mut pipe = redis::pipe();
    pipe.rpush(key("bytes"), &b"\xff\xfe"[..]).ignore();
    pipe.set(key("type"), "x").ignore();
    pipe.rpush(key("good"), "fine").ignore();
    pipe.exec_async(&mut redis).await.unwrap();
    for id in ["bytes", "type", "good"] {
        stage.finish_elsewhere(id, "1", Keep::All).await;
    }
    for id in &ids {
        follower.until(*id, "completed").await;
    }
    assert_eq!(copied(&stage, ids[0]).await, ["\u{fffd}\u{fffd}"]);
    assert_eq!(copied(&stage, ids[1]).await, [""; 0]);
    assert_eq!(copied(&stage, ids[2]).await, ["fine"]);
    // Nor does our own worker's line break on it.
    let queue = QueueName::default();
    let rows = ["type", "good"].map(|id| (id.to_owned(), "x".to_owned(), None));
    assert_eq!(stage.broker.add_logs(&queue, &rows).await.unwrap(), 1);
}
