//! Jobs that Redis refuses hold up no pass, and are tried again.

use std::time::Duration;

use bullwark::broker::BrokerState;
use bullwark::reconcile;
use uuid::Uuid;

use crate::stage::{Stage, ids, old_job};

/// Jobs that are past every lag, in the record only.
async fn stored(stage: &Stage, count: usize) -> Vec<Uuid> {
    let jobs: Vec<_> = (0..count)
        .map(|_| old_job(Duration::from_secs(60)))
        .collect();
    stage.insert(&jobs).await;
    let ids = ids(&jobs);
    for id in &ids {
        stage.age(*id, 60).await;
    }
    ids
}

/// Puts something else where the job's hash belongs.
async fn spoil(stage: &Stage, id: Uuid) {
    raw(stage, "SET", id, Some("x")).await;
}

async fn repair(stage: &Stage, id: Uuid) {
    raw(stage, "DEL", id, None).await;
}

async fn raw(stage: &Stage, command: &str, id: Uuid, value: Option<&str>) {
    let mut redis = stage.redis().await;
    let mut command = redis::cmd(command);
    command.arg(format!("{}:default:{id}", stage.prefix));
    command.arg(value);
    command.exec_async(&mut redis).await.unwrap();
}

async fn waiting(stage: &Stage, ids: &[Uuid]) -> usize {
    let mut count = 0;
    for id in ids {
        count += usize::from(stage.state(*id).await == Some(BrokerState::Prioritized));
    }
    count
}

async fn sweep(stage: &Stage) {
    let mut after = Uuid::nil();
    while let Some(next) = reconcile::sweep_open(&stage.record, &stage.broker, after)
        .await
        .unwrap()
    {
        after = next;
    }
}

#[tokio::test]
async fn a_job_that_redis_refuses_keeps_no_other_from_being_delivered() {
    let stage = Stage::new().await;
    let ids = stored(&stage, 9).await;
    spoil(&stage, ids[4]).await;
    sweep(&stage).await;
    assert_eq!(waiting(&stage, &ids).await, 8);
    assert_eq!(stage.status(ids[4]).await, "pending", "it stays open");

    repair(&stage, ids[4]).await;
    sweep(&stage).await;
    assert_eq!(waiting(&stage, &ids).await, 9);
    assert_eq!(stage.claim("t").await.jobs.len(), 9, "each once");
}

#[tokio::test]
async fn a_row_that_can_not_be_read_keeps_no_other_from_being_delivered() {
    let stage = Stage::new().await;
    let ids = stored(&stage, 5).await;
    stage
        .execute(format!(
            "UPDATE jobs SET backoff = '{{\"no\": 1}}' WHERE id = '{}'",
            ids[0]
        ))
        .await;
    sweep(&stage).await;
    assert_eq!(waiting(&stage, &ids).await, 4);
    stage
        .execute(format!(
            "UPDATE jobs SET backoff = NULL WHERE id = '{}'",
            ids[0]
        ))
        .await;
    sweep(&stage).await;
    assert_eq!(waiting(&stage, &ids).await, 5);
}

#[tokio::test]
async fn a_job_whose_key_holds_something_else_keeps_no_other_from_being_relayed() {
    let stage = Stage::new().await;
    let ids = stored(&stage, 5).await;
    for id in &ids {
        stage
            .execute(format!(
                "INSERT INTO bullwark.outbox (job_id) VALUES ('{id}')"
            ))
            .await;
    }
    spoil(&stage, ids[0]).await;
    let relay = async || {
        reconcile::relay_outbox(&stage.record, &stage.broker)
            .await
            .unwrap()
    };
    assert_eq!(relay().await, 5);
    assert_eq!(waiting(&stage, &ids).await, 4);
    assert_eq!(stage.count("bullwark.outbox").await, 0);
    assert_eq!(stage.status(ids[0]).await, "pending", "it stays open");

    repair(&stage, ids[0]).await;
    sweep(&stage).await;
    assert_eq!(stage.claim("t").await.jobs.len(), 5, "each once");
}
