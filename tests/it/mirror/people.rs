//! What people do in the dashboards of `BullMQ`.

use bullwark::broker::{self, Keep};
use bullwark::job::QueueName;
use bullwark::reconcile;
use bullwark::record::restart::{self, Asked};

use super::{Follower, foreign};
use crate::reconcile::deliver;
use crate::stage::{Stage, eventually, job};

#[tokio::test]
async fn what_a_person_does_in_a_dashboard_is_followed() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let ids = stage.add(&[foreign("a"), foreign("b")]).await;
    let delayed = broker::NewJob {
        due_ms: Some(bullwark::clock::now_ms() + 60_000),
        ..foreign("c")
    };
    let later = stage.add(&[delayed]).await[0];
    follower.until(later, "pending").await;
    stage.claim_elsewhere().await;
    stage.fail_elsewhere("a", "x").await;
    follower.until(ids[0], "dead_letter").await;

    // What BullMQ's `job.retry` leaves behind.
    stage
        .raw(&[
            "ZREM @failed a",
            "HDEL @a finishedOn processedOn failedReason",
            "LPUSH @wait a",
            "XADD @events * event waiting jobId a prev failed",
        ])
        .await;
    follower.until(ids[0], "pending").await;
    assert_eq!(stage.count("bullwark.dead_letters").await, 0);
    assert_eq!(
        stage
            .count("job_logs WHERE message = 'retried by a BullMQ client'")
            .await,
        1
    );
    stage.claim_elsewhere().await;
    stage.finish_elsewhere("a", "1", Keep::All).await;
    follower.until(ids[0], "completed").await;

    let score = (bullwark::clock::now_ms() + 7_200_000) * 4096;
    stage
        .raw(&[
            &format!("ZADD @delayed {score} c"),
            "XADD @events * event delayed jobId c delay 1",
        ])
        .await;
    follower.catch_up().await;
    let due = stage.row(later).await.scheduled_for.unwrap() - bullwark::clock::now();
    assert!((7100..7201).contains(&due.num_seconds()), "{due}");

    stage
        .broker
        .cancel(&QueueName::default(), &["c".into()])
        .await
        .unwrap();
    follower.until(later, "cancelled").await;
    assert_eq!(
        stage.row(later).await.error_message.as_deref(),
        Some("removed by a BullMQ client")
    );
}

/// A worker of ours may claim a job that a client ran again before the mirror has heard of it.
#[tokio::test]
async fn a_claimed_job_that_a_client_ran_again_is_opened_at_once() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let jobs = [job()];
    stage.insert(&jobs).await;
    deliver(&stage, &jobs).await;
    let id = jobs[0].id;
    stage.claim_elsewhere().await;
    stage.fail_elsewhere(&id.to_string(), "x").await;
    follower.until(id, "dead_letter").await;
    let again = [
        format!("ZREM @failed {id}"),
        format!("HDEL @{id} finishedOn processedOn failedReason"),
        format!("LPUSH @wait {id}"),
        format!("XADD @events * event waiting jobId {id} prev failed"),
    ];
    for command in &again {
        stage.raw(&[command]).await;
    }
    let token = format!("{}w:1", broker::OWN_TOKEN);
    assert_eq!(stage.claim(&token).await.jobs.len(), 1);
    let queue = QueueName::default();
    let catch_up = async || {
        let wire_ids = [id.to_string()];
        reconcile::catch_up(&stage.record, &stage.broker, &queue, &wire_ids)
            .await
            .unwrap()
    };
    assert_eq!(catch_up().await, 0, "its worker decides");
    let wire_ids = [id.to_string()];
    let wanted = reconcile::put_back_by_clients(&stage.broker, &queue, &wire_ids);
    assert!(wanted.await.unwrap().contains(&wire_ids[0]));
    // Only the start that follows the last one is a client's: a number that leaves one out is ours,
    // a lower one an older memory of Redis.
    for (number, opened) in [(1, 0), (3, 0), (2, 1), (2, 0)] {
        let start = Asked {
            id,
            number,
            made: 1,
        };
        let done = restart::reopen_many(&stage.record, &[start], false).await;
        assert_eq!(done.unwrap(), opened, "{number}");
    }
    assert_eq!(stage.stragglers_of_their_owners().await, 1);
    assert_eq!(stage.status(id).await, "pending");

    // One that fails again, and is promoted before its time.
    let retry = broker::Retry {
        id: id.to_string(),
        token,
        delay_ms: 3_600_000,
        reason: "x".into(),
        stacktrace: "[]".into(),
        count_attempt: true,
        lifo: false,
    };
    stage.execute("UPDATE jobs SET attempts = 2".into()).await;
    stage.broker.retry(&queue, &[retry]).await.unwrap();
    let due = "SELECT scheduled_for > now() + interval '50 minutes' FROM jobs";
    eventually("it is due later", async || {
        follower.mirror.step().await.unwrap();
        (stage.scalar::<Option<bool>>(due.into()).await == Some(true)).then_some(())
    })
    .await;
    let wire_ids = [id.to_string()];
    stage.broker.promote(&queue, &wire_ids).await.unwrap();
    let token = format!("{}w:2", broker::OWN_TOKEN);
    assert_eq!(stage.claim(&token).await.jobs.len(), 1);
    assert_eq!(catch_up().await, 1);
    assert_eq!(stage.scalar::<Option<bool>>(due.into()).await, None);
}
