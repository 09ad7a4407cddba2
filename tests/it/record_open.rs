//! Finding the open jobs without an index on the status: watermarks, seal and stragglers.

use std::time::Duration;

use bullwark::broker::BrokerState;
use bullwark::job::{Due, NewJob, Priority};
use bullwark::reconcile::relay_outbox;
use bullwark::record::access::By;
use bullwark::record::control::{cancel_many, retry_many};
use bullwark::record::enqueue::insert_in;
use bullwark::record::open::{
    self, OpenJob, advance, load, next_step, page, prune_stragglers, reset_silent, seal, silent,
};
use bullwark::record::outbox;
use bullwark::record::settle::settle_many;
use bullwark::record::start::mark_running;
use uuid::Uuid;

use crate::stage::{Stage, completed, eventually, failed, ids, job, old_job, running, settled};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn found(jobs: &[OpenJob]) -> Vec<Uuid> {
    jobs.iter().map(|job| job.id).collect()
}

async fn complete(stage: &Stage, jobs: &[NewJob]) {
    let batch: Vec<_> = jobs
        .iter()
        .map(|j| settled(j.id, 1, "a", completed()))
        .collect();
    assert_eq!(
        settle_many(&stage.record, &batch).await.unwrap().len(),
        jobs.len()
    );
}

async fn seal_all(stage: &Stage, lag: Duration) {
    while let Some(step) = next_step(&stage.record, "sealed", lag).await.unwrap() {
        seal(&stage.record, &step).await.unwrap();
        if !step.more {
            return;
        }
    }
}

/// All open jobs, page by page.
async fn all_open(stage: &Stage) -> Vec<Uuid> {
    let (mut all, mut after) = (Vec::new(), Uuid::nil());
    loop {
        let page = found(&page(&stage.record, after).await.unwrap());
        let Some(last) = page.last() else { return all };
        after = *last;
        all.extend(page);
    }
}

async fn stragglers(stage: &Stage) -> Vec<Uuid> {
    sqlx::query_scalar("SELECT job_id FROM bullwark.stragglers ORDER BY job_id")
        .fetch_all(&stage.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_pass_looks_at_each_job_once_and_stops_at_its_lag() {
    let stage = Stage::new().await;
    let old = [old_job(HOUR), old_job(MINUTE)];
    let new = [job()];
    stage.insert_back_then(&old).await;
    stage.insert(&new).await;
    complete(&stage, &old[..1]).await;

    let step = next_step(&stage.record, "delivered", MINUTE / 2)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        found(&step.open),
        [old[1].id],
        "neither what is over nor what is young"
    );
    assert!(!step.more);
    // Not moved yet: whoever dies here repeats the step.
    let again = next_step(&stage.record, "delivered", MINUTE / 2)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found(&again.open), [old[1].id]);
    assert!(advance(&stage.record, "delivered", &step).await.unwrap());
    assert!(
        !advance(&stage.record, "delivered", &again).await.unwrap(),
        "somebody was faster"
    );

    let next = next_step(&stage.record, "delivered", MINUTE / 2)
        .await
        .unwrap();
    assert!(next.is_none_or(|step| step.open.is_empty()));
    let young = next_step(&stage.record, "delivered", Duration::ZERO)
        .await
        .unwrap()
        .unwrap();
    assert!(found(&young.open).iter().all(|id| *id == new[0].id));
}

#[tokio::test]
async fn a_long_way_is_taken_in_bounded_steps() {
    let stage = Stage::new().await;
    let more = open::PASS_MAX + 3;
    stage
        .execute(format!(
            "INSERT INTO jobs (id, job_type, payload)
             SELECT ('01800000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'noop', '{{}}'
             FROM generate_series(1, {more}) n"
        ))
        .await;
    let step = next_step(&stage.record, "sealed", MINUTE)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((step.open.len() as i64, step.more), (open::PASS_MAX, true));
    seal(&stage.record, &step).await.unwrap();
    let rest = next_step(&stage.record, "sealed", MINUTE)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((rest.open.len(), rest.more), (3, false));
    // Half of them sealed, half not: the pages find each once.
    let open = all_open(&stage).await;
    assert_eq!(open.len() as i64, more);
    assert!(open.is_sorted_by(|a, b| a < b));
}

#[tokio::test]
async fn the_seal_keeps_what_is_open_in_sight_and_lets_the_rest_go() {
    let stage = Stage::new().await;
    let jobs: Vec<NewJob> = (1..=6).rev().map(|n| old_job(HOUR + n * MINUTE)).collect();
    stage.insert_back_then(&jobs).await;
    complete(&stage, &jobs[..2]).await;
    seal_all(&stage, MINUTE).await;
    assert_eq!(stragglers(&stage).await, ids(&jobs[2..]));
    let young = job();
    stage.insert(std::slice::from_ref(&young)).await;
    let open = [ids(&jobs[2..]), vec![young.id]].concat();
    assert_eq!(all_open(&stage).await, open);

    complete(&stage, &jobs[2..4]).await;
    let expected = [ids(&jobs[4..]), vec![young.id]].concat();
    assert_eq!(
        all_open(&stage).await,
        expected,
        "over, though not pruned yet"
    );
    assert_eq!(
        prune_stragglers(&stage.record, Uuid::nil()).await.unwrap(),
        Some(jobs[5].id)
    );
    assert_eq!(stragglers(&stage).await, ids(&jobs[4..]));
    assert_eq!(
        prune_stragglers(&stage.record, jobs[5].id).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_seal_that_another_process_took_writes_nothing() {
    let stage = Stage::new().await;
    let jobs = [old_job(HOUR)];
    stage.insert_back_then(&jobs).await;
    let step = next_step(&stage.record, "sealed", MINUTE)
        .await
        .unwrap()
        .unwrap();
    seal(&stage.record, &step).await.unwrap();
    complete(&stage, &jobs).await;
    prune_stragglers(&stage.record, Uuid::nil()).await.unwrap();
    seal(&stage.record, &step).await.unwrap();
    assert!(stragglers(&stage).await.is_empty());
}

#[tokio::test]
async fn a_job_that_is_retried_by_hand_is_open_again_however_old() {
    let stage = Stage::new().await;
    let jobs = [old_job(HOUR)];
    stage.insert_back_then(&jobs).await;
    complete(&stage, &jobs).await;
    seal_all(&stage, MINUTE).await;
    assert!(all_open(&stage).await.is_empty());
    retry_many(&stage.record, &ids(&jobs), &By::OPERATOR)
        .await
        .unwrap();
    prune_stragglers(&stage.record, Uuid::nil()).await.unwrap();
    assert_eq!(all_open(&stage).await, ids(&jobs));
}

#[tokio::test]
async fn a_job_of_a_transaction_that_took_longer_than_the_seal_lags_is_found() {
    let stage = Stage::new().await;
    let mut tx = stage.record.begin().await.unwrap();
    let late = [job()];
    insert_in(&mut tx, &late).await.unwrap();
    eventually("the seal is past it", async || {
        seal_all(&stage, Duration::ZERO).await;
        let past = format!(
            "bullwark.watermarks WHERE name = 'sealed' AND job_id > '{}'",
            late[0].id
        );
        (stage.count(&past).await == 1).then_some(())
    })
    .await;
    tx.commit().await.unwrap();

    assert_eq!(relay_outbox(&stage.record, &stage.broker).await.unwrap(), 1);
    assert_eq!(all_open(&stage).await, ids(&late));
    assert_eq!(
        stage.state(late[0].id).await,
        Some(BrokerState::Prioritized)
    );
    assert_eq!(stage.count("bullwark.outbox").await, 0);
}

#[tokio::test]
async fn a_job_whose_id_a_slow_clock_made_is_found() {
    let stage = Stage::new().await;
    seal_all(&stage, MINUTE).await;
    let late = [old_job(HOUR), old_job(MINUTE / 2 * 3)];
    stage.insert(&late).await;
    let young = [job()];
    stage.insert(&young).await;
    assert_eq!(all_open(&stage).await, [ids(&late), ids(&young)].concat());
    assert_eq!(
        stragglers(&stage).await,
        ids(&late),
        "the usual job costs nothing"
    );
}

#[tokio::test]
async fn a_running_job_whose_worker_is_silent_goes_back_to_pending() {
    let stage = Stage::new().await;
    let jobs = [old_job(HOUR), job(), job(), job()];
    stage.insert_back_then(&jobs).await;
    let ids = ids(&jobs);
    seal_all(&stage, MINUTE).await;
    let started: Vec<_> = ids[..3].iter().map(|id| running(*id, 1)).collect();
    mark_running(&stage.record, "a", &started).await.unwrap();
    for id in &ids[..2] {
        stage
            .execute(format!(
                "UPDATE jobs SET worker_heartbeat_at = now() - interval '6 minutes'
                 WHERE id = '{id}'"
            ))
            .await;
    }
    let found_silent = async || {
        silent(&stage.record, 5 * MINUTE, Uuid::nil())
            .await
            .unwrap()
    };
    let looked_at = found_silent().await;
    assert_eq!(found(&looked_at), ids[..2]);
    let reset = async || reset_silent(&stage.record, 5 * MINUTE, &looked_at).await;
    assert_eq!(reset().await.unwrap(), 2);
    for id in &ids[..2] {
        assert_eq!(stage.status(*id).await, "pending");
        assert_eq!(stage.history(*id).await, [(1, "lease_lost".to_owned())]);
        assert_eq!(
            stage
                .count(&format!("job_logs WHERE job_id = '{id}'"))
                .await,
            1
        );
    }
    assert_eq!(stage.status(ids[2]).await, "processing");
    let late = [settled(ids[1], 1, "a", completed())];
    assert!(settle_many(&stage.record, &late).await.unwrap().is_empty());
    assert!(found_silent().await.is_empty());
    assert_eq!(reset().await.unwrap(), 0);
}

#[tokio::test]
async fn an_open_job_is_loaded_with_all_that_redis_needs() {
    let stage = Stage::new().await;
    let jobs = [
        NewJob {
            priority: Priority::try_from(4).unwrap(),
            due: Due::In(HOUR),
            timeout_seconds: Some(9),
            payload: r#"{"a": 1}"#.into(),
            ..job()
        },
        job(),
        job(),
    ];
    stage.insert(&jobs).await;
    let batch = [
        settled(jobs[1].id, 1, "a", failed("x")),
        settled(jobs[2].id, 1, "a", completed()),
    ];
    settle_many(&stage.record, &batch).await.unwrap();
    let loaded = load(&stage.record, &ids(&jobs)).await.unwrap();
    assert_eq!(loaded.len(), 2, "what is over is left out");
    let due_at = stage.row(jobs[0].id).await.scheduled_for;
    assert_eq!(loaded[0].due_at, due_at);
    let expected = NewJob {
        due: Due::At(due_at.unwrap()),
        ..jobs[0].clone()
    };
    assert_eq!(loaded[0].job, expected);
    assert_eq!((loaded[1].attempt, loaded[1].attempts), (1, 1));
    assert_eq!(loaded[1].due_at, stage.row(jobs[1].id).await.next_retry_at);
}

#[tokio::test]
async fn the_outbox_keeps_an_entry_until_it_is_delivered() {
    let stage = Stage::new().await;
    let jobs = [job(), job(), job()];
    stage.insert(&jobs).await;
    let ids = ids(&jobs);
    cancel_many(&stage.record, &ids, &By::OPERATOR, "by hand")
        .await
        .unwrap();
    let entries = outbox::take(&stage.record).await.unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!(
        outbox::take(&stage.record).await.unwrap(),
        entries,
        "taking locks nothing"
    );
    outbox::delivered(&stage.record, &entries[..1])
        .await
        .unwrap();
    outbox::delivered(&stage.record, &entries[..1])
        .await
        .unwrap();
    assert_eq!(outbox::take(&stage.record).await.unwrap(), entries[1..]);
    let of = outbox::of_jobs(&stage.record, &[entries[2].1])
        .await
        .unwrap();
    assert_eq!(of, entries[2..]);
    assert!(
        stragglers(&stage).await.is_empty(),
        "what is over is no straggler"
    );
}

#[tokio::test]
async fn people_reach_jobs_of_their_own_workspace_only() {
    let stage = Stage::new().await;
    let (mine, other) = (
        crate::record_enqueue::workspace(&stage).await,
        crate::record_enqueue::workspace(&stage).await,
    );
    let jobs = [job()].map(|job| NewJob {
        workspace_id: Some(mine),
        ..job
    });
    stage.insert(&jobs).await;
    let ids = ids(&jobs);
    let of = |workspace| By {
        workspace_id: Some(workspace),
        ..By::OPERATOR
    };
    let cancel = async |workspace| {
        cancel_many(&stage.record, &ids, &of(workspace), "x")
            .await
            .unwrap()
    };
    assert!(cancel(other).await.is_empty());
    assert_eq!(stage.status(ids[0]).await, "pending");
    assert_eq!(cancel(mine).await, ids);
    assert!(
        retry_many(&stage.record, &ids, &of(other))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        retry_many(&stage.record, &ids, &of(mine)).await.unwrap(),
        ids
    );
}
