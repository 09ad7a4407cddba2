//! What people do to jobs: cancel, and retry by hand.

use std::time::Duration;

use bullwark::broker::BrokerState;
use bullwark::control;
use bullwark::job::{Due, NewJob};
use bullwark::reconcile;
use bullwark::record::access::By;
use bullwark::record::control as record_control;
use bullwark::record::enqueue::insert_in;
use bullwark::record::settle::settle_many;
use bullwark::record::start::mark_running;
use bullwark::stores::Kill;

use crate::reconcile::deliver;
use crate::stage::{
    Stage, completed, discarded, eventually, failed, ids, old_job, running, settled, some_jobs,
};
use crate::support::own_stores;

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
            manner: None,
            kept_result: None,
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
        control::retry(&stage.record, &stage.broker, &all, &By::OPERATOR)
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
        control::cancel(&stage.record, &stage.broker, &all, &By::OPERATOR, "x")
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

/// Its delivery is under way, and whoever made it does not hear of the cancel.
#[tokio::test]
async fn a_job_that_is_cancelled_before_it_comes_to_redis_does_not_stay_there() {
    let stage = Stage::new().await;
    let jobs = some_jobs(2);
    stage.insert(&jobs).await;
    let all = ids(&jobs);
    let (record, broker) = (&stage.record, &stage.broker);
    control::cancel(record, broker, &all, &By::OPERATOR, "x")
        .await
        .unwrap();
    // The next look comes before it does, and the one after that finds it.
    assert_eq!(reconcile::relay_outbox(record, broker).await.unwrap(), 0);
    deliver(&stage, &jobs[..1]).await;
    assert!(stage.state(all[0]).await.is_some());
    assert_eq!(reconcile::relay_outbox(record, broker).await.unwrap(), 1);
    assert_eq!(stage.state(all[0]).await, None);
    // The other one never comes, and is not waited for for ever.
    eventually("an empty outbox", async || {
        reconcile::relay_outbox(record, broker).await.unwrap();
        (stage.count("bullwark.outbox").await == 0).then_some(())
    })
    .await;
    assert_eq!(stage.state(all[1]).await, None);
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
    let cancelled =
        control::cancel(&stage.record, &stage.broker, &all[..1], &By::OPERATOR, "x").await;
    assert_eq!(cancelled.unwrap(), all[..1]);
    let retried = control::retry(&stage.record, &stage.broker, &all[1..], &By::OPERATOR).await;
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
        let relayed = reconcile::relay_outbox(&stage.record, &stage.broker).await;
        (relayed.is_ok() && stage.count("bullwark.outbox").await == 0).then_some(())
    })
    .await;
    assert_eq!(stage.state(all[0]).await, None);
    assert_eq!(stage.state(all[1]).await, Some(BrokerState::Prioritized));
    stores.stop().await.unwrap();
}

/// Whoever cancelled it died before Redis heard of that.
#[tokio::test]
async fn a_delayed_job_of_whose_cancel_redis_did_not_hear_waits_no_longer_when_it_is_retried() {
    let stage = Stage::new().await;
    let hour = Duration::from_secs(3600);
    let jobs = [(); 2].map(|()| NewJob {
        due: Due::In(hour),
        ..some_jobs(1).remove(0)
    });
    stage.insert(&jobs).await;
    let all = ids(&jobs);
    let add = jobs.iter().map(|job| {
        let now_ms = bullwark::clock::now_ms();
        let due_ms = now_ms + hour.as_millis() as i64;
        bullwark::enqueue::entry(job, now_ms, Some(due_ms), 0, 0)
    });
    let add: Vec<_> = add.collect();
    stage.broker.add(&jobs[0].queue, &add).await.unwrap();
    assert_eq!(stage.state(all[0]).await, Some(BrokerState::Delayed));
    let cancelled = record_control::cancel_many(&stage.record, &all[..1], &By::OPERATOR, "x").await;
    assert_eq!(cancelled.unwrap(), all[..1]);

    let retried = control::retry(&stage.record, &stage.broker, &all, &By::OPERATOR).await;
    assert_eq!(retried.unwrap(), all[..1]);
    assert_eq!(stage.state(all[0]).await, Some(BrokerState::Prioritized));
    assert_eq!(stage.state(all[1]).await, Some(BrokerState::Delayed));
    eventually("an empty outbox", async || {
        let relayed = reconcile::relay_outbox(&stage.record, &stage.broker).await;
        relayed.unwrap();
        (stage.count("bullwark.outbox").await == 0).then_some(())
    })
    .await;
    assert_eq!(stage.state(all[0]).await, Some(BrokerState::Prioritized));
}

/// Its end is in the record, Redis is about to hear of it, and a person is faster than that.
#[tokio::test]
async fn a_job_that_is_run_again_before_redis_heard_of_its_end_does_run_again() {
    let stage = Stage::new().await;
    let jobs = [(); 2].map(|()| old_job(Duration::from_secs(600)));
    stage.insert_back_then(&jobs).await;
    deliver(&stage, &jobs).await;
    let all = ids(&jobs);
    let token = "bullwark:a:1";
    let claimed = stage.claim(token).await.jobs;
    let ends = [completed(), discarded("x")];
    let mut untold = Vec::new();
    for (n, outcome) in ends.into_iter().enumerate() {
        let row = settled(all[n], 1, "a", outcome.clone());
        assert_eq!(settle_many(&stage.record, &[row]).await.unwrap().len(), 1);
        untold.push(bullwark::settle::Ended {
            id: all[n],
            wire_id: claimed[n].id.clone(),
            queue: jobs[n].queue.clone(),
            token: token.to_owned(),
            attempt: 1,
            max_attempts: 5,
            started_at: bullwark::clock::now(),
            outcome,
            manner: None,
            kept_result: None,
        });
    }
    let retried = control::retry(&stage.record, &stage.broker, &all, &By::OPERATOR).await;
    assert_eq!(retried.unwrap().len(), 2);
    let relay = async || {
        let relayed = reconcile::relay_outbox(&stage.record, &stage.broker).await;
        relayed.unwrap()
    };
    assert_eq!(relay().await, 0, "it is too early");
    let untold: Vec<&bullwark::settle::Ended> = untold.iter().collect();
    bullwark::settle::tell(&stage.broker, &untold)
        .await
        .unwrap();
    for (id, state) in all
        .iter()
        .zip([BrokerState::Completed, BrokerState::Failed])
    {
        assert_eq!(stage.state(*id).await, Some(state));
    }
    // Neither who hears the events nor who compares the stores takes the old end for a new one.
    let mut mirror = reconcile::Mirror::new(stage.record.clone(), stage.broker.clone());
    while mirror.step().await.unwrap() {}
    reconcile::sweep_open(&stage.record, &stage.broker, uuid::Uuid::nil())
        .await
        .unwrap();
    assert_eq!(relay().await, 2);
    for id in &all {
        assert_eq!(stage.status(*id).await, "pending");
        assert_eq!(stage.state(*id).await, Some(BrokerState::Prioritized));
    }
    assert_eq!(relay().await, 0);
    assert_eq!(stage.count("bullwark.outbox").await, 0);
    assert_eq!(stage.claim("b").await.jobs.len(), 2);
}

/// Two relays read the same entry; the job is over before the second one is done.
#[tokio::test]
async fn a_job_that_is_relayed_twice_runs_once() {
    let stage = Stage::new().await;
    let jobs = some_jobs(1);
    let id = jobs[0].id;
    let mut tx = stage.record.begin().await.unwrap();
    insert_in(&mut tx, &jobs).await.unwrap();
    tx.commit().await.unwrap();
    let late = bullwark::record::open::load(&stage.record, &[id])
        .await
        .unwrap();
    assert_eq!(
        reconcile::relay_outbox(&stage.record, &stage.broker)
            .await
            .unwrap(),
        1
    );
    let claimed = stage.claim("t").await.jobs.remove(0);
    assert!(
        !claimed.is_counted,
        "whoever runs it asks the record before"
    );
    let finish = bullwark::broker::Finish {
        id: claimed.id,
        token: "t".to_owned(),
        returnvalue: "1".to_owned(),
        keep: bullwark::broker::Keep::All,
    };
    stage
        .broker
        .finish(&jobs[0].queue, &[finish])
        .await
        .unwrap();
    let again = bullwark::enqueue::entry(&late[0].job, 0, None, 0, 0);
    let requeued = stage
        .broker
        .requeue(&jobs[0].queue, std::slice::from_ref(&again))
        .await;
    assert_eq!(requeued.unwrap(), [bullwark::broker::Requeued::IsLive]);
    let added = stage.broker.add(&jobs[0].queue, &[again]).await;
    assert_eq!(added.unwrap(), [bullwark::broker::Added::Duplicate]);
    assert_eq!(stage.state(id).await, Some(BrokerState::Completed));
    assert!(stage.claim("t").await.jobs.is_empty());
}
