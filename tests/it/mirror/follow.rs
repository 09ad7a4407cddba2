//! What clients add and foreign workers do.

use bullwark::broker::{self, Keep};
use bullwark::job::QueueName;
use bullwark::reconcile;
use bullwark::record::access::By;
use bullwark::record::settle::settle_many;
use serde_json::json;

use super::{Follower, T, foreign};
use crate::reconcile::deliver;
use crate::stage::{Stage, completed, eventually, ids, job, settled};

#[tokio::test]
async fn what_clients_add_is_adopted_with_all_that_it_brought_along() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let now_ms = bullwark::clock::now_ms();
    let jobs = [
        foreign("plain"),
        broker::NewJob {
            opts: r#"{"lifo":true}"#.into(),
            lifo: true,
            ..foreign("lifo")
        },
        broker::NewJob {
            priority: 2_000_000,
            ..foreign("unimportant")
        },
        broker::NewJob {
            due_ms: Some(now_ms + 3_600_000),
            ..foreign("later")
        },
        broker::NewJob {
            data: "no json".into(),
            ..foreign("odd")
        },
    ];
    let ids = stage.add(&jobs).await;
    follower.until(ids[4], "pending").await;
    for (job, id) in jobs.iter().zip(&ids) {
        let row = stage.row(*id).await;
        assert_eq!(
            (row.status.as_str(), row.max_attempts > 0),
            ("pending", job.id != "lifo")
        );
        assert_eq!(row.created_at.timestamp_millis(), T, "{}", job.id);
    }
    let due = stage
        .row(ids[3])
        .await
        .scheduled_for
        .unwrap()
        .timestamp_millis();
    assert!((due - now_ms - 3_600_000).abs() < 2, "{due}");

    // Redis loses its memory: they come back in the client's words.
    stage.flush_prefix().await;
    stage.sweep().await;
    let claimed = stage.claim("t").await.jobs;
    let order: Vec<&str> = claimed.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(order[0], "lifo", "next in line: {order:?}");
    assert_eq!(order.last(), Some(&"unimportant"));
    assert_eq!(claimed.len(), 4);
    for back in &claimed {
        let first = jobs.iter().find(|job| job.id == back.id).unwrap();
        assert_eq!((&back.opts, &back.name), (&first.opts, &first.name));
        assert_eq!((back.priority, back.timestamp_ms), (first.priority, T));
        let data = back.data.replace(": ", ":");
        assert_eq!(data, first.data);
    }
}

#[tokio::test]
async fn what_a_foreign_worker_makes_of_a_job_is_copied() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let ids = stage.add(&[foreign("a"), foreign("b"), foreign("c")]).await;
    assert_eq!(stage.claim_elsewhere().await.len(), 3);
    follower.until(ids[0], "processing").await;
    follower.until(ids[2], "processing").await;
    let row = stage.row(ids[0]).await;
    assert_eq!(
        (row.worker_id.as_deref(), row.worker_heartbeat_at),
        (Some("bullmq"), None)
    );
    assert_eq!(stage.attempt(ids[0]).await, 1);

    let progress = ("a".into(), "node:1".into(), r#"{"percent":40}"#.into());
    let queue = QueueName::default();
    stage
        .broker
        .update_progress(&queue, &[progress])
        .await
        .unwrap();
    follower.catch_up().await;
    assert_eq!(
        stage.row(ids[0]).await.progress,
        Some(json!({ "percent": 40 }))
    );

    stage
        .finish_elsewhere("a", r#"{"sent":1}"#, Keep::All)
        .await;
    stage.fail_elsewhere("b", "no such address").await;
    stage.retry_elsewhere("c", "busy", 3_600_000).await;
    follower.until(ids[0], "completed").await;
    follower.until(ids[1], "dead_letter").await;
    follower.until(ids[2], "failed").await;
    let row = stage.row(ids[0]).await;
    assert_eq!(row.result, Some(json!({ "sent": 1 })));
    assert!(row.completed_at.is_some() && row.error_message.is_none());
    let row = stage.row(ids[1]).await;
    assert_eq!(row.error_message.as_deref(), Some("no such address"));
    assert_eq!(stage.history(ids[1]).await, [(1, "dead_letter".to_owned())]);
    assert_eq!(stage.count("bullwark.dead_letters").await, 1);
    let row = stage.row(ids[2]).await;
    assert_eq!(
        (row.attempts, row.error_message.as_deref()),
        (1, Some("busy"))
    );
    let wait = row.next_retry_at.unwrap() - bullwark::clock::now();
    assert!((3500..3601).contains(&wait.num_seconds()), "{wait}");
    assert_eq!(stage.history(ids[2]).await, [(1, "failed".to_owned())]);

    // A client makes it available now, and another attempt fails, then one succeeds.
    stage
        .broker
        .promote(&QueueName::default(), &["c".into()])
        .await
        .unwrap();
    follower.catch_up().await;
    let due = stage.row(ids[2]).await.next_retry_at.unwrap();
    assert!(due <= bullwark::clock::now() + chrono::Duration::seconds(1));
    stage.claim_elsewhere().await;
    stage.retry_elsewhere("c", "still busy", 0).await;
    stage.claim_elsewhere().await;
    stage.finish_elsewhere("c", "7", Keep::All).await;
    follower.until(ids[2], "completed").await;
    assert_eq!(stage.row(ids[2]).await.attempts, 2);
    assert_eq!(stage.attempt(ids[2]).await, 3);
}

#[tokio::test]
async fn a_job_of_ours_that_a_foreign_worker_finished_is_over_in_the_record() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let jobs = [job(), job(), job(), job()];
    stage.insert(&jobs).await;
    deliver(&stage, &jobs).await;
    let all = ids(&jobs);
    assert_eq!(stage.claim_elsewhere().await.len(), 4);
    follower.until(all[3], "processing").await;
    stage
        .finish_elsewhere(&all[0].to_string(), "1", Keep::All)
        .await;
    stage
        .finish_elsewhere(&all[1].to_string(), "2", Keep::Remove)
        .await;
    stage.fail_elsewhere(&all[2].to_string(), "x").await;
    stage
        .retry_elsewhere(&all[3].to_string(), "y", 60_000)
        .await;
    for (id, status) in all
        .iter()
        .zip(["completed", "completed", "dead_letter", "failed"])
    {
        follower.until(*id, status).await;
    }
    let results = [
        stage.row(all[0]).await.result,
        stage.row(all[1]).await.result,
    ];
    assert_eq!(results, [Some(json!(1)), Some(json!(2))]);
    assert_eq!(stage.row(all[3]).await.attempts, 1);
    let lines = "job_logs WHERE message LIKE '%BullMQ worker'";
    assert_eq!(stage.count(lines).await, 4);
    let verdict = reconcile::verify(&stage.record, &stage.broker)
        .await
        .unwrap();
    assert!(verdict.agree, "{verdict:#?}");
}

#[tokio::test]
async fn what_bullwark_itself_recorded_is_never_overwritten() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let jobs = [job(), job()];
    stage.insert(&jobs).await;
    deliver(&stage, &jobs).await;
    let all = ids(&jobs);
    settle_many(&stage.record, &[settled(all[0], 1, "w", completed())])
        .await
        .unwrap();
    // Somebody else believes to have failed it, and says so everywhere.
    stage.claim_elsewhere().await;
    stage.fail_elsewhere(&all[0].to_string(), "a lie").await;
    // An event of an attempt before: the job has been run again by hand since.
    stage.fail_elsewhere(&all[1].to_string(), "first").await;
    follower.until(all[1], "dead_letter").await;
    bullwark::control::retry(&stage.record, &stage.broker, &all[1..], &By::OPERATOR)
        .await
        .unwrap();
    stage
        .execute("DELETE FROM bullwark.mirror_positions".into())
        .await;
    let mut again = Follower::new(&stage);
    stage.forget_lease().await;
    again.catch_up().await;
    assert_eq!(stage.status(all[0]).await, "completed");
    assert_eq!(stage.row(all[0]).await.error_message, None);
    assert_eq!(stage.status(all[1]).await, "pending");
}

#[tokio::test]
async fn a_job_that_left_no_trace_but_events_is_recorded_with_its_end() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    follower.catch_up().await;
    let known = stage.add(&[foreign("known")]).await[0];
    follower.until(known, "pending").await;
    stage.claim_elsewhere().await;
    stage
        .finish_elsewhere("known", r#""gone""#, Keep::Remove)
        .await;
    // This one comes and goes between two looks.
    stage.add(&[foreign("quick")]).await;
    stage.claim_elsewhere().await;
    stage.finish_elsewhere("quick", "3", Keep::Remove).await;
    follower.until(known, "completed").await;
    assert_eq!(stage.row(known).await.result, Some(json!("gone")));
    // Of this one the first event is read before the last is written.
    stage
        .raw(&["XADD @events * event added jobId split name mail"])
        .await;
    follower.catch_up().await;
    stage
        .raw(&["XADD @events * event completed jobId split returnvalue 3 prev active"])
        .await;
    let traces = "jobs WHERE redis_id IN ('quick', 'split') AND status = 'completed'
      AND result = '3' AND job_type = 'mail'";
    eventually("both are recorded", async || {
        follower.mirror.step().await.unwrap();
        (stage.count(traces).await == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_that_can_not_be_recorded_keeps_no_other_out() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let bad = broker::NewJob {
        timestamp_ms: i64::MAX / 2,
        ..foreign("bad")
    };
    let ids = stage.add(&[foreign("a"), bad, foreign("b")]).await;
    follower.until(ids[0], "pending").await;
    follower.until(ids[2], "pending").await;
    assert_eq!(stage.count("jobs").await, 2);
    // Entries that are no events of BullMQ's.
    stage
        .raw(&["XADD @events * event completed", "XADD @events * a b"])
        .await;
    stage
        .raw(&["XADD @events * event completed jobId a returnvalue {"])
        .await;
    follower.catch_up().await;
    assert_eq!(stage.status(ids[0]).await, "pending");
}
