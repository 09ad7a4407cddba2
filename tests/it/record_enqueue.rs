//! Writing new jobs: every column, the server's clock, and idempotency keys.

use std::time::Duration;

use bullwark::job::{Backoff, Due, NewJob, Priority};
use bullwark::record::RecordError;
use bullwark::record::enqueue::{Inserted, insert_in, insert_many};
use serde_json::json;
use uuid::Uuid;

use crate::stage::{Stage, ids, job, some_jobs};

fn keyed(key: &str) -> NewJob {
    NewJob {
        idempotency_key: Some(key.into()),
        ..job()
    }
}

fn is_new(inserted: &Inserted) -> bool {
    matches!(inserted, Inserted::New { .. })
}

pub(crate) async fn workspace(stage: &Stage) -> Uuid {
    let sql = "INSERT INTO workspaces (name) VALUES ('w') RETURNING id";
    stage.scalar(sql.to_owned()).await
}

#[tokio::test]
async fn every_column_of_a_job_is_stored() {
    let stage = Stage::new().await;
    let workspace_id = workspace(&stage).await;
    let user: Uuid = stage
        .scalar("INSERT INTO auth.users (email) VALUES ('a@b.c') RETURNING id".into())
        .await;
    let full = NewJob {
        workspace_id: Some(workspace_id),
        queue: "high_priority".parse().unwrap(),
        payload: r#"{"b":1,"a":[1.50,"ü"]}"#.into(),
        priority: Priority::try_from(7).unwrap(),
        due: Due::At("2031-02-03T04:05:06Z".parse().unwrap()),
        max_attempts: 9,
        retry_delay_seconds: 3,
        backoff: Some(Backoff::Fixed {
            delay_ms: 5,
            jitter: 0.0,
        }),
        timeout_seconds: Some(77),
        created_by: Some(user),
        ..job()
    };
    stage.insert(std::slice::from_ref(&full)).await;
    let row = stage.row(full.id).await;
    assert_eq!(row.workspace_id, Some(workspace_id));
    assert_eq!(
        (row.job_type.as_str(), row.job_queue.as_str()),
        ("noop", "high_priority")
    );
    assert_eq!(row.payload, json!({"a": [1.5, "ü"], "b": 1}));
    assert_eq!((row.status.as_str(), row.priority), ("pending", 7));
    assert_eq!(
        (row.attempts, row.max_attempts, row.retry_delay_seconds),
        (0, 9, 3)
    );
    assert_eq!(
        row.scheduled_for,
        Some("2031-02-03T04:05:06Z".parse().unwrap())
    );
    assert_eq!(row.created_by, Some(user));
    let hidden: serde_json::Value = stage
        .scalar(format!(
            "SELECT jsonb_build_array(backoff, timeout_seconds, attempt, lease_losses, checkpoint,
               redis_id) FROM jobs WHERE id = '{}'",
            full.id
        ))
        .await;
    let backoff = json!({"type": "fixed", "delay_ms": 5});
    assert_eq!(hidden, json!([backoff, 77, 0, 0, null, null]));
}

#[tokio::test]
async fn a_plain_job_has_the_defaults_of_the_specification() {
    let stage = Stage::new().await;
    let plain = job();
    stage.insert(std::slice::from_ref(&plain)).await;
    let row = stage.row(plain.id).await;
    assert_eq!((row.job_queue.as_str(), row.priority), ("default", 0));
    assert_eq!((row.max_attempts, row.retry_delay_seconds), (5, 60));
    assert_eq!((row.progress, row.result), (Some(json!({})), None));
    assert!(row.workspace_id.is_none() && row.created_by.is_none());
    assert!(row.scheduled_for.is_none() && row.started_at.is_none());
    assert!(row.completed_at.is_none() && row.failed_at.is_none() && row.worker_id.is_none());
}

#[tokio::test]
async fn a_delay_counts_from_the_clock_of_the_record() {
    let stage = Stage::new().await;
    let delayed = NewJob {
        due: Due::In(Duration::from_millis(90_500)),
        ..job()
    };
    let answers = insert_many(&stage.record, std::slice::from_ref(&delayed))
        .await
        .unwrap();
    let row = stage.row(delayed.id).await;
    assert_eq!(
        answers,
        [Inserted::New {
            created_at: row.created_at
        }]
    );
    let delay = row.scheduled_for.unwrap() - row.created_at;
    assert_eq!(delay.num_milliseconds(), 90_500);
}

#[tokio::test]
async fn one_bad_row_keeps_the_whole_statement_out_and_names_its_rule() {
    let stage = Stage::new().await;
    let mut jobs = some_jobs(5);
    jobs[3].workspace_id = Some(Uuid::now_v7());
    let error = insert_many(&stage.record, &jobs).await.unwrap_err();
    let RecordError::Refused { constraint, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(constraint.as_deref(), Some("jobs_workspace_id_fkey"));
    assert!(!error.is_unavailable());
    assert_eq!(stage.count("jobs").await, 0);
}

#[tokio::test]
async fn the_same_batch_twice_is_refused_by_its_ids() {
    let stage = Stage::new().await;
    let jobs = some_jobs(3);
    stage.insert(&jobs).await;
    let error = insert_many(&stage.record, &jobs).await.unwrap_err();
    assert!(error.to_string().contains("jobs_pkey"), "{error}");
    assert_eq!(stage.count("jobs").await, 3);
}

#[tokio::test]
async fn the_same_key_gives_the_same_job_and_another_request_is_told_so() {
    let stage = Stage::new().await;
    let first = keyed("k");
    let answers = insert_many(&stage.record, std::slice::from_ref(&first))
        .await
        .unwrap();
    assert!(is_new(&answers[0]));

    let other_payload = NewJob {
        payload: r#"{"x":1}"#.into(),
        ..keyed("k")
    };
    let other_priority = NewJob {
        priority: Priority::try_from(1).unwrap(),
        ..keyed("k")
    };
    let other_workspace = NewJob {
        workspace_id: Some(workspace(&stage).await),
        ..keyed("k")
    };
    let batch = [
        keyed("k"),
        other_payload,
        other_priority,
        other_workspace,
        keyed("l"),
        job(),
    ];
    let answers = insert_many(&stage.record, &batch).await.unwrap();
    let id = first.id;
    assert_eq!(answers[0], Inserted::Existing { id });
    assert_eq!(
        answers[1..3],
        [Inserted::KeyReused { id }, Inserted::KeyReused { id }]
    );
    assert!(answers[3..].iter().all(is_new));
    assert_eq!(stage.count("jobs").await, 4);
}

#[tokio::test]
async fn a_key_twice_in_one_batch_makes_one_job() {
    let stage = Stage::new().await;
    let other = NewJob {
        queue: "low_priority".parse().unwrap(),
        ..keyed("k")
    };
    let batch = [keyed("k"), keyed("k"), other];
    let answers = insert_many(&stage.record, &batch).await.unwrap();
    let id = batch[0].id;
    assert!(is_new(&answers[0]));
    assert_eq!(
        answers[1..],
        [Inserted::Existing { id }, Inserted::KeyReused { id }]
    );
    assert_eq!(stage.count("jobs").await, 1);
}

#[tokio::test]
async fn fifty_callers_with_one_key_get_one_job() {
    let stage = Stage::new().await;
    let calls = (0..50).map(|_| {
        let record = stage.record.clone();
        async move {
            insert_many(&record, &[keyed("only")])
                .await
                .unwrap()
                .remove(0)
        }
    });
    let answers = futures_util::future::join_all(calls).await;
    assert_eq!(answers.iter().filter(|a| is_new(a)).count(), 1);
    let id: Uuid = stage.scalar("SELECT id FROM jobs".into()).await;
    let existing = answers.iter().filter(|a| **a == Inserted::Existing { id });
    assert_eq!(existing.count(), 49);
}

#[tokio::test]
async fn batches_with_the_same_keys_in_any_order_do_not_block_each_other() {
    let stage = Stage::new().await;
    let (one, two) = (workspace(&stage).await, workspace(&stage).await);
    let of = |workspace, n: usize| NewJob {
        workspace_id: Some(workspace),
        ..keyed(&format!("k{n}"))
    };
    let calls = (0..60).map(|n| {
        let (first, second) = if n % 2 == 0 { (one, two) } else { (two, one) };
        let pairs = (0..200).flat_map(|k| [of(first, k), of(second, k)]);
        let (record, batch) = (stage.record.clone(), pairs.collect::<Vec<_>>());
        async move { insert_many(&record, &batch).await.map(drop) }
    });
    for call in futures_util::future::join_all(calls).await {
        call.unwrap();
    }
    assert_eq!(stage.count("jobs").await, 400);
}

#[tokio::test]
async fn a_key_of_a_refused_batch_stays_free() {
    let stage = Stage::new().await;
    let poison = NewJob {
        workspace_id: Some(Uuid::now_v7()),
        ..job()
    };
    insert_many(&stage.record, &[keyed("k"), poison])
        .await
        .unwrap_err();
    assert_eq!(stage.count("bullwark.idempotency_keys").await, 0);
    let answers = insert_many(&stage.record, &[keyed("k")]).await.unwrap();
    assert!(is_new(&answers[0]));
}

#[tokio::test]
async fn jobs_of_a_transaction_exist_with_it_or_not_at_all() {
    let stage = Stage::new().await;
    let mut tx = stage.record.begin().await.unwrap();
    insert_in(&mut tx, &[keyed("k"), job()]).await.unwrap();
    tx.rollback().await.unwrap();
    for table in ["jobs", "bullwark.outbox", "bullwark.idempotency_keys"] {
        assert_eq!(stage.count(table).await, 0, "{table}");
    }

    let jobs = [keyed("k"), job()];
    let mut tx = stage.record.begin().await.unwrap();
    let answers = insert_in(&mut tx, &jobs).await.unwrap();
    assert!(answers.iter().all(is_new));
    tx.commit().await.unwrap();
    let noted: Vec<Uuid> = sqlx::query_scalar("SELECT job_id FROM bullwark.outbox ORDER BY seq")
        .fetch_all(&stage.pool)
        .await
        .unwrap();
    assert_eq!(noted, ids(&jobs));
}
