//! Jobs that a person deletes, and those who still know of them.

use std::time::Duration;

use bullwark::control;
use bullwark::job::{Due, NewJob, Status};
use bullwark::reconcile;
use bullwark::record::access::By;
use bullwark::record::control::{GRAVE_KEPT, clear_graves, delete_many};
use bullwark::record::enqueue::{Inserted, insert_in};
use bullwark::record::jobs;
use bullwark::record::list::{self, JobFilter};
use bullwark::record::logs::{self, LogLevel, NewLog};
use bullwark::record::restart::{Asked, Restart, restart_many};
use bullwark::record::settle::settle_many;
use bullwark::record::start::mark_running;
use uuid::Uuid;

use crate::reconcile::deliver;
use crate::stage::{
    Stage, completed, discarded, eventually, ids, job, running, settled, some_jobs,
};

async fn delete(stage: &Stage, ids: &[Uuid]) -> Vec<Uuid> {
    let deleted = control::delete(&stage.record, &stage.broker, ids, &By::OPERATOR, "private");
    let mut deleted = deleted.await.unwrap();
    deleted.sort();
    deleted
}

/// Until Redis was told of everything.
async fn told(stage: &Stage) {
    eventually("an empty outbox", async || {
        let relayed = reconcile::relay_outbox(&stage.record, &stage.broker).await;
        relayed.unwrap();
        (stage.count("bullwark.outbox").await == 0).then_some(())
    })
    .await;
}

async fn restarted(stage: &Stage, id: Uuid, number: i32) -> Restart {
    let asked = [Asked {
        id,
        number,
        made: 0,
    }];
    let answers = restart_many(&stage.record, "w", &asked).await;
    answers.unwrap().remove(0)
}

#[tokio::test]
async fn a_deleted_job_is_as_one_that_never_was_in_whatever_state_it_is() {
    let stage = Stage::new().await;
    let jobs = some_jobs(4);
    stage.insert(&jobs).await;
    deliver(&stage, &jobs).await;
    let all = ids(&jobs);
    // waiting, completed, dead, completed and gone from Redis
    let ends = [(1, completed()), (2, discarded("x")), (3, completed())];
    for (n, outcome) in ends {
        let row = settled(all[n], 1, "a", outcome);
        assert_eq!(settle_many(&stage.record, &[row]).await.unwrap().len(), 1);
    }
    let line = NewLog {
        job_id: all[2],
        attempt: 1,
        level: LogLevel::Info,
        message: "to somebody@example.com".to_owned(),
        metadata: None,
    };
    logs::insert_many(&stage.record, &[line]).await.unwrap();
    let gone = [all[3].to_string()];
    stage.broker.cancel(&jobs[3].queue, &gone).await.unwrap();

    assert_eq!(delete(&stage, &all).await, all);
    for id in &all {
        assert!(jobs::get(&stage.record, *id, None).await.unwrap().is_none());
        assert_eq!(stage.state(*id).await, None);
    }
    for status in [None, Some(Status::Pending), Some(Status::DeadLetter)] {
        let filter = JobFilter {
            status,
            limit: 10,
            ..JobFilter::default()
        };
        let listed = list::list_page(&stage.record, &filter).await.unwrap();
        assert!(listed.is_empty(), "{status:?} {listed:?}");
    }
    for table in ["job_logs", "job_failures", "bullwark.dead_letters"] {
        assert_eq!(stage.count(table).await, 0, "{table}");
    }
    let left = "SELECT count(*) FROM jobs WHERE payload <> '{}' OR result IS NOT NULL
                OR error_message IS NOT NULL";
    assert_eq!(stage.scalar::<i64>(left.to_owned()).await, 0);

    // Nobody brings it back.
    assert!(delete(&stage, &all).await.is_empty());
    let (record, broker) = (&stage.record, &stage.broker);
    let retried = control::retry(record, broker, &all, &By::OPERATOR).await;
    assert!(retried.unwrap().is_empty());
    reconcile::sweep_open(record, broker, Uuid::nil())
        .await
        .unwrap();
    assert!(stage.claim("t").await.jobs.is_empty());
    told(&stage).await;

    let audited = "SELECT count(*) FROM bullwark.audit_log WHERE action = 'job.delete'
                   AND actor_kind = 'operator' AND reason = 'private'";
    assert_eq!(stage.scalar::<i64>(audited.to_owned()).await, 4);
    assert_eq!(clear_graves(record, GRAVE_KEPT).await.unwrap(), 0);
    assert_eq!(clear_graves(record, Duration::ZERO).await.unwrap(), 4);
    assert_eq!(stage.count("jobs").await, 0);
}

#[tokio::test]
async fn a_running_job_is_left_as_it_is() {
    let stage = Stage::new().await;
    let jobs = some_jobs(1);
    stage.insert(&jobs).await;
    let all = ids(&jobs);
    mark_running(&stage.record, "a", &[running(all[0], 1)])
        .await
        .unwrap();
    assert!(delete(&stage, &all).await.is_empty());
    assert_eq!(stage.status(all[0]).await, "processing");
    let done = [settled(all[0], 1, "a", completed())];
    assert_eq!(settle_many(&stage.record, &done).await.unwrap().len(), 1);
    assert_eq!(delete(&stage, &all).await, all);
}

/// Whoever deleted it died, and afterwards Redis was put back to a state in which it waits.
#[tokio::test]
async fn a_deleted_job_does_not_run_though_redis_knows_it() {
    let stage = Stage::new().await;
    let jobs = some_jobs(2);
    stage.insert(&jobs).await;
    deliver(&stage, &jobs).await;
    let all = ids(&jobs);
    let deleted = delete_many(&stage.record, &all, &By::OPERATOR, "x").await;
    assert_eq!(deleted.unwrap().len(), 2);
    assert_eq!(
        clear_graves(&stage.record, Duration::ZERO).await.unwrap(),
        0
    );
    let relayed = reconcile::relay_outbox(&stage.record, &stage.broker).await;
    assert_eq!(relayed.unwrap(), 2);
    assert_eq!(stage.state(all[0]).await, None);

    deliver(&stage, &jobs[..1]).await;
    let answer = restarted(&stage, all[0], 1).await;
    assert!(
        matches!(&answer, Restart::Over { status, .. } if *status == Status::Cancelled),
        "{answer:?}"
    );
    assert_eq!(stage.count("jobs").await, 2, "nothing is adopted");
}

/// Its delivery is under way, and whoever made it does not hear of the deletion.
#[tokio::test]
async fn a_job_that_is_deleted_before_it_comes_to_redis_does_not_stay_there() {
    let stage = Stage::new().await;
    let later = NewJob {
        due: Due::In(Duration::from_secs(3600)),
        ..job()
    };
    let jobs = [job(), later];
    stage.insert(&jobs).await;
    let all = ids(&jobs);
    assert_eq!(delete(&stage, &all).await.len(), 2);
    deliver(&stage, &jobs).await;
    assert!(stage.state(all[0]).await.is_some());
    told(&stage).await;
    for id in all {
        assert_eq!(stage.state(id).await, None);
    }
}

#[tokio::test]
async fn the_idempotency_key_of_a_deleted_job_is_free() {
    let stage = Stage::new().await;
    let keyed = || NewJob {
        idempotency_key: Some("k".into()),
        ..job()
    };
    let insert = async |jobs: &[NewJob]| {
        let mut tx = stage.record.begin().await.unwrap();
        let inserted = insert_in(&mut tx, jobs).await.unwrap();
        tx.commit().await.unwrap();
        inserted
    };
    let first = keyed();
    insert(std::slice::from_ref(&first)).await;
    assert_eq!(
        insert(&[keyed()]).await,
        [Inserted::Existing { id: first.id }]
    );
    assert_eq!(delete(&stage, &[first.id]).await, [first.id]);
    let again = [keyed(), keyed()];
    let inserted = insert(&again).await;
    assert!(matches!(inserted[0], Inserted::New { .. }), "{inserted:?}");
    assert_eq!(inserted[1], Inserted::Existing { id: again[0].id });
    assert_eq!(
        insert(&[keyed()]).await,
        [Inserted::Existing { id: again[0].id }]
    );
}
