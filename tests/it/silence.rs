//! Running jobs whose worker gives the record no sign.

use bullwark::reconcile;
use bullwark::record::settle::settle_many;
use bullwark::record::start::mark_running;
use uuid::Uuid;

use crate::reconcile::{deliver, sweep};
use crate::stage::{Stage, completed, eventually, ids, job, running, settled};

#[tokio::test]
async fn a_silent_worker_s_job_runs_again_with_a_higher_number() {
    let stage = Stage::new().await;
    let jobs = [job()];
    stage.insert(&jobs).await;
    let id = jobs[0].id;
    mark_running(&stage.record, "a", &[running(id, 1)])
        .await
        .unwrap();
    stage.age(id, 60).await;
    let reset = async || {
        let reset = reconcile::reset_silent(&stage.record, &stage.broker).await;
        reset.unwrap()
    };
    assert_eq!(reset().await, 0);
    sweep(&stage).await;
    assert_eq!(
        stage.state(id).await,
        None,
        "a running job is left to its worker"
    );
    stage
        .execute("UPDATE jobs SET worker_heartbeat_at = now() - interval '6 minutes'".into())
        .await;
    assert_eq!(
        reset().await,
        0,
        "a Redis that was not compared tells nothing"
    );
    while !reconcile::readmit(&stage.record, &stage.broker)
        .await
        .unwrap()
    {}
    forget(&stage, id).await;
    assert_eq!(reset().await, 1);
    eventually("the sweep has added it", async || {
        sweep(&stage).await;
        stage.state(id).await
    })
    .await;
    let claimed = stage.claim("t").await.jobs.remove(0);
    assert!(
        claimed.attempts_started > 1,
        "it is checked against the record"
    );
}

/// Takes a job out of Redis, its lease included.
async fn forget(stage: &Stage, id: Uuid) {
    stage
        .raw(&[
            &format!("DEL @{id} @{id}:lock"),
            &format!("LREM @active 0 {id}"),
        ])
        .await;
}

/// The record was away for long, or the outcome waits for Redis: the worker is alive.
#[tokio::test]
async fn a_silent_job_whose_lease_is_held_stays_its_worker_s() {
    let stage = Stage::new().await;
    while !reconcile::readmit(&stage.record, &stage.broker)
        .await
        .unwrap()
    {}
    let jobs = [job(), job()];
    stage.insert(&jobs).await;
    deliver(&stage, &jobs).await;
    let ids = ids(&jobs);
    assert_eq!(stage.claim("t").await.jobs.len(), 2);
    let started: Vec<_> = ids.iter().map(|id| running(*id, 1)).collect();
    mark_running(&stage.record, "a", &started).await.unwrap();
    stage
        .execute("UPDATE jobs SET worker_heartbeat_at = now() - interval '6 minutes'".into())
        .await;
    forget(&stage, ids[1]).await;
    let reset = reconcile::reset_silent(&stage.record, &stage.broker).await;
    assert_eq!(reset.unwrap(), 1);
    assert_eq!(stage.status(ids[0]).await, "processing");
    assert_eq!(stage.status(ids[1]).await, "pending");
    let late = [settled(ids[0], 1, "a", completed())];
    assert_eq!(settle_many(&stage.record, &late).await.unwrap().len(), 1);
}
