//! Do both stores agree? After normal work, and with each kind of planted difference.

use std::time::Duration;

use bullwark::job::{Ending, JobError, JobRequest};
use bullwark::reconcile::{self, Verdict};
use bullwark::record::settle::settle_many;
use bullwark::tasks::Tasks;

use crate::reconcile::deliver;
use crate::stage::{
    PATIENCE, Stage, completed, discarded, ids, job, rule, settled, snoozed, some_jobs,
};

const HOUR: Duration = Duration::from_secs(3600);

async fn verify(stage: &Stage) -> Verdict {
    reconcile::verify(&stage.record, &stage.broker)
        .await
        .unwrap()
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
            manner: None,
            kept_result: None,
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
async fn what_no_job_needs_in_redis_is_reported() {
    let stage = Stage::new().await;
    let jobs = some_jobs(3);
    stage.insert(&jobs).await;
    deliver(&stage, &jobs).await;
    let verdict = verify(&stage).await;
    assert!(verdict.agree, "{:?}", verdict.differences);
    let all = ids(&jobs);
    let mut redis = stage.redis().await;
    let key = |suffix: String| format!("{}:default:{suffix}", stage.prefix);
    let mut pipe = redis::pipe();
    pipe.cmd("SET")
        .arg(key(format!("{}:lock", all[0])))
        .arg("t")
        .ignore();
    pipe.cmd("RPUSH")
        .arg(key("gone:logs".into()))
        .arg("x")
        .ignore();
    pipe.cmd("RPUSH")
        .arg(key("wait".into()))
        .arg("ghost")
        .ignore();
    pipe.cmd("HSET")
        .arg(key("lost".into()))
        .arg("timestamp")
        .arg(1)
        .ignore();
    // These are the queue's own.
    pipe.cmd("HSET")
        .arg(key("metrics:completed".into()))
        .arg("count")
        .arg(1)
        .ignore();
    pipe.cmd("LPUSH")
        .arg(key("metrics:completed:data".into()))
        .arg(1)
        .ignore();
    pipe.cmd("SET")
        .arg(key("de:x".into()))
        .arg(all[1].to_string())
        .ignore();
    pipe.exec_async(&mut redis).await.unwrap();
    let mut found: Vec<_> = verify(&stage)
        .await
        .differences
        .into_iter()
        .map(|d| (d.job_id, d.problem))
        .collect();
    found.sort();
    let mut expected = vec![
        (all[0].to_string(), "a lock of a job that is not active"),
        ("gone".to_owned(), "keys of a job that is gone"),
        ("ghost".to_owned(), "in Redis only"),
        ("lost".to_owned(), "a job in no state"),
    ]
    .into_iter()
    .map(|(id, problem)| (id, problem.to_owned()))
    .collect::<Vec<_>>();
    expected.sort();
    assert_eq!(found, expected);
}
