//! Jobs that a person deletes, and those who still know of them.

use std::time::Duration;

use bullwark::broker::BrokerState;
use bullwark::control;
use bullwark::job::flow::FlowRequest;
use bullwark::job::{Due, JobRequest, NewJob, Status};
use bullwark::reconcile;
use bullwark::record::access::By;
use bullwark::record::adopt::record_id;
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
        assert!(
            jobs::get(&mut stage.record.view().await.unwrap(), *id, None)
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(stage.state(*id).await, None);
    }
    for status in [None, Some(Status::Pending), Some(Status::DeadLetter)] {
        let filter = JobFilter {
            status,
            limit: 10,
            ..JobFilter::default()
        };
        let listed = list::list_page(&mut stage.record.view().await.unwrap(), &filter)
            .await
            .unwrap();
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

/// Their ids on the wire are the client's, which may give one again.
#[tokio::test]
async fn a_newer_job_with_the_id_of_a_deleted_one_stays() {
    let stage = Stage::new().await;
    let queue = bullwark::job::QueueName::default();
    let of_client = |timestamp_ms| bullwark::broker::NewJob {
        id: "daily".to_owned(),
        name: "noop".to_owned(),
        data: "{}".to_owned(),
        opts: "{}".to_owned(),
        timestamp_ms,
        ..bullwark::broker::NewJob::default()
    };
    let mut mirror = reconcile::Mirror::new(stage.record.clone(), stage.broker.clone());
    let mut adopted = Vec::new();
    for timestamp_ms in [1_700_000_000_000, 1_700_000_000_005] {
        stage
            .broker
            .add(&queue, &[of_client(timestamp_ms)])
            .await
            .unwrap();
        let id = record_id(&stage.prefix, &queue, "daily", timestamp_ms);
        eventually("the job in the record", async || {
            while mirror.step().await.unwrap() {}
            jobs::get(&mut stage.record.view().await.unwrap(), id, None)
                .await
                .unwrap()
        })
        .await;
        adopted.push(id);
        if adopted.len() == 1 {
            let done = [settled(id, 1, "a", completed())];
            assert_eq!(settle_many(&stage.record, &done).await.unwrap().len(), 1);
            stage
                .broker
                .cancel(&queue, &["daily".to_owned()])
                .await
                .unwrap();
        }
    }
    assert_eq!(delete(&stage, &adopted[..1]).await, adopted[..1]);
    told(&stage).await;
    let states = stage.broker.states(&queue, &["daily".to_owned()]).await;
    assert!(states.unwrap()[0].is_some(), "the newer one waits");
    assert_eq!(stage.status(adopted[1]).await, "pending");
}

#[tokio::test]
async fn a_parent_does_not_wait_for_a_dead_child_that_was_deleted() {
    let stage = Stage::new().await;
    let tasks = bullwark::tasks::Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    let job = || FlowRequest {
        job: JobRequest::new("noop", serde_json::json!({})),
        ..FlowRequest::default()
    };
    let flow = FlowRequest {
        children: vec![job()],
        ..job()
    };
    let ids = enqueue.enqueue_flow(flow).await.unwrap().ids;
    eventually("the flow in Redis", async || stage.state(ids[1]).await).await;
    let dead = [settled(ids[1], 1, "a", discarded("x"))];
    assert_eq!(settle_many(&stage.record, &dead).await.unwrap().len(), 1);
    // It was kept for a while as failed, and has left Redis; its parent waits for a retry.
    let key = format!("{}:default:{}", stage.prefix, ids[1]);
    let mut redis = stage.redis().await;
    for (command, set) in [("LREM", "wait"), ("ZREM", "prioritized")] {
        let mut cmd = redis::cmd(command);
        cmd.arg(format!("{}:default:{set}", stage.prefix));
        if command == "LREM" {
            cmd.arg(0);
        }
        cmd.arg(ids[1].to_string());
        let _: i64 = cmd.query_async(&mut redis).await.unwrap();
    }
    let _: i64 = redis::cmd("DEL")
        .arg(&key)
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(
        stage.state(ids[0]).await,
        Some(BrokerState::WaitingChildren)
    );
    assert_eq!(delete(&stage, &ids[1..]).await, ids[1..]);
    stage.age(ids[0], 60).await;
    eventually("the parent in line", async || {
        let swept = reconcile::sweep_open(&stage.record, &stage.broker, Uuid::nil());
        swept.await.unwrap();
        let state = stage.state(ids[0]).await;
        (state != Some(BrokerState::WaitingChildren)).then_some(())
    })
    .await;
    drop(enqueue);
}
