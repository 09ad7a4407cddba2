//! Repair: what was cut short is delivered, what Redis forgot comes back, and `verify` tells.

use std::time::Duration;

use bullwark::broker::{Added, BrokerState};
use bullwark::enqueue::entry;
use bullwark::job::{Due, JobError, JobRequest, NewJob, Priority};
use bullwark::reconcile::{self, Verdict};
use bullwark::record::open;
use bullwark::record::settle::settle_many;
use bullwark::record::start::mark_running;
use bullwark::stores::Kill;
use bullwark::tasks::Tasks;
use bullwark::{control, job::Ending};
use uuid::Uuid;

use crate::stage::{
    PATIENCE, Stage, completed, discarded, eventually, failed, ids, job, old_job, rule, running,
    settled, snoozed, some_jobs,
};
use crate::support::own_stores;

const HOUR: Duration = Duration::from_secs(3600);

/// Adds jobs to Redis as their enqueue would have done.
async fn deliver(stage: &Stage, jobs: &[NewJob]) -> Vec<Added> {
    let entries: Vec<_> = jobs
        .iter()
        .map(|job| entry(job, bullwark::clock::now_ms(), None, 0, 0))
        .collect();
    stage.broker.add(&jobs[0].queue, &entries).await.unwrap()
}

/// One whole round of the sweep.
async fn sweep(stage: &Stage) {
    let mut after = Uuid::nil();
    while let Some(next) = reconcile::sweep_open(&stage.record, &stage.broker, after)
        .await
        .unwrap()
    {
        after = next;
    }
}

async fn verify(stage: &Stage) -> Verdict {
    reconcile::verify(&stage.record, &stage.broker)
        .await
        .unwrap()
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
    control::cancel(&stage.record, &stage.broker, &all[6..7], None, "x")
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
async fn a_person_cancels_and_retries_in_every_state() {
    let stage = Stage::new().await;
    let jobs = some_jobs(6);
    stage.insert(&jobs).await;
    deliver(&stage, &jobs[..5]).await;
    let all = ids(&jobs);
    // waiting, delayed after a failure, running, completed, dead, and never delivered
    let claimed = stage.claim("t").await.jobs;
    assert_eq!(claimed.len(), 5);
    let (wire, token) = (|n: usize| claimed[n].id.clone(), "t".to_owned());
    let release = bullwark::broker::Release {
        id: wire(0),
        token: token.clone(),
    };
    stage
        .broker
        .release(&jobs[0].queue, &[release])
        .await
        .unwrap();
    mark_running(&stage.record, "a", &[running(all[2], 1)])
        .await
        .unwrap();
    let ends = [(1, failed("x")), (3, completed()), (4, discarded("x"))];
    for (n, outcome) in ends {
        let row = settled(all[n], 1, "a", outcome.clone());
        assert_eq!(settle_many(&stage.record, &[row]).await.unwrap().len(), 1);
        let ended = bullwark::settle::Ended {
            id: all[n],
            wire_id: wire(n),
            queue: jobs[n].queue.clone(),
            token: token.clone(),
            attempt: 1,
            max_attempts: 5,
            started_at: bullwark::clock::now(),
            outcome,
        };
        bullwark::settle::tell(&stage.broker, &[&ended])
            .await
            .unwrap();
    }
    let states = async || {
        let mut states = Vec::new();
        for id in &all {
            states.push((stage.status(*id).await, stage.state(*id).await));
        }
        states
    };

    let retry = async || {
        control::retry(&stage.record, &stage.broker, &all, None)
            .await
            .unwrap()
    };
    let mut retried = retry().await;
    retried.sort();
    assert_eq!(retried, all[3..5], "only what is over");
    let (ready, delayed) = (Some(BrokerState::Prioritized), Some(BrokerState::Delayed));
    let expected = [
        ("pending", ready),
        ("failed", delayed),
        ("processing", Some(BrokerState::Active)),
        ("pending", ready),
        ("pending", ready),
        ("pending", None),
    ];
    assert_eq!(
        states().await,
        expected.map(|(status, state)| (status.to_owned(), state))
    );
    assert_eq!(stage.count("bullwark.dead_letters").await, 0);
    assert!(retry().await.is_empty());

    let cancel = async || {
        control::cancel(&stage.record, &stage.broker, &all, None, "x")
            .await
            .unwrap()
    };
    assert_eq!(cancel().await.len(), 6);
    assert!(
        states()
            .await
            .iter()
            .all(|(status, state)| status == "cancelled" && state.is_none())
    );
    assert!(cancel().await.is_empty());
    assert_eq!(retry().await.len(), 6);
    assert!(
        states()
            .await
            .iter()
            .all(|(status, state)| status == "pending" && *state == ready)
    );
    assert_eq!(stage.count("bullwark.outbox").await, 0);
}

#[tokio::test]
async fn what_a_person_does_while_redis_is_away_is_done_when_it_is_back() {
    let mut stores = own_stores().await;
    let stage = Stage::on(&stores).await;
    let jobs = some_jobs(2);
    stage.insert(&jobs).await;
    deliver(&stage, &jobs).await;
    let all = ids(&jobs);
    let done = [settled(all[1], 1, "a", completed())];
    settle_many(&stage.record, &done).await.unwrap();
    stores.kill_redis(Kill::Immediately).await;
    let cancelled = control::cancel(&stage.record, &stage.broker, &all[..1], None, "x").await;
    assert_eq!(cancelled.unwrap(), all[..1]);
    let retried = control::retry(&stage.record, &stage.broker, &all[1..], None).await;
    assert_eq!(retried.unwrap(), all[1..]);
    assert_eq!(
        stage.count("bullwark.outbox").await,
        2,
        "noted until Redis is told"
    );
    reconcile::relay_outbox(&stage.record, &stage.broker)
        .await
        .unwrap_err();
    assert_eq!(stage.count("bullwark.outbox").await, 2);

    stores.start_redis().await.unwrap();
    eventually("the relay has told Redis", async || {
        reconcile::relay_outbox(&stage.record, &stage.broker)
            .await
            .ok()
    })
    .await;
    assert_eq!(stage.count("bullwark.outbox").await, 0);
    assert_eq!(stage.state(all[0]).await, None);
    assert_eq!(stage.state(all[1]).await, Some(BrokerState::Prioritized));
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn both_stores_agree_after_normal_work() {
    let stage = Stage::new().await;
    let tasks = Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    let request = JobRequest::new("noop", serde_json::json!({}));
    let answers = enqueue.enqueue_many(vec![request; 30]).await.unwrap();
    assert!(answers.iter().all(Result::is_ok));
    drop(enqueue);
    assert!(tasks.stop(PATIENCE).await);

    let done: bullwark::settle::Done = std::sync::Arc::new(|_, _| {});
    let settling = Tasks::new();
    let (record, broker) = (stage.record.clone(), stage.broker.clone());
    let settle = bullwark::settle::Settle::start(record, broker, "a", done, &settling);
    let retry = Ending::Error(JobError::RetryAfter(HOUR, "x".into()));
    let outcomes = [
        completed(),
        retry.settle(&rule(0, 5), 0.0).unwrap(),
        discarded("x"),
        snoozed(HOUR),
        snoozed(Duration::ZERO),
    ];
    let claimed = stage.claim("t").await.jobs;
    assert_eq!(claimed.len(), 30);
    for (job, outcome) in claimed.iter().zip(outcomes.iter().cycle()).take(25) {
        let ended = bullwark::settle::Ended {
            id: job.id.parse().unwrap(),
            wire_id: job.id.clone(),
            queue: "default".parse().unwrap(),
            token: "t".into(),
            attempt: 1,
            max_attempts: 5,
            started_at: bullwark::clock::now(),
            outcome: outcome.clone(),
        };
        settle.hand_over(ended).await.unwrap();
    }
    drop(settle);
    settling.drained().await;
    let verdict = verify(&stage).await;
    assert!(verdict.agree, "{:?}", verdict.differences);
    assert_eq!(verdict.open, 20);
}

#[tokio::test]
async fn each_kind_of_difference_is_reported_and_nothing_else() {
    let stage = Stage::new().await;
    let jobs = some_jobs(6);
    stage.insert(&jobs).await;
    let all = ids(&jobs);
    deliver(&stage, &jobs[1..5]).await;
    // 0 only in the record, 1 over in the record, 2 over in Redis, 3 and 4 agree,
    // 5 half forgotten, 6 and 7 only in Redis: one of ours, one of a foreign client.
    let over = [settled(all[1], 1, "a", completed())];
    settle_many(&stage.record, &over).await.unwrap();
    let claimed = stage.claim("t").await.jobs;
    let at = claimed
        .iter()
        .position(|job| job.id == all[2].to_string())
        .unwrap();
    let finish = bullwark::broker::Finish {
        id: claimed[at].id.clone(),
        token: "t".into(),
        returnvalue: "1".into(),
        keep: bullwark::broker::Keep::All,
    };
    stage
        .broker
        .finish(&jobs[2].queue, &[finish])
        .await
        .unwrap();
    deliver(&stage, &jobs[5..]).await;
    let mut redis = stage.redis().await;
    redis::cmd("ZREM")
        .arg(format!("{}:default:prioritized", stage.prefix))
        .arg(all[5].to_string())
        .exec_async(&mut redis)
        .await
        .unwrap();
    let strangers = [job(), job()];
    deliver(&stage, &strangers[..1]).await;
    let foreign = bullwark::broker::NewJob {
        id: "17".into(),
        name: "mail".into(),
        data: "{}".into(),
        opts: "{}".into(),
        timestamp_ms: 1,
        ..Default::default()
    };
    stage.broker.add(&jobs[0].queue, &[foreign]).await.unwrap();

    let verdict = verify(&stage).await;
    let mut found: Vec<(String, String, String)> = verdict
        .differences
        .into_iter()
        .map(|d| (d.job_id, d.record, d.redis))
        .collect();
    found.sort();
    let mut expected = [
        (all[0].to_string(), "pending", "absent"),
        (all[1].to_string(), "completed", "active"),
        (all[2].to_string(), "pending", "completed"),
        (all[5].to_string(), "pending", "orphan"),
        (strangers[0].id.to_string(), "absent", "prioritized"),
        ("17".to_owned(), "absent", "wait"),
    ]
    .map(|(id, record, redis)| (id, record.to_owned(), redis.to_owned()));
    expected.sort();
    assert_eq!(found, expected);
    assert!(!verdict.agree);
    assert_eq!(verdict.open, 5);
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
async fn a_silent_worker_s_job_runs_again_with_a_higher_number() {
    let stage = Stage::new().await;
    let jobs = [job()];
    stage.insert(&jobs).await;
    let id = jobs[0].id;
    mark_running(&stage.record, "a", &[running(id, 1)])
        .await
        .unwrap();
    stage.age(id, 60).await;
    assert_eq!(reconcile::reset_silent(&stage.record).await.unwrap(), 0);
    sweep(&stage).await;
    assert_eq!(
        stage.state(id).await,
        None,
        "a running job is left to its worker"
    );
    stage
        .execute("UPDATE jobs SET worker_heartbeat_at = now() - interval '6 minutes'".into())
        .await;
    assert_eq!(reconcile::reset_silent(&stage.record).await.unwrap(), 1);
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
