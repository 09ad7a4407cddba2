//! Redis is told of what people did, by several processes at once.

use bullwark::broker::{self, BrokerState};
use bullwark::job::{NewJob, QueueName};
use bullwark::reconcile;
use bullwark::record::access::By;
use bullwark::record::control::{cancel_many, promote_many, retry_many};
use bullwark::record::settle::settle_many;
use uuid::Uuid;

use crate::mirror::{Follower, foreign};
use crate::record_enqueue::workspace;
use crate::stage::{PATIENCE, Stage, failed, job, settled, spawn};

async fn untold(stage: &Stage) -> i64 {
    stage.count("bullwark.outbox").await
}

async fn tell(stage: &Stage, ids: &[Uuid]) {
    reconcile::relay(&stage.record, &stage.broker, ids)
        .await
        .unwrap();
}

async fn states(stage: &Stage, wire_ids: &[String]) -> Vec<Option<BrokerState>> {
    let queue = QueueName::default();
    stage.broker.states(&queue, wire_ids).await.unwrap()
}

/// A process that has looked at a cancel, and takes the job out of Redis when another one has put
/// it back already.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_again_is_not_lost_to_a_cancel_that_is_told_late() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    // One of ours, and one of a client, which nothing would put back.
    let own = NewJob {
        workspace_id: Some(workspace(&stage).await),
        ..job()
    };
    stage.insert(std::slice::from_ref(&own)).await;
    crate::reconcile::deliver(&stage, std::slice::from_ref(&own)).await;
    let theirs = stage.add(&[foreign("theirs")]).await[0];
    follower.until(theirs, "pending").await;
    let (ids, wire_ids) = ([own.id, theirs], [own.id.to_string(), "theirs".to_owned()]);
    let before = states(&stage, &wire_ids).await;
    assert!(before.iter().all(Option::is_some), "{before:?}");

    let by = By::OPERATOR;
    assert_eq!(
        cancel_many(&stage.record, &ids, &by, "x")
            .await
            .unwrap()
            .len(),
        2
    );
    let (slow, held) = stage.broker_that_may_be_held().await;
    held.hold();
    let record = stage.record.clone();
    let late = spawn(async move { reconcile::relay(&record, &slow, &ids).await });
    tokio::time::timeout(PATIENCE, held.holds()).await.unwrap();
    assert_eq!(retry_many(&stage.record, &ids, &by).await.unwrap().len(), 2);
    tell(&stage, &ids).await;
    assert_eq!(untold(&stage).await, 2, "the late one is still at it");
    held.let_go();
    late.await.unwrap().unwrap();
    assert_eq!(untold(&stage).await, 0);

    let after = states(&stage, &wire_ids).await;
    assert!(after.iter().all(Option::is_some), "{after:?}");
    follower.catch_up().await;
    for id in ids {
        assert_eq!(stage.status(id).await, "pending");
    }
}

/// The failure of a client's job is committed, and Redis not told of it, when the job is promoted.
#[tokio::test]
async fn the_promotion_of_a_clients_job_waits_until_redis_has_heard_of_its_failure() {
    let stage = Stage::new().await;
    let mut follower = Follower::new(&stage);
    let id = stage.add(&[foreign("1")]).await[0];
    follower.until(id, "pending").await;
    let token = format!("{}w:1", broker::OWN_TOKEN);
    assert_eq!(stage.claim(&token).await.jobs.len(), 1);
    let row = settled(id, 1, "w", failed("x"));
    assert_eq!(settle_many(&stage.record, &[row]).await.unwrap().len(), 1);
    let promoted = promote_many(&stage.record, &[id], &By::OPERATOR).await;
    assert_eq!(promoted.unwrap(), [id]);
    tell(&stage, &[id]).await;
    assert_eq!(untold(&stage).await, 1, "too early");

    let retry = broker::Retry {
        id: "1".into(),
        token,
        delay_ms: 3_600_000,
        reason: "x".into(),
        stacktrace: "[]".into(),
        count_attempt: true,
        lifo: false,
    };
    stage
        .broker
        .retry(&QueueName::default(), &[retry])
        .await
        .unwrap();
    assert_eq!(
        states(&stage, &["1".into()]).await,
        [Some(BrokerState::Delayed)]
    );
    tell(&stage, &[id]).await;
    assert_eq!(
        states(&stage, &["1".into()]).await,
        [Some(BrokerState::Wait)]
    );
    assert_eq!(untold(&stage).await, 0);
}
