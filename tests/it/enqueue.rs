//! The way in: shared commits, order, outages of either store, callers that go away.

use bullwark::broker::BrokerState;
use bullwark::enqueue::{Enqueue, EnqueueError};
use bullwark::job::JobRequest;
use bullwark::reconcile;
use bullwark::stores::{Kill, Stores, StoresOptions};
use bullwark::tasks::Tasks;
use futures_util::future::join_all;
use serde_json::json;
use uuid::Uuid;

use crate::stage::{PATIENCE, Stage, eventually, spawn};
use crate::support::own_stores;

fn request(n: usize) -> JobRequest {
    JobRequest::new("noop", json!({ "n": n }))
}

fn requests(count: usize) -> Vec<JobRequest> {
    (0..count).map(request).collect()
}

/// Everything that claims give, in their order, until `count` jobs came.
async fn claimed(stage: &Stage, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    eventually("all jobs are in Redis", async || {
        ids.extend(stage.claim("t").await.jobs.into_iter().map(|job| job.id));
        (ids.len() >= count).then_some(())
    })
    .await;
    ids
}

#[tokio::test]
async fn concurrent_callers_share_commits() {
    let stage = Stage::new().await;
    let tasks = Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    let answers = join_all((0..100).map(|n| enqueue.enqueue(request(n)))).await;
    let ids: Vec<Uuid> = answers
        .into_iter()
        .map(|answer| answer.unwrap().id)
        .collect();
    // Every row names the transaction that wrote it.
    let commits: i64 = stage
        .scalar("SELECT count(DISTINCT xmin::text) FROM jobs".into())
        .await;
    assert_eq!(stage.count("jobs").await, 100);
    assert!(commits <= 10, "{commits} commits for 100 jobs");
    let mut in_redis = claimed(&stage, 100).await;
    let mut sent: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    in_redis.sort();
    sent.sort();
    assert_eq!(in_redis, sent);
    drop(enqueue);
    assert!(tasks.stop(PATIENCE).await);
}

#[tokio::test]
async fn one_caller_s_jobs_stay_in_order_among_many_callers() {
    let stage = Stage::new().await;
    let tasks = Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    let caller = async |enqueue: Enqueue| {
        let mut sent = Vec::new();
        for n in 0..60 {
            sent.push(enqueue.enqueue(request(n)).await.unwrap().id.to_string());
        }
        sent
    };
    let sent = join_all((0..8).map(|_| caller(enqueue.clone()))).await;
    let in_redis = claimed(&stage, 8 * 60).await;
    for sent in sent {
        let found: Vec<&String> = in_redis.iter().filter(|id| sent.contains(id)).collect();
        assert_eq!(found, sent.iter().collect::<Vec<_>>());
    }
    drop(enqueue);
    tasks.stop(PATIENCE).await;
}

#[tokio::test]
async fn a_batch_is_answered_in_order_and_wrong_requests_keep_nobody_out() {
    let stage = Stage::new().await;
    let tasks = Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    let mut batch = requests(700);
    batch[3].job_type = "nope".into();
    batch[600].priority = Some(11);
    // Passes every check, but the record refuses it.
    batch[520].workspace_id = Some(Uuid::now_v7());
    let answers = enqueue.enqueue_many(batch).await.unwrap();
    let codes: Vec<(usize, &str)> = answers
        .iter()
        .enumerate()
        .filter_map(|(n, answer)| Some((n, answer.as_ref().err()?.code())))
        .collect();
    let expected = [
        (3, "unknown_job_type"),
        (520, "record_error"),
        (600, "invalid_request"),
    ];
    assert_eq!(codes, expected);
    assert_eq!(stage.count("jobs").await, 697);
    for n in [0, 519, 521, 699] {
        let id = answers[n].as_ref().unwrap().id;
        assert_eq!(stage.row(id).await.payload, json!({ "n": n }));
    }
    drop(enqueue);
    tasks.stop(PATIENCE).await;
}

#[tokio::test]
async fn a_call_beyond_the_bound_is_refused_whole() {
    let stage = Stage::new().await;
    let tasks = Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    let refused = enqueue.enqueue_many(requests(10_001)).await.unwrap_err();
    assert_eq!(refused.code(), "too_many_jobs");
    assert_eq!(stage.count("jobs").await, 0);
    drop(enqueue);
    tasks.stop(PATIENCE).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_in_the_middle_leaves_whole_batches() {
    let stage = Stage::new().await;
    let tasks = Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    // 500 go at once; the rest would have been sent after their commit.
    let mut call = Box::pin(enqueue.enqueue_many(requests(1200)));
    assert!(futures_util::poll!(&mut call).is_pending());
    drop(call);
    drop(enqueue);
    assert!(
        tasks.stop(PATIENCE).await,
        "what was accepted is committed and delivered"
    );
    assert_eq!(stage.count("jobs").await, 500);
    assert_eq!(stage.claim("t").await.jobs.len(), 500);
}

#[tokio::test]
async fn whoever_comes_while_the_process_stops_is_told_so() {
    let stage = Stage::new().await;
    let tasks = Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    enqueue.enqueue(request(0)).await.unwrap();
    assert!(tasks.stop(PATIENCE).await);
    let refused = enqueue.enqueue(request(1)).await.unwrap_err();
    assert!(matches!(refused, EnqueueError::Stopping), "{refused}");
    assert!(refused.is_unavailable());
    assert_eq!(stage.count("jobs").await, 1);
}

#[tokio::test]
async fn jobs_of_a_transaction_are_enqueued_by_its_commit() {
    let stage = Stage::new().await;
    let tasks = Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    let mut tx = stage.record.begin().await.unwrap();
    enqueue.enqueue_in(&mut tx, requests(3)).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(
        reconcile::relay_outbox(&stage.record, &stage.broker)
            .await
            .unwrap(),
        0
    );

    let mut tx = stage.record.begin().await.unwrap();
    let sent = enqueue.enqueue_in(&mut tx, requests(3)).await.unwrap();
    assert_eq!(
        reconcile::relay_outbox(&stage.record, &stage.broker)
            .await
            .unwrap(),
        0
    );
    tx.commit().await.unwrap();
    assert_eq!(
        reconcile::relay_outbox(&stage.record, &stage.broker)
            .await
            .unwrap(),
        3
    );
    assert_eq!(
        reconcile::relay_outbox(&stage.record, &stage.broker)
            .await
            .unwrap(),
        0
    );
    let ids: Vec<String> = sent.iter().map(|job| job.id.to_string()).collect();
    assert_eq!(claimed(&stage, 3).await, ids);
    drop(enqueue);
    tasks.stop(PATIENCE).await;
}

#[tokio::test]
async fn a_refused_call_inside_a_transaction_writes_nothing_and_leaves_it_usable() {
    let stage = Stage::new().await;
    let tasks = Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    let keyed = |n| JobRequest {
        idempotency_key: Some("k".into()),
        ..request(n)
    };
    enqueue.enqueue(keyed(0)).await.unwrap();
    let stranger = JobRequest {
        workspace_id: Some(Uuid::now_v7()),
        ..request(2)
    };
    let mut tx = stage.record.begin().await.unwrap();
    for (wrong, code) in [
        (keyed(1), "idempotency_key_reused"),
        (stranger, "record_error"),
    ] {
        let batch = vec![request(7), wrong, request(8)];
        let refused = enqueue.enqueue_in(&mut tx, batch).await.unwrap_err();
        assert_eq!(refused.code(), code);
    }
    enqueue.enqueue_in(&mut tx, requests(1)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stage.count("jobs").await, 2);
    assert_eq!(stage.count("bullwark.outbox").await, 1);
    drop(enqueue);
    tasks.stop(PATIENCE).await;
}

#[tokio::test]
async fn while_redis_is_away_jobs_are_accepted_and_delivered_when_it_is_back() {
    let mut stores = own_stores().await;
    let stage = Stage::on(&stores).await;
    let tasks = Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    stores.kill_redis(Kill::Immediately).await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(enqueue.enqueue(request(n)).await.unwrap().id);
    }
    eventually("the pass finds them, and Redis away", async || {
        let pass = reconcile::deliver_recent(&stage.record, &stage.broker).await;
        pass.is_err().then_some(())
    })
    .await;
    stores.start_redis().await.unwrap();
    eventually("the pass has delivered them", async || {
        reconcile::deliver_recent(&stage.record, &stage.broker)
            .await
            .ok()?;
        stage.state(*ids.last()?).await
    })
    .await;
    let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    assert_eq!(claimed(&stage, 20).await, ids);
    drop(enqueue);
    tasks.stop(PATIENCE).await;
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn while_postgresql_is_away_jobs_are_refused_and_afterwards_none_is_half_there() {
    // Durable, so that an acknowledged commit has to survive the kill.
    let options = StoresOptions {
        shared_buffers_mb: 64,
        ..StoresOptions::temporary()
    };
    let mut stores = Stores::start(options).await.unwrap();
    let stage = Stage::on(&stores).await;
    let tasks = Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    enqueue.enqueue(request(0)).await.unwrap();

    // Callers that enqueue pairs until the first error.
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let enqueue = enqueue.clone();
            spawn(async move {
                let mut acknowledged = Vec::new();
                loop {
                    let answers = enqueue.enqueue_many(requests(2)).await.unwrap();
                    for answer in answers {
                        match answer {
                            Ok(job) => acknowledged.push(job.id),
                            Err(error) => return (acknowledged, error),
                        }
                    }
                }
            })
        })
        .collect();
    eventually("many jobs are acknowledged", async || {
        (stage.count("jobs").await > 200).then_some(())
    })
    .await;
    stores.kill_postgres(Kill::Immediately).await;
    let mut acknowledged = Vec::new();
    for caller in callers {
        let (ids, error) = caller.await.unwrap();
        assert_eq!(error.code(), "record_unavailable", "{error}");
        assert!(error.is_unavailable(), "{error}");
        assert_eq!(ids.len() % 2, 0, "a pair is acknowledged together");
        acknowledged.extend(ids);
    }

    stores.start_postgres().await.unwrap();
    let stored: Vec<Uuid> = eventually("the record answers", async || {
        let all = sqlx::query_scalar("SELECT id FROM jobs ORDER BY id");
        all.fetch_all(&stage.pool).await.ok()
    })
    .await;
    let missing: Vec<&Uuid> = acknowledged
        .iter()
        .filter(|id| !stored.contains(id))
        .collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    // Whose answer was lost may be stored, but pairs stay together: one commit each.
    let pairs = "SELECT count(*) FROM (SELECT xmin FROM jobs GROUP BY xmin
                 HAVING count(*) % 2 = 1) odd";
    assert_eq!(
        stage.scalar::<i64>(pairs.into()).await,
        1,
        "only the first was alone"
    );
    eventually("jobs are accepted again", async || {
        enqueue.enqueue(request(1)).await.ok()
    })
    .await;
    drop(enqueue);
    tasks.stop(PATIENCE).await;
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn a_priority_and_a_delay_reach_redis() {
    let stage = Stage::new().await;
    let tasks = Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    let send = async |priority, delay_ms| {
        let request = JobRequest {
            priority: Some(priority),
            delay_ms,
            ..request(0)
        };
        enqueue.enqueue(request).await.unwrap().id
    };
    let delayed = send(10, Some(3_600_000)).await;
    let sent = [
        send(0, None).await,
        send(10, None).await,
        send(3, None).await,
    ];
    let expected = [sent[1], sent[2], sent[0]].map(|id| id.to_string());
    eventually("the last one is there", async || stage.state(sent[2]).await).await;
    assert_eq!(claimed(&stage, 3).await, expected);
    assert_eq!(stage.state(delayed).await, Some(BrokerState::Delayed));
    assert!(stage.row(delayed).await.scheduled_for.is_some());
    drop(enqueue);
    tasks.stop(PATIENCE).await;
}
