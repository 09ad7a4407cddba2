//! Repair: what was cut short is delivered, and what Redis forgot comes back.

use std::time::Duration;

use bullwark::broker::{Added, BrokerState};
use bullwark::control;
use bullwark::enqueue::entry;
use bullwark::job::{Due, NewJob, Priority};
use bullwark::reconcile;
use bullwark::record::access::By;
use bullwark::record::open;
use bullwark::record::settle::settle_many;
use bullwark::record::start::mark_running;
use uuid::Uuid;

use crate::stage::{Stage, completed, eventually, failed, ids, job, old_job, running, settled};
use crate::support::own_stores;

const HOUR: Duration = Duration::from_secs(3600);

/// Adds jobs to Redis as their enqueue would have done.
pub(crate) async fn deliver(stage: &Stage, jobs: &[NewJob]) -> Vec<Added> {
    let entries: Vec<_> = jobs
        .iter()
        .map(|job| entry(job, bullwark::clock::now_ms(), None, 0, 0))
        .collect();
    stage.broker.add(&jobs[0].queue, &entries).await.unwrap()
}

/// One whole round of the sweep.
pub(crate) async fn sweep(stage: &Stage) {
    let mut after = Uuid::nil();
    while let Some(next) = reconcile::sweep_open(&stage.record, &stage.broker, after)
        .await
        .unwrap()
    {
        after = next;
    }
}

/// Jobs that are past every lag, in the record only.
async fn old_jobs(stage: &Stage, jobs: &[NewJob]) {
    stage.insert(jobs).await;
    for job in jobs {
        stage.age(job.id, 60).await;
    }
}

async fn reconciled_lines(stage: &Stage) -> i64 {
    stage
        .count("job_logs WHERE message LIKE 'reconciled:%'")
        .await
}

#[tokio::test]
async fn a_job_whose_way_to_redis_was_cut_short_is_delivered_after_its_grace() {
    let stage = Stage::new().await;
    let jobs = [job()];
    stage.insert(&jobs).await;
    eventually("the pass delivers it", async || {
        reconcile::deliver_recent(&stage.record, &stage.broker)
            .await
            .unwrap();
        stage.state(jobs[0].id).await
    })
    .await;
    let age = "SELECT now() - created_at >= interval '2 seconds' FROM jobs";
    assert!(
        stage.scalar::<bool>(age.into()).await,
        "the original add comes first if it can"
    );
    assert_eq!(reconciled_lines(&stage).await, 1);

    // The original add arrives after all, at whatever state the job is in.
    assert_eq!(deliver(&stage, &jobs).await, [Added::Duplicate]);
    let claimed = stage.claim("t").await.jobs;
    assert_eq!(claimed.len(), 1);
    assert_eq!(deliver(&stage, &jobs).await, [Added::Duplicate]);
    assert!(stage.claim("t").await.jobs.is_empty());
}

#[tokio::test]
async fn what_was_delivered_is_passed_over() {
    let stage = Stage::new().await;
    let jobs = [old_job(HOUR), old_job(HOUR)];
    old_jobs(&stage, &jobs).await;
    deliver(&stage, &jobs[..1]).await;
    reconcile::deliver_recent(&stage.record, &stage.broker)
        .await
        .unwrap();
    sweep(&stage).await;
    assert_eq!(
        stage
            .broker
            .counts(&jobs[0].queue)
            .await
            .unwrap()
            .prioritized,
        2
    );
    assert_eq!(
        reconciled_lines(&stage).await,
        1,
        "only the one that was missing"
    );
}

#[tokio::test]
async fn a_job_that_was_committed_a_moment_ago_is_left_to_its_delivery() {
    let stage = Stage::new().await;
    // It waited long for its commit: the id is old, the row is not.
    let jobs = [old_job(Duration::from_secs(20))];
    stage.insert(&jobs).await;
    reconcile::deliver_recent(&stage.record, &stage.broker)
        .await
        .unwrap();
    sweep(&stage).await;
    assert_eq!(stage.state(jobs[0].id).await, None);
    stage.age(jobs[0].id, 60).await;
    sweep(&stage).await;
    assert_eq!(
        stage.state(jobs[0].id).await,
        Some(BrokerState::Prioritized)
    );
}

#[tokio::test]
async fn a_flushed_redis_gets_every_open_job_back_as_it_was() {
    let stores = own_stores().await;
    let stage = Stage::on(&stores).await;
    let mut age = 2 * HOUR;
    let mut with = |priority, due| {
        age -= Duration::from_secs(1);
        NewJob {
            priority: Priority::try_from(priority).unwrap(),
            due,
            ..old_job(age)
        }
    };
    let jobs = [
        with(0, Due::Now),
        with(7, Due::Now),
        with(0, Due::Now),
        with(9, Due::In(HOUR)),
        with(0, Due::Now), // fails below, its retry is due in a minute
        with(0, Due::Now), // is completed below
        with(0, Due::Now), // is cancelled below
        with(0, Due::Now), // runs while Redis loses its memory
    ];
    old_jobs(&stage, &jobs).await;
    let all = ids(&jobs);
    sweep(&stage).await;
    let first = [
        settled(all[4], 1, "a", failed("x")),
        settled(all[5], 1, "a", completed()),
    ];
    settle_many(&stage.record, &first).await.unwrap();
    mark_running(&stage.record, "a", &[running(all[7], 1)])
        .await
        .unwrap();
    control::cancel(&stage.record, &stage.broker, &all[6..7], &By::OPERATOR, "x")
        .await
        .unwrap();

    let mut redis = stage.redis().await;
    redis::cmd("FLUSHALL").exec_async(&mut redis).await.unwrap();
    sweep(&stage).await;
    sweep(&stage).await; // twice is once
    let mut states = Vec::new();
    for id in &all {
        states.push(stage.state(*id).await);
    }
    let (ready, delayed) = (Some(BrokerState::Prioritized), Some(BrokerState::Delayed));
    let expected = [ready, ready, ready, delayed, delayed, None, None, None];
    assert_eq!(states, expected, "a running job is left to its worker");
    let claimed = stage.claim("t").await;
    let order: Vec<String> = claimed.jobs.iter().map(|job| job.id.clone()).collect();
    assert_eq!(order, [all[1], all[0], all[2]].map(|id| id.to_string()));
    let due = claimed.next_due_ms.unwrap() - claimed.now_ms;
    assert!(
        (55_000..=95_000).contains(&due),
        "the retry is due as the record says: {due} ms"
    );
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn a_job_that_redis_half_forgot_is_put_back_once() {
    let stage = Stage::new().await;
    let jobs = [old_job(HOUR)];
    old_jobs(&stage, &jobs).await;
    sweep(&stage).await;
    // Its hash is there, but no list names it: nobody would ever run it.
    let mut redis = stage.redis().await;
    redis::cmd("DEL")
        .arg(format!("{}:default:prioritized", stage.prefix))
        .exec_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(stage.state(jobs[0].id).await, Some(BrokerState::Orphan));
    for _ in 0..3 {
        sweep(&stage).await;
        assert_eq!(
            stage.state(jobs[0].id).await,
            Some(BrokerState::Prioritized)
        );
    }
    assert_eq!(reconciled_lines(&stage).await, 2, "one line per repair");
}

#[tokio::test]
async fn a_job_that_plain_sql_enqueued_is_relayed() {
    let stage = Stage::new().await;
    stage
        .execute("INSERT INTO bullwark.job_types (name) VALUES ('noop')".into())
        .await;
    let id: Uuid = stage
        .scalar("SELECT bullwark.enqueue('noop', '{\"a\": 1}', priority => 5)".into())
        .await;
    assert_eq!(
        reconcile::relay_outbox(&stage.record, &stage.broker)
            .await
            .unwrap(),
        1
    );
    let claimed = stage.claim("t").await.jobs.remove(0);
    assert_eq!((claimed.id, claimed.priority), (id.to_string(), 6));
    assert_eq!(claimed.data, r#"{"a": 1}"#);
}

#[tokio::test]
async fn a_sealed_open_job_is_swept_like_a_young_one() {
    let stage = Stage::new().await;
    let jobs = [old_job(HOUR), old_job(HOUR)];
    stage.insert_back_then(&jobs).await;
    while reconcile::seal(&stage.record).await.unwrap() {}
    for job in &jobs {
        stage.age(job.id, 60).await;
    }
    assert_eq!(stage.count("bullwark.stragglers").await, 2);
    sweep(&stage).await;
    assert!(stage.state(jobs[0].id).await.is_some() && stage.state(jobs[1].id).await.is_some());
    assert_eq!(
        open::page(&stage.record, Uuid::nil()).await.unwrap().len(),
        2
    );
}

#[tokio::test]
async fn a_whole_round_mends_each_kind_of_difference_at_once() {
    let stage = Stage::new().await;
    let first = reconcile::reconcile_all(&stage.record, &stage.broker)
        .await
        .unwrap();
    assert!(first.compared);
    let jobs: Vec<NewJob> = (0..4)
        .map(|n| old_job(HOUR - Duration::from_secs(n)))
        .collect();
    old_jobs(&stage, &jobs).await;
    deliver(&stage, &jobs[1..]).await;
    let all = ids(&jobs);
    // 0 is in the record only, 1 is over there and waits in Redis, 2 is over in Redis, 3 agrees.
    settle_many(&stage.record, &[settled(all[1], 1, "a", completed())])
        .await
        .unwrap();
    let mut redis = stage.redis().await;
    let key = |suffix: String| format!("{}:default:{suffix}", stage.prefix);
    let mut pipe = redis::pipe();
    pipe.zrem(key("prioritized".into()), all[2].to_string())
        .ignore();
    pipe.zadd(key("failed".into()), all[2].to_string(), 1)
        .ignore();
    pipe.hset(key(all[2].to_string()), "failedReason", "x")
        .ignore();
    pipe.hset(key(all[2].to_string()), "finishedOn", 1).ignore();
    // One that only Redis knows.
    pipe.hset_multiple(
        key("17".into()),
        &[
            ("name", "n"),
            ("data", "{}"),
            ("opts", "{}"),
            ("timestamp", "5"),
        ],
    )
    .ignore();
    pipe.lpush(key("wait".into()), "17").ignore();
    pipe.exec_async(&mut redis).await.unwrap();
    let differ = reconcile::verify(&stage.record, &stage.broker)
        .await
        .unwrap();
    let mut repairs: Vec<&str> = differ
        .differences
        .iter()
        .map(|d| d.repair.as_str())
        .collect();
    repairs.sort_unstable();
    let expected = [
        "added to Redis again",
        "adopted",
        "ended in Redis",
        "the outcome is copied",
    ];
    assert_eq!(repairs, expected);

    let done = reconcile::reconcile_all(&stage.record, &stage.broker)
        .await
        .unwrap();
    assert_eq!(
        (done.relayed, done.added, done.copied, done.ended),
        (0, 2, 1, 1)
    );
    assert_eq!(stage.status(all[2]).await, "dead_letter");
    assert_eq!(stage.state(all[1]).await, Some(BrokerState::Completed));
    let verdict = reconcile::verify(&stage.record, &stage.broker)
        .await
        .unwrap();
    assert!(verdict.agree, "{:?}", verdict.differences);
    let again = reconcile::reconcile_all(&stage.record, &stage.broker)
        .await
        .unwrap();
    assert_eq!(
        again,
        reconcile::Reconciled::default(),
        "nothing is left to do"
    );
}
